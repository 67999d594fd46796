//! Performs one step: one effect in one room, and the record of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::{Semaphore, broadcast};

use super::{
    health::{Health, Subject},
    meet,
    plan::{Seen, Step},
};
use crate::{
    action,
    dispatch::{
        launch::{self, BaseJobs},
        nodes::Nodes,
        report::{self, Report},
        request::{self, Request, Run},
    },
    grant::{self, Grants, Upkeep},
    ids::{ActionId, DispatchId},
    lifecycle::{Cancellation, DEFAULT_TIMEOUT, Ending, Event, Excerpt, IllegalEvent, Job, Origin, Stage},
    nomad::{self, placement_reasons},
    outcome::{Cause, Outcome},
    store::{self, Store},
    track::{
        artifact::Collector,
        judge::{self, Evidence},
        log,
    },
};

/// How many dispatches are sent at a time: Nomad takes three times as many over eight connections as
/// over one, and no more beyond.
const DISPATCHES: usize = 8;
/// How many logs are fetched at a time.
const COLLECTIONS: usize = 16;
/// How often fetching a log is tried before it counts as lost.
const LOG_TRIES: u32 = 5;

/// What every step may use.
#[derive(Debug)]
pub struct Rooms {
    /// The memory.
    pub store: Store,
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
}

/// How much is done at a time, over all jobs.
#[derive(Debug)]
pub struct Permits {
    dispatches: Semaphore,
    collections: Semaphore,
}

impl Default for Permits {
    fn default() -> Self {
        Self { dispatches: Semaphore::new(DISPATCHES), collections: Semaphore::new(COLLECTIONS) }
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
    /// The store.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The plan and the record do not fit each other.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// A base job cannot be registered.
    #[error("{0}")]
    BaseJob(#[from] crate::dispatch::launch::Error),
}

impl Error {
    /// Whose trouble it is.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Nomad(_) | Self::BaseJob(_) => Subject::Nomad,
            Self::Grant(_) => Subject::Vault,
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
    /// Tells whoever watches.
    pub fn tell(&self, name: &str, event: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::info!(job = name, event, detail);
        // Nobody watching is no error.
        drop(self.progress.send(Progress { name: name.to_owned(), event, detail }));
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
        let (name, detail) = (event.name(), detail(&event));
        job.apply(event, now)?;
        self.store.save(job, name, now).await?;
        self.tell(&job.name(), name, detail);
        Ok(())
    }

    /// Performs one step.
    pub async fn perform(&self, mut job: Job, mut seen: Seen, step: Step) -> Result<Performed, Error> {
        match step {
            Step::Consult => self.consult(&mut job, &mut seen).await?,
            Step::Intend => self.intend(&mut job).await?,
            Step::Dispatch => self.dispatch(&mut job, &mut seen).await?,
            Step::Look => self.look(&mut job, &mut seen).await?,
            Step::Resend => {
                seen = Seen::default();
                self.record(&mut job, Event::NotFound).await?;
            }
            Step::Admit { allocation, node } => self.admit(&mut job, allocation, node).await?,
            Step::Grant => self.grant(&mut job).await?,
            Step::Begin { at } => self.record(&mut job, Event::Started { at }).await?,
            Step::Shed { child } => {
                meet::stop(self, &child).await?;
                self.tell(&job.name(), "duplicate stopped", child.as_str());
                seen.shed.insert(child);
            }
            Step::Stop(reason) => {
                for child in children(&job, &seen) {
                    self.nomad.deregister(&child).await?;
                }
                self.record(&mut job, Event::Stopped(reason)).await?;
            }
            Step::Conclude { allocation } => self.conclude(&mut job, &seen, &allocation).await?,
            Step::GiveUp(reason) => {
                let ending = Ending::without_task(reason.cause, reason.reason, super::now());
                self.record(&mut job, Event::Concluded(ending)).await?;
            }
            Step::Withdraw => self.withdraw(&mut job, &seen).await?,
            Step::Again => {
                seen = Seen::default();
                self.record(&mut job, Event::Again).await?;
            }
            Step::Finish => self.finish(&mut job).await?,
        }
        Ok(Performed { job, seen })
    }

    /// Looks at the actions that the job waits for: it is queued when all have succeeded, and ends when one
    /// has not.
    async fn consult(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
        let mut open = Vec::new();
        for id in job.work.after.clone() {
            match self.ended_well(&id).await? {
                Some(true) => {}
                Some(false) => {
                    let reason = format!("{id}, which it waited for, did not succeed");
                    return self.refuse(job, Cause::DependencyFailed, reason).await;
                }
                None => open.push(id),
            }
        }
        if open.is_empty() {
            return self.record(job, Event::Released).await;
        }
        seen.consulted = true;
        let what = awaited(&open, None);
        if job.waits_for.as_ref() == Some(&what) {
            return Ok(());
        }
        self.record(job, Event::Awaits { what }).await
    }

    /// Whether an action has succeeded; `None` before it has ended.
    async fn ended_well(&self, id: &ActionId) -> Result<Option<bool>, Error> {
        if let Some(job) = self.store.job_of_action(id).await? {
            return Ok(job.outcome().map(|outcome| outcome == Outcome::Succeeded));
        }
        Ok(self.store.past_action(id).await?.map(|past| past.succeeded))
    }

    async fn intend(&self, job: &mut Job) -> Result<(), Error> {
        // What cannot be granted is not dispatched: it would wait at the gate and end there.
        self.grants.ready().await?;
        let unknown = self.grants.unknown_secrets(&job.work.secrets).await?;
        if let Some(name) = unknown.first() {
            let reason =
                format!("no secret is called {name}: an operator makes it with `consign secret put {name}`");
            return self.refuse(job, Cause::UnknownSecret, reason).await;
        }
        let parent = match self.base_jobs.parent(&job.work.base_job, &job.work.shape) {
            Ok(Some(parent)) => parent,
            Ok(None) => {
                let reason = format!("no base job is called {}", job.work.base_job);
                return self.refuse(job, Cause::Invalid, reason).await;
            }
            Err(error) => return self.refuse(job, Cause::Invalid, error.to_string()).await,
        };
        if let Some((cause, reason)) = self.nodes.unmet(&self.nomad, &parent.needs).await? {
            return self.refuse(job, cause, reason).await;
        }
        if parent.is_variant() {
            self.store.use_variant(&parent.id, super::now()).await?;
            match self.base_jobs.ensure_variant(&self.nomad, &parent).await {
                Ok(()) => {}
                Err(error @ launch::Error::Refused { .. }) => {
                    return self.refuse(job, Cause::Invalid, error.to_string()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let parent = parent.id;
        let dispatch_id = DispatchId::new();
        match request(job, dispatch_id) {
            Ok(Request { meta, payload }) => {
                self.record(job, Event::Intended { dispatch_id, parent, meta, payload }).await
            }
            Err(error) => self.refuse(job, Cause::Invalid, error.to_string()).await,
        }
    }

    async fn refuse(&self, job: &mut Job, cause: Cause, reason: String) -> Result<(), Error> {
        let ending = Ending::without_task(cause, reason, super::now());
        self.record(job, Event::Concluded(ending)).await
    }

    async fn dispatch(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
        let Some(attempt) = job.attempt() else { return Ok(()) };
        let token = attempt.dispatch_id.to_string();
        let _permit = self.permits.dispatches.acquire().await;
        // A cancelled job needs no child, but one may exist already.
        let found = match self.find(&attempt.parent, &token).await {
            Ok(found) => found,
            Err(error) => return Err(error.into()),
        };
        let child = match found {
            Some(child) => child,
            None if job.cancelled.is_some() => {
                let Some(Cancellation { cause, reason }) = job.cancelled.clone() else { return Ok(()) };
                return self.refuse(job, cause, reason).await;
            }
            None => match self.nomad.dispatch(&attempt.parent, &token, &attempt.meta, &attempt.payload).await
            {
                Ok(child) => child,
                // Nomad answers 500 where the job is gone or stopped, as it does for trouble of its own.
                Err(error @ nomad::Error::Status { .. }) => {
                    let parent = attempt.parent.clone();
                    if self.restore(job).await? || self.nomad.job(&parent).await?.is_some() {
                        return Err(error.into());
                    }
                    return self.begin_anew(job).await;
                }
                Err(error) => return Err(error.into()),
            },
        };
        self.health.clear(Subject::Nomad);
        *seen = Seen { allocations: std::mem::take(&mut seen.allocations), ..Seen::default() };
        self.record(job, Event::Dispatched { child }).await
    }

    /// Registers the Nomad job that the present attempt is dispatched from. Gives whether that was possible:
    /// after an upgrade of consign or a change of its configuration a shape makes another variant.
    async fn restore(&self, job: &Job) -> Result<bool, Error> {
        let Some(attempt) = job.attempt() else { return Ok(false) };
        self.base_jobs.forget(&attempt.parent).await;
        let parent = self.base_jobs.parent(&job.work.base_job, &job.work.shape).ok().flatten();
        match parent.filter(|parent| parent.id == attempt.parent) {
            Some(parent) if parent.is_variant() => {
                self.base_jobs.ensure_variant(&self.nomad, &parent).await?;
                Ok(true)
            }
            Some(_) => {
                self.base_jobs.ensure(&self.nomad).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Ends an attempt that has no child and whose Nomad job is gone for good: the next one has another.
    async fn begin_anew(&self, job: &mut Job) -> Result<(), Error> {
        let parent = job.attempt().map(|attempt| attempt.parent.clone()).unwrap_or_default();
        let reason = format!("{parent} was purged before it was dispatched, and is made otherwise now");
        let ending = Ending::without_task(Cause::DispatchFailed, reason, super::now());
        self.record(job, Event::Concluded(Ending { at_gate: true, ..ending })).await
    }

    /// The child that an attempt has already, after a crash between sending and recording.
    async fn find(&self, parent: &str, token: &str) -> Result<Option<String>, nomad::Error> {
        let children = self.nomad.children(&format!("{parent}/dispatch-{token}-")).await?;
        Ok(children.into_iter().min_by_key(|child| child.submit_time).map(|child| child.id))
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
        let chosen = self.store.admit(attempt.dispatch_id, &allocation, super::now()).await?;
        self.record(job, Event::Admitted { allocation: chosen, node }).await
    }

    async fn grant(&self, job: &mut Job) -> Result<(), Error> {
        let Some(allocation) = job.attempt().and_then(|attempt| attempt.allocation.clone()) else {
            return Ok(());
        };
        match self.grants.issue(&allocation, &job.work.secrets).await {
            Ok(_) => self.record(job, Event::Granted).await,
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

    async fn conclude(&self, job: &mut Job, seen: &Seen, allocation: &str) -> Result<(), Error> {
        let Some(state) = seen.allocations.get(allocation) else { return Ok(()) };
        let Some(attempt) = job.attempt().cloned() else { return Ok(()) };
        let task = judge::task_name(state).filter(|_| judge::has_started(state));
        let (excerpt, report) = match task {
            Some(task) => {
                let _permit = self.permits.collections.acquire().await;
                (self.excerpt(allocation, task).await, self.report(allocation).await)
            }
            None => (Excerpt::lost(), None),
        };
        let evidence = Evidence {
            allocation: state,
            admitted: attempt.allocation.is_some(),
            report: report.as_ref(),
            stopped: attempt.stopped.as_ref(),
            timeout: job.work.timeout(),
            now: super::now(),
        };
        let mut ending = Ending { log: excerpt, ..judge::judge(&evidence) };
        // A task may start and end between two looks; that it worked is told all the same.
        if let (Stage::Granted, Some(at)) = (job.stage, ending.started_at) {
            self.record(job, Event::Started { at }).await?;
        }
        if ending.started_at.is_some() && !job.work.artifacts.is_empty() {
            // Large files take a while, and the rights end now. Where that fails, `withdraw` repeats it; the
            // files do not wait for it, because Nomad may collect the allocation at any time.
            if let Err(error) = self.grants.withdraw(allocation).await {
                tracing::debug!(allocation, %error, "the grant is withdrawn later");
            }
            let taken = self.artifacts.take(job.job_id, allocation, &job.work.artifacts).await?;
            ending.artifacts = taken.artifacts;
            if let Some(remark) = taken.remark {
                ending.message = format!("{}; {remark}", ending.message);
            }
        }
        self.health.clear(Subject::Nomad);
        self.record(job, Event::Concluded(ending)).await
    }

    /// The end of what the task printed. Nomad may have collected it already, or the node may be away.
    async fn excerpt(&self, allocation: &str, task: &str) -> Excerpt {
        for tried in 1..=LOG_TRIES {
            match self.nomad.log_tail(allocation, task, self.log_tail).await {
                Ok(Some(tail)) => return log::excerpt(&tail.bytes, tail.truncated),
                Ok(None) => break,
                Err(error) => tracing::warn!(allocation, %error, tried, "cannot read the log"),
            }
            tokio::time::sleep(Duration::from_millis(100) * tried).await;
        }
        Excerpt::lost()
    }

    async fn report(&self, allocation: &str) -> Option<Report> {
        match self.nomad.file(allocation, &format!("alloc/{}", report::PATH), report::SIZE_LIMIT).await {
            Ok(found) => found.map(|bytes| report::parse(&bytes)),
            Err(error) => {
                tracing::warn!(allocation, %error, "cannot read the wrapper's report");
                None
            }
        }
    }

    async fn withdraw(&self, job: &mut Job, seen: &Seen) -> Result<(), Error> {
        let admitted = job.attempt().and_then(|attempt| attempt.allocation.clone());
        let others = seen.allocations.keys().cloned();
        let allocations: BTreeSet<String> = admitted.into_iter().chain(others).collect();
        for allocation in allocations {
            self.grants.withdraw(&allocation).await?;
        }
        // Whatever else was created for this attempt lost at the gate: it must not stay.
        let unended =
            |allocation: &nomad::Allocation| judge::progress(allocation) != judge::Progress::Terminal;
        let losers: BTreeSet<&String> = seen
            .allocations
            .values()
            .filter(|allocation| unended(allocation))
            .map(|allocation| &allocation.job_id)
            .collect();
        for child in losers {
            self.nomad.deregister(child).await?;
        }
        self.record(job, Event::Withdrawn).await
    }

    async fn finish(&self, job: &mut Job) -> Result<(), Error> {
        let now = super::now();
        job.apply(Event::Ended, now)?;
        self.store.finish(job, &result_path(job, &self.actions), now).await?;
        let ending = job.ending.as_ref();
        let outcome = ending.map(|ending| format!("{}: {}", ending.cause.outcome(), ending.message));
        self.tell(&job.name(), "ended", outcome.unwrap_or_default());
        self.results_ready.notify_one();
        Ok(())
    }
}

/// What a job waits for that was approved, in words.
#[must_use]
pub fn awaited(after: &[ActionId], not_before: Option<Timestamp>) -> String {
    let names: Vec<&str> = after.iter().map(ActionId::as_str).collect();
    let after = (!names.is_empty()).then(|| format!("{} to succeed", names.join(", ")));
    let time = not_before.map(|at| format!("{at} to come"));
    let both: Vec<String> = time.into_iter().chain(after).collect();
    both.join(", and then for ")
}

/// Where a job's result file stands.
#[must_use]
pub fn result_path(job: &Job, actions: &str) -> String {
    match &job.origin {
        Origin::Action { path, .. } => {
            action::result_path(path).unwrap_or_else(|| format!("{path}.result.json"))
        }
        Origin::Hand { .. } => format!("{actions}/by-hand/{}.result.json", job.job_id),
    }
}

/// Every child of the present attempt that was heard of.
fn children(job: &Job, seen: &Seen) -> BTreeSet<String> {
    let own = job.attempt().and_then(|attempt| attempt.child.clone());
    own.into_iter().chain(seen.allocations.values().map(|allocation| allocation.job_id.clone())).collect()
}

fn request(job: &Job, dispatch_id: DispatchId) -> Result<Request, Refused> {
    let (action_id, revision) = match &job.origin {
        Origin::Action { id, revision, .. } => (Some(id.to_string()), Some(revision.clone())),
        Origin::Hand { .. } => (None, None),
    };
    let work = &job.work;
    let (Some(formula), Some(body)) = (work.formula.clone(), work.body.clone()) else {
        return Err(Refused::NoFormula);
    };
    let run = Run {
        job_id: job.job_id,
        dispatch_id,
        attempt: u32::try_from(job.attempts.len()).unwrap_or(u32::MAX).saturating_add(1),
        action_id,
        formula,
        context: work.context.clone(),
        revision,
        secrets: work.secrets.clone(),
        args: work.args.clone(),
        env: work.env.clone(),
        model: work.model.clone(),
        tools: work.tools.clone(),
        timeout: work.timeout.unwrap_or(DEFAULT_TIMEOUT),
        artifacts: work.artifacts.clone(),
        from_step: job.retry.as_ref().and_then(|retry| retry.from_step),
        body,
    };
    Request::new(&run).map_err(Refused::Request)
}

/// Why there is no request for a job.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Its record was rebuilt from Nomad's, which does not hold the formula.
    #[error("its formula is no longer on record, so it cannot be dispatched again")]
    NoFormula,
    /// It cannot be expressed as a dispatch.
    #[error(transparent)]
    Request(request::Error),
}

/// More about an event, in words.
fn detail(event: &Event) -> String {
    match event {
        Event::Awaits { what } => what.clone(),
        Event::Approved { by } => by.clone(),
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
