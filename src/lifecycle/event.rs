//! The events that lead from stage to stage, and the one function that applies them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Stage,
    job::{Attempt, Cancellation, Ending, Job},
    retry::Retry,
};
use crate::{ids::DispatchId, outcome::result_file::Approval};

/// Something that happened to a job and is put on record.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It must wait, and for what.
    Awaits {
        /// In words.
        what: String,
    },
    /// It may run.
    Approved(Approval),
    /// It may not run, or not any more, until it is approved.
    Unapproved {
        /// Why, and what it takes, in words.
        reason: String,
        /// The digest of what an approval would be for.
        digest: String,
    },
    /// What an approved job waited for has come.
    Released,
    /// An attempt is about to be dispatched.
    Intended {
        /// The attempt's id.
        dispatch_id: DispatchId,
        /// The Nomad job that is dispatched.
        parent: String,
        /// What is sent.
        meta: BTreeMap<String, String>,
        /// What is sent.
        payload: Vec<u8>,
    },
    /// Nomad made a child.
    Dispatched {
        /// Its id.
        child: String,
    },
    /// Nomad has no child of this attempt after all.
    NotFound,
    /// One allocation was chosen.
    Admitted {
        /// Its id.
        allocation: String,
        /// Its node's name.
        node: String,
    },
    /// The grants are in place and the gate is open.
    Granted,
    /// The task started.
    Started {
        /// When.
        at: Timestamp,
    },
    /// It shall end.
    Cancelled(Cancellation),
    /// The agent told Nomad to stop the child.
    Stopped(Cancellation),
    /// How the attempt ended is known.
    Concluded(Ending),
    /// No allocation of the attempt can read anything any more.
    Withdrawn,
    /// The attempt ended at the gate and another follows.
    Again,
    /// The result is on record.
    Ended,
    /// Somebody wants it to run again.
    Retried(Retry),
}

/// An event that cannot happen in the stage that the job is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job in stage {stage:?} cannot take the event {event}")]
pub struct IllegalEvent {
    /// The stage.
    pub stage: Stage,
    /// The event's name.
    pub event: &'static str,
}

impl Event {
    /// Its name in the journal.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Awaits { .. } => "waiting",
            Self::Approved(_) => "approved",
            Self::Unapproved { .. } => "unapproved",
            Self::Released => "released",
            Self::Intended { .. } => "intended",
            Self::Dispatched { .. } => "dispatched",
            Self::NotFound => "not found",
            Self::Admitted { .. } => "admitted",
            Self::Granted => "granted",
            Self::Started { .. } => "working",
            Self::Cancelled(_) => "cancelled",
            Self::Stopped(_) => "stopped",
            Self::Concluded(_) => "concluded",
            Self::Withdrawn => "grant withdrawn",
            Self::Again => "again",
            Self::Ended => "ended",
            Self::Retried(_) => "retried",
        }
    }
}

impl Job {
    /// Takes an event: changes the record, or says that it cannot happen now and changes nothing.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<(), IllegalEvent> {
        let illegal = IllegalEvent { stage: self.stage, event: event.name() };
        match (self.stage, event) {
            (Stage::Waiting | Stage::Queued, Event::Awaits { what }) => {
                self.waits_for = Some(what);
                self.stage = Stage::Waiting;
            }
            (stage @ (Stage::Waiting | Stage::Queued), Event::Approved(approval)) => {
                self.approved_by = Some(approval.to_string());
                self.approval = Some(approval);
                self.unapproved_digest = None;
                self.unapproved_since = None;
                self.waits_for = self.work.awaited(now);
                self.stage = if self.waits_for.is_some() { Stage::Waiting } else { Stage::Queued };
                // A job that is approved anew keeps its place.
                if stage == Stage::Waiting {
                    self.queued_at = Some(now);
                }
            }
            (Stage::Waiting | Stage::Queued, Event::Unapproved { reason, digest }) => {
                self.approved_by = None;
                self.approval = None;
                self.unapproved_digest = Some(digest);
                self.unapproved_since.get_or_insert(now);
                self.waits_for = Some(reason);
                self.stage = Stage::Waiting;
            }
            (Stage::Waiting, Event::Released) if self.approved_by.is_some() => {
                self.waits_for = None;
                self.queued_at = Some(now);
                self.stage = Stage::Queued;
            }
            (Stage::Queued, Event::Intended { dispatch_id, parent, meta, payload }) => {
                self.attempts.push(Attempt::intended(dispatch_id, parent, meta, payload));
                self.ending = None;
                self.stage = Stage::Intended;
            }
            (Stage::Ended, Event::Retried(retry)) if self.may_run_again().is_ok() => {
                self.retry = Some(retry);
                self.cancelled = None;
                self.ending = None;
                self.queued_at = Some(now);
                self.stage = Stage::Queued;
            }
            (Stage::Concluded | Stage::Withdrawn, Event::Cancelled(cancellation)) if self.runs_again() => {
                // What the attempt left stays in the result.
                if let Some(ending) = &mut self.ending {
                    ending.cause = cancellation.cause;
                    ending.message.clone_from(&cancellation.reason);
                }
                self.cancelled = Some(cancellation);
            }
            (Stage::Ended, _) | (Stage::Concluded | Stage::Withdrawn, Event::Cancelled(_)) => {
                return Err(illegal);
            }
            (_, Event::Cancelled(cancellation)) => {
                self.cancelled.get_or_insert(cancellation);
            }
            (Stage::Withdrawn, Event::Again) => {
                self.queued_at = Some(now);
                self.stage = Stage::Queued;
            }
            (Stage::Withdrawn, Event::Ended) => {
                self.stage = Stage::Ended;
                if self.may_run_again().is_err() {
                    self.work.body = None;
                }
                for attempt in &mut self.attempts {
                    attempt.meta = BTreeMap::new();
                    attempt.payload = Vec::new();
                }
            }
            (Stage::Concluded, Event::Withdrawn) => self.stage = Stage::Withdrawn,
            (Stage::Waiting | Stage::Queued, Event::Concluded(ending)) => {
                self.ending = Some(ending);
                self.stage = Stage::Concluded;
            }
            (_, event) => return self.apply_to_attempt(event, now).ok_or(illegal),
        }
        Ok(())
    }

    /// The events of a launched attempt; `None` where it cannot happen now.
    fn apply_to_attempt(&mut self, event: Event, now: Timestamp) -> Option<()> {
        let attempt = self.attempts.last_mut()?;
        self.stage = match (self.stage, event) {
            (Stage::Intended | Stage::Dispatched, Event::Dispatched { child }) => {
                attempt.child = Some(child);
                attempt.dispatched_at.get_or_insert(now);
                Stage::Dispatched
            }
            (Stage::Dispatched, Event::NotFound) => {
                attempt.child = None;
                Stage::Intended
            }
            (Stage::Dispatched, Event::Admitted { allocation, node }) => {
                attempt.allocation = Some(allocation);
                attempt.node = Some(node);
                Stage::Admitted
            }
            (Stage::Admitted, Event::Granted) => Stage::Granted,
            (Stage::Granted, Event::Started { at }) => {
                attempt.started_at = Some(at);
                Stage::Working
            }
            (stage, Event::Stopped(reason)) if stage.launched() => {
                attempt.stopped.get_or_insert(reason);
                stage
            }
            (stage, Event::Concluded(ending)) if stage.launched() => {
                attempt.started_at = attempt.started_at.or(ending.started_at);
                attempt.finished_at = Some(ending.finished_at);
                attempt.exit_code = ending.exit_code;
                attempt.cause = Some(ending.cause);
                self.ending = Some(ending);
                Stage::Concluded
            }
            _ => return None,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        formula::Body,
        ids::{ActionId, Revision},
        lifecycle::{Origin, Work},
        outcome::{Cause, Outcome},
    };

    fn events() -> Vec<Event> {
        let now = Timestamp::UNIX_EPOCH;
        let cancellation = Cancellation { cause: Cause::Cancelled, reason: "deleted".to_owned() };
        vec![
            Event::Awaits { what: "review".to_owned() },
            Event::Approved(approval()),
            Event::Intended {
                dispatch_id: DispatchId::new(),
                parent: "runner".to_owned(),
                meta: BTreeMap::new(),
                payload: vec![1],
            },
            Event::Dispatched { child: "runner/dispatch-1".to_owned() },
            Event::NotFound,
            Event::Admitted { allocation: "a".to_owned(), node: "n".to_owned() },
            Event::Granted,
            Event::Started { at: now },
            Event::Cancelled(cancellation.clone()),
            Event::Stopped(cancellation),
            Event::Concluded(Ending::without_task(Cause::Lost, "gone", now)),
            Event::Withdrawn,
            Event::Again,
            Event::Ended,
            Event::Released,
            Event::Concluded(Ending::without_task(Cause::Success, "done", now)),
            Event::Retried(Retry {
                by: "ann".to_owned(),
                at: now,
                from_step: None,
                steps: vec![],
                attempts: 0,
            }),
            Event::Unapproved { reason: "the rules changed".to_owned(), digest: "d".to_owned() },
        ]
    }

    fn approval() -> Approval {
        Approval { rule: "merged".to_owned(), by: vec![], digest: "d".to_owned(), evidence: vec![] }
    }

    fn job() -> Job {
        let origin = Origin::Action {
            id: ActionId::parse("a").unwrap(),
            path: "actions/a.toml".to_owned(),
            blob: "b".repeat(40),
            revision: Revision::parse(&"a".repeat(40)).unwrap(),
        };
        let body = Some(Body::Program("exit 1".to_owned()));
        Job::new(origin, Work { body, ..Work::default() }, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_plain_path_ends_with_a_result() {
        let mut job = job();
        for name in [2, 3, 5, 6, 7, 10, 11, 13] {
            job.apply(events()[name].clone(), Timestamp::UNIX_EPOCH).unwrap();
        }
        assert_eq!(job.stage, Stage::Ended);
        assert!(job.result().is_some());
    }

    #[test]
    fn what_is_approved_anew_waits_for_what_it_waited_for() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let mut job = Job { work: Work { not_before: Some(late), ..Work::default() }, ..job() };
        let [approved, released, unapproved] = [1, 14, 17].map(|index| events()[index].clone());
        job.apply(approved.clone(), early).unwrap();
        assert_eq!((job.stage, job.approved_by.as_deref()), (Stage::Waiting, Some("merged")));
        job.apply(released.clone(), late).unwrap();
        job.apply(unapproved, late).unwrap();
        assert_eq!((job.stage, &job.approval, &job.approved_by), (Stage::Waiting, &None, &None));
        assert!(job.apply(released, late).is_err(), "it is not approved");
        job.apply(approved, late).unwrap();
        assert_eq!((job.stage, job.approval), (Stage::Queued, Some(approval())));
    }

    #[test]
    fn a_job_cancelled_between_two_attempts_has_no_further_one() {
        let mut job = job();
        let at_gate = Ending {
            at_gate: true,
            ..Ending::without_task(Cause::DispatchFailed, "never started", Timestamp::UNIX_EPOCH)
        };
        let [intended, dispatched, cancelled] = [2, 3, 8].map(|index| events()[index].clone());
        for event in [intended, dispatched, Event::Concluded(at_gate), cancelled.clone()] {
            job.apply(event, Timestamp::UNIX_EPOCH).unwrap();
        }
        assert!(!job.runs_again());
        assert_eq!(job.ending.as_ref().map(|ending| ending.cause), Some(Cause::Cancelled));
        assert!(job.apply(cancelled, Timestamp::UNIX_EPOCH).is_err(), "it is ending already");
        for event in [Event::Withdrawn, Event::Ended] {
            job.apply(event, Timestamp::UNIX_EPOCH).unwrap();
        }
        assert_eq!(job.outcome(), Some(Outcome::Cancelled));
    }

    proptest! {
        /// Whatever happens in whatever order: a refused event changes nothing, an ended job stays so unless
        /// it was launched in vain and is retried, an attempt has one allocation, each new attempt has an id
        /// of its own and follows a turn in the queue, and no attempt is forgotten.
        #[test]
        fn no_order_of_events_breaks_the_record(order in proptest::collection::vec(0_usize..18, 0..60)) {
            let mut job = job();
            for index in order {
                let before = job.clone();
                let mut event = events()[index].clone();
                if let Event::Retried(retry) = &mut event {
                    retry.attempts = job.attempts.len();
                }
                let retried = matches!(event, Event::Retried(_));
                let taken = job.apply(event, Timestamp::UNIX_EPOCH);
                if taken.is_err() {
                    prop_assert_eq!(&before, &job);
                }
                if before.stage == Stage::Ended {
                    let in_vain = before.outcome() != Some(Outcome::Succeeded) && !before.attempts.is_empty();
                    prop_assert_eq!(taken.is_ok(), retried && in_vain);
                }
                prop_assert!(job.attempts.len() >= before.attempts.len());
                if job.attempts.len() > before.attempts.len() {
                    prop_assert_eq!(before.stage, Stage::Queued);
                    let id = job.attempts.last().unwrap().dispatch_id;
                    prop_assert!(before.attempts.iter().all(|attempt| attempt.dispatch_id != id));
                }
                if let (Some(was), Some(is)) = (before.attempt(), job.attempt())
                    && was.dispatch_id == is.dispatch_id && was.allocation.is_some() {
                    prop_assert_eq!(&was.allocation, &is.allocation);
                }
                if job.stage == Stage::Ended {
                    prop_assert!(job.result().is_some());
                }
            }
        }
    }
}
