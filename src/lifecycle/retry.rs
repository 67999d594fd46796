//! Running an ended job again because an operator asks for it: whether that can be, and what it takes
//! from what ran before.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attempt, Job, Origin, Phase, Stage};
use crate::{
    formula::{Body, Step},
    outcome::{Outcome, result_file::StepResult},
};

/// An operator's wish that an ended job runs once more, and what it goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Who asked for it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The first step that runs, counted from 1; `None` runs all.
    pub from_step: Option<u32>,
    /// The results of the steps before that one, from when they ran.
    pub steps: Vec<StepResult>,
    /// How many attempts the job had before.
    pub attempts: usize,
}

/// Why a job is not run again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryRefused {
    /// It has not ended.
    #[error("it is {} and has not ended: cancel it first, or wait for its end", .0.as_str())]
    Live(Phase),
    /// It did what it should.
    #[error("it succeeded: for another run commit or submit a new action")]
    Succeeded,
    /// No attempt of it was ever dispatched.
    #[error("it was never launched: change its file, and it is looked at again, or submit it anew")]
    NeverLaunched,
    /// Consign never had its script.
    #[error("it was dispatched by hand: dispatch it again with `nomad job dispatch`")]
    ByHand,
    /// Its record does not hold the formula.
    #[error("its formula is no longer on record: commit or submit a new action")]
    NoFormula,
    /// A step was named, and its formula is one program.
    #[error("its formula has no steps to begin from")]
    NotSteps,
    /// No step has that name.
    #[error("its formula has no step {name:?}; it has {known}")]
    UnknownStep {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A step would be passed over that never got as far as to let the next one run.
    #[error("step {step:?} before it did not pass, so it cannot be left out")]
    NotPassed {
        /// Its name.
        step: String,
    },
}

impl RetryRefused {
    /// Whether the step that was asked for is at fault, and not where the job is.
    #[must_use]
    pub const fn is_about_the_step(&self) -> bool {
        matches!(self, Self::NotSteps | Self::UnknownStep { .. } | Self::NotPassed { .. })
    }
}

impl Job {
    /// Whether an operator may let it run again once it has ended: it was launched, did not succeed, and
    /// its formula is on record. Its approval is for that very content, so it still holds.
    pub fn may_run_again(&self) -> Result<&Body, RetryRefused> {
        if self.stage != Stage::Ended {
            return Err(RetryRefused::Live(self.phase()));
        }
        if self.outcome() == Some(Outcome::Succeeded) {
            return Err(RetryRefused::Succeeded);
        }
        if matches!(self.origin, Origin::Hand { .. }) {
            return Err(RetryRefused::ByHand);
        }
        if self.attempts.is_empty() {
            return Err(RetryRefused::NeverLaunched);
        }
        self.work.body.as_ref().ok_or(RetryRefused::NoFormula)
    }

    /// What it takes to run it again, from the step named or from the start.
    ///
    /// A step is left out only where it passed before: what was approved are all steps in their order.
    pub fn retry(&self, from_step: Option<&str>, by: &str, now: Timestamp) -> Result<Retry, RetryRefused> {
        let body = self.may_run_again()?;
        let mut retry = Retry {
            by: by.to_owned(),
            at: now,
            from_step: None,
            steps: Vec::new(),
            attempts: self.attempts.len(),
        };
        let Some(name) = from_step else { return Ok(retry) };
        let Body::Steps(steps) = body else { return Err(RetryRefused::NotSteps) };
        let Some(index) = steps.iter().position(|step| step.name == name) else {
            let known: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
            return Err(RetryRefused::UnknownStep { name: name.to_owned(), known: known.join(", ") });
        };
        let before = steps.get(..index).unwrap_or_default();
        retry.steps = passed(before, &self.steps())?;
        retry.from_step = Some(u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1));
        Ok(retry)
    }

    /// When it was last asked for: at its submission, or by its latest retry.
    #[must_use]
    pub fn asked_at(&self) -> Timestamp {
        self.retry.as_ref().map_or(self.submitted_at, |retry| retry.at)
    }

    /// Its attempts since then.
    #[must_use]
    pub fn attempts_since_asked(&self) -> &[Attempt] {
        let before = self.retry.as_ref().map_or(0, |retry| retry.attempts);
        self.attempts.get(before..).unwrap_or_default()
    }

    /// The results of its steps so far, those that a retry left out included.
    #[must_use]
    pub fn steps(&self) -> Vec<StepResult> {
        let kept = self.retry.iter().flat_map(|retry| &retry.steps);
        let new = self.ending.iter().flat_map(|ending| &ending.steps);
        kept.chain(new).cloned().collect()
    }

    /// How it ended; `None` before.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let ending = self.ending.as_ref().filter(|_| self.stage == Stage::Ended)?;
        Some(ending.cause.outcome())
    }
}

/// The results of `steps`, where each of them let the next one run.
fn passed(steps: &[Step], results: &[StepResult]) -> Result<Vec<StepResult>, RetryRefused> {
    let result = |(index, step): (usize, &Step)| {
        let result = results.get(index).filter(|result| result.name == step.name);
        let result = result.filter(|result| result.exit_code == 0 || step.continue_on_error);
        result.cloned().ok_or_else(|| RetryRefused::NotPassed { step: step.name.clone() })
    };
    steps.iter().enumerate().map(result).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        ids::{ActionId, DispatchId, Revision},
        lifecycle::{Cancellation, Ending, Event, Work},
        outcome::Cause,
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn step(name: &str, continue_on_error: bool) -> Step {
        Step { name: name.to_owned(), run: "true".to_owned(), timeout: None, retries: 0, continue_on_error }
    }

    fn result(name: &str, exit_code: i64) -> StepResult {
        StepResult { name: name.to_owned(), exit_code, seconds: 1.5 }
    }

    fn action() -> Origin {
        Origin::Action {
            id: ActionId::parse("a").unwrap(),
            path: "actions/a.toml".to_owned(),
            blob: "b".repeat(40),
            revision: Revision::parse(&"a".repeat(40)).unwrap(),
        }
    }

    fn intended() -> Event {
        Event::Intended {
            dispatch_id: DispatchId::new(),
            parent: "runner".to_owned(),
            meta: BTreeMap::new(),
            payload: vec![1],
        }
    }

    fn attempt(job: &mut Job, cause: Cause, steps: Vec<StepResult>) {
        for event in [
            intended(),
            Event::Dispatched { child: "runner/dispatch-1".to_owned() },
            Event::Admitted { allocation: "a".to_owned(), node: "n".to_owned() },
            Event::Granted,
            Event::Started { at: NOW },
            Event::Concluded(Ending { steps, ..Ending::without_task(cause, "ended", NOW) }),
            Event::Withdrawn,
            Event::Ended,
        ] {
            job.apply(event, NOW).unwrap();
        }
    }

    /// A job of three steps, the second of which may fail, that ended with these results.
    fn ended(cause: Cause, steps: Vec<StepResult>) -> Job {
        let body = Body::Steps(vec![step("one", false), step("two", true), step("three", false)]);
        let mut job = Job::new(action(), Work { body: Some(body), ..Work::default() }, NOW);
        attempt(&mut job, cause, steps);
        job
    }

    #[test]
    fn what_passed_is_left_out_and_its_results_stay() {
        let first = vec![result("one", 0), result("two", 7), result("three", 1)];
        let mut job = ended(Cause::ExitCode, first);
        let retry = job.retry(Some("three"), "ann", NOW).unwrap();
        assert_eq!(retry.from_step, Some(3));
        job.apply(Event::Retried(retry), NOW).unwrap();
        assert_eq!((job.stage, job.phase(), job.result()), (Stage::Queued, Phase::Queued, None));
        assert_eq!((job.asked_at(), job.attempts_since_asked().len()), (NOW, 0));
        attempt(&mut job, Cause::Success, vec![result("three", 0)]);
        let file = job.result().unwrap();
        let steps = vec![result("one", 0), result("two", 7), result("three", 0)];
        assert_eq!((file.outcome, file.attempts.len(), file.steps), (Outcome::Succeeded, 2, steps));
        assert_eq!(job.retry(None, "ann", NOW), Err(RetryRefused::Succeeded));
    }

    #[test]
    fn a_retry_of_a_retry_keeps_the_results_of_both() {
        let mut job = ended(Cause::ExitCode, vec![result("one", 0), result("two", 0), result("three", 1)]);
        let retry = job.retry(Some("two"), "ann", NOW).unwrap();
        job.apply(Event::Retried(retry), NOW).unwrap();
        attempt(&mut job, Cause::ExitCode, vec![result("two", 3), result("three", 1)]);
        let retry = job.retry(Some("three"), "ann", NOW).unwrap();
        assert_eq!(retry.steps, [result("one", 0), result("two", 3)]);
    }

    #[test]
    fn no_step_is_left_out_that_did_not_pass() {
        let refused = |steps: Vec<StepResult>, from: &str| {
            ended(Cause::ExitCode, steps).retry(Some(from), "ann", NOW).unwrap_err()
        };
        let failed = vec![result("one", 1)];
        assert_eq!(refused(failed.clone(), "two"), RetryRefused::NotPassed { step: "one".to_owned() });
        let passed_one = vec![result("one", 0)];
        assert_eq!(refused(passed_one, "three"), RetryRefused::NotPassed { step: "two".to_owned() });
        let misnamed = vec![result("two", 0)];
        assert_eq!(refused(misnamed, "two"), RetryRefused::NotPassed { step: "one".to_owned() });
        assert!(
            matches!(refused(failed.clone(), "four"), RetryRefused::UnknownStep { known, .. } if known == "one, two, three")
        );
        let from_first = ended(Cause::ExitCode, failed).retry(Some("one"), "ann", NOW).unwrap();
        assert_eq!((from_first.from_step, from_first.steps.len()), (Some(1), 0));
    }

    #[test]
    fn only_an_ended_launched_and_unsuccessful_action_runs_again() {
        assert!(ended(Cause::Lost, vec![]).retry(None, "ann", NOW).is_ok());
        assert!(ended(Cause::Cancelled, vec![]).retry(None, "ann", NOW).is_ok());
        let live = Job::new(action(), Work::default(), NOW);
        assert_eq!(live.retry(None, "ann", NOW), Err(RetryRefused::Live(Phase::Queued)));
        let mut rejected = live;
        for event in [
            Event::Concluded(Ending::without_task(Cause::Invalid, "no", NOW)),
            Event::Withdrawn,
            Event::Ended,
        ] {
            rejected.apply(event, NOW).unwrap();
        }
        assert_eq!(rejected.retry(None, "ann", NOW), Err(RetryRefused::NeverLaunched));
        let mut program = ended(Cause::ExitCode, vec![]);
        program.work.body = Some(Body::Program("exit 1".to_owned()));
        assert_eq!(program.retry(Some("one"), "ann", NOW), Err(RetryRefused::NotSteps));
        program.work.body = None;
        assert_eq!(program.retry(None, "ann", NOW), Err(RetryRefused::NoFormula));
        program.origin = Origin::Hand { child: "c".to_owned(), note: None };
        assert_eq!(program.retry(None, "ann", NOW), Err(RetryRefused::ByHand));
    }

    #[test]
    fn endings_at_the_gate_are_counted_for_each_retry_anew() {
        let mut job = ended(Cause::ExitCode, vec![]);
        job.apply(Event::Retried(job.retry(None, "ann", NOW).unwrap()), NOW).unwrap();
        for tries in 1..=3 {
            for event in [
                intended(),
                Event::Dispatched { child: "c".to_owned() },
                Event::Concluded(Ending {
                    at_gate: true,
                    ..Ending::without_task(Cause::DispatchFailed, "never started", NOW)
                }),
                Event::Withdrawn,
            ] {
                job.apply(event, NOW).unwrap();
            }
            assert_eq!(job.runs_again(), tries < 3, "try {tries}");
            if tries < 3 {
                job.apply(Event::Again, NOW).unwrap();
            }
        }
    }

    /// A job that may run again after a loss or for want of room, after an attempt that was lost.
    fn lost() -> Job {
        let retry = crate::action::Retry { attempts: 3, on: vec![Cause::Lost, Cause::NoCapacity] };
        let body = Some(Body::Program("exit 1".to_owned()));
        let mut job = Job::new(action(), Work { body, retry: Some(retry), ..Work::default() }, NOW);
        for event in [
            intended(),
            Event::Dispatched { child: "c".to_owned() },
            Event::Concluded(Ending {
                log: crate::lifecycle::Excerpt {
                    text: "kept".to_owned(),
                    ..crate::lifecycle::Excerpt::lost()
                },
                ..Ending::without_task(Cause::Lost, "the node was lost", NOW)
            }),
            Event::Withdrawn,
        ] {
            job.apply(event, NOW).unwrap();
        }
        job
    }

    #[test]
    fn a_refusal_without_an_attempt_ends_the_retries() {
        let mut job = lost();
        assert!(job.runs_again());
        let later = Timestamp::from_second(9).unwrap();
        let refused = Ending::without_task(Cause::NoCapacity, "no node has the device", later);
        for event in [Event::Again, Event::Concluded(refused), Event::Withdrawn] {
            job.apply(event, later).unwrap();
        }
        assert!(!job.runs_again(), "it would go round for ever, since no attempt is counted");
    }

    #[test]
    fn a_cancellation_between_two_attempts_keeps_what_the_first_left() {
        let mut job = lost();
        let reason = Cancellation { cause: Cause::Cancelled, reason: "by ann".to_owned() };
        job.apply(Event::Cancelled(reason), NOW).unwrap();
        assert!(!job.runs_again());
        job.apply(Event::Ended, NOW).unwrap();
        let result = job.result().unwrap();
        assert_eq!(
            (result.cause, result.message.as_str(), result.logs.as_str()),
            (Cause::Cancelled, "by ann", "kept")
        );
    }

    #[test]
    fn a_retry_that_is_refused_before_its_dispatch_was_never_working() {
        let mut job = ended(Cause::ExitCode, vec![]);
        let later = Timestamp::from_second(9).unwrap();
        job.apply(Event::Retried(job.retry(None, "ann", NOW).unwrap()), NOW).unwrap();
        let ending = Ending::without_task(Cause::UnknownSecret, "no such secret", later);
        job.apply(Event::Concluded(ending), later).unwrap();
        assert_eq!(job.phase(), Phase::Queued);
        assert_eq!(job.attempt().unwrap().cause, Some(Cause::ExitCode));
    }
}
