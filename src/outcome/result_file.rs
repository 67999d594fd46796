//! The result file: what `<id>.result.json` says, and how it is written.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, Outcome};

/// What became of one piece of work, committed beside its action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "consign result file")]
pub struct ResultFile {
    /// The action's id; the job id for work that had none.
    pub id: String,
    /// The ULID of this piece of work.
    pub job_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended so.
    pub cause: Cause,
    /// One plain sentence with the evidence.
    pub message: String,
    /// The task's own exit code; where it gave none, 124 timed out, 125 rejected, lost or not
    /// startable, 130 cancelled.
    pub exit_code: i64,
    /// When it ended, RFC 3339; the same as `finished_at`.
    #[schemars(with = "String")]
    pub timestamp: Timestamp,
    /// The end of what the task printed: valid UTF-8, cut at a line.
    pub logs: String,
    /// Whether `logs` is all of it.
    pub log_status: LogStatus,
    /// When consign first saw it.
    #[schemars(with = "String")]
    pub submitted_at: Timestamp,
    /// When Nomad accepted the last attempt.
    #[schemars(with = "Option<String>")]
    pub dispatched_at: Option<Timestamp>,
    /// When the last attempt's task started.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schemars(with = "String")]
    pub finished_at: Timestamp,
    /// The commit that action and formula were read at.
    pub revision: Option<String>,
    /// The rule, and where a rule asks for one the person, that approved it.
    pub approved_by: Option<String>,
    /// The approval with its evidence; null for what was dispatched by hand or never approved.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// The names of the secrets that it could read; `bot-<name>` for the token of the bot that it ran as.
    pub secrets: Vec<String>,
    /// Every attempt, the last one last.
    pub attempts: Vec<Attempt>,
    /// The formula's steps as they last ran, in order; those that a retry left out as they ran before.
    pub steps: Vec<StepResult>,
    /// What was kept of its files, in the order of their names. What was asked for and not kept is said
    /// in `message`.
    pub artifacts: Vec<Artifact>,
    /// What it used, where that is known.
    pub usage: Option<Usage>,
}

/// What let a job run, and for exactly what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// The approval rule, in words: what it asks for, and which tier and rule ask for it.
    pub rule: String,
    /// Who approved; empty where being on the branch was enough.
    pub by: Vec<String>,
    /// The SHA-256, in hexadecimal, over all that decides what runs: the approval is for that alone.
    pub digest: String,
    /// What shows that the rule was kept.
    pub evidence: Vec<Evidence>,
}

/// One piece of what shows that an approval rule was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// It was on the branch.
    Merged {
        /// The commit that it was read at.
        revision: String,
    },
    /// Somebody said so who has a token of scope approve and did not submit it.
    Person {
        /// The name of the token.
        name: String,
        /// When.
        #[schemars(with = "String")]
        at: Timestamp,
    },
    /// A commit that gave a file its content was signed by an allowed key.
    Signature {
        /// The file.
        path: String,
        /// The commit.
        commit: String,
        /// Whose key it is, as the allowed signers name it.
        signer: String,
        /// The key's fingerprint.
        key: String,
    },
    /// The pull request that brought it in was approved.
    Review {
        /// The pull request's page.
        url: String,
        /// Its head when it was merged: what was approved.
        head: String,
        /// Whose approvals count, as the forge names them.
        by: Vec<String>,
    },
}

impl Approval {
    /// Who said that it may run, where the approval is somebody's word.
    #[must_use]
    pub fn person(&self) -> Option<&str> {
        self.evidence.iter().find_map(|evidence| match evidence {
            Evidence::Person { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}

impl fmt::Display for Approval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.by.is_empty() {
            write!(formatter, "{}: ", self.by.join(", "))?;
        }
        formatter.write_str(&self.rule)
    }
}

/// Whether a log excerpt is all there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStatus {
    /// All that the task printed.
    Complete,
    /// A part of what the task printed: its end, or what Docker passed on of it.
    Truncated,
    /// Nomad no longer had it, or the task never ran.
    Lost,
}

/// One attempt to run the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// The attempt's ULID.
    pub dispatch_id: String,
    /// The id of the child that Nomad made.
    pub nomad_job_id: Option<String>,
    /// The allocation that the launch gate was opened for.
    pub allocation_id: Option<String>,
    /// The name of the node that it was placed on.
    pub node: Option<String>,
    /// The task's own exit code.
    pub exit_code: Option<i64>,
    /// Why the attempt ended.
    pub cause: Option<Cause>,
    /// When Nomad accepted it.
    #[schemars(with = "Option<String>")]
    pub dispatched_at: Option<Timestamp>,
    /// When its task started.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schemars(with = "Option<String>")]
    pub finished_at: Option<Timestamp>,
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepResult {
    /// The step's name.
    pub name: String,
    /// The step's exit code; 124 where its timeout ended it.
    pub exit_code: i64,
    /// How long it ran, all its tries together.
    pub seconds: f64,
}

/// One kept file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Its path, relative to the task's working directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Where it can be had: a path on the agent's HTTP address.
    pub url: Option<String>,
}

/// What the task used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The most memory that its container held, in bytes; null under other drivers than docker.
    pub peak_memory: Option<u64>,
    /// CPU time in seconds, of the formula and of what it waited for; null where the task was killed at once.
    pub cpu_seconds: Option<f64>,
}

impl ResultFile {
    /// The file's content: indented JSON with a newline at its end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
