//! The parts of Nomad's objects that are read here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// Reads null as the type's zero value.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Client statuses of an allocation, as Nomad names them.
pub mod client_status {
    /// Placed, not yet running.
    pub const PENDING: &str = "pending";
    /// At least one task runs.
    pub const RUNNING: &str = "running";
    /// Every task ended without failure.
    pub const COMPLETE: &str = "complete";
    /// A task failed.
    pub const FAILED: &str = "failed";
    /// The node is gone.
    pub const LOST: &str = "lost";
    /// The node is away and may come back.
    pub const UNKNOWN: &str = "unknown";
}

/// Desired statuses of an allocation, as Nomad names them.
pub mod desired_status {
    /// It should run.
    pub const RUN: &str = "run";
    /// It should stop.
    pub const STOP: &str = "stop";
    /// It was pushed off its node.
    pub const EVICT: &str = "evict";
}

/// One allocation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Allocation {
    /// Its id, a UUID.
    #[serde(rename = "ID", deserialize_with = "lenient")]
    pub id: String,
    /// The job that it belongs to.
    #[serde(rename = "JobID", deserialize_with = "lenient")]
    pub job_id: String,
    /// The name of its node.
    #[serde(deserialize_with = "lenient")]
    pub node_name: String,
    /// One of [`client_status`].
    #[serde(deserialize_with = "lenient")]
    pub client_status: String,
    /// Nomad's words about the client status.
    #[serde(deserialize_with = "lenient")]
    pub client_description: String,
    /// One of [`desired_status`].
    #[serde(deserialize_with = "lenient")]
    pub desired_status: String,
    /// Nomad's words about the desired status.
    #[serde(deserialize_with = "lenient")]
    pub desired_description: String,
    /// Its tasks, by name.
    #[serde(deserialize_with = "lenient")]
    pub task_states: BTreeMap<String, TaskState>,
    /// The raft index of its creation.
    #[serde(deserialize_with = "lenient")]
    pub create_index: u64,
    /// The raft index of its last change.
    #[serde(deserialize_with = "lenient")]
    pub modify_index: u64,
    /// The allocation that stopped this one to make room.
    #[serde(deserialize_with = "lenient")]
    pub preempted_by_allocation: String,
}

/// One task of an allocation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskState {
    /// `pending`, `running` or `dead`.
    #[serde(deserialize_with = "lenient")]
    pub state: String,
    /// Whether it failed.
    #[serde(deserialize_with = "lenient")]
    pub failed: bool,
    /// When it first started; null or year 1 where it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How often it was restarted.
    #[serde(deserialize_with = "lenient")]
    pub restarts: u64,
    /// The latest events, oldest first.
    #[serde(deserialize_with = "lenient")]
    pub events: Vec<TaskEvent>,
}

/// Something that happened to a task.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskEvent {
    /// Nomad's name for it, such as `Terminated`.
    #[serde(rename = "Type", deserialize_with = "lenient")]
    pub kind: String,
    /// Nomad's sentence about it.
    #[serde(deserialize_with = "lenient")]
    pub display_message: String,
    /// Nomad's details, by name.
    #[serde(deserialize_with = "lenient")]
    pub details: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    #[serde(deserialize_with = "lenient")]
    pub time: i64,
}

/// A time that is not Go's zero, which stands for none.
fn known(time: Option<Timestamp>) -> Option<Timestamp> {
    time.filter(|time| time.as_second() > 0).and_then(|time| time.round(jiff::Unit::Millisecond).ok())
}

impl TaskState {
    /// When it started, if it did, to the millisecond.
    #[must_use]
    pub fn started(&self) -> Option<Timestamp> {
        known(self.started_at)
    }

    /// When it ended, if it did, to the millisecond.
    #[must_use]
    pub fn finished(&self) -> Option<Timestamp> {
        known(self.finished_at)
    }

    /// The latest event of a type.
    #[must_use]
    pub fn last(&self, kind: &str) -> Option<&TaskEvent> {
        self.events.iter().rev().find(|event| event.kind == kind)
    }

    /// The exit code of the last run, from its `Terminated` event.
    #[must_use]
    pub fn exit_code(&self) -> Option<i64> {
        self.last("Terminated")?.details.get("exit_code")?.parse().ok()
    }

    /// Whether the kernel killed it for its memory.
    #[must_use]
    pub fn out_of_memory(&self) -> bool {
        self.last("Terminated")
            .is_some_and(|event| event.details.get("oom_killed").is_some_and(|value| value == "true"))
    }
}

/// A job that was dispatched from a parameterized one, as a list of jobs shows it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Child {
    /// Its id: `<parent>/dispatch-…`.
    #[serde(rename = "ID", deserialize_with = "lenient")]
    pub id: String,
    /// The parameterized job.
    #[serde(rename = "ParentID", deserialize_with = "lenient")]
    pub parent_id: String,
    /// `pending`, `running` or `dead`.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    /// Whether somebody stopped it.
    #[serde(deserialize_with = "lenient")]
    pub stop: bool,
    /// Its meta.
    #[serde(deserialize_with = "lenient")]
    pub meta: BTreeMap<String, String>,
    /// The payload, compressed, in base64; only where the whole job was read.
    #[serde(deserialize_with = "lenient")]
    pub payload: String,
    /// The token that it was dispatched with; only where the whole job was read.
    #[serde(deserialize_with = "lenient")]
    pub dispatch_idempotency_token: String,
    /// Nanoseconds since 1970.
    #[serde(deserialize_with = "lenient")]
    pub submit_time: i64,
}

/// One evaluation, as far as placement goes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Evaluation {
    /// Nomad's words about its status.
    #[serde(deserialize_with = "lenient")]
    pub status_description: String,
    /// Why task groups were not placed, by group.
    #[serde(rename = "FailedTGAllocs", deserialize_with = "lenient")]
    pub failed_task_groups: BTreeMap<String, PlacementFailure>,
    /// The raft index of its last change.
    #[serde(deserialize_with = "lenient")]
    pub modify_index: u64,
}

/// Why a task group was not placed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlacementFailure {
    /// Nodes that were looked at.
    #[serde(deserialize_with = "lenient")]
    pub nodes_evaluated: u64,
    /// Nodes that were ruled out by the reason.
    #[serde(deserialize_with = "lenient")]
    pub constraint_filtered: BTreeMap<String, u64>,
    /// Nodes that had too little of a dimension.
    #[serde(deserialize_with = "lenient")]
    pub dimension_exhausted: BTreeMap<String, u64>,
}

/// Nomad's reasons why nothing was placed, in words; empty where it gives none.
#[must_use]
pub fn placement_reasons(evaluations: &[Evaluation]) -> String {
    let Some(latest) = evaluations
        .iter()
        .filter(|evaluation| !evaluation.failed_task_groups.is_empty())
        .max_by_key(|evaluation| evaluation.modify_index)
    else {
        return String::new();
    };
    let mut reasons = Vec::new();
    for failure in latest.failed_task_groups.values() {
        if failure.nodes_evaluated == 0 {
            reasons.push("no node is eligible".to_owned());
        }
        let ruled_out =
            failure.constraint_filtered.iter().map(|(why, nodes)| format!("{why} ruled out {nodes} nodes"));
        let exhausted = failure
            .dimension_exhausted
            .iter()
            .map(|(what, nodes)| format!("{what} exhausted on {nodes} nodes"));
        reasons.extend(ruled_out.chain(exhausted));
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_gaps_are_read() {
        let allocation: Allocation = serde_json::from_str(
            r#"{"ID":"a","JobID":"runner/dispatch-1","ClientStatus":"pending","TaskStates":null,"NodeName":null}"#,
        )
        .unwrap();
        assert_eq!(allocation.client_status, client_status::PENDING);
        assert!(allocation.task_states.is_empty());
    }

    #[test]
    fn a_task_that_never_started_has_no_start() {
        let state: TaskState =
            serde_json::from_str(r#"{"State":"dead","StartedAt":"0001-01-01T00:00:00Z","Events":null}"#)
                .unwrap();
        assert_eq!(state.started(), None);
        assert_eq!(state.exit_code(), None);
    }

    #[test]
    fn placement_reasons_come_from_the_latest_failed_evaluation() {
        let evaluation = |index: u64, why: &str| Evaluation {
            modify_index: index,
            failed_task_groups: BTreeMap::from([(
                "runner".to_owned(),
                PlacementFailure {
                    nodes_evaluated: 1,
                    constraint_filtered: BTreeMap::from([(why.to_owned(), 1)]),
                    ..PlacementFailure::default()
                },
            )]),
            ..Evaluation::default()
        };
        assert_eq!(
            placement_reasons(&[evaluation(2, "missing drivers"), evaluation(1, "old")]),
            "missing drivers ruled out 1 nodes"
        );
        assert_eq!(placement_reasons(&[Evaluation::default()]), "");
    }
}
