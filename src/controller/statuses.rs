//! Commit statuses: says on the forge what a pull request's actions amount to before they are merged, and what
//! became of them afterwards.
//!
//! It runs beside everything else: no job waits for it. A status is written only where the forge has another one,
//! so that nothing need be remembered of what was written; how far the ends of jobs were told is a place in the
//! journal. A pull request is read from git objects, as the branch is. Whatever is in it is data: it is checked
//! as `consign validate` does, and nothing of it runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{health::Subject, step::Rooms};
use crate::{
    approval::{Need, review::PullRequest},
    forge::{self, CONTEXT_LIMIT, Client, State, Status},
    ids::Revision,
    intake::{Finding, Rules, Verdict, look},
    lifecycle::{Job, Origin, Stage},
    ops_repo,
    outcome::Outcome,
    store,
    telemetry::chain,
};

/// How often pull requests are looked at where nothing tells of them.
const PULL_REQUESTS: Duration = Duration::from_mins(1);
/// How soon again where a forge has not brought a pull request's head up to date with its branch.
const BEHIND: Duration = Duration::from_secs(10);
/// How often the journal is looked at.
const ENDS: Duration = Duration::from_secs(2);
/// How long nothing is tried after a failure.
const PAUSE: Duration = Duration::from_secs(30);
/// How many new heads of pull requests are read in one look.
const HEADS: usize = 20;
/// How many actions of one pull request get a status of their own; the others share one.
const ACTIONS: usize = 50;
/// How many ends are told in one look.
const TOLD: i64 = 50;
/// The setting of the store that says up to where ends were told.
const TOLD_UP_TO: &str = "statuses_told_up_to";

/// Writes commit statuses.
#[derive(Debug)]
pub struct Statuses {
    /// What it reads.
    pub rooms: Arc<Rooms>,
    /// The forges that take statuses.
    pub forges: Vec<Arc<Client>>,
    /// What actions may ask for.
    pub rules: Rules,
    /// Says that pull requests may have changed.
    pub wake: Arc<Notify>,
}

/// Why some were not written. They are tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Forge(#[from] forge::Error),
    #[error(transparent)]
    OpsRepo(#[from] ops_repo::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The heads of pull requests that have their statuses, by forge and number.
type Known = BTreeMap<(usize, u64), String>;

impl Statuses {
    /// Goes on until `ending`.
    pub async fn run(self, ending: CancellationToken) {
        let mut known = Known::new();
        let mut next_look = Instant::now();
        loop {
            let due = Instant::now() >= next_look;
            let done = tokio::select! {
                () = ending.cancelled() => return,
                done = self.round(&mut known, due) => done,
            };
            if due {
                next_look = Instant::now() + PULL_REQUESTS;
            }
            let wait = match done {
                Ok(complete) => {
                    self.rooms.health.clear(Subject::Forge);
                    if !complete {
                        next_look = Instant::now() + BEHIND;
                    }
                    ENDS
                }
                Err(error) => {
                    self.rooms.health.report(Subject::Forge, format!("commit statuses: {}", chain(&error)));
                    PAUSE
                }
            };
            tokio::select! {
                () = ending.cancelled() => return,
                () = self.wake.notified() => next_look = Instant::now(),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Writes what is to be written; gives whether that is all.
    async fn round(&self, known: &mut Known, due: bool) -> Result<bool, Error> {
        self.tell_ends().await?;
        if due { self.pull_requests(known).await } else { Ok(true) }
    }

    /// Tells what became of the jobs that ended since the last time.
    async fn tell_ends(&self) -> Result<(), Error> {
        let store = &self.rooms.store;
        let told = store.get(TOLD_UP_TO).await?.and_then(|text| text.parse().ok());
        let Some(told) = told else {
            // What ended before statuses were asked for is not told.
            return Ok(store.set(TOLD_UP_TO, &store.journal_end().await?.to_string()).await?);
        };
        for (sequence, job_id) in store.ended_since(told, TOLD).await? {
            if let Some(job) = store.job(job_id).await?
                && job.stage == Stage::Ended
            {
                self.tell_end(&job).await?;
            }
            store.set(TOLD_UP_TO, &sequence.to_string()).await?;
        }
        Ok(())
    }

    /// Gives the commit that brought the job's action onto the branch the outcome as a status.
    async fn tell_end(&self, job: &Job) -> Result<(), Error> {
        let (Origin::Action { id, path, revision, .. }, Some(ending)) = (&job.origin, &job.ending) else {
            return Ok(());
        };
        let outcome = ending.cause.outcome();
        let state = match outcome {
            Outcome::Succeeded => State::Success,
            Outcome::Failed | Outcome::TimedOut | Outcome::Rejected => State::Failure,
            Outcome::Cancelled | Outcome::Lost => State::Error,
        };
        let arrival = match self.rooms.repo.arrival(revision, path).await {
            Ok(Some(arrival)) => arrival.commit,
            // Its history was rewritten away.
            Ok(None) | Err(ops_repo::Error::Exit { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let status = status(id.as_str(), state, format!("{outcome}: {}", ending.message));
        for forge in &self.forges {
            self.write(forge, arrival.as_str(), &status).await?;
        }
        Ok(())
    }

    /// Writes one status. A commit that the forge does not have, or not any more, has none.
    async fn write(&self, forge: &Client, commit: &str, status: &Status) -> Result<(), Error> {
        match forge.set_status(commit, status).await {
            Err(error @ forge::Error::Status { .. }) if !error.is_temporary() => {
                tracing::warn!(commit, context = status.context, error = chain(&error), "no commit status");
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Looks at the open pull requests that have another head than the last time.
    async fn pull_requests(&self, known: &mut Known) -> Result<bool, Error> {
        let mut complete = true;
        let branch = &self.rooms.repo.settings().branch;
        for (index, forge) in self.forges.iter().enumerate() {
            let open = forge.open(branch).await?;
            known.retain(|(of, number), _| *of != index || open.iter().any(|pull| pull.number == *number));
            let is_new = |pull: &&PullRequest| known.get(&(index, pull.number)) != Some(&pull.tip);
            let new: Vec<PullRequest> = open.iter().filter(is_new).take(HEADS).cloned().collect();
            for pull in new {
                let Some((head, statuses)) = self.judged(&pull).await? else { continue };
                for status in statuses {
                    self.write(forge, head.as_str(), &status).await?;
                }
                if head.as_str() == pull.tip {
                    known.insert((index, pull.number), pull.tip);
                } else {
                    complete = false;
                }
            }
        }
        Ok(complete)
    }

    /// The statuses for the actions that a pull request changes, and its head.
    async fn judged(&self, pull: &PullRequest) -> Result<Option<(Revision, Vec<Status>)>, Error> {
        let repo = &self.rooms.repo;
        let Some(head) = repo.pull_request_head(pull.number).await? else { return Ok(None) };
        let Some(tip) = self.rooms.store.revision() else { return Ok(None) };
        let Some(base) = repo.common_ancestor(&tip, &head).await? else { return Ok(None) };
        let findings = look::look(repo, Some(&base), &head, None, &self.rules).await?;
        let mut statuses = Vec::new();
        for finding in findings.files {
            let Finding::Written { path, verdict, .. } = finding else { continue };
            let verdict = verdict.with_bot(|name| self.rooms.base_jobs.declared(name));
            statuses.push(self.of_action(&path, &verdict).await?);
        }
        if statuses.len() > ACTIONS {
            let rest = statuses.split_off(ACTIONS);
            let bad = rest.iter().filter(|status| status.state != State::Success).count();
            let state = if bad == 0 { State::Success } else { State::Failure };
            statuses.push(status(
                "",
                state,
                format!("{} further actions, {bad} of them invalid", rest.len()),
            ));
        }
        Ok(Some((head, statuses)))
    }

    /// What one action amounts to: whether it is valid, and what it will need.
    async fn of_action(&self, path: &str, verdict: &Verdict) -> Result<Status, Error> {
        let name = verdict.id().map_or(path, |id| id.as_str());
        let work = match verdict {
            Verdict::Sound { work, .. } => work,
            Verdict::Unsound { message, .. } => {
                return Ok(status(name, State::Failure, format!("invalid: {message}")));
            }
        };
        if let Some(id) = verdict.id()
            && let Some(job) = self.rooms.store.job_of_action(id).await?
        {
            if let Origin::Action { path: taken, .. } = &job.origin
                && taken != path
            {
                return Ok(status(name, State::Failure, format!("the id is taken by {taken}")));
            }
            if !job.attempts.is_empty() {
                let words = "it was launched already, and an id runs once: a change does nothing";
                return Ok(status(name, State::Failure, words));
            }
        }
        let Need { rule, is_direct, .. } = self.rooms.approval.classify(work);
        Ok(if is_direct {
            let words = format!("dispatch_mode = \"direct\", which no rule allows: {rule}");
            status(name, State::Failure, words)
        } else {
            status(name, State::Success, format!("valid; it will need: {rule}"))
        })
    }
}

/// A status about an action, or about several where its name is empty.
fn status(name: &str, state: State, words: impl Into<String>) -> Status {
    let context = if name.is_empty() { "consign".to_owned() } else { format!("consign/{name}") };
    let description = words.into().lines().next().unwrap_or_default().to_owned();
    Status { context: context.chars().take(CONTEXT_LIMIT).collect(), state, description }
}
