//! What to do next about one job: a pure function of its record, what was seen in Nomad, and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::stopwatch::Elapsed;
use crate::{
    duration::Span,
    lifecycle::{Attempt, Cancellation, Job, Stage},
    nomad::Allocation,
    outcome::Cause,
    track::judge::{self, Progress},
};

/// How much longer than its timeout a task may run before the agent stops it. The wrapper in the base
/// job ends it first, and needs up to 5 s to do so.
const TIMEOUT_GRACE: Duration = Duration::from_secs(30);
/// How much longer each further attempt waits, where the one before may have run.
const RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// How long after a dispatch the child is looked for, where no allocation was heard of.
const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(1);
/// How often a launched job is looked at where nothing is heard of it.
const NEXT_LOOK: SignedDuration = SignedDuration::from_secs(15);

/// One step: at most one effect, and the record of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Gather what shows whether it may run, and decide.
    Approve,
    /// See whether the actions that it waits for have ended, and how.
    Consult,
    /// Check the secrets, compose the request and put the attempt on record.
    Intend,
    /// Send the request that is on record.
    Dispatch,
    /// Look at Nomad's truth about the child.
    Look,
    /// The child does not exist after all: send the request again.
    Resend,
    /// Choose an allocation.
    Admit {
        /// Its id.
        allocation: String,
        /// Its node's name.
        node: String,
    },
    /// Put the grants in place and open the launch gate.
    Grant,
    /// Put the grants in place once more: Vault forgot them.
    GrantAgain,
    /// Put on record that the task started.
    Begin {
        /// When.
        at: Timestamp,
    },
    /// Tell Nomad to stop a child of the job that lost at the gate: another one's allocation is admitted.
    Shed {
        /// The child.
        child: String,
    },
    /// Tell Nomad to stop the child.
    Stop(Cancellation),
    /// Take log and report of an allocation that has ended, and judge it.
    Conclude {
        /// The allocation.
        allocation: String,
    },
    /// End without an allocation to judge.
    GiveUp(Cancellation),
    /// Take every right from the attempt's allocations.
    Withdraw,
    /// Begin another attempt.
    Again,
    /// Put the result on record.
    Finish,
}

/// What comes next for a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This step.
    Do(Step),
    /// Its turn in the queue.
    Turn,
    /// Something to be heard of it, or this time.
    Wait(Option<Timestamp>),
}

/// How it stands with the decision about a job that is not approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Judgement {
    /// Evidence has to be gathered.
    #[default]
    Due,
    /// It was decided by all that is known; where evidence changes unseen, it is gathered again at this time.
    Made(Option<Timestamp>),
}

/// What Vault knows of what an allocation was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    /// All of it, for all that is known.
    #[default]
    Standing,
    /// Nothing: it was restored from a snapshot.
    Forgotten,
}

/// What was seen of a job's attempt in Nomad. It is not kept over a restart: the first scan makes it anew.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its allocations, by id, as they were last heard of.
    pub allocations: BTreeMap<String, Allocation>,
    /// When Nomad's truth was last looked at.
    pub looked_at: Option<Timestamp>,
    /// Whether a scan did not find what is on record, so that it must be looked at.
    pub missed: bool,
    /// Whether a look found neither child nor allocation.
    pub gone: bool,
    /// Whether Vault still has what its allocation was granted.
    pub rights: Rights,
    /// Nomad's reasons why nothing was placed, at the last look.
    pub placement: String,
    /// Whether it was decided about with what evidence there is.
    pub judgement: Judgement,
    /// Whether the actions that it waits for were looked at since the last of them ended.
    pub consulted: bool,
    /// The children that lost at the gate and were stopped already.
    pub shed: BTreeSet<String>,
}

impl Seen {
    /// Takes an allocation in, unless something newer was heard of it. What was known already is no sign that it is
    /// still there.
    pub fn take(&mut self, allocation: Allocation) {
        let known = self.allocations.get(&allocation.id).map(|known| known.modify_index);
        if known.is_none_or(|known| allocation.modify_index >= known) {
            self.gone &= known == Some(allocation.modify_index);
            self.allocations.insert(allocation.id.clone(), allocation);
        }
    }
}

/// What the plan depends on besides the job.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The present time.
    pub now: Timestamp,
    /// How long its last attempt has lasted, which the clock does not tell once it was set.
    pub elapsed: Elapsed,
    /// How long a job may wait for a node.
    pub placement: Duration,
    /// How long a job may wait for its approval; zero is for ever.
    pub expires: Duration,
}

/// What comes next for `job`.
#[must_use]
pub fn next(job: &Job, seen: &Seen, context: Context) -> Next {
    match job.stage {
        Stage::Waiting | Stage::Queued => match &job.cancelled {
            Some(cancellation) => Next::Do(Step::GiveUp(cancellation.clone())),
            None if job.stage == Stage::Queued => Next::Turn,
            None => waiting(job, seen, context),
        },
        Stage::Intended => Next::Do(Step::Dispatch),
        Stage::Dispatched | Stage::Admitted | Stage::Granted | Stage::Working => match job.attempt() {
            Some(attempt) => launched(job, attempt, seen, context),
            None => Next::Wait(None),
        },
        Stage::Concluded => Next::Do(Step::Withdraw),
        Stage::Withdrawn if job.runs_again() => match again_at(job, context.now) {
            Some(at) if at > context.now => Next::Wait(Some(at)),
            _ => Next::Do(Step::Again),
        },
        Stage::Withdrawn => Next::Do(Step::Finish),
        Stage::Ended => Next::Wait(None),
    }
}

/// What comes next for a job that waits: first for its approval, then for what its action names.
fn waiting(job: &Job, seen: &Seen, context: Context) -> Next {
    if job.approved_by.is_none() {
        return unapproved(job, seen, context);
    }
    match job.work.not_before {
        Some(at) if at > context.now => Next::Wait(Some(at)),
        _ if seen.consulted => Next::Wait(None),
        _ => Next::Do(Step::Consult),
    }
}

/// What comes next for a job that is not approved. It is judged once more before it ends for want of an approval:
/// that may have come while the agent was away.
fn unapproved(job: &Job, seen: &Seen, context: Context) -> Next {
    let again = match seen.judgement {
        Judgement::Made(again) if again.is_none_or(|at| at > context.now) => again,
        _ => return Next::Do(Step::Approve),
    };
    let expires_at = approval_expires_at(job, context.expires);
    if expires_at.is_some_and(|at| at <= context.now) {
        return Next::Do(Step::GiveUp(Cancellation {
            cause: Cause::ApprovalExpired,
            reason: format!(
                "nobody approved it within {}: it waited for {}",
                Span(context.expires),
                job.waits_for.as_deref().unwrap_or("its approval")
            ),
        }));
    }
    Next::Wait(again.into_iter().chain(expires_at).min())
}

/// When a job ends that is not approved by then, where it may not wait for ever.
pub(super) fn approval_expires_at(job: &Job, expires: Duration) -> Option<Timestamp> {
    let waits = job.stage == Stage::Waiting && job.approved_by.is_none() && job.cancelled.is_none();
    let expires = Some(expires).filter(|expires| waits && !expires.is_zero())?;
    let since = job.unapproved_since.unwrap_or(job.submitted_at);
    since.checked_add(SignedDuration::try_from(expires).ok()?).ok()
}

/// When another attempt may begin: at once where the last one ended at the gate, else after a pause that grows
/// with each attempt, so that a node in trouble has time to be noticed.
fn again_at(job: &Job, now: Timestamp) -> Option<Timestamp> {
    // An end that is still to come was told by another clock, or before this one was set back.
    let ending = job.ending.as_ref().filter(|ending| !ending.at_gate && ending.finished_at <= now)?;
    let made = i32::try_from(job.attempts_since_asked().len()).unwrap_or(i32::MAX);
    ending.finished_at.checked_add(RETRY_PAUSE.saturating_mul(made)).ok()
}

fn launched(job: &Job, attempt: &Attempt, seen: &Seen, context: Context) -> Next {
    let chosen = chosen(attempt, seen);
    if let Some(allocation) = chosen
        && judge::progress(allocation) == Progress::Terminal
    {
        return Next::Do(Step::Conclude { allocation: allocation.id.clone() });
    }
    if seen.gone {
        return Next::Do(gone(job, attempt));
    }
    if seen.missed {
        return Next::Do(Step::Look);
    }
    let look = || match seen.looked_at {
        Some(at) => at + NEXT_LOOK,
        None => attempt.dispatched_at.unwrap_or(context.now) + FIRST_LOOK,
    };
    if attempt.stopped.is_none()
        && let Some(reason) = must_stop(job, chosen, seen, context)
    {
        return Next::Do(Step::Stop(reason));
    }
    if attempt.stopped.is_none() {
        match (job.stage, chosen) {
            (Stage::Dispatched, Some(allocation)) => {
                return Next::Do(Step::Admit {
                    allocation: allocation.id.clone(),
                    node: allocation.node_name.clone(),
                });
            }
            (Stage::Admitted, _) => return Next::Do(Step::Grant),
            (Stage::Granted | Stage::Working, _) if seen.rights == Rights::Forgotten => {
                return Next::Do(Step::GrantAgain);
            }
            (Stage::Granted, Some(allocation)) => {
                if let Progress::Running(at) = judge::progress(allocation) {
                    return Next::Do(Step::Begin { at });
                }
            }
            _ => {}
        }
    }
    if let Some(child) = loser(attempt, seen) {
        return Next::Do(Step::Shed { child: child.to_owned() });
    }
    // A task that runs is heard of through the event stream and the scan; whatever has no allocation
    // to be heard of, or was stopped, is looked at.
    if chosen.is_some() && attempt.stopped.is_none() {
        let left = context.elapsed.started.map(|ran| stopped_after(job).saturating_sub(ran));
        return Next::Wait(left.and_then(|left| context.now.checked_add(left).ok()));
    }
    let at = look();
    // A time further ahead was made by a clock that has been set back since.
    if at <= context.now || at > context.now + NEXT_LOOK {
        Next::Do(Step::Look)
    } else {
        Next::Wait(Some(at))
    }
}

/// The allocation that counts: the admitted one, or before that the one to admit. A terminal one is
/// taken only where no other may still start.
fn chosen<'seen>(attempt: &Attempt, seen: &'seen Seen) -> Option<&'seen Allocation> {
    if let Some(id) = &attempt.allocation {
        return seen.allocations.get(id);
    }
    let own =
        || seen.allocations.values().filter(|allocation| Some(&allocation.job_id) == attempt.child.as_ref());
    own()
        .filter(|allocation| judge::progress(allocation) != Progress::Terminal)
        .min_by_key(|allocation| allocation.create_index)
        .or_else(|| own().max_by_key(|allocation| allocation.create_index))
}

/// A child whose allocation waits at the gate in vain, because one of another child is admitted. A second
/// allocation of the admitted one's own child waits too, but stopping it would stop both.
fn loser<'seen>(attempt: &Attempt, seen: &'seen Seen) -> Option<&'seen str> {
    let admitted = seen.allocations.get(attempt.allocation.as_ref()?)?;
    let waiting =
        seen.allocations.values().filter(|allocation| judge::progress(allocation) == Progress::Waiting);
    let mut children = waiting.map(|allocation| allocation.job_id.as_str());
    children.find(|child| *child != admitted.job_id && !seen.shed.contains(*child))
}

fn gone(job: &Job, attempt: &Attempt) -> Step {
    if let Some(stopped) = &attempt.stopped {
        return Step::GiveUp(stopped.clone());
    }
    if let Some(cancellation) = &job.cancelled {
        return Step::GiveUp(cancellation.clone());
    }
    if job.stage == Stage::Dispatched && !attempt.meta.is_empty() {
        return Step::Resend;
    }
    let child = attempt.child.as_deref().unwrap_or("the child");
    Step::GiveUp(Cancellation {
        cause: Cause::Vanished,
        reason: format!("Nomad no longer knows {child}, so how it ended is not known"),
    })
}

/// How long its task may run until the agent stops it.
fn stopped_after(job: &Job) -> Duration {
    job.work.timeout().saturating_add(TIMEOUT_GRACE)
}

fn must_stop(job: &Job, chosen: Option<&Allocation>, seen: &Seen, context: Context) -> Option<Cancellation> {
    if let Some(cancellation) = &job.cancelled {
        return Some(cancellation.clone());
    }
    if context.elapsed.started.is_some_and(|ran| ran >= stopped_after(job)) {
        let seconds = job.work.timeout().as_secs();
        return Some(Cancellation {
            cause: Cause::Timeout,
            reason: format!(
                "the task ran longer than its timeout of {seconds} s and was stopped by the agent"
            ),
        });
    }
    if chosen.is_none()
        && seen.looked_at.is_some()
        && context.elapsed.dispatched.is_some_and(|waited| waited >= context.placement)
    {
        let reasons = if seen.placement.is_empty() { "Nomad gives no reason" } else { &seen.placement };
        let seconds = context.placement.as_secs();
        return Some(Cancellation {
            cause: Cause::NoCapacity,
            reason: format!("no node took it within {seconds} s: {reasons}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::DispatchId,
        lifecycle::{Ending, Event, Origin, Work},
        nomad::{TaskState, client_status},
        outcome::result_file::Approval,
    };

    const CHILD: &str = "runner/dispatch-x";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    fn context(second: i64) -> Context {
        let since = u64::try_from(second).ok().map(Duration::from_secs);
        let elapsed = Elapsed { dispatched: since, started: since };
        Context { now: at(second), elapsed, placement: Duration::from_mins(15), expires: Duration::ZERO }
    }

    /// A job after the first `count` events of the plain path, all at second 0.
    fn job(count: usize) -> Job {
        let origin = Origin::Action {
            id: crate::ids::ActionId::parse("a").unwrap(),
            path: "actions/a.toml".to_owned(),
            blob: String::new(),
            revision: crate::ids::Revision::parse(&"a".repeat(40)).unwrap(),
        };
        let mut job = Job::new(origin, Work::default(), at(0));
        let events = [
            Event::Intended {
                dispatch_id: DispatchId::new(),
                parent: "runner".to_owned(),
                meta: BTreeMap::from([("secrets".to_owned(), String::new())]),
                payload: vec![],
            },
            Event::Dispatched { child: CHILD.to_owned() },
            Event::Admitted { allocation: "one".to_owned(), node: "n".to_owned() },
            Event::Granted,
            Event::Started { at: at(0) },
        ];
        for event in events.into_iter().take(count) {
            job.apply(event, at(0)).unwrap();
        }
        job
    }

    fn allocation(id: &str, status: &str, index: u64) -> Allocation {
        Allocation {
            id: id.to_owned(),
            job_id: CHILD.to_owned(),
            client_status: status.to_owned(),
            create_index: index,
            modify_index: index,
            ..Allocation::default()
        }
    }

    fn seen(allocations: Vec<Allocation>) -> Seen {
        let mut seen = Seen::default();
        for allocation in allocations {
            seen.take(allocation);
        }
        seen
    }

    fn cancelled(mut job: Job) -> Job {
        let cancellation = Cancellation { cause: Cause::Cancelled, reason: "deleted".to_owned() };
        job.apply(Event::Cancelled(cancellation), at(0)).unwrap();
        job
    }

    #[test]
    fn what_is_not_approved_is_judged_once_and_again_when_it_is_time() {
        let mut waiting = job(0);
        let reason = Event::Unapproved { reason: "a signature".to_owned(), digest: "d".to_owned() };
        waiting.apply(reason, at(0)).unwrap();
        let [judged, later] =
            [None, Some(at(30))].map(|again| Seen { judgement: Judgement::Made(again), ..Seen::default() });
        assert_eq!(next(&waiting, &Seen::default(), context(0)), Next::Do(Step::Approve));
        assert_eq!(next(&waiting, &judged, context(0)), Next::Wait(None));
        assert_eq!(next(&waiting, &later, context(29)), Next::Wait(Some(at(30))));
        assert_eq!(next(&waiting, &later, context(30)), Next::Do(Step::Approve));
        let give_up = next(&cancelled(waiting), &later, context(30));
        assert!(matches!(give_up, Next::Do(Step::GiveUp(_))), "{give_up:?}");
    }

    #[test]
    fn the_first_allocation_is_admitted_and_a_second_is_not() {
        let both = seen(vec![allocation("two", "pending", 9), allocation("one", "pending", 5)]);
        let Next::Do(Step::Admit { allocation: admitted, .. }) = next(&job(2), &both, context(0)) else {
            panic!()
        };
        assert_eq!(admitted, "one");
        let mut running = allocation("two", "running", 9);
        let state = TaskState { started_at: Some(at(1)), ..TaskState::default() };
        running.task_states.insert("runner".to_owned(), state);
        let only_second_runs = seen(vec![allocation("one", "pending", 5), running]);
        let unstarted = Context { elapsed: Elapsed::default(), ..context(0) };
        assert_eq!(next(&job(4), &only_second_runs, unstarted), Next::Wait(None));
    }

    #[test]
    fn another_child_is_stopped_once_when_an_allocation_is_admitted() {
        let mut running = allocation("one", "running", 5);
        let state = TaskState { started_at: Some(at(0)), ..TaskState::default() };
        running.task_states.insert("runner".to_owned(), state);
        let duplicate =
            Allocation { job_id: "runner/dispatch-y".to_owned(), ..allocation("two", "pending", 9) };
        let mut both = seen(vec![running, duplicate]);
        let shed = Step::Shed { child: "runner/dispatch-y".to_owned() };
        assert_eq!(next(&job(5), &both, context(0)), Next::Do(shed));
        both.shed.insert("runner/dispatch-y".to_owned());
        assert_eq!(next(&job(5), &both, context(0)), Next::Wait(Some(at(3630))));
        let unadmitted = next(&job(2), &both, context(0));
        assert!(matches!(unadmitted, Next::Do(Step::Admit { allocation, .. }) if allocation == "one"));
    }

    #[test]
    fn a_lost_first_allocation_leaves_its_replacement_to_be_admitted() {
        let both = seen(vec![allocation("one", client_status::LOST, 5), allocation("two", "pending", 9)]);
        let Next::Do(Step::Admit { allocation, .. }) = next(&job(2), &both, context(0)) else { panic!() };
        assert_eq!(allocation, "two");
        let Next::Do(Step::Conclude { allocation }) = next(&job(3), &both, context(0)) else { panic!() };
        assert_eq!(allocation, "one");
    }

    #[test]
    fn a_phantom_child_is_looked_for_and_sent_again_only_before_admission() {
        assert_eq!(next(&job(2), &Seen::default(), context(0)), Next::Wait(Some(at(1))));
        assert_eq!(next(&job(2), &Seen::default(), context(1)), Next::Do(Step::Look));
        let gone = Seen { gone: true, ..Seen::default() };
        assert_eq!(next(&job(2), &gone, context(2)), Next::Do(Step::Resend));
        let Next::Do(Step::GiveUp(reason)) = next(&job(4), &gone, context(2)) else { panic!() };
        assert_eq!(reason.cause, Cause::Vanished);
    }

    #[test]
    fn a_cancelled_job_is_stopped_once_and_waits_for_its_end() {
        let waiting = seen(vec![allocation("one", "pending", 5)]);
        let mut job = cancelled(job(4));
        let Next::Do(Step::Stop(reason)) = next(&job, &waiting, context(0)) else { panic!() };
        job.apply(Event::Stopped(reason), at(0)).unwrap();
        assert_eq!(next(&job, &waiting, context(0)), Next::Wait(Some(at(1))));
        let ended = seen(vec![allocation("one", client_status::COMPLETE, 6)]);
        assert!(matches!(next(&job, &ended, context(0)), Next::Do(Step::Conclude { .. })));
    }

    #[test]
    fn a_cancelled_job_that_was_not_launched_just_ends() {
        assert!(matches!(next(&cancelled(job(0)), &Seen::default(), context(0)), Next::Do(Step::GiveUp(_))));
        assert_eq!(next(&job(0), &Seen::default(), context(0)), Next::Turn);
    }

    /// A job that waits for its approval since second 10.
    fn unapproved_job() -> Job {
        let mut job = job(0);
        for (reason, second) in [("review", 10), ("another review", 30)] {
            let event = Event::Unapproved { reason: reason.to_owned(), digest: String::new() };
            job.apply(event, at(second)).unwrap();
        }
        job
    }

    #[test]
    fn what_nobody_approves_in_time_ends_and_a_changed_time_holds_for_it_too() {
        let job = unapproved_job();
        let context = |second| Context { expires: Duration::from_mins(1), ..context(second) };
        let made = |again| Seen { judgement: Judgement::Made(again), ..Seen::default() };
        assert_eq!(next(&job, &made(None), context(69)), Next::Wait(Some(at(70))));
        let Next::Do(Step::GiveUp(reason)) = next(&job, &made(None), context(70)) else { panic!() };
        assert_eq!(reason.cause, Cause::ApprovalExpired);
        assert!(
            reason.reason.contains("within 1m") && reason.reason.contains("another review"),
            "{reason:?}"
        );
        let shorter = Context { expires: Duration::from_secs(5), ..context(20) };
        assert!(matches!(next(&job, &made(None), shorter), Next::Do(Step::GiveUp(_))));
        let never = Context { expires: Duration::ZERO, ..context(9_999_999) };
        assert_eq!(next(&job, &made(None), never), Next::Wait(None));
        // It is looked for evidence once more first, and in between.
        assert_eq!(next(&job, &Seen::default(), context(70)), Next::Do(Step::Approve));
        assert_eq!(next(&job, &made(Some(at(70))), context(70)), Next::Do(Step::Approve));
        assert_eq!(next(&job, &made(Some(at(40))), context(30)), Next::Wait(Some(at(40))));
    }

    #[test]
    fn what_is_approved_does_not_expire() {
        let mut job = unapproved_job();
        let approval =
            Approval { rule: "review".to_owned(), by: vec![], digest: String::new(), evidence: vec![] };
        job.apply(Event::Approved(approval), at(40)).unwrap();
        assert_eq!(next(&job, &Seen::default(), context(99)), Next::Turn);
        assert_eq!(approval_expires_at(&job, Duration::from_mins(1)), None);
        // An approval that is withdrawn later may be given anew for as long again.
        let event = Event::Unapproved { reason: "the rules changed".to_owned(), digest: String::new() };
        job.apply(event, at(50)).unwrap();
        assert_eq!(approval_expires_at(&job, Duration::from_mins(1)), Some(at(110)));
    }

    #[test]
    fn no_capacity_needs_a_look_and_gives_nomads_reasons() {
        let looked =
            Seen { looked_at: Some(at(899)), placement: "memory exhausted".to_owned(), ..Seen::default() };
        assert!(matches!(next(&job(2), &looked, context(899)), Next::Wait(_)));
        let Next::Do(Step::Stop(reason)) = next(&job(2), &looked, context(900)) else { panic!() };
        assert_eq!(reason.cause, Cause::NoCapacity);
        assert!(reason.reason.contains("memory exhausted"));
    }

    #[test]
    fn the_agent_stops_what_outlives_its_own_deadline() {
        let mut running = allocation("one", "running", 5);
        running
            .task_states
            .insert("runner".to_owned(), TaskState { started_at: Some(at(0)), ..TaskState::default() });
        let running = seen(vec![running]);
        assert_eq!(next(&job(5), &running, context(3600)), Next::Wait(Some(at(3630))));
        let Next::Do(Step::Stop(reason)) = next(&job(5), &running, context(3630)) else { panic!() };
        assert_eq!(reason.cause, Cause::Timeout);
    }

    #[test]
    fn an_attempt_that_ended_at_the_gate_runs_again_three_times_in_all() {
        let mut job = job(0);
        for attempt in 1..=3 {
            for event in [
                Event::Intended {
                    dispatch_id: DispatchId::new(),
                    parent: "runner".to_owned(),
                    meta: BTreeMap::new(),
                    payload: vec![],
                },
                Event::Dispatched { child: CHILD.to_owned() },
                Event::Concluded(Ending {
                    at_gate: true,
                    ..Ending::without_task(Cause::DispatchFailed, "never started", at(0))
                }),
                Event::Withdrawn,
            ] {
                job.apply(event, at(0)).unwrap();
            }
            let expected = if attempt < 3 { Step::Again } else { Step::Finish };
            assert_eq!(next(&job, &Seen::default(), context(0)), Next::Do(expected));
            if attempt < 3 {
                job.apply(Event::Again, at(0)).unwrap();
            }
        }
    }

    #[test]
    fn only_news_of_an_allocation_say_that_it_is_still_there() {
        let mut seen = Seen::default();
        seen.take(allocation("one", client_status::RUNNING, 1));
        seen.gone = true;
        seen.take(Allocation { modify_index: 7, ..seen.allocations["one"].clone() });
        assert!(!seen.gone, "it changed");
        seen.gone = true;
        seen.take(seen.allocations["one"].clone());
        assert!(seen.gone, "a step that was under way knew as much");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_wait_for_it() {
        let mut launched = job(1);
        launched.apply(Event::Dispatched { child: CHILD.to_owned() }, at(1_000_000)).unwrap();
        assert_eq!(next(&launched, &Seen::default(), context(0)), Next::Do(Step::Look));
        let looked = Seen { looked_at: Some(at(1_000_000)), ..Seen::default() };
        assert_eq!(next(&launched, &looked, context(0)), Next::Do(Step::Look));

        let mut again = job(5);
        again.work.retry = Some(crate::action::Retry::default());
        for event in
            [Event::Concluded(Ending::without_task(Cause::Lost, "", at(1_000_000))), Event::Withdrawn]
        {
            again.apply(event, at(0)).unwrap();
        }
        assert_eq!(next(&again, &Seen::default(), context(0)), Next::Do(Step::Again));
    }

    #[test]
    fn a_grant_that_vault_forgot_is_given_again_while_the_task_lives() {
        let forgotten = Seen { rights: Rights::Forgotten, looked_at: Some(at(0)), ..Seen::default() };
        for (events, again) in [(3, false), (4, true), (5, true)] {
            let step = next(&job(events), &forgotten, context(1));
            assert_eq!(step == Next::Do(Step::GrantAgain), again, "after {events} events: {step:?}");
        }
        let mut stopped = job(5);
        let reason = Cancellation { cause: Cause::Cancelled, reason: "deleted".to_owned() };
        stopped.apply(Event::Stopped(reason), at(1)).unwrap();
        assert_ne!(next(&stopped, &forgotten, context(1)), Next::Do(Step::GrantAgain));
    }
}
