//! What a job printed: from Nomad while it works, and after its end what was kept.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    App,
    jobs::{PathId, find},
    problem::Problem,
    stream,
};
use crate::{
    ids::{DispatchId, JobId},
    lifecycle::{Job, Stage},
    track::{judge, log},
};

/// How much of a running task's log is given to who does not follow, in bytes.
const TAIL: usize = 1024 * 1024;
/// How long Nomad's answer is waited for by who does not follow.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a followed job has begun or ended.
const NEXT_LOOK: Duration = Duration::from_secs(1);
/// How long nothing more may come after the end, until the log counts as complete.
const QUIET: Duration = Duration::from_secs(1);
/// How many pieces of log wait for a slow reader; then Nomad is read no further.
const PIECES: usize = 16;

/// Whether a log is followed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    #[serde(default)]
    pub(super) follow: bool,
}

const TEXT: (header::HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");

pub(super) async fn logs(
    State(app): State<App>,
    id: PathId,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(id), Query(LogQuery { follow })) = (id?, query?);
    let job = find(&app, &id).await?;
    if follow && job.outcome().is_none() {
        let (sender, receiver) = mpsc::channel(PIECES);
        let follower = Follower { app, job_id: job.job_id, sender };
        tokio::spawn(follower.run());
        return Ok(([TEXT], stream::body(receiver)).into_response());
    }
    let text = match timeout(PATIENCE, printed(&app, &job)).await {
        Ok(Some(text)) => text,
        Ok(None) | Err(_) => kept(&job),
    };
    Ok(([TEXT], text).into_response())
}

/// What the result file has of its log.
fn kept(job: &Job) -> String {
    job.ending.as_ref().map(|ending| ending.log.text.clone()).unwrap_or_default()
}

/// What a running task has printed so far, as Nomad has it.
pub(super) async fn printed(app: &App, job: &Job) -> Option<String> {
    let (allocation, task) = running(app, job).await?;
    let tail = app.nomad.log_tail(&allocation, &task, TAIL).await.ok()??;
    Some(log::excerpt(&tail.bytes, tail.truncated).text)
}

/// The allocation and the task of a job that works.
async fn running(app: &App, job: &Job) -> Option<(String, String)> {
    let attempt = job.attempt().filter(|_| job.stage == Stage::Working)?;
    let allocation = app.nomad.allocation(attempt.allocation.as_ref()?).await.ok()??;
    let task = judge::task_name(&allocation)?.to_owned();
    Some((allocation.id, task))
}

/// Sends a log on as it is written.
struct Follower {
    app: App,
    job_id: JobId,
    sender: mpsc::Sender<Bytes>,
}

impl Follower {
    /// Follows until the job has ended and its log has been sent, the reader has gone, or the agent ends.
    async fn run(self) {
        tokio::select! {
            () = self.follow() => {}
            () = self.sender.closed() => {}
            () = self.app.ending.cancelled() => {}
        }
    }

    async fn follow(&self) {
        let heard = watch::Sender::new(0_u64);
        while let Some(job) = self.job().await {
            let begun = running(&self.app, &job).await.zip(job.attempt());
            if let Some(((allocation, task), attempt)) = begun {
                tokio::select! {
                    () = self.send(&allocation, &task, &heard) => {}
                    () = self.over(attempt.dispatch_id, &heard) => {}
                }
            } else if job.stage == Stage::Ended {
                let nothing_sent = *heard.borrow() == 0;
                if nothing_sent {
                    // Whoever reads may have gone.
                    drop(self.sender.send(kept(&job).into()).await);
                }
                return;
            }
            sleep(NEXT_LOOK).await;
        }
    }

    async fn job(&self) -> Option<Job> {
        self.app.store.job(self.job_id).await.ok().flatten()
    }

    /// Sends what comes, from where it stopped; until Nomad has no more.
    async fn send(&self, allocation: &str, task: &str, heard: &watch::Sender<u64>) {
        let offset = *heard.borrow();
        let opened = self.app.nomad.follow_log(allocation, task, offset).await;
        let Ok(Some(mut log)) = opened else { return };
        while let Ok(Some(piece)) = log.next().await {
            let length = u64::try_from(piece.len()).unwrap_or_default();
            if self.sender.send(piece.into()).await.is_err() {
                return;
            }
            heard.send_modify(|heard| *heard += length);
        }
    }

    /// Ends when the attempt is over and nothing more is heard of its log.
    async fn over(&self, dispatch_id: DispatchId, heard: &watch::Sender<u64>) {
        loop {
            sleep(NEXT_LOOK).await;
            let job = self.job().await;
            let works = job.as_ref().is_some_and(|job| {
                job.stage.launched()
                    && job.attempt().is_some_and(|attempt| attempt.dispatch_id == dispatch_id)
            });
            if !works {
                break;
            }
        }
        let mut pieces = heard.subscribe();
        // A reader that is slow holds pieces up, which is no quiet.
        while timeout(QUIET, pieces.changed()).await.is_ok() || self.sender.capacity() == 0 {}
    }
}
