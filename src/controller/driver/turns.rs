//! Whose turn it is: the queue and what counts against its limits.

use std::sync::Arc;

use super::{super::plan::Step, Driver};
use crate::{
    action::{Concurrency, WhenFull},
    ids::JobId,
    lifecycle::{Cancellation, Event, Job, Stage},
    outcome::Cause,
    queue::{Candidate, Running, Scope},
};

impl Driver {
    /// Puts a job in the queue, or ends it where its group is full and it would not wait.
    pub(super) fn line_up(&mut self, job_id: JobId) {
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        // A paused queue lets what works go on: nobody takes its place before another could.
        let first = !self.queue.is_paused() && !std::mem::replace(&mut slot.lined_up, true);
        if let (true, Some(concurrency)) = (first, slot.job.work.concurrency.clone()) {
            self.make_room(job_id, &concurrency);
        }
        let Some(slot) = self.slots.get(&job_id) else { return };
        if slot.deferred.is_empty() {
            self.queue.push(candidate(&slot.job));
            self.stirred = true;
        }
    }

    /// What `when_full` says, decided once for each job: when it first gets in line.
    fn make_room(&mut self, job_id: JobId, concurrency: &Concurrency) {
        let limit = self.rules.queue.caps.of_group(concurrency);
        let of_group = self.load.holders(&Scope::Group(concurrency.group.clone()));
        let mut others: Vec<JobId> =
            of_group.into_iter().chain(self.queue.of_group(&concurrency.group)).collect();
        let Some(own) = self.slots.get(&job_id).map(|slot| (slot.job.submitted_at, job_id)) else { return };
        // Those before it count, whenever this is decided: also after a restart, or for a job that is retried.
        others.retain(|other| {
            self.slots.get(other).is_some_and(|slot| {
                slot.job.cancelled.is_none() && (slot.job.asked_at(), slot.job.job_id) < own
            })
        });
        if limit == 0 || others.len() < limit {
            return;
        }
        let name = |id: &JobId| self.slots.get(id).map(|slot| slot.job.name()).unwrap_or_default();
        match concurrency.when_full {
            WhenFull::Queue => {}
            WhenFull::Skip => {
                let holders: Vec<String> = others.iter().map(name).collect();
                let reason = format!(
                    "the concurrency group {} is full ({limit}: {}), and when_full = \"skip\"",
                    concurrency.group,
                    holders.join(", ")
                );
                self.notify(job_id, Cause::Skipped, reason);
            }
            WhenFull::CancelOlder => {
                let newer = name(&job_id);
                let surplus = others.len() + 1 - limit;
                for older in others.into_iter().take(surplus) {
                    let reason = format!(
                        "{newer} takes its place in the concurrency group {} (when_full = \"cancel_older\")",
                        concurrency.group
                    );
                    self.notify(older, Cause::Superseded, reason);
                }
            }
        }
    }

    /// Leaves a cancellation for a job; it is taken up at once where no step is under way.
    fn notify(&mut self, job_id: JobId, cause: Cause, reason: String) {
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        slot.deferred.push(Event::Cancelled(Cancellation { cause, reason }));
        if !slot.busy {
            self.unsettled.push(job_id);
        }
    }

    /// Brings what counts against the limits in line with a job's record.
    pub(super) fn weigh(&mut self, job_id: JobId) {
        let Some(slot) = self.slots.get(&job_id) else { return };
        let stage = slot.job.stage;
        let launching = stage == Stage::Intended || stage == Stage::Queued && slot.busy;
        let running =
            launching || (stage > Stage::Intended && stage < Stage::Ended && !slot.job.attempts.is_empty());
        if running {
            let running = running_of(&slot.job, launching);
            self.load.insert(job_id, running, self.rules.queue.models.loaded);
        } else {
            self.load.remove(job_id);
        }
        self.stirred = true;
    }

    /// Launches what the limits leave room for.
    pub(super) fn launch(&mut self) {
        if !std::mem::take(&mut self.stirred) {
            return;
        }
        let now = super::super::now();
        while let Some(job_id) = self.queue.next(&self.load, &self.rules.queue, now) {
            let turn =
                self.slots.get(&job_id).is_some_and(|slot| !slot.busy && slot.job.stage == Stage::Queued);
            if turn {
                self.begin(job_id, Step::Intend);
            }
        }
        self.turn_at = self.queue.wake_at(&self.load, &self.rules.queue, now);
        self.stirred = false;
    }
}

fn candidate(job: &Job) -> Candidate {
    Candidate {
        job_id: job.job_id,
        submitted_at: job.asked_at(),
        priority: job.work.priority,
        formula: job.work.formula.as_ref().map(ToString::to_string),
        model: job.work.model.clone(),
        concurrency: job.work.concurrency.clone(),
        place: place(job),
    }
}

fn running_of(job: &Job, launching: bool) -> Running {
    let launched = job.attempts_since_asked().first().and_then(|attempt| attempt.dispatched_at);
    Running {
        name: job.name(),
        launching,
        since: launched.unwrap_or_else(super::super::now),
        formula: job.work.formula.as_ref().map(ToString::to_string),
        model: job.work.model.clone(),
        group: job.work.concurrency.as_ref().map(|concurrency| concurrency.group.clone()),
        place: (job.stage < Stage::Working).then(|| place(job)),
    }
}

fn place(job: &Job) -> Arc<str> {
    format!("{} {}", job.work.base_job, job.work.shape.canonical()).into()
}
