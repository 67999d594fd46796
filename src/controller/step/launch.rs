//! The steps up to Nomad's acceptance.

use super::{
    super::{health::Subject, now, plan::Seen},
    Error, Rooms,
};
use crate::{
    dispatch::{
        base_job::Declared,
        launch,
        request::{self, Request, Run},
    },
    fail_point,
    grant::{self, Grantable},
    ids::{ActionId, DispatchId, JobId},
    lifecycle::{Attempt, Cancellation, DEFAULT_TIMEOUT, Ending, Event, Job, Origin, Work, successes},
    nomad,
    outcome::{Cause, Outcome},
};

impl Rooms {
    /// Looks at the actions that the job waits for: it is queued when all have succeeded, and ends when one
    /// has not.
    pub(super) async fn consult(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
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
        let Some(what) = successes(&open) else {
            return self.record(job, Event::Released).await;
        };
        seen.consulted = true;
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
        // Work without an action goes by its job id.
        if let Ok(job_id) = id.as_str().parse::<JobId>()
            && let Some(job) = self.store.job(job_id).await?
        {
            return Ok(job.outcome().map(|outcome| outcome == Outcome::Succeeded));
        }
        Ok(self.store.past_action(id).await?.map(|past| past.succeeded))
    }

    pub(super) async fn intend(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
        if self.withdraw_approval(job, seen).await? {
            return Ok(());
        }
        // What cannot be granted is not dispatched: it would wait at the gate and end there.
        let unknown = self.grants.unknown_secrets(&wanted(&job.work)).await?;
        if let Some(unknown) = unknown.into_iter().next() {
            let reason = grant::Error::UnknownSecret(unknown).to_string();
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
            self.store.use_variant(&parent.id, now()).await?;
            match self.base_jobs.ensure_variant(&self.nomad, &parent).await {
                Ok(()) => {}
                Err(error @ launch::Error::Refused { .. }) => {
                    return self.refuse(job, Cause::Invalid, error.to_string()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let parent = parent.id.clone();
        let dispatch_id = DispatchId::new();
        match request(job, dispatch_id, self.base_jobs.declared(&job.work.base_job)) {
            Ok(Request { meta, payload }) => {
                self.record(job, Event::Intended { dispatch_id, parent, meta, payload }).await
            }
            Err(error) => self.refuse(job, Cause::Invalid, error.to_string()).await,
        }
    }

    pub(super) async fn dispatch(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
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
            None => match self.send(attempt, &token).await {
                Ok(child) => child,
                // Nomad answers 500 where the job is gone or stopped, as it does for trouble of its own.
                Err(error @ nomad::Error::Status { .. }) => {
                    let parent = attempt.parent.clone();
                    let stands = async || -> Result<bool, nomad::Error> {
                        Ok(self.nomad.job(&parent).await?.is_some_and(|job| !launch::is_stopped(&job)))
                    };
                    if self.restore(job).await? || stands().await? {
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

    async fn send(&self, attempt: &Attempt, token: &str) -> Result<String, nomad::Error> {
        fail_point::before("dispatch");
        let child = self.nomad.dispatch(&attempt.parent, token, &attempt.meta, &attempt.payload).await;
        fail_point::after("dispatch");
        child
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
        let reason =
            format!("{parent} was stopped or purged before it was dispatched, and is made otherwise now");
        let ending = Ending::without_task(Cause::DispatchFailed, reason, now());
        self.record(job, Event::Concluded(Ending { at_gate: true, ..ending })).await
    }

    /// The child that an attempt has already, after a crash between sending and recording.
    pub(super) async fn find(&self, parent: &str, token: &str) -> Result<Option<String>, nomad::Error> {
        let children = self.nomad.children(&format!("{parent}/dispatch-{token}-")).await?;
        Ok(children.into_iter().min_by_key(|child| child.submit_time).map(|child| child.id))
    }
}

/// Everything that an attempt is granted.
pub(super) fn wanted(work: &Work) -> Vec<Grantable> {
    let secrets = work.secrets.iter().cloned().map(Grantable::Secret);
    secrets.chain(work.bot.clone().map(Grantable::Bot)).collect()
}

fn request(job: &Job, dispatch_id: DispatchId, declared: Declared) -> Result<Request, Refused> {
    let (action_id, revision) = match &job.origin {
        Origin::Action { id, revision, .. } => (Some(id.to_string()), Some(revision.clone())),
        Origin::Submitted { revision, .. } => (None, Some(revision.clone())),
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
        bot: work.bot.clone(),
        args: work.args.clone(),
        env: work.env.clone(),
        model: work.model.clone(),
        tools: work.tools.clone(),
        timeout: work.timeout.unwrap_or(DEFAULT_TIMEOUT),
        artifacts: work.artifacts.clone(),
        from_step: job.retry.as_ref().and_then(|retry| retry.from_step),
        unmasked: work.unmasked,
        body,
        declared,
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
