//! The spine: what a job is, the stages that it goes through, and which event leads from one to the
//! next.
//!
//! ```text
//! waiting ─▶ queued ─▶ intended ─▶ dispatched ─▶ admitted ─▶ granted ─▶ working
//!               ▲          ▲ not found │             │          │          │
//!               │          └───────────┤             │          │          │ concluded
//!               │ again                ▼             ▼          ▼          ▼
//!               └────────────────────────────── concluded ─▶ withdrawn ─▶ ended
//! ```
//!
//! An operator may send an ended job that was launched and did not succeed back to queued ([`Retry`]):
//! each run is a new attempt, with an admission of its own.
//!
//! From outside only the six [`Phase`]s are seen. A stage is committed to the store before the next
//! effect begins, so a crash leaves at most one effect to be looked for.

mod event;
mod job;
mod retry;

pub use event::{Event, IllegalEvent};
pub use job::{
    Attempt, Cancellation, DEFAULT_TIMEOUT, Ending, Excerpt, Job, Origin, Receiver, Work, successes,
};
pub use retry::{Retry, RetryRefused};

use serde::{Deserialize, Serialize};

/// How often a job is dispatched at most, at first and for each retry: once, and again after attempts that
/// ended at the launch gate.
pub const ATTEMPTS: usize = 3;

/// Where a job is, as everybody outside sees it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Something is awaited: an approval, other actions, or a time.
    Waiting,
    /// It is its turn next, or others are before it.
    Queued,
    /// Nomad has it; its task has not started.
    Loading,
    /// Its task runs.
    Working,
    /// It succeeded.
    Done,
    /// It ended in any other way.
    Failed,
}

/// Where a job is, in steps as fine as recovery needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It awaits an approval, other actions, or a time.
    Waiting,
    /// It may be launched.
    Queued,
    /// An attempt is on record; whether Nomad has it is not known.
    Intended,
    /// Nomad has made a child.
    Dispatched,
    /// One allocation was chosen; the launch gate may be open for it.
    Admitted,
    /// The grants are in place and the launch gate is open.
    Granted,
    /// The task has started.
    Working,
    /// How the attempt ended is known, log and report are taken.
    Concluded,
    /// No allocation of the attempt can read anything any more.
    Withdrawn,
    /// The result is on record.
    Ended,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Queued, Self::Loading, Self::Working, Self::Done, Self::Failed];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Loading => "loading",
            Self::Working => "working",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 10] = [
        Self::Waiting,
        Self::Queued,
        Self::Intended,
        Self::Dispatched,
        Self::Admitted,
        Self::Granted,
        Self::Working,
        Self::Concluded,
        Self::Withdrawn,
        Self::Ended,
    ];

    /// Whether a child may exist and may not be dead.
    #[must_use]
    pub fn launched(self) -> bool {
        (Self::Intended..=Self::Working).contains(&self)
    }
}
