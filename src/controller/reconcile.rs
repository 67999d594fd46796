//! Brings Vault's groups in line with the records. Vault restored from a snapshot lists allocations that ended since,
//! and lacks some that live.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    driver::{Inbox, Message},
    step::{Error, Rooms},
};
use crate::{
    ids::JobId,
    lifecycle::{Job, Stage},
    telemetry::chain,
};

/// How often the groups are compared with the records.
const INTERVAL: Duration = Duration::from_secs(15);

/// Compares at once and then at an interval, until `ending`.
pub async fn run(rooms: Arc<Rooms>, inbox: Inbox, ending: CancellationToken) {
    let mut entities = BTreeMap::new();
    loop {
        let compared = tokio::select! {
            () = ending.cancelled() => return,
            compared = reconcile(&rooms, &mut entities) => compared,
        };
        match compared {
            Ok(forgotten) if forgotten.is_empty() => {}
            // The driver may have ended.
            Ok(forgotten) => drop(inbox.send(Message::Forgotten(forgotten)).await),
            // Whatever hinders it hinders the driver too, which reports it.
            Err(error) => {
                tracing::debug!(error = chain(&error), "cannot compare Vault's groups with the records");
            }
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Takes out of the groups whoever is no live job's allocation; gives the jobs whose grant Vault forgot. `entities` are
/// those behind allocations as they were found before: they are looked up once, unless Vault forgot them.
async fn reconcile(rooms: &Rooms, entities: &mut BTreeMap<String, String>) -> Result<Vec<JobId>, Error> {
    // Before the records: whoever is granted something was admitted on record before.
    let groups = rooms.grants.memberships().await?;
    let holding = rooms.store.holding().await?;
    let holders: BTreeMap<String, &Job> =
        holding.iter().filter_map(|job| Some((job.attempt()?.allocation.clone()?, job))).collect();
    let members: BTreeSet<&String> = groups.values().flatten().collect();
    entities.retain(|allocation, entity| holders.contains_key(allocation) && members.contains(entity));
    if holders.is_empty() && members.is_empty() {
        return Ok(Vec::new());
    }
    let new = holders.keys().filter(|allocation| !entities.contains_key(*allocation)).cloned().collect();
    entities.extend(rooms.grants.entities(new).await?);
    let known: BTreeSet<&String> = entities.values().collect();
    for (group, members) in groups {
        let mut strangers: BTreeSet<String> =
            members.into_iter().filter(|member| !known.contains(member)).collect();
        if !strangers.is_empty() {
            // Whoever ended since the first look is gone by now.
            let present = rooms.grants.members(&group).await?;
            strangers.retain(|stranger| present.contains(stranger));
        }
        // A successor's are not strangers.
        if strangers.is_empty() || !rooms.owns_repo().await? {
            continue;
        }
        tracing::warn!(
            group,
            ?strangers,
            "Vault's group has members that no live job accounts for: they are removed"
        );
        rooms.grants.expel(&group, &strangers).await?;
    }
    // After the records: a grant stands before it is on record.
    let admitted = rooms.grants.gate_members().await?;
    let is_forgotten = |allocation: &str| entities.get(allocation).is_none_or(|one| !admitted.contains(one));
    let granted = |job: &Job| matches!(job.stage, Stage::Granted | Stage::Working);
    let forgotten = holders.iter().filter(|(allocation, job)| granted(job) && is_forgotten(allocation));
    Ok(forgotten.map(|(_, job)| job.job_id).collect())
}
