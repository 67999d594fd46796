//! What an allocation's state means for the attempt.

use jiff::{SignedDuration, Timestamp};

use crate::{
    dispatch::report::{
        Ended, REFUSED_EXIT_CODE, RESTARTED_EXIT_CODE, Report, TIMEOUT_EXIT_CODE, UNSTARTABLE_EXIT_CODE,
    },
    ids::FormulaName,
    lifecycle::{Cancellation, Ending, Excerpt},
    nomad::{Allocation, TaskState, client_status, desired_status},
    outcome::Cause,
};

/// What a shell makes of SIGTERM and SIGKILL.
const STOPPED_EXIT_CODES: [i64; 2] = [143, 137];

/// How far an allocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its task has not started.
    Waiting,
    /// Its task runs since then.
    Running(Timestamp),
    /// It will not change any more.
    Terminal,
}

/// How far an allocation is.
///
/// A node that is away (`unknown`) changes nothing: it may come back.
#[must_use]
pub fn progress(allocation: &Allocation) -> Progress {
    match allocation.client_status.as_str() {
        client_status::COMPLETE | client_status::FAILED | client_status::LOST => Progress::Terminal,
        _ => match task(allocation).and_then(TaskState::started) {
            Some(at) => Progress::Running(at),
            None => Progress::Waiting,
        },
    }
}

/// The state of the task that does the work: the one that started first, where there are several.
fn task(allocation: &Allocation) -> Option<&TaskState> {
    allocation.task_states.values().min_by_key(|state| state.started().unwrap_or(Timestamp::MAX))
}

/// The name of the task that does the work.
#[must_use]
pub fn task_name(allocation: &Allocation) -> Option<&str> {
    allocation
        .task_states
        .iter()
        .min_by_key(|(_, state)| state.started().unwrap_or(Timestamp::MAX))
        .map(|(name, _)| name.as_str())
}

/// Whether the task that does the work ever started.
#[must_use]
pub fn has_started(allocation: &Allocation) -> bool {
    task(allocation).and_then(TaskState::started).is_some()
}

/// All that a terminal allocation is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'evidence> {
    /// The allocation.
    pub allocation: &'evidence Allocation,
    /// Whether the launch gate was ever opened for it.
    pub admitted: bool,
    /// What the wrapper wrote down, empty where that was nothing; `None` where it could not be read.
    pub report: Option<&'evidence Report>,
    /// Why the agent stopped it, where it did.
    pub stopped: Option<&'evidence Cancellation>,
    /// The longest that the task might run.
    pub timeout: std::time::Duration,
    /// The present time, where Nomad gives none.
    pub now: Timestamp,
}

/// How a terminal allocation ended. Log and artifacts are the caller's to add.
#[must_use]
pub fn judge(evidence: &Evidence<'_>) -> Ending {
    let task = task(evidence.allocation);
    let started_at = task.and_then(TaskState::started);
    let (cause, message, at_gate) = match (task, started_at) {
        (Some(task), Some(started)) => {
            let (cause, message) = judge_started(evidence, task, started);
            (cause, message, false)
        }
        _ => judge_not_started(evidence, task),
    };
    Ending {
        cause,
        message,
        exit_code: started_at.and(task).and_then(own_exit_code).filter(|code| {
            // The code that the agent's own stop made is not the task's.
            evidence.stopped.is_none() || !STOPPED_EXIT_CODES.contains(code)
        }),
        started_at,
        finished_at: task.and_then(TaskState::finished).unwrap_or(evidence.now),
        at_gate,
        log: Excerpt::lost(),
        steps: evidence.report.map(|report| report.steps.clone()).unwrap_or_default(),
        artifacts: Vec::new(),
        cpu_seconds: evidence.report.and_then(|report| report.cpu_seconds),
        peak_memory: evidence.report.and_then(|report| report.peak_memory),
    }
}

/// The code that the task ended with by itself. One that was killed by a signal gave none.
fn own_exit_code(task: &TaskState) -> Option<i64> {
    let signal = task.last("Terminated")?.details.get("signal").map_or("0", String::as_str);
    let code = task.exit_code()?;
    (signal == "0" || signal.is_empty() || code != 0).then_some(code)
}

/// The latest thing that Nomad says about a task, in its own words.
fn last_words(allocation: &Allocation, task: Option<&TaskState>) -> String {
    let telling =
        ["Driver Failure", "Setup Failure", "Template", "Killing", "Terminated", "Failed Validation"];
    let event = task.and_then(|task| {
        let events = || task.events.iter().rev().filter(|event| !event.display_message.is_empty());
        events().find(|event| telling.contains(&event.kind.as_str())).or_else(|| events().next())
    });
    match event {
        Some(event) => event.display_message.clone(),
        None => [&allocation.client_description, &allocation.desired_description]
            .into_iter()
            .find(|text| !text.is_empty())
            .cloned()
            .unwrap_or_else(|| "Nomad gives no reason".to_owned()),
    }
}

fn judge_not_started(evidence: &Evidence<'_>, task: Option<&TaskState>) -> (Cause, String, bool) {
    let Evidence { allocation, admitted, stopped, .. } = *evidence;
    let words = last_words(allocation, task);
    if let Some(stopped) = stopped {
        return (stopped.cause, stopped.reason.clone(), false);
    }
    if allocation.client_status == client_status::LOST && admitted {
        let message = format!(
            "the node {} was lost after the launch gate was opened, so whether the task ran is not known: {words}",
            allocation.node_name
        );
        return (Cause::Lost, message, false);
    }
    if !allocation.preempted_by_allocation.is_empty() {
        return (Cause::Preempted, format!("Nomad made room for another job: {words}"), true);
    }
    let failed = |kind: &str| task.is_some_and(|task| task.last(kind).is_some());
    if failed("Driver Failure") || failed("Failed Validation") {
        return (Cause::Driver, format!("the task driver could not start the task: {words}"), false);
    }
    let cause = if words.contains("vault.read") || words.contains("vault.write") {
        Cause::SecretDenied
    } else {
        Cause::DispatchFailed
    };
    (cause, format!("the task never started: {words}"), true)
}

fn judge_started(evidence: &Evidence<'_>, task: &TaskState, started: Timestamp) -> (Cause, String) {
    let Evidence { allocation, report, stopped, timeout, .. } = *evidence;
    let words = last_words(allocation, Some(task));
    let exit_code = own_exit_code(task);
    let ended = report.and_then(|report| report.ended.as_ref());
    let killed = task.last("Killing").is_some();
    let finished = task.finished().unwrap_or(evidence.now);
    let ran = finished.duration_since(started);
    let limit = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);

    let restarts = task.events.iter().filter(|event| event.kind == "Started").count();
    let own = matches!(ended, Some(Ended::Exit(RESTARTED_EXIT_CODE)));
    // A client that was killed just after the start has forgotten it; then the report alone tells.
    let restarted = report.is_some() || task.restarts > 0 || restarts > 1;
    if exit_code == Some(RESTARTED_EXIT_CODE) && !own && restarted {
        let message = "the task was restarted in Nomad; its formula had started before and was not run again";
        return (Cause::Restarted, message.to_owned());
    }
    if allocation.client_status == client_status::LOST {
        return (
            Cause::Lost,
            format!("the node {} was lost while the task ran: {words}", allocation.node_name),
        );
    }
    if task.out_of_memory() || report.is_some_and(|report| report.out_of_memory) {
        return (
            Cause::Oom,
            format!("the kernel killed the task for using more memory than it had: {words}"),
        );
    }
    if !killed && exit_code == Some(TIMEOUT_EXIT_CODE) && ended == Some(&Ended::Timeout)
        || exit_code == Some(TIMEOUT_EXIT_CODE) && ran >= limit
    {
        return (Cause::Timeout, format!("the task ran longer than its timeout of {} s", timeout.as_secs()));
    }
    if killed && let Some(stopped) = stopped {
        return (stopped.cause, stopped.reason.clone());
    }
    if !allocation.preempted_by_allocation.is_empty() || allocation.desired_status == desired_status::EVICT {
        return (Cause::Preempted, format!("Nomad made room for another job: {words}"));
    }
    if killed || allocation.desired_status != desired_status::RUN && stopped.is_none() {
        let why = [&allocation.desired_description, &words].into_iter().find(|text| !text.is_empty());
        return match exit_code {
            Some(0) if !killed => (
                Cause::Lost,
                "Nomad stopped the allocation, so its status does not say whether the task did its work"
                    .to_owned(),
            ),
            _ => (
                Cause::Cancelled,
                format!("somebody stopped it in Nomad: {}", why.map_or("no reason given", String::as_str)),
            ),
        };
    }
    match (exit_code, ended) {
        (Some(0), _) if !task.failed => (Cause::Success, "the task ended with exit code 0".to_owned()),
        (Some(REFUSED_EXIT_CODE), Some(Ended::Refused(taken))) => (
            Cause::ExitCode,
            format!(
                "the base job runs the formulas {} alone, so it ended with exit code {REFUSED_EXIT_CODE}",
                taken.iter().map(FormulaName::as_str).collect::<Vec<_>>().join(", ")
            ),
        ),
        (Some(UNSTARTABLE_EXIT_CODE), Some(Ended::Unmasked)) => (
            Cause::ExitCode,
            format!(
                "it was not run, with exit code {UNSTARTABLE_EXIT_CODE}: where it runs there is no awk, dd, tr or mkfifo to \
                 mask its secrets in the log; add them to the image, or set `mask = false` in the action"
            ),
        ),
        (Some(TIMEOUT_EXIT_CODE), Some(Ended::StepTimeout(step))) => {
            (Cause::StepTimeout, format!("the step {step:?} ran longer than its timeout"))
        }
        (Some(code), _) => {
            let step = report.and_then(|report| {
                report.steps.iter().rev().find(|step| step.exit_code == code && code != 0)
            });
            let place = step.map(|step| format!(" in the step {:?}", step.name)).unwrap_or_default();
            (Cause::ExitCode, format!("the task ended with exit code {code}{place}"))
        }
        (None, _) => match task.last("Terminated") {
            Some(_) => (Cause::ExitCode, format!("the task was ended by a signal: {words}")),
            None => (Cause::Lost, format!("Nomad does not say how the task ended: {words}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::nomad::TaskEvent;

    /// How a task is judged that ended with the wrapper's code for a formula that had been started before.
    fn judged(restarts: u64, report: Option<&Report>) -> Cause {
        let event = TaskEvent {
            kind: "Terminated".to_owned(),
            details: BTreeMap::from([("exit_code".to_owned(), RESTARTED_EXIT_CODE.to_string())]),
            ..TaskEvent::default()
        };
        let state = TaskState {
            state: "dead".to_owned(),
            failed: true,
            started_at: Some(Timestamp::from_second(1).unwrap()),
            restarts,
            events: vec![event],
            ..TaskState::default()
        };
        let allocation = Allocation {
            client_status: client_status::FAILED.to_owned(),
            desired_status: desired_status::RUN.to_owned(),
            task_states: BTreeMap::from([("runner".to_owned(), state)]),
            ..Allocation::default()
        };
        let evidence = Evidence {
            allocation: &allocation,
            admitted: true,
            report,
            stopped: None,
            timeout: std::time::Duration::from_mins(1),
            now: Timestamp::from_second(2).unwrap(),
        };
        judge(&evidence).cause
    }

    #[test]
    fn a_restarted_task_is_told_from_a_formula_that_ends_with_the_same_code() {
        let silent = Report::default();
        let own = Report { ended: Some(Ended::Exit(RESTARTED_EXIT_CODE)), ..Report::default() };
        // A client that was killed just after the start has forgotten it.
        assert_eq!(judged(0, Some(&silent)), Cause::Restarted);
        assert_eq!(judged(1, None), Cause::Restarted);
        assert_eq!(judged(0, Some(&own)), Cause::ExitCode);
        assert_eq!(judged(0, None), Cause::ExitCode);
    }
}
