//! Any sequence of events, and what the plan makes of it: an attempt has one allocation, a refused event changes
//! nothing, and what ended stays so unless it may be retried.

use std::{collections::BTreeMap, time::Duration};

use consign::{
    action,
    controller::{
        plan::{self, Context, Seen},
        stopwatch::Elapsed,
    },
    formula::Body,
    ids::{ActionId, DispatchId, Revision},
    lifecycle::{Cancellation, Ending, Event, Job, Origin, Stage, Work},
    nomad::Allocation,
    outcome::{
        Cause, Outcome,
        result_file::{Approval, ResultFile},
    },
};
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

pub(crate) fn check(input: &[u8]) {
    // An input that is too short for another event ends the sequence.
    let _ = sequence(&mut Unstructured::new(input)).is_ok();
}

fn sequence(input: &mut Unstructured<'_>) -> Result<()> {
    let mut now = Timestamp::UNIX_EPOCH;
    let mut job = job(input, now)?;
    while !input.is_empty() {
        // A clock may be set back.
        now = now
            .saturating_add(SignedDuration::from_secs(input.arbitrary::<i16>()?.into()))
            .expect("a short span");
        let event = event(input, &job, now)?;
        let before = job.clone();
        let taken = job.apply(event.clone(), now);
        assert!(taken.is_ok() || before == job, "{event:?} was refused and left a mark");
        holds(&before, &job, &event, taken.is_ok());
        let _ = plan::next(&job, &seen(input, &job, now)?, context(input, now)?);
    }
    Ok(())
}

fn holds(before: &Job, job: &Job, event: &Event, taken: bool) {
    if before.stage == Stage::Ended {
        let in_vain = before.outcome() != Some(Outcome::Succeeded) && !before.attempts.is_empty();
        assert_eq!(taken, matches!(event, Event::Retried(_)) && in_vain, "{event:?} after the end");
    }
    assert!(job.attempts.len() >= before.attempts.len(), "an attempt was forgotten");
    for (was, is) in before.attempts.iter().zip(&job.attempts) {
        assert_eq!(was.dispatch_id, is.dispatch_id);
        assert!(
            was.allocation.is_none() || was.allocation == is.allocation,
            "two allocations of one attempt"
        );
    }
    if job.attempts.len() > before.attempts.len() {
        assert_eq!((before.stage, job.attempts.len()), (Stage::Queued, before.attempts.len() + 1));
    }
    if let Some(result) = job.result() {
        assert_eq!(serde_json::from_str::<ResultFile>(&result.to_text()).expect("a result is read"), result);
        assert_eq!(result.outcome, result.cause.outcome());
    }
    assert!(job.stage != Stage::Ended || job.result().is_some(), "it ended without a result");
    let record = serde_json::to_string(job).expect("a record");
    assert_eq!(&serde_json::from_str::<Job>(&record).expect("a record is read"), job);
}

fn job(input: &mut Unstructured<'_>, now: Timestamp) -> Result<Job> {
    let origin = Origin::Action {
        id: ActionId::parse("fuzz").expect("an id"),
        path: "actions/fuzz.toml".to_owned(),
        blob: "b".repeat(40),
        revision: Revision::parse(&"a".repeat(40)).expect("a revision"),
    };
    let retry =
        action::Retry { attempts: input.int_in_range(1..=4)?, on: vec![cause(input)?, cause(input)?] };
    let work = Work {
        body: Some(Body::Program(input.arbitrary()?)),
        retry: input.arbitrary::<bool>()?.then_some(retry),
        not_before: input.arbitrary::<bool>()?.then_some(now + SignedDuration::from_secs(60)),
        ..Work::default()
    };
    Ok(Job::new(origin, work, now))
}

fn cause(input: &mut Unstructured<'_>) -> Result<Cause> {
    input.choose(&Cause::ALL).copied()
}

fn event(input: &mut Unstructured<'_>, job: &Job, now: Timestamp) -> Result<Event> {
    let cancellation = Cancellation { cause: cause(input)?, reason: input.arbitrary()? };
    Ok(match input.int_in_range(0..=16)? {
        0 => Event::Awaits { what: input.arbitrary()? },
        1 => Event::Approved(Approval {
            rule: input.arbitrary()?,
            by: input.arbitrary()?,
            digest: input.arbitrary()?,
            evidence: Vec::new(),
        }),
        2 => Event::Unapproved { reason: input.arbitrary()?, digest: input.arbitrary()? },
        3 => Event::Released,
        4 => Event::Intended {
            dispatch_id: DispatchId::new(),
            parent: "runner".to_owned(),
            meta: BTreeMap::new(),
            payload: input.arbitrary()?,
        },
        5 => Event::Dispatched { child: input.arbitrary()? },
        6 => Event::NotFound,
        7 => Event::Admitted { allocation: input.arbitrary()?, node: input.arbitrary()? },
        8 => Event::Granted,
        9 => Event::Started { at: now },
        10 => Event::Cancelled(cancellation),
        11 => Event::Stopped(cancellation),
        12 => Event::Concluded(Ending {
            exit_code: input.arbitrary()?,
            at_gate: input.arbitrary()?,
            started_at: input.arbitrary::<bool>()?.then_some(now),
            ..Ending::without_task(cause(input)?, input.arbitrary::<String>()?, now)
        }),
        13 => Event::Withdrawn,
        14 => Event::Again,
        15 => Event::Ended,
        _ => match job.retry(None, "fuzz", now) {
            Ok(retry) => Event::Retried(retry),
            Err(_) => Event::Withdrawn,
        },
    })
}

fn seen(input: &mut Unstructured<'_>, job: &Job, now: Timestamp) -> Result<Seen> {
    let mut seen = Seen {
        looked_at: input.arbitrary::<bool>()?.then_some(now),
        missed: input.arbitrary()?,
        gone: input.arbitrary()?,
        consulted: input.arbitrary()?,
        ..Seen::default()
    };
    for _ in 0..input.int_in_range(0..=2)? {
        let admitted = job.attempt().and_then(|attempt| attempt.allocation.clone());
        let status = ["pending", "running", "complete", "failed", "lost", "unknown", ""];
        seen.take(Allocation {
            id: if input.arbitrary()? { admitted.unwrap_or_default() } else { input.arbitrary()? },
            job_id: job.attempt().and_then(|attempt| attempt.child.clone()).unwrap_or_default(),
            client_status: (*input.choose(&status)?).to_owned(),
            modify_index: input.arbitrary()?,
            ..Allocation::default()
        });
    }
    Ok(seen)
}

fn context(input: &mut Unstructured<'_>, now: Timestamp) -> Result<Context> {
    let mut span = || Ok(Duration::from_secs(input.arbitrary()?));
    let elapsed = Elapsed { dispatched: Some(span()?), started: Some(span()?) };
    Ok(Context { now, elapsed, placement: span()?, expires: span()? })
}
