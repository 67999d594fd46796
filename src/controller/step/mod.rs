//! Performs one step: one effect in one room, and the record of it.

mod approve;
mod conclude;
mod launch;
mod provenance;
mod review;

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{Semaphore, broadcast};
use tracing::Instrument as _;

pub use self::review::Forges;
use super::{
    awake::Awake,
    health::{Health, Subject},
    meet,
    plan::{Rights, Seen, Step},
};
use crate::{
    action::{
        self,
        record::{self, Record},
    },
    approval,
    dispatch::{self, launch::BaseJobs, nodes::Nodes},
    fail_point, forge,
    grant::{self, Grants, Upkeep},
    lifecycle::{Cancellation, Ending, Event, IllegalEvent, Job, Origin, Stage},
    metrics::{Measure, Metrics},
    nomad::{self, placement_reasons},
    ops_repo::{self, OpsRepo},
    outcome::Cause,
    store::{self, Store},
    track::artifact::Collector,
};

/// How many dispatches are sent at a time: Nomad takes three times as many over eight connections as
/// over one, and no more beyond.
const DISPATCHES: usize = 8;
/// How many jobs' evidence is gathered at a time: for each, git is started a dozen times.
const JUDGEMENTS: usize = 4;
/// How many logs are fetched at a time.
const COLLECTIONS: usize = 16;
/// How many jobs' reviews are asked for at a time: forges count requests, and want few at once.
const REVIEWS: usize = 2;

/// What every step may use.
#[derive(Debug)]
pub struct Rooms {
    /// The memory.
    pub store: Store,
    /// The ops repo, where evidence of approvals is read.
    pub repo: Arc<OpsRepo>,
    /// The approval rules.
    pub approval: approval::Rules,
    /// The forges that review pull requests, by name.
    pub forges: Forges,
    /// Nomad.
    pub nomad: Arc<nomad::Client>,
    /// The grants.
    pub grants: Grants,
    /// The base jobs.
    pub base_jobs: BaseJobs,
    /// What is in trouble.
    pub health: Health,
    /// The folder of the action files, for the results of work that has none.
    pub actions: String,
    /// Where the end of submitted work is recorded.
    pub record: Record,
    /// How much of a log's end stands in a result, in bytes.
    pub log_tail: usize,
    /// Keeps what actions ask to keep of their files.
    pub artifacts: Collector,
    /// Keeps the Vault token alive.
    pub upkeep: Upkeep,
    /// Whoever wants to hear what happens.
    pub progress: broadcast::Sender<Progress>,
    /// Wakes whoever pushes results.
    pub results_ready: Arc<tokio::sync::Notify>,
    /// What the nodes have.
    pub nodes: Nodes,
    /// How much is done at a time.
    pub permits: Permits,
    /// Whether this process slept.
    pub awake: Awake,
    /// What is measured.
    pub metrics: Metrics,
}

/// How much is done at a time, over all jobs.
#[derive(Debug)]
pub struct Permits {
    dispatches: Semaphore,
    judgements: Semaphore,
    collections: Semaphore,
    reviews: Semaphore,
}

impl Default for Permits {
    fn default() -> Self {
        Self {
            dispatches: Semaphore::new(DISPATCHES),
            judgements: Semaphore::new(JUDGEMENTS),
            collections: Semaphore::new(COLLECTIONS),
            reviews: Semaphore::new(REVIEWS),
        }
    }
}

/// Something that happened to a job, for people who watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The job's name: its action id, or its job id.
    pub name: String,
    /// What happened.
    pub event: &'static str,
    /// More about it, in words.
    pub detail: String,
}

/// Why a step was not done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nomad.
    #[error("{0}")]
    Nomad(#[from] nomad::Error),
    /// Vault.
    #[error("{0}")]
    Grant(#[from] grant::Error),
    /// The ops repo, which has the evidence of approvals.
    #[error("{0}")]
    OpsRepo(#[from] ops_repo::Error),
    /// The forge.
    #[error("{0}")]
    Forge(#[from] forge::Error),
    /// The store.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The plan and the record do not fit each other.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// A base job cannot be registered.
    #[error("{0}")]
    BaseJob(#[from] dispatch::launch::Error),
    /// Another agent took over.
    #[error("this agent slept, and the ops repo is another store's by now")]
    Superseded,
}

impl Error {
    /// Whose trouble it is.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Nomad(_) | Self::BaseJob(_) => Subject::Nomad,
            Self::Grant(_) => Subject::Vault,
            Self::OpsRepo(_) | Self::Superseded => Subject::Approvals,
            Self::Forge(_) => Subject::Forge,
            Self::Store(_) | Self::Illegal(_) => Subject::Store,
        }
    }
}

/// What a step leaves behind.
#[derive(Debug)]
pub struct Performed {
    /// The job as it now is.
    pub job: Job,
    /// What was seen, as it now is.
    pub seen: Seen,
}

impl Rooms {
    /// Tells whoever watches what happened to a job.
    pub fn tell(&self, job: &Job, event: &'static str, detail: impl Into<String>) {
        let (name, detail) = (job.name(), detail.into());
        super::span(job.job_id).in_scope(|| tracing::info!(job = name, event, detail));
        // Nobody watching is no error.
        drop(self.progress.send(Progress { name, event, detail }));
    }

    /// Tells whoever watches what happened to a child that is no job's.
    pub fn tell_of_child(&self, child: &str, event: &'static str, detail: &str) {
        tracing::info!(job = child, event, detail);
        let (name, detail) = (child.to_owned(), detail.to_owned());
        // Nobody watching is no error.
        drop(self.progress.send(Progress { name, event, detail }));
    }

    /// Whether the ops repo is still this store's: an agent that slept may have a successor, of whose work it knows
    /// nothing.
    pub(super) async fn owns_repo(&self) -> Result<bool, Error> {
        match self.repo.is_ours(&self.repo.tips().await?) {
            Err(ops_repo::Error::Superseded) => Ok(false),
            answer => Ok(answer.map(|()| true)?),
        }
    }

    /// Fails where this agent slept and the ops repo is another store's by now: nothing may be granted then.
    async fn is_not_superseded(&self) -> Result<(), Error> {
        if self.awake.has_slept() {
            if !self.owns_repo().await? {
                return Err(Error::Superseded);
            }
            self.awake.is_up_to_date();
        }
        Ok(())
    }

    /// Reports what a step failed on.
    pub fn trouble(&self, error: &Error) {
        if error.subject() == Subject::Vault {
            // The token may have been replaced in its file.
            self.upkeep.look_now();
        }
        let said = crate::telemetry::chain(error);
        let text = self.upkeep.trouble().filter(|_| error.subject() == Subject::Vault).unwrap_or(said);
        self.health.report(error.subject(), text);
    }

    /// Applies an event, puts it on record and tells of it.
    async fn record(&self, job: &mut Job, event: Event) -> Result<(), Error> {
        let now = super::now();
        let (name, detail, measure) = (event.name(), detail(&event), Measure::of(job, &event, now));
        job.apply(event, now)?;
        fail_point::before(name);
        self.store.save(job, name, now).await?;
        fail_point::after(name);
        self.tell(job, name, detail);
        if let Some(measure) = measure {
            self.metrics.count(measure);
        }
        Ok(())
    }

    /// Performs one step. Whatever is logged meanwhile, in whatever room, carries the job's id.
    pub async fn perform(&self, job: Job, seen: Seen, step: Step) -> Result<Performed, Error> {
        let span = super::span(job.job_id);
        self.take_step(job, seen, step).instrument(span).await
    }

    async fn take_step(&self, mut job: Job, mut seen: Seen, step: Step) -> Result<Performed, Error> {
        match step {
            Step::Consult => self.consult(&mut job, &mut seen).await?,
            Step::Approve => self.approve(&mut job, &mut seen).await?,
            Step::Intend => self.intend(&mut job, &mut seen).await?,
            Step::Dispatch => self.dispatch(&mut job, &mut seen).await?,
            Step::Look => self.look(&mut job, &mut seen).await?,
            Step::Resend => {
                seen = Seen::default();
                self.record(&mut job, Event::NotFound).await?;
            }
            Step::Admit { allocation, node } => self.admit(&mut job, allocation, node).await?,
            Step::Grant => self.grant(&mut job).await?,
            Step::GrantAgain => {
                if let Some(allocation) = job.attempt().and_then(|attempt| attempt.allocation.as_deref()) {
                    self.is_not_superseded().await?;
                    self.grants.issue(allocation, &launch::wanted(&job.work)).await?;
                    self.tell(&job, "granted again", "Vault forgot the grant");
                }
                seen.rights = Rights::Standing;
            }
            Step::Begin { at } => self.record(&mut job, Event::Started { at }).await?,
            Step::Shed { child } => {
                meet::stop(self, &child).await?;
                self.tell(&job, "duplicate stopped", child.as_str());
                seen.shed.insert(child);
            }
            Step::Stop(reason) => {
                for child in children(&job, &seen) {
                    fail_point::before("child stopped");
                    self.nomad.deregister(&child).await?;
                    fail_point::after("child stopped");
                }
                self.record(&mut job, Event::Stopped(reason)).await?;
            }
            Step::Conclude { allocation } => self.conclude(&mut job, &seen, &allocation).await?,
            Step::GiveUp(reason) => {
                let ending = Ending::without_task(reason.cause, reason.reason, super::now());
                self.record(&mut job, Event::Concluded(ending)).await?;
            }
            Step::Withdraw => self.withdraw(&mut job, &mut seen).await?,
            Step::Again => {
                seen = Seen::default();
                self.record(&mut job, Event::Again).await?;
            }
            Step::Finish => self.finish(&mut job).await?,
        }
        Ok(Performed { job, seen })
    }

    /// Where a job's result file stands; submitted work may have none.
    #[must_use]
    pub fn result_path(&self, job: &Job) -> Option<String> {
        let beside =
            |path: String| action::result_path(&path).unwrap_or_else(|| format!("{path}.result.json"));
        match (&job.origin, self.record) {
            (Origin::Action { path, .. }, _) => Some(beside(path.clone())),
            (Origin::Submitted { .. }, Record::Repo) => {
                Some(beside(record::path(&self.actions, job.job_id, job.submitted_at)))
            }
            (Origin::Submitted { .. }, Record::Store) => None,
            (Origin::Hand { .. }, _) => Some(format!("{}/by-hand/{}.result.json", self.actions, job.job_id)),
        }
    }

    async fn refuse(&self, job: &mut Job, cause: Cause, reason: String) -> Result<(), Error> {
        let ending = Ending::without_task(cause, reason, super::now());
        self.record(job, Event::Concluded(ending)).await
    }

    /// Asks Nomad itself what became of the child.
    async fn look(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
        let Some(attempt) = job.attempt().cloned() else { return Ok(()) };
        let Some(child) = attempt.child.clone() else { return Ok(()) };
        let allocations = self.nomad.job_allocations(&child).await?;
        let found = !allocations.is_empty();
        for allocation in allocations {
            seen.take(allocation);
        }
        if !found {
            match self.nomad.child(&child).await? {
                Some(record) => {
                    seen.gone = record.status == "dead" && attempt.stopped.is_some();
                    seen.placement = placement_reasons(&self.nomad.evaluations(&child).await?);
                }
                None => match self.find(&attempt.parent, &attempt.dispatch_id.to_string()).await? {
                    Some(other) if job.stage == Stage::Dispatched => {
                        self.record(job, Event::Dispatched { child: other }).await?;
                    }
                    _ => seen.gone = true,
                },
            }
        } else if let Some(admitted) = &attempt.allocation {
            seen.gone = !seen.allocations.contains_key(admitted);
        }
        self.health.clear(Subject::Nomad);
        seen.missed = false;
        seen.looked_at = Some(super::now());
        Ok(())
    }

    async fn admit(&self, job: &mut Job, allocation: String, node: String) -> Result<(), Error> {
        let Some(attempt) = job.attempt() else { return Ok(()) };
        // The row decides: one allocation for each attempt, whatever else happens.
        fail_point::before("admission");
        let chosen = self.store.admit(attempt.dispatch_id, &allocation, super::now()).await?;
        fail_point::after("admission");
        self.record(job, Event::Admitted { allocation: chosen, node }).await
    }

    async fn grant(&self, job: &mut Job) -> Result<(), Error> {
        let Some(attempt) = job.attempt() else { return Ok(()) };
        let (dispatch_id, Some(allocation)) = (attempt.dispatch_id, attempt.allocation.clone()) else {
            return Ok(());
        };
        self.is_not_superseded().await?;
        match self.grants.issue(&allocation, &launch::wanted(&job.work)).await {
            Ok(_) => {
                let admitted_at = self.store.admitted_at(dispatch_id).await?;
                self.record(job, Event::Granted).await?;
                if let Some(admitted_at) = admitted_at {
                    self.metrics.gate_opened(admitted_at, super::now());
                }
                Ok(())
            }
            Err(error @ (grant::Error::UnknownSecret(_) | grant::Error::Withdrawn(_))) => {
                let reason = Cancellation { cause: Cause::SecretDenied, reason: error.to_string() };
                if let Some(child) = job.attempt().and_then(|attempt| attempt.child.clone()) {
                    self.nomad.deregister(&child).await?;
                }
                self.record(job, Event::Stopped(reason)).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn finish(&self, job: &mut Job) -> Result<(), Error> {
        let now = super::now();
        job.apply(Event::Ended, now)?;
        fail_point::before("ended");
        self.store.finish(job, self.result_path(job).as_deref(), now).await?;
        fail_point::after("ended");
        let ending = job.ending.as_ref();
        let outcome = ending.map(|ending| format!("{}: {}", ending.cause.outcome(), ending.message));
        self.tell(job, "ended", outcome.unwrap_or_default());
        self.metrics.ended(job, now);
        self.results_ready.notify_one();
        Ok(())
    }
}

/// Every child of the present attempt that was heard of.
fn children(job: &Job, seen: &Seen) -> BTreeSet<String> {
    let own = job.attempt().and_then(|attempt| attempt.child.clone());
    own.into_iter().chain(seen.allocations.values().map(|allocation| allocation.job_id.clone())).collect()
}

/// More about an event, in words.
fn detail(event: &Event) -> String {
    match event {
        Event::Awaits { what } => what.clone(),
        Event::Approved(approval) => approval.to_string(),
        Event::Unapproved { reason, .. } => reason.clone(),
        Event::Intended { dispatch_id, .. } => dispatch_id.to_string(),
        Event::Dispatched { child } => child.clone(),
        Event::Admitted { allocation, node } => format!("allocation {allocation} on {node}"),
        Event::Cancelled(reason) | Event::Stopped(reason) => reason.reason.clone(),
        Event::Concluded(ending) => ending.message.clone(),
        Event::Started { at } => at.to_string(),
        Event::Retried(retry) => format!("by {}", retry.by),
        Event::Released
        | Event::NotFound
        | Event::Granted
        | Event::Withdrawn
        | Event::Again
        | Event::Ended => String::new(),
    }
}
