//! Publishes results: everything that ended within the interval as one commit.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    health::{Health, Subject},
    step::Progress,
};
use crate::{
    action, fail_point,
    ids::JobId,
    metrics::Metrics,
    ops_repo::{self, OpsRepo, ResultEntry},
    retry::Pause,
    store::{self, PendingResult, Store},
    telemetry::chain,
};

/// The most results in one commit.
const RESULTS_PER_COMMIT: i64 = 1000;

/// What publishing needs.
#[derive(Debug)]
pub struct Publisher {
    /// The ops repo.
    pub repo: Arc<OpsRepo>,
    /// The memory.
    pub store: Store,
    /// What is in trouble.
    pub health: Health,
    /// How long results are gathered.
    pub interval: Duration,
    /// Says that there are results.
    pub ready: Arc<Notify>,
    /// Whoever wants to hear what happens.
    pub progress: tokio::sync::broadcast::Sender<Progress>,
    /// What is measured.
    pub metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    OpsRepo(#[from] ops_repo::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Publisher {
    /// Publishes until `ending`, and once more then.
    pub async fn run(self, ending: CancellationToken) {
        let mut pause = Pause::new(Duration::from_millis(500), Duration::from_secs(10));
        loop {
            let wait = match self.publish().await {
                Ok(more) => {
                    self.health.clear(Subject::Results);
                    pause.reset();
                    more.then_some(Duration::ZERO)
                }
                Err(error) => {
                    self.health.report(Subject::Results, chain(&error));
                    Some(pause.wait())
                }
            };
            if ending.is_cancelled() {
                return;
            }
            tokio::select! {
                () = ending.cancelled() => {}
                () = self.next(wait) => {}
            }
        }
    }

    /// Waits for the next try, or for results and then for their companions.
    async fn next(&self, wait: Option<Duration>) {
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        } else {
            self.ready.notified().await;
            tokio::time::sleep(self.interval).await;
        }
    }

    /// Publishes what is pending; says whether there may be more.
    async fn publish(&self) -> Result<bool, Error> {
        let pending = self.store.pending_results(RESULTS_PER_COMMIT).await?;
        if pending.is_empty() {
            return Ok(false);
        }
        let entries: Vec<ResultEntry> = pending.iter().flat_map(entries).collect();
        let began = Instant::now();
        let published = self.repo.publish(&entries, &subject(&pending)).await;
        let pushed = published.as_ref().ok().map(|published| {
            let is_result = |(path, _): &&(String, _)| path.ends_with(".result.json");
            pending.len() - published.refused.iter().filter(is_result).count()
        });
        self.metrics.pushed(began.elapsed(), pushed);
        let published = published?;
        fail_point::before("push recorded");
        self.store.results_pushed(&pending, super::now()).await?;
        fail_point::after("push recorded");
        for (path, why) in published.refused {
            let of = pending.iter().find(|result| result.path == path);
            of.map_or_else(tracing::Span::none, span).in_scope(|| {
                tracing::error!(
                    path,
                    why,
                    "a result file cannot stand there; the result is in the store alone"
                );
            });
        }
        for result in &pending {
            let detail = published.commit.as_ref().map(ToString::to_string).unwrap_or_default();
            let name = named(result);
            span(result).in_scope(|| tracing::info!(job = name, commit = detail, "result committed"));
            // Nobody watching is no error.
            drop(self.progress.send(Progress {
                name,
                event: "result committed",
                detail: result.path.clone(),
            }));
        }
        Ok(i64::try_from(pending.len()) == Ok(RESULTS_PER_COMMIT))
    }
}

/// The files of a result: its own, and the action of submitted work beside it.
fn entries(result: &PendingResult) -> impl Iterator<Item = ResultEntry> {
    let entry = |path: &str, content: &str| ResultEntry { path: path.to_owned(), content: content.into() };
    let action = result.action.as_ref().zip(action::path_of_result(&result.path));
    action
        .map(|(content, path)| entry(&path, content))
        .into_iter()
        .chain([entry(&result.path, &result.content)])
}

fn span(result: &PendingResult) -> tracing::Span {
    result.job_id.parse::<JobId>().map_or_else(|_| tracing::Span::none(), super::span)
}

/// The name that the result goes by: its file's stem.
fn named(result: &PendingResult) -> String {
    let name = result.path.rsplit('/').next().unwrap_or(&result.path);
    name.trim_end_matches(".result.json").to_owned()
}

fn subject(pending: &[PendingResult]) -> String {
    match pending {
        [one] => format!("consign: result of {}", named(one)),
        many => format!("consign: results of {} actions", many.len()),
    }
}
