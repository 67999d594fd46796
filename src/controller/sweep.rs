//! Stops variants that nothing has used for long.
//!
//! A variant is in use while an attempt on record names it or a child of it lives. Its last use stands in
//! the store; one that Nomad has and the store does not know, such as after a take-over, counts from when
//! it is first met. What consign did not register is never touched. Nomad collects stopped variants by itself; until then they count as absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::step::{Error, Rooms};
use crate::{
    dispatch::{
        base_job::MARKER,
        launch::{children_pattern, variants_pattern},
        variant::VARIANT_OF,
    },
    lifecycle::Stage,
    telemetry::chain,
};

/// How often it is looked for unused variants, unless they are kept for less.
const INTERVAL: Duration = Duration::from_hours(1);
/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_secs(1);

/// Sweeps at once and then hourly, until `ending`.
pub async fn run(rooms: Arc<Rooms>, keep: Duration, ending: CancellationToken) {
    loop {
        let swept = tokio::select! {
            () = ending.cancelled() => return,
            swept = sweep(&rooms, keep) => swept,
        };
        if let Err(error) = swept {
            // Whatever hinders it hinders the driver too, which reports it.
            tracing::warn!(error = chain(&error), "cannot sweep unused variants; the next sweep will");
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(keep.clamp(SHORTEST, INTERVAL)) => {}
        }
    }
}

async fn sweep(rooms: &Rooms, keep: Duration) -> Result<(), Error> {
    let now = super::now();
    let busy = busy(rooms).await?;
    for id in in_nomad(rooms).await? {
        rooms.store.meet_variant(&id, now).await?;
    }
    let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
    let due = |used_at: Timestamp| used_at.saturating_add(keep).is_ok_and(|end| end <= now);
    for (id, used_at) in rooms.store.variants().await? {
        if busy.contains(&id) {
            rooms.store.use_variant(&id, now).await?;
        } else if due(used_at) {
            let gone = rooms
                .base_jobs
                .stop_variant(&rooms.nomad, &id, async || -> Result<bool, Error> {
                    let used_at = rooms.store.variants().await?.get(&id).copied();
                    Ok(used_at.is_some_and(|used_at| !due(used_at)) || named(rooms).await?.contains(&id))
                })
                .await?;
            if gone {
                rooms.store.forget_variant(&id).await?;
                tracing::info!(job = id, "unused variant stopped");
            }
        }
    }
    Ok(())
}

/// The variants that an attempt on record names or that have living children.
async fn busy(rooms: &Rooms) -> Result<BTreeSet<String>, Error> {
    let mut busy = named(rooms).await?;
    for base in rooms.base_jobs.names() {
        let children = rooms.nomad.live_children(base, &children_pattern(base)).await?;
        busy.extend(children.into_iter().map(|child| child.parent_id));
    }
    Ok(busy)
}

async fn named(rooms: &Rooms) -> Result<BTreeSet<String>, Error> {
    let live = rooms.store.live().await?;
    let launched = live.iter().filter(|job| job.stage != Stage::Ended);
    Ok(launched.flat_map(|job| &job.attempts).map(|attempt| attempt.parent.clone()).collect())
}

/// The variants that consign registered and did not stop, as Nomad lists them.
async fn in_nomad(rooms: &Rooms) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for base in rooms.base_jobs.names() {
        let jobs = rooms.nomad.jobs_like(&format!("{base}-"), &variants_pattern(base)).await?;
        let ours = |meta: &BTreeMap<String, String>| {
            meta.contains_key(MARKER) && meta.get(VARIANT_OF).map(String::as_str) == Some(base)
        };
        found.extend(jobs.into_iter().filter(|job| !job.stop && ours(&job.meta)).map(|job| job.id));
    }
    Ok(found)
}
