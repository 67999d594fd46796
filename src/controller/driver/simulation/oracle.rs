//! What must be true, whatever happened: looked at from outside, in the world and in the store.

use std::{cell::RefCell, collections::BTreeMap};

use super::{
    agent::{Agent, Bench},
    nomad::Start,
    people::GROUP,
    schedule::path,
    vault::GATE,
    world::World,
};
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

/// One of a group works at a time.
pub(super) fn groups(agent: &Agent) -> Result<(), String> {
    let works = |job: &&Job| {
        job.work.concurrency.is_some() && (Stage::Intended..=Stage::Working).contains(&job.stage)
    };
    let working: Vec<String> =
        agent.driver.slots.values().map(|slot| &slot.job).filter(works).map(Job::name).collect();
    if working.len() > 1 { Err(format!("of {GROUP} several work at a time: {working:?}")) } else { Ok(()) }
}

/// Every action and all that was submitted has exactly one result, which says nothing better than what happened.
pub(super) async fn results(bench: &Bench, world: &RefCell<World>) -> Result<(), String> {
    if let Some((group, allocation)) = world.borrow().vault.memberships().first() {
        return Err(format!("in the end {allocation} is still in {group}"));
    }
    let files = world.borrow().commits.last().cloned().unwrap_or_default();
    for id in files.keys() {
        let jobs: Vec<Job> = bench.store.jobs_at(&path(id)).await.unwrap();
        let [job] = jobs.as_slice() else { return Err(format!("{id} has {} jobs", jobs.len())) };
        ended_once(&world.borrow(), id, job)?;
        for awaited in &job.work.after {
            let awaited = bench.store.job_of_action(awaited).await.unwrap();
            let world = world.borrow();
            let succeeded =
                awaited.iter().flat_map(|job| started(&world, job)).any(|start| start.code == Some(0));
            if started(&world, job).next().is_some() && !succeeded {
                return Err(format!("{id} started, though what it waits for never succeeded"));
            }
        }
    }
    let by_hand = world.borrow().nomad.by_hand.clone();
    for child in by_hand {
        let Some(job) = bench.store.job_of_child(&child).await.unwrap() else {
            return Err(format!("nobody took notice of {child}, which was dispatched by hand"));
        };
        let job = bench.store.job(job.parse().unwrap()).await.unwrap();
        ended_once(&world.borrow(), &child, &job.ok_or_else(|| format!("{child} is not on record"))?)?;
    }
    let submitted = world.borrow().submitted.clone();
    for (job_id, needs_approval) in submitted {
        let Some(job) = bench.store.job(job_id).await.unwrap() else {
            return Err(format!("{job_id} was taken and is not on record"));
        };
        let world = world.borrow();
        ended_once(&world, &job_id.to_string(), &job)?;
        if needs_approval && !world.approved.contains(&job_id) && started(&world, &job).next().is_some() {
            return Err(format!("{job_id} started without anybody's word"));
        }
    }
    Ok(())
}

/// The starts of a job's tasks.
fn started<'world>(world: &'world World, job: &Job) -> impl Iterator<Item = &'world Start> {
    let allocations: Vec<_> = job.attempts.iter().filter_map(|attempt| attempt.allocation.clone()).collect();
    world.nomad.starts.iter().filter(move |start| allocations.contains(&start.allocation))
}

/// A job has one result, which says what is on record, and nothing better than what happened.
fn ended_once(world: &World, id: &str, job: &Job) -> Result<(), String> {
    let its_own = |result: &&serde_json::Value| result["job_id"] == job.job_id.to_string();
    let results: Vec<_> = world.results.values().filter(its_own).collect();
    let [result] = results.as_slice() else { return Err(format!("{id} has {} results", results.len())) };
    if Some(&result["outcome"]) != outcome(job).as_ref() {
        return Err(format!("{id} is {:?} on record, and its result says {result}", job.outcome()));
    }
    let starts = started(world, job).count();
    if starts > 1 && job.work.retry.is_none() && job.retry.is_none() {
        return Err(format!("{id} started {starts} times, and nobody asked for that"));
    }
    let Some(attempt) = job.attempt() else { return Ok(()) };
    let truth = started(world, job).find(|start| Some(&start.allocation) == attempt.allocation.as_ref());
    if job.outcome() == Some(Outcome::Succeeded) && truth.and_then(|start| start.code) != Some(0) {
        return Err(format!("{id} counts as succeeded, and in truth {truth:?}"));
    }
    Ok(())
}

fn outcome(job: &Job) -> Option<serde_json::Value> {
    serde_json::to_value(job.outcome()?).ok()
}
