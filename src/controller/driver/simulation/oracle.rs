//! What must be true, whatever happened: looked at from outside, in the world and in the store.

use std::{cell::RefCell, collections::BTreeMap};

use super::{agent::Bench, schedule::path, vault::GATE, world::World};
use crate::{
    ids::JobId,
    lifecycle::{Job, Stage},
    outcome::Outcome,
    store::dispatch_id_of,
};

/// A task started at most once for each attempt.
fn starts(world: &World) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for start in &world.nomad.starts {
        let attempt = dispatch_id_of(&start.child).map_or_else(|| start.child.clone(), |id| id.to_string());
        if let Some(earlier) = seen.insert(attempt, &start.allocation) {
            return Err(format!("started twice: as {earlier} and as {}", start.allocation));
        }
    }
    Ok(())
}

/// Only the admitted allocation of a running attempt is in any group, and only in those of the job's secrets.
pub(super) async fn memberships(bench: &Bench, world: &RefCell<World>) -> Result<(), String> {
    starts(&world.borrow())?;
    let memberships = world.borrow().vault.memberships();
    for (group, allocation) in memberships {
        let child = world.borrow().nomad.child_of(&allocation).map(str::to_owned);
        // What Nomad forgot cannot be running.
        let Some(child) = child else { continue };
        let wrong = |why: &str| Err(format!("{allocation} of {child} is in {group}: {why}"));
        let Some(job) = bench.store.job_of_child(&child).await.unwrap() else {
            return wrong("no job has that child");
        };
        let job: JobId = job.parse().unwrap();
        let Some(job) = bench.store.job(job).await.unwrap() else { return wrong("its job is not on record") };
        let current = job.attempt().and_then(|attempt| attempt.allocation.as_ref()) == Some(&allocation);
        if !current || !(Stage::Admitted..=Stage::Concluded).contains(&job.stage) {
            return wrong(&format!("its job is {:?} with {:?}", job.stage, job.attempt()));
        }
        let granted = |secret: &str| format!("runner-{secret}") == group;
        if group != GATE && !job.work.secrets.iter().any(|secret| granted(secret.as_str())) {
            return wrong("its job does not ask for that secret");
        }
    }
    Ok(())
}

/// Every action has exactly one result, which says nothing better than what happened.
pub(super) async fn results(bench: &Bench, world: &RefCell<World>) -> Result<(), String> {
    if let Some((group, allocation)) = world.borrow().vault.memberships().first() {
        return Err(format!("in the end {allocation} is still in {group}"));
    }
    let files = world.borrow().commits.last().cloned().unwrap_or_default();
    for id in files.keys() {
        let jobs: Vec<Job> = bench.store.jobs_at(&path(id)).await.unwrap();
        let [job] = jobs.as_slice() else { return Err(format!("{id} has {} jobs", jobs.len())) };
        let world = world.borrow();
        let Some(result) = world.results.get(&format!("actions/{id}.result.json")) else {
            return Err(format!("{id} has no result"));
        };
        if result["job_id"] != job.job_id.to_string() || Some(&result["outcome"]) != outcome(job).as_ref() {
            return Err(format!("{id} is {:?} on record, and its result says {result}", job.outcome()));
        }
        let allocations: Vec<_> =
            job.attempts.iter().filter_map(|attempt| attempt.allocation.as_ref()).collect();
        let starts =
            world.nomad.starts.iter().filter(|start| allocations.contains(&&start.allocation)).count();
        if starts > 1 && job.work.retry.is_none() && job.retry.is_none() {
            return Err(format!("{id} started {starts} times, and nobody asked for that"));
        }
        let Some(attempt) = job.attempt() else { continue };
        let truth =
            world.nomad.starts.iter().find(|start| Some(&start.allocation) == attempt.allocation.as_ref());
        if job.outcome() == Some(Outcome::Succeeded) && truth.and_then(|start| start.code) != Some(0) {
            return Err(format!("{id} counts as succeeded, and in truth {truth:?}"));
        }
    }
    Ok(())
}

fn outcome(job: &Job) -> Option<serde_json::Value> {
    serde_json::to_value(job.outcome()?).ok()
}
