//! Takes over what a look at the ops repo found, in one transaction.

use std::collections::HashMap;

use super::{
    super::plan::Seen,
    Driver,
    take_in::{self, Known, Taken},
};
use crate::{
    fail_point,
    ids::{ActionId, JobId, Revision},
    intake::{Finding, Findings, Verdict},
    lifecycle::{Event, Job, Origin, Stage},
    store::{self, Intake},
};

/// How much of a look was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenOver {
    /// All of it; the next look compares with its revision.
    Whole,
    /// All but what concerns jobs with a step under way: the step would hand back the record that it began
    /// with. The next look finds the same again.
    Partly,
}

/// What one look comes to.
#[derive(Default)]
struct Outcome {
    intake: Intake,
    /// The jobs of this look, by the key of their action id.
    jobs: HashMap<String, Job>,
    deleted: Vec<(JobId, Event)>,
    partly: bool,
}

impl Driver {
    pub(super) async fn take_over(&mut self, findings: Findings) -> Result<TakenOver, store::Error> {
        let now = super::super::now();
        let findings = self.with_bots(findings);
        let moves = take_in::moves(&findings.files);
        let mut outcome = Outcome::default();
        outcome.intake.past = findings.past;
        for (from, to, _) in &moves {
            self.moved(from, to, &mut outcome).await?;
        }
        for finding in &findings.files {
            match finding {
                Finding::Deleted { path } => {
                    let elsewhere = moves.iter().any(|(from, ..)| from == path);
                    if !elsewhere && !findings.rewritten {
                        self.deleted(path, &mut outcome).await?;
                    }
                }
                Finding::Written { path, blob, verdict } => {
                    self.written(path, blob, verdict, &findings.revision, &mut outcome).await?;
                }
            }
        }
        let Outcome { mut intake, deleted, partly, .. } = outcome;
        // Before the revision is on record: the same difference is read again where the agent dies here.
        for (job_id, event) in deleted {
            self.tell_slot(job_id, event).await;
        }
        intake.revision = (!partly).then(|| findings.revision.clone());
        fail_point::before("taken in");
        self.rooms.store.take_in(&intake, now).await?;
        fail_point::after("taken in");
        for (job, event, ended) in intake.jobs {
            self.taken(job, event, ended.is_some()).await;
        }
        for past in intake.past {
            self.told_of_end(&past.id);
        }
        Ok(if partly { TakenOver::Partly } else { TakenOver::Whole })
    }

    fn with_bots(&self, findings: Findings) -> Findings {
        let with_bot = |finding| match finding {
            Finding::Written { path, blob, verdict } => {
                let verdict = verdict.with_bot(|name| self.rooms.base_jobs.declared(name));
                Finding::Written { path, blob, verdict }
            }
            Finding::Deleted { path } => Finding::Deleted { path },
        };
        let files = findings.files.into_iter().map(with_bot).collect();
        Findings { files, ..findings }
    }

    /// Whether a step of the job is under way.
    fn is_busy(&self, job_id: JobId) -> bool {
        self.slots.get(&job_id).is_some_and(|slot| slot.busy)
    }

    /// A file moved: its job's result will stand where it now is.
    async fn moved(&mut self, from: &str, to: &str, outcome: &mut Outcome) -> Result<(), store::Error> {
        for mut job in self.rooms.store.jobs_at(from).await? {
            if self.is_busy(job.job_id) {
                outcome.partly = true;
                continue;
            }
            if let Some(slot) = self.slots.get_mut(&job.job_id) {
                slot.job.relocate(to);
                job = slot.job.clone();
            } else {
                job.relocate(to);
            }
            self.rooms.store.save(&job, "moved", super::super::now()).await?;
        }
        let Some(id) = crate::action::stem(to).and_then(|stem| ActionId::parse(&stem).ok()) else {
            return Ok(());
        };
        if let Some(past) = self.rooms.store.past_action(&id).await?
            && past.path == from
        {
            self.rooms.store.move_past_action(&id, to).await?;
        }
        for past in &mut outcome.intake.past {
            if past.path == from {
                to.clone_into(&mut past.path);
            }
        }
        Ok(())
    }

    async fn deleted(&self, path: &str, outcome: &mut Outcome) -> Result<(), store::Error> {
        for job in self.rooms.store.jobs_at(path).await? {
            let Some(slot) = self.slots.get(&job.job_id).filter(|slot| slot.job.cancelled.is_none()) else {
                continue;
            };
            // It is on record only after the step.
            outcome.partly |= slot.busy;
            if !slot.deferred.iter().any(|event| matches!(event, Event::Cancelled(_))) {
                outcome.deleted.push((job.job_id, take_in::deleted(path)));
            }
        }
        Ok(())
    }

    async fn written(
        &self,
        path: &str,
        blob: &str,
        verdict: &Verdict,
        revision: &Revision,
        outcome: &mut Outcome,
    ) -> Result<(), store::Error> {
        let known = self.known(path, verdict, outcome).await?;
        if known.job.as_ref().is_some_and(|job| self.is_busy(job.job_id)) {
            outcome.partly = true;
            return Ok(());
        }
        let now = super::super::now();
        let decide = |job: &Job| self.rooms.decided(job);
        match take_in::written(path, blob, verdict, known, &decide, revision, now) {
            Taken::Nothing { why } => tracing::debug!(path, why, "nothing to do"),
            Taken::Record(job, event) => {
                if let (Origin::Action { id, .. }, true) = (&job.origin, event != "duplicate") {
                    outcome.jobs.insert(id.key(), (*job).clone());
                }
                let ended = (job.stage == Stage::Ended).then(|| self.rooms.result_path(&job)).flatten();
                outcome.intake.jobs.push((*job, event, ended));
            }
        }
        Ok(())
    }

    /// What is known of the id that a file goes by.
    async fn known(&self, path: &str, verdict: &Verdict, outcome: &Outcome) -> Result<Known, store::Error> {
        let mut known = Known::default();
        let Some(id) = verdict.id() else { return Ok(known) };
        let store = &self.rooms.store;
        known.job = match outcome.jobs.get(&id.key()) {
            Some(job) => Some(job.clone()),
            None => store.job_of_action(id).await?,
        };
        if let Some(live) = known.job.as_ref().and_then(|job| self.slots.get(&job.job_id)) {
            known.job = Some(live.job.clone());
        }
        known.past = match outcome.intake.past.iter().find(|past| past.id.key() == id.key()) {
            Some(past) => Some(past.clone()),
            None => store.past_action(id).await?,
        };
        known.claim = store.jobs_at(path).await?.into_iter().find(|job| job.stage == Stage::Ended);
        Ok(known)
    }

    /// Puts a job that was just recorded in its slot.
    pub(super) async fn taken(&mut self, job: Job, event: &'static str, ended: bool) {
        let told = match (&job.ending, &job.waits_for, &job.approved_by) {
            (Some(ending), ..) => ("rejected", ending.message.clone()),
            (None, Some(what), _) => ("waiting", what.clone()),
            (None, None, by) => ("approved", by.clone().unwrap_or_default()),
        };
        self.rooms.tell(&job, event, source(&job.origin));
        self.rooms.tell(&job, told.0, told.1);
        let job_id = job.job_id;
        if ended {
            self.rooms.metrics.ended(&job, super::super::now());
            self.rooms.results_ready.notify_one();
        }
        match self.slots.get_mut(&job_id) {
            Some(slot) => {
                self.queue.remove(job_id);
                slot.job = job;
                slot.seen = Seen::default();
                slot.lined_up = false;
                self.settle(job_id).await;
            }
            None if ended => {
                if let Origin::Action { id, .. } = &job.origin {
                    self.told_of_end(id);
                }
            }
            None => {
                self.insert(job);
                self.consider(job_id);
            }
        }
    }
}

/// Where a job came from, and the commit that it was read at, in words.
fn source(origin: &Origin) -> String {
    match origin {
        Origin::Action { path, revision, .. } => format!("{path} at {revision}"),
        Origin::Submitted { by, revision } => format!("submitted by {by}, formula at {revision}"),
        Origin::Hand { .. } => String::new(),
    }
}
