//! Forgets submitted work some time after its end, with its artifacts.
//!
//! Work from git is never forgotten: its result stands in git, and its id runs once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{
    store::{self, Store},
    telemetry::chain,
    track::artifact::{self, Archive},
};

/// How often it is looked for ended work, unless it is kept for less.
const INTERVAL: Duration = Duration::from_mins(10);
/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_secs(1);
/// How many jobs are looked for at a time.
const AT_ONCE: i64 = 500;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Artifacts(#[from] artifact::Error),
}

/// Prunes at once and then again and again, until `ending`. `keep` of zero keeps everything.
pub async fn run(store: Store, archive: Archive, keep: Duration, ending: CancellationToken) {
    if keep.is_zero() {
        return;
    }
    loop {
        let pruned = tokio::select! {
            () = ending.cancelled() => return,
            pruned = prune(&store, &archive, keep) => pruned,
        };
        match pruned {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "forgot ended submissions"),
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot forget ended submissions; the next look will");
            }
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(keep.clamp(SHORTEST, INTERVAL)) => {}
        }
    }
}

async fn prune(store: &Store, archive: &Archive, keep: Duration) -> Result<usize, Error> {
    let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
    // Where it is kept for longer than time goes back, nothing is that old.
    let Ok(end) = super::now().checked_sub(keep) else { return Ok(0) };
    let mut count = 0;
    loop {
        let forgotten = prune_some(store, archive, end).await?;
        count += forgotten;
        if forgotten == 0 {
            return Ok(count);
        }
    }
}

async fn prune_some(store: &Store, archive: &Archive, end: Timestamp) -> Result<usize, Error> {
    let mut forgotten = 0;
    for job_id in store.submissions_ended(end, AT_ONCE).await? {
        // The artifacts first: after a crash between the two, the record leads to the rest again.
        archive.forget(job_id).await?;
        forgotten += usize::from(store.forget_submission(job_id, end).await?);
    }
    Ok(forgotten)
}
