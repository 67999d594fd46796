//! The noun of the program: what one action file asks for.
//!
//! `file` reads a TOML text into an [`Action`] or says everything that is wrong with it; the types
//! here are what a valid file means. Nothing in this room knows whether the formula or the secrets
//! exist: that is decided where they are known.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Span,
    ids::{ActionId, FormulaName, SecretName},
    outcome::Cause,
};

pub mod after;
pub mod environment;
pub mod fields;
pub mod file;
pub mod keys;
pub mod record;

/// The largest action or formula file that is read, in bytes.
pub const FILE_LIMIT: usize = 64 * 1024;

/// A valid action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The stem of its file.
    pub id: ActionId,
    /// How it runs.
    pub formula: FormulaName,
    /// Why it runs, in the words of whoever wrote it.
    pub context: String,
    /// The secrets that its run may read, without repetition.
    pub secrets: Vec<SecretName>,
    /// Arguments for the formula, by the name that the formula gives them.
    pub args: BTreeMap<String, String>,
    /// The base job; `None` is the formula's, or else `runner`.
    pub job: Option<String>,
    /// Aliases of host volumes.
    pub mounts: Vec<String>,
    /// The task driver; `None` is the formula's, or else the configured one.
    pub driver: Option<Driver>,
    /// The model that the run needs loaded.
    pub model: Option<String>,
    /// Tools that the run may use.
    pub tools: Vec<String>,
    /// The longest that the task may run, counted from its start.
    pub timeout: Option<Span>,
    /// How the action is meant to reach the branch.
    pub dispatch_mode: Option<DispatchMode>,
    /// How much it can break, as the file says; `None` where it says nothing.
    pub blast_radius: Option<BlastRadius>,
    /// What the task needs of a node.
    pub resources: Option<Resources>,
    /// Which nodes may run it.
    pub constraints: Vec<Constraint>,
    /// 0 to 100, the highest first.
    pub priority: u8,
    /// When another attempt is made.
    pub retry: Option<Retry>,
    /// The group whose limit it counts against.
    pub concurrency: Option<Concurrency>,
    /// Actions that must have succeeded before it starts.
    pub after: Vec<ActionId>,
    /// The time before which it does not start.
    pub not_before: Option<Timestamp>,
    /// Further environment variables of the task.
    pub env: BTreeMap<String, String>,
    /// Globs, relative to the task's working directory, of what to keep.
    pub artifacts: Vec<String>,
    /// URLs that are told of each change of phase.
    pub notify: Vec<String>,
    /// Whether values of granted secrets are masked in the log.
    pub mask: bool,
}

/// How the action is meant to reach the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DispatchMode {
    /// By a commit on the branch.
    Direct,
    /// By a pull request.
    Pr,
}

/// How much an action can break.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BlastRadius {
    /// Nothing that matters.
    Low,
    /// Something that can be put right.
    Medium,
    /// Production.
    High,
}

impl BlastRadius {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// The Nomad task driver that a formula runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// In a container.
    Docker,
    /// In a chroot of its own.
    Exec,
    /// As a plain process of the Nomad client.
    RawExec,
}

impl Driver {
    /// Nomad's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Exec => "exec",
            Self::RawExec => "raw_exec",
        }
    }
}

/// What the task needs of a node; `None` keeps the base job's value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU share in MHz.
    pub cpu: Option<u64>,
    /// Whole cores, instead of `cpu`.
    pub cores: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory in bytes that it may reach where there is room.
    pub memory_max: Option<u64>,
    /// Number of devices.
    pub gpus: Option<u64>,
    /// Nomad's name for the device.
    pub device: Option<String>,
}

/// A Nomad constraint, with Nomad's own words for its parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Constraint {
    /// What is looked at, such as `${attr.kernel.name}`.
    pub attribute: String,
    /// How it is compared.
    pub operator: String,
    /// What it is compared with.
    pub value: String,
}

/// When another attempt is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u8,
    /// The causes after which another attempt is made.
    pub on: Vec<Cause>,
}

impl Default for Retry {
    /// Three attempts, after what the infrastructure did and the formula did not.
    fn default() -> Self {
        Self { attempts: 3, on: vec![Cause::Lost, Cause::Driver, Cause::DispatchFailed] }
    }
}

/// The group whose limit an action counts against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The group's name.
    pub group: String,
    /// How many of the group work at a time.
    pub limit: u32,
    /// What happens to an action that finds the group full.
    pub when_full: WhenFull,
}

/// What happens to an action that finds its group full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits.
    #[default]
    Queue,
    /// It ends at once, cancelled.
    Skip,
    /// The oldest of the group is cancelled.
    CancelOlder,
}

/// Where an action's result file stands: beside the action, under the same stem.
///
/// `None` where the path does not end in `.toml`.
#[must_use]
pub fn result_path(action_path: &str) -> Option<String> {
    action_path.strip_suffix(".toml").map(|stem| format!("{stem}.result.json"))
}

/// Where the action file of a result stands; the reverse of [`result_path`].
#[must_use]
pub fn path_of_result(result_path: &str) -> Option<String> {
    result_path.strip_suffix(".result.json").map(|stem| format!("{stem}.toml"))
}

/// The stem that decides an action's id; `None` where `path` is not `….toml`.
#[must_use]
pub fn stem(path: &str) -> Option<String> {
    let name = PathBuf::from(path).file_name()?.to_str()?.to_owned();
    name.strip_suffix(".toml").map(ToOwned::to_owned)
}
