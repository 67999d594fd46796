//! Watches the ops repo: at an interval, and at once when somebody says that there is something new.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    driver::{Inbox, Message, TakenOver},
    health::{Health, Subject},
};
use crate::{
    intake::{self, look},
    metrics::Metrics,
    ops_repo::{self, ErrorKind, OpsRepo, Owner, Tips},
    retry::Pause,
    store::{self, Store},
    telemetry::chain,
};

/// After how many looks that found something the mirror's garbage is collected.
const LOOKS_PER_COLLECTION: u32 = 500;

/// How long a rewritten history stays among the troubles. Nothing mends it, so it is not over by itself.
const REWRITE_SHOWN: Duration = Duration::from_hours(1);
/// How soon is looked again at first where a step under way kept something from being taken over. A step may
/// last: each further look comes later.
const AGAIN: Duration = Duration::from_millis(50);

/// What the watch needs.
#[derive(Debug)]
pub struct Watch {
    /// The ops repo.
    pub repo: Arc<OpsRepo>,
    /// The memory.
    pub store: Store,
    /// Where findings go.
    pub inbox: Inbox,
    /// What is in trouble.
    pub health: Health,
    /// Counts looks.
    pub metrics: Metrics,
    /// How often it looks.
    pub interval: Duration,
    /// Wakes it at once.
    pub wake: Arc<Notify>,
    /// What actions may ask for.
    pub rules: intake::Rules,
    /// Told when somebody woke the watch: pull requests may have changed as well.
    pub asked: Arc<Notify>,
}

/// Why the watch ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another store claimed the ops repo.
    #[error(
        "the ops repo was claimed by the store {} on {} at {}: this agent ends, so that nothing runs twice",
        .0.store_id, .0.host, .0.claimed_at
    )]
    Claimed(Owner),
    /// The claim is gone from the ops repo.
    #[error(
        "the claim refs/consign/owner is gone from the ops repo: this agent ends, because another may claim it"
    )]
    Unclaimed,
}

/// Why one look failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("{0}")]
    OpsRepo(#[from] ops_repo::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Ended(#[from] Error),
    #[error("the agent is ending")]
    Ending,
}

/// What is kept from look to look.
#[derive(Debug)]
struct Kept {
    /// When the history was last found rewritten.
    rewritten_at: Option<Instant>,
    /// What the files with keys said; `None` where one could not be read.
    keys: Option<Vec<Vec<u8>>>,
    /// Where the references of the remote stood.
    tips: Option<Tips>,
}

/// What one look came to.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    /// There was nothing new.
    Unchanged,
    /// What was new is taken over.
    TakenOver,
    /// Part of it is not, because of a step under way.
    Partly,
}

impl Watch {
    /// Watches until `ending`, or until the claim is lost.
    pub async fn run(self, ending: CancellationToken) -> Result<(), Error> {
        let mut pause =
            Pause::new(Duration::from_millis(500), Duration::from_secs(15).min(self.interval * 4));
        let mut again = Pause::new(AGAIN, self.interval.max(AGAIN));
        let mut looks = 0;
        let mut kept =
            Kept { rewritten_at: None, keys: self.repo.settings().keys.contents().ok(), tips: None };
        let mut woken = false;
        loop {
            let begun = Instant::now();
            let looked = tokio::select! {
                () = ending.cancelled() => return Ok(()),
                looked = self.look(&mut kept, woken) => looked,
            };
            if kept.rewritten_at.is_some_and(|at| at.elapsed() >= REWRITE_SHOWN) {
                self.health.clear(Subject::History);
                kept.rewritten_at = None;
            }
            // Whoever wakes the watch may know of a review as well as of a push.
            if std::mem::take(&mut woken) {
                self.asked.notify_one();
                if self.inbox.send(Message::EvidenceChanged).await.is_err() {
                    return Ok(());
                }
            }
            let wait = match looked {
                Ok(found) => {
                    self.metrics.looked(begun.elapsed());
                    self.health.clear(Subject::OpsRepo);
                    pause.reset();
                    looks += u32::from(found == Looked::TakenOver);
                    if looks >= LOOKS_PER_COLLECTION {
                        looks = 0;
                        if let Err(error) = self.repo.collect_garbage().await {
                            tracing::warn!(error = chain(&error), "cannot collect the mirror's garbage");
                        }
                    }
                    if found == Looked::Partly {
                        again.wait()
                    } else {
                        again.reset();
                        self.interval
                    }
                }
                Err(LookError::Ended(error)) => return Err(error),
                Err(LookError::Ending) => return Ok(()),
                Err(error) => {
                    self.health.report(Subject::OpsRepo, chain(&error));
                    pause.wait()
                }
            };
            tokio::select! {
                () = ending.cancelled() => return Ok(()),
                () = self.wake.notified() => woken = true,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Where the references of the remote stand, and whether the mirror has them already: where something is said to
    /// be new, what was `known` is fetched without a question first. An idle remote costs less with it.
    async fn tips(&self, known: Option<Tips>) -> Result<(Tips, bool), ops_repo::Error> {
        if let Some(known) = known
            && let Ok(tips) = self.repo.refresh(&known).await
        {
            return Ok((tips, true));
        }
        Ok((self.repo.tips().await?, false))
    }

    async fn look(&self, kept: &mut Kept, woken: bool) -> Result<Looked, LookError> {
        let keys = self.repo.settings().keys.contents().ok();
        if kept.keys != keys {
            self.inbox.send(Message::EvidenceChanged).await.map_err(|_| LookError::Ending)?;
            kept.keys = keys;
        }
        let (tips, is_fetched) = self.tips(kept.tips.take().filter(|_| woken)).await?;
        match self.repo.is_ours(&tips) {
            Err(ops_repo::Error::Superseded) => {
                let held = self.repo.owner().await?;
                return Err(held.map_or(Error::Unclaimed, |(_, owner)| Error::Claimed(owner)).into());
            }
            answer => answer?,
        }
        kept.tips = Some(tips.clone());
        let before = self.store.revision();
        let Some(tip) = &tips.branch else { return Ok(Looked::Unchanged) };
        let unchanged = before.as_ref() == Some(tip);
        if unchanged && !self.repo.is_damaged() {
            return Ok(Looked::Unchanged);
        }
        if !is_fetched {
            self.repo.fetch(&tips).await?;
        }
        if unchanged {
            self.repo.pin(tip).await?;
            return Ok(Looked::Unchanged);
        }
        let found = look::look(&self.repo, before.as_ref(), tip, tips.results.as_ref(), &self.rules).await;
        // The mirror has all of it now: what cannot be read there is damaged.
        let findings = found.inspect_err(|error| {
            if error.kind() != ErrorKind::Local {
                self.repo.suspect();
            }
        })?;
        if findings.rewritten {
            kept.rewritten_at = Some(Instant::now());
            self.health.report(
                Subject::History,
                format!("the branch's history was rewritten before {tip}: nothing was cancelled or run again by it"),
            );
        }
        let (reply, taken) = oneshot::channel();
        self.inbox.send(Message::Found(findings, reply)).await.map_err(|_| LookError::Ending)?;
        let taken = taken.await.map_err(|_| LookError::Ending)??;
        self.repo.pin(tip).await?;
        Ok(match taken {
            TakenOver::Whole => Looked::TakenOver,
            TakenOver::Partly => Looked::Partly,
        })
    }
}
