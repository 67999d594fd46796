//! The step that gathers evidence, and the look at an approval before it is made use of.

use jiff::SignedDuration;

use super::{
    super::{
        now,
        plan::{Judgement, Seen},
    },
    Error, Rooms,
    provenance::Unfounded,
};
use crate::{
    approval::{Decision, Requirement, digest, signed},
    lifecycle::{Event, Job, Origin},
};

impl Rooms {
    /// The decision about a new job as far as that takes no evidence, as the event that puts it on record.
    pub(in super::super) fn decided(&self, job: &Job) -> Event {
        let digest = self.digest(job);
        match self.approval.decide(job, digest.clone()) {
            Decision::Approved(approval) => Event::Approved(approval),
            Decision::Waiting { reason, .. } => Event::Unapproved { reason, digest },
        }
    }

    /// What takes the approval of a job away, where that is not what the present rules ask for or would run
    /// something else.
    pub(in super::super) fn withdrawn(&self, job: &Job) -> Option<Event> {
        let digest = self.digest(job);
        let reason = self.approval.withdraws(job, &digest)?;
        Some(Event::Unapproved { reason, digest })
    }

    /// Gathers what shows whether a job may run, and decides.
    pub(super) async fn approve(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
        let digest = self.digest(job);
        match self.judge(job, digest.clone()).await? {
            Decision::Approved(approval) => {
                seen.consulted = false;
                self.record(job, Event::Approved(approval)).await
            }
            Decision::Waiting { reason, again } => {
                let again = again.and_then(|again| SignedDuration::try_from(again).ok());
                seen.judgement = Judgement::Made(again.map(|again| now() + again));
                let known = job.waits_for.as_ref() == Some(&reason)
                    && job.unapproved_digest.as_ref() == Some(&digest);
                if known { Ok(()) } else { self.record(job, Event::Unapproved { reason, digest }).await }
            }
        }
    }

    /// Looks whether a job may still run as it was approved, just before it is launched. Where it may not, its
    /// approval is withdrawn and it waits to be decided anew; gives whether that is so.
    pub(super) async fn withdraw_approval(&self, job: &mut Job, seen: &mut Seen) -> Result<bool, Error> {
        let digest = self.digest(job);
        let event = match self.withdrawn(job) {
            Some(event) => event,
            // Nobody can be asked again for the word that was given for submitted work.
            None if !matches!(job.origin, Origin::Action { .. }) => return Ok(false),
            None => match self.judge(job, digest.clone()).await? {
                Decision::Approved(_) => return Ok(false),
                Decision::Waiting { reason, .. } => Event::Unapproved { reason, digest },
            },
        };
        seen.judgement = Judgement::Due;
        self.record(job, event).await?;
        Ok(true)
    }

    /// Decides with all the evidence that there is.
    async fn judge(&self, job: &mut Job, digest: String) -> Result<Decision, Error> {
        let need = self.approval.classify(&job.work);
        match (need.requirement, &job.origin) {
            _ if need.is_direct => Ok(self.approval.decide(job, digest)),
            (Requirement::Signed, Origin::Action { .. }) => match self.provenance(job).await {
                Ok(files) => Ok(signed::judge(need, &files, digest)),
                Err(Unfounded::Because(reason)) => {
                    Ok(Decision::waiting(format!("its approval, {}: {reason}", need.rule)))
                }
                Err(Unfounded::OpsRepo(error)) => Err(error.into()),
            },
            (Requirement::Review, Origin::Action { .. }) => self.reviewed(job, need, digest).await,
            _ => Ok(self.approval.decide(job, digest)),
        }
    }

    /// What an approval of the job is for.
    pub(in super::super) fn digest(&self, job: &Job) -> String {
        let parent = self.base_jobs.parent(&job.work.base_job, &job.work.shape).ok().flatten();
        // Without one nothing is launched.
        digest(job, parent.as_ref().map(|parent| parent.rendered.sha256.as_str()).unwrap_or_default())
    }
}
