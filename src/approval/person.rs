//! What a person says of submitted work that waits for an approval: that it may run, or that it may not.

use jiff::Timestamp;

use super::Rules;
use crate::{
    lifecycle::{Cancellation, Job, Origin, Phase, Stage},
    outcome::{
        Cause,
        result_file::{Approval, Evidence},
    },
};

/// Why somebody's word is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Whoever submitted work has no say in its approval.
    #[error(
        "{0} submitted it, and its approval takes somebody else: cancel it instead where it is not wanted"
    )]
    Own(String),
    /// It has an action file.
    #[error(
        "it came by git and is approved there, by a signed commit or a reviewed pull request: `consign cancel` ends it"
    )]
    Git,
    /// There is nothing to say.
    #[error("it waits for no approval: it is {}", .0.as_str())]
    NotAwaited(Phase),
    /// It shall end.
    #[error("it shall end: {0}")]
    Ending(String),
    /// What would run is not what was seen.
    #[error("what would run has the digest {0} and not the one given: look at it again")]
    Digest(String),
}

impl Rules {
    /// The approval of `job` by `by`; `None` where that very person approved it before. `digest` is that of what
    /// would run, `seen` that of what was looked at, where it was given.
    pub fn approve(
        &self,
        job: &Job,
        by: &str,
        seen: Option<&str>,
        digest: String,
        now: Timestamp,
    ) -> Result<Option<Approval>, Refused> {
        is_anothers(job, by)?;
        let given = |approval: &Approval| approval.person().is_some_and(|name| same(name, by));
        if job.approval.as_ref().is_some_and(given) {
            return Ok(None);
        }
        awaits(job)?;
        if seen.is_some_and(|seen| seen != digest) {
            return Err(Refused::Digest(digest));
        }
        let evidence = vec![Evidence::Person { name: by.to_owned(), at: now }];
        Ok(Some(Approval { rule: self.words(job), by: vec![by.to_owned()], digest, evidence }))
    }
}

/// The end that `by` gives submitted work that waits for an approval; `None` where somebody rejected it before.
pub fn reject(job: &Job, by: &str, reason: &str) -> Result<Option<Cancellation>, Refused> {
    is_anothers(job, by)?;
    let ended_by = job.ending.as_ref().map(|ending| ending.cause);
    let cause = job.cancelled.as_ref().map(|cancelled| cancelled.cause).or(ended_by);
    if cause == Some(Cause::NotApproved) {
        return Ok(None);
    }
    awaits(job)?;
    let reason = format!("it was rejected by {by}: {reason}");
    Ok(Some(Cancellation { cause: Cause::NotApproved, reason }))
}

/// Whether `by` could approve or reject the job now, with a token of scope approve.
#[must_use]
pub fn may_decide(job: &Job, by: &str) -> bool {
    is_anothers(job, by).is_ok() && awaits(job).is_ok()
}

/// Whether a job was submitted by somebody other than `by`, who may then have a say in it.
fn is_anothers(job: &Job, by: &str) -> Result<(), Refused> {
    match &job.origin {
        Origin::Submitted { by: submitter, .. } if same(submitter, by) => {
            Err(Refused::Own(submitter.clone()))
        }
        Origin::Submitted { .. } => Ok(()),
        Origin::Action { .. } => Err(Refused::Git),
        Origin::Hand { .. } => Err(Refused::NotAwaited(job.phase())),
    }
}

/// Whether two names of tokens are one person's, as far as names tell.
fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn awaits(job: &Job) -> Result<(), Refused> {
    match &job.cancelled {
        Some(cancellation) if job.stage != Stage::Ended => Err(Refused::Ending(cancellation.reason.clone())),
        _ if job.stage == Stage::Waiting && job.approval.is_none() => Ok(()),
        _ => Err(Refused::NotAwaited(job.phase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        approval::{Decision, Requirement},
        formula::Body,
        ids::Revision,
        lifecycle::{Ending, Event, Work},
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn rules(high: Requirement) -> Rules {
        let merged = Requirement::Merged;
        Rules { low: merged, medium: merged, high, submitted: merged, rules: vec![] }
    }

    /// What ann submitted, as it waits.
    fn waiting() -> Job {
        let revision = Revision::parse(&"a".repeat(40)).unwrap();
        let origin = Origin::Submitted { by: "ann".to_owned(), revision };
        let mut job = Job::new(origin, Work::default(), NOW);
        let Decision::Waiting { reason, .. } = rules(Requirement::Review).decide(&job, digest()) else {
            panic!("approved by accident")
        };
        for words in ["somebody other than ann", "consign approve", &job.job_id.to_string()] {
            assert!(reason.contains(words), "{reason}");
        }
        job.apply(Event::Unapproved { reason, digest: digest() }, NOW).unwrap();
        job
    }

    fn digest() -> String {
        "d".to_owned()
    }

    fn approve(job: &Job, by: &str, seen: Option<&str>) -> Result<Option<Approval>, Refused> {
        rules(Requirement::Review).approve(job, by, seen, digest(), NOW)
    }

    #[test]
    fn somebody_else_approves_and_nobody_their_own() {
        let mut job = waiting();
        for own in ["ann", "Ann"] {
            assert_eq!(approve(&job, own, None), Err(Refused::Own("ann".to_owned())));
            assert_eq!(reject(&job, own, "no"), Err(Refused::Own("ann".to_owned())));
        }
        assert_eq!(["ann", "ANN", "ben"].map(|by| may_decide(&job, by)), [false, false, true]);
        assert_eq!(approve(&job, "ben", Some("e")), Err(Refused::Digest(digest())));
        let approval = approve(&job, "ben", Some("d")).unwrap().unwrap();
        let said = approval.to_string();
        assert!(said.starts_with("ben: ") && said.contains("than ann") && said.contains("review"), "{said}");
        job.apply(Event::Approved(approval), NOW).unwrap();
        assert_eq!(job.phase(), Phase::Queued);
        assert!(!may_decide(&job, "cat"));
        assert_eq!(approve(&job, "ben", None), Ok(None), "said twice");
        assert_eq!(approve(&job, "cat", None), Err(Refused::NotAwaited(Phase::Queued)));
        assert_eq!(reject(&job, "cat", "no"), Err(Refused::NotAwaited(Phase::Queued)));
    }

    #[test]
    fn an_approval_holds_for_that_digest_under_that_rule_alone() {
        let mut job = waiting();
        job.apply(Event::Approved(approve(&job, "ben", None).unwrap().unwrap()), NOW).unwrap();
        job.work.body = Some(Body::Program("exit 0".to_owned()));
        let holds = |rules: Rules, digest: &str| rules.withdraws(&job, digest).is_none();
        assert!(holds(rules(Requirement::Review), "d"));
        assert!(!holds(rules(Requirement::Review), "e"));
        assert!(!holds(rules(Requirement::Signed), "d"));
        let submissions = Rules { submitted: Requirement::Review, ..rules(Requirement::Merged) };
        assert!(!holds(submissions.clone(), "d") && submissions.words(&job).contains("[approval] api"));
    }

    #[test]
    fn what_is_rejected_ends_with_the_reason_and_stays_rejected() {
        let mut job = waiting();
        let cancellation = reject(&job, "ben", "not on a Friday").unwrap().unwrap();
        assert_eq!(cancellation.cause, Cause::NotApproved);
        assert_eq!(cancellation.reason, "it was rejected by ben: not on a Friday");
        job.apply(Event::Cancelled(cancellation.clone()), NOW).unwrap();
        assert!(matches!(approve(&job, "ben", None), Err(Refused::Ending(_))));
        assert_eq!(reject(&job, "cat", "never"), Ok(None));
        let ending = Ending::without_task(cancellation.cause, cancellation.reason, NOW);
        for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
            job.apply(event, NOW).unwrap();
        }
        assert_eq!(reject(&job, "cat", "never"), Ok(None));
        assert_eq!(approve(&job, "ben", None), Err(Refused::NotAwaited(Phase::Failed)));
    }

    #[test]
    fn what_came_by_git_or_by_hand_is_not_approved_so() {
        let mut job = waiting();
        job.origin = Origin::Hand { child: "c".to_owned(), note: None };
        assert_eq!(approve(&job, "ben", None), Err(Refused::NotAwaited(Phase::Waiting)));
        job.origin = Origin::Action {
            id: crate::ids::ActionId::parse("a").unwrap(),
            path: "actions/a.toml".to_owned(),
            blob: String::new(),
            revision: Revision::parse(&"a".repeat(40)).unwrap(),
        };
        assert_eq!(approve(&job, "ben", None), Err(Refused::Git));
        assert_eq!(reject(&job, "ben", "no"), Err(Refused::Git));
    }
}
