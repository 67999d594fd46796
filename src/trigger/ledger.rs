//! The words of the ledger: what arrived, and what became of it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Somebody called the trigger with its own token or signature.
    Webhook,
    /// Somebody fired it with a token of the API.
    Fired,
    /// Files changed in a watched tree.
    Watch,
    /// A time came.
    Schedule,
    /// Files changed on a branch.
    Git,
    /// An issue got a label.
    Forge,
}

/// An event that arrived, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its ULID.
    #[schemars(with = "String")]
    pub event_id: Ulid,
    /// The trigger that it was for.
    pub trigger: String,
    /// When it arrived.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Where it came from.
    pub origin: Origin,
    /// Who called: an address, with the name of the API's token where one was shown. Null for what nobody called.
    pub caller: Option<String>,
    /// Whether the cooldown was to be passed over.
    pub forced: bool,
    /// What came with it, as JSON.
    pub content: Option<String>,
    /// What became of it.
    pub fate: Fate,
    /// Why, where it did not run.
    pub reason: Option<String>,
    /// The event that it was merged into.
    #[schemars(with = "Option<String>")]
    pub merged_into: Option<Ulid>,
    /// The job that it started.
    pub job_id: Option<String>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It waits: for quiet, or for the end of a run and its cooldown.
    Pending,
    /// It started a job.
    Ran,
    /// An event that waited already stands for it too.
    Merged,
    /// Nothing ran, and why.
    Suppressed,
    /// The caller was refused.
    Refused,
    /// The job could not be made.
    Failed,
}

impl Fate {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ran => "ran",
            Self::Merged => "merged",
            Self::Suppressed => "suppressed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
