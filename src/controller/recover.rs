//! Recovers what a lost store had launched, from Nomad's children and their meta.
//!
//! Only after `--take-over`: then the ops repo's claim is this store's, and no other agent opens gates.
//! An allocation that started, or that the launch gate is open for, is the admitted one of its attempt;
//! no other will be.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::step::{Error, Rooms};
use crate::{
    action,
    dispatch::{
        base_job::BOT_KEY,
        launch::children_pattern,
        request::{ConsignMeta, parse_consign_meta},
    },
    duration::Span,
    fail_point,
    ids::{ActionId, BotName, JobId, Revision, SecretName},
    lifecycle::{Attempt, Event, Job, Origin, Stage, Work},
    nomad::Child,
    ops_repo::Entry,
    store::dispatch_id_of,
    track::judge,
};

/// Where the action files stand at the tip of the branch, and which have results.
#[derive(Debug, Default)]
pub struct Ground {
    /// Path and blob of each action file, by the key of its id.
    actions: HashMap<String, (String, String)>,
    /// The paths of all result files.
    results: HashSet<String>,
    /// The jobs whose results go by their own ids.
    records: HashSet<JobId>,
}

impl Ground {
    /// The ground that a tree's entries make.
    #[must_use]
    pub fn new(entries: &[Entry]) -> Self {
        let mut ground = Self::default();
        for entry in entries {
            if let Some(action_path) = action::path_of_result(&entry.path) {
                ground.results.insert(entry.path.clone());
                ground.records.extend(action::stem(&action_path).and_then(|stem| stem.parse::<JobId>().ok()));
            } else if let Some(id) = action::stem(&entry.path).and_then(|stem| ActionId::parse(&stem).ok()) {
                let blob = entry.content.blob.as_str().to_owned();
                ground.actions.insert(id.key(), (entry.path.clone(), blob));
            }
        }
        ground
    }

    fn has_result(&self, id: &ActionId) -> bool {
        self.actions
            .get(&id.key())
            .and_then(|(path, _)| action::result_path(path))
            .is_some_and(|path| self.results.contains(&path))
    }
}

/// Puts every launched and unanswered job that Nomad knows of on record; gives their number.
pub async fn recover(rooms: &Rooms, ground: &Ground, actions: &str) -> Result<usize, Error> {
    let mut latest: BTreeMap<JobId, (Child, ConsignMeta)> = BTreeMap::new();
    for base in rooms.base_jobs.names() {
        for child in rooms.nomad.jobs_like(base, &children_pattern(base)).await? {
            if dispatch_id_of(&child.id).is_none() {
                continue;
            }
            let Some(meta) = child.meta.get("consign").and_then(|text| parse_consign_meta(text)) else {
                continue;
            };
            let newer = latest.get(&meta.job_id).is_none_or(|(_, known)| known.attempt < meta.attempt);
            if newer {
                latest.insert(meta.job_id, (child, meta));
            }
        }
    }
    let mut recovered = 0;
    for (child, meta) in latest.into_values() {
        let id = match meta.action_id.as_deref().map(ActionId::parse) {
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => continue,
            None => None,
        };
        let known = match &id {
            Some(id) => ground.has_result(id) || rooms.store.job_of_action(id).await?.is_some(),
            // Where submitted work has no record in the repo, Nomad alone tells whether it has ended.
            None => ground.records.contains(&meta.job_id) || rooms.store.job(meta.job_id).await?.is_some(),
        };
        if known {
            continue;
        }
        let base = rooms.base_jobs.base_of(&child.parent_id).unwrap_or(&child.parent_id);
        let mut job = rebuilt(&child, base, &meta, id.as_ref(), ground, actions);
        admit(rooms, &mut job, &child.id).await?;
        fail_point::before("recovered");
        rooms.store.save(&job, "recovered", super::now()).await?;
        fail_point::after("recovered");
        rooms.tell(&job, "recovered", child.id);
        recovered += 1;
    }
    Ok(recovered)
}

/// The record of a job as far as its child's meta tells.
fn rebuilt(
    child: &Child,
    base: &str,
    meta: &ConsignMeta,
    id: Option<&ActionId>,
    ground: &Ground,
    actions: &str,
) -> Job {
    let now = super::now();
    let secrets = child.meta.get("secrets").map(String::as_str).unwrap_or_default();
    let variable = |name: &str| meta.env.get(name).cloned().unwrap_or_default();
    let work = Work {
        base_job: base.to_owned(),
        formula: variable("CONSIGN_FORMULA").parse().ok(),
        context: variable("CONSIGN_CONTEXT"),
        secrets: secrets.split(',').filter_map(|name| SecretName::parse(name).ok()).collect(),
        bot: child.meta.get(BOT_KEY).and_then(|name| BotName::parse(name).ok()),
        timeout: Some(Span::from_secs(meta.timeout)),
        artifacts: meta.artifacts.clone(),
        unmasked: meta.unmasked,
        ..Work::default()
    };
    let revision = meta.revision.clone().or_else(|| Revision::parse(&"0".repeat(40)).ok());
    let origin = match (revision, id) {
        (Some(revision), Some(id)) => {
            let known = ground.actions.get(&id.key()).cloned();
            let (path, blob) = known.unwrap_or_else(|| (format!("{actions}/{id}.toml"), String::new()));
            Origin::Action { id: id.clone(), path, blob, revision }
        }
        // Who it was stood in the lost store alone.
        (Some(revision), None) => Origin::Submitted { by: "somebody".to_owned(), revision },
        (None, id) => Origin::Hand { child: child.id.clone(), note: id.map(ToString::to_string) },
    };
    let mut job = Job::new(origin, work, now);
    job.job_id = meta.job_id;
    job.approved_by = Some("recovered after the store was lost".to_owned());
    job.attempts.push(Attempt {
        child: Some(child.id.clone()),
        dispatched_at: Some(jiff::Timestamp::from_nanosecond(i128::from(child.submit_time)).unwrap_or(now)),
        ..Attempt::intended(meta.dispatch_id, child.parent_id.clone(), BTreeMap::new(), Vec::new())
    });
    job.stage = Stage::Dispatched;
    job
}

/// Finds the allocation that the lost store had admitted, if any.
async fn admit(rooms: &Rooms, job: &mut Job, child: &str) -> Result<(), Error> {
    let Some(dispatch_id) = job.attempt().map(|attempt| attempt.dispatch_id) else { return Ok(()) };
    let allocations = rooms.nomad.job_allocations(child).await?;
    let mut admitted = allocations.iter().find(|allocation| judge::has_started(allocation));
    for allocation in &allocations {
        if admitted.is_none() && rooms.grants.passes_gate(&allocation.id).await? {
            admitted = Some(allocation);
        }
    }
    if let Some(allocation) = admitted {
        let allocation_id = rooms.store.admit(dispatch_id, &allocation.id, super::now()).await?;
        let node = allocation.node_name.clone();
        job.apply(Event::Admitted { allocation: allocation_id, node }, super::now())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DispatchId;

    #[test]
    fn secrets_and_bot_are_those_of_the_child() {
        let meta = ConsignMeta {
            job_id: JobId::new(),
            dispatch_id: DispatchId::new(),
            attempt: 1,
            action_id: None,
            revision: None,
            kind: crate::dispatch::request::Kind::Program,
            timeout: 60,
            from_step: None,
            unmasked: false,
            env: BTreeMap::new(),
            artifacts: Vec::new(),
        };
        let pairs = [("secrets", "A,B"), (BOT_KEY, "triage")];
        let child = Child {
            meta: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Child::default()
        };
        let id = ActionId::parse("a").unwrap();
        let job = rebuilt(&child, "sidecar", &meta, Some(&id), &Ground::default(), "actions");
        assert_eq!(job.work.granted_names(), ["A", "B", "bot-triage"]);
    }
}
