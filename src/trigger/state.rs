//! What becomes of an event: pure, with the time passed in.
//!
//! ```text
//!            quiet for `debounce`, or `max_wait`      no run, no cooldown
//! event ─▶ pending ───────────────────────────────▶ due ───────────────▶ run ─▶ end: the cooldown begins
//!            ▲ │ further events merge                │
//!            └─┘                                     ├─ a run goes on: skipped, or pending until its end
//!                                                    └─ cooldown: skipped, unless forced or held for it
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::ids::JobId;

/// What a cooldown begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CooldownOn {
    /// The end of a run, however it ended.
    #[default]
    End,
    /// The end of a run that succeeded.
    Success,
}

/// What becomes of an event while a run goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is suppressed.
    #[default]
    Skip,
    /// It waits for the run's end, and for the cooldown after it.
    Queue,
}

/// What a trigger decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long after the last run the next may begin.
    pub cooldown: Duration,
    /// What the cooldown begins with.
    pub cooldown_on: CooldownOn,
    /// How long it must have been quiet.
    pub debounce: Duration,
    /// The longest that a first event waits for quiet.
    pub max_wait: Duration,
    /// What becomes of an event while a run goes on.
    pub overlap: Overlap,
}

/// What the triggers of one group share: the run that goes on, and how the last ones ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The run that goes on.
    pub run: Option<Run>,
    /// When the last run ended.
    pub ended_at: Option<Timestamp>,
    /// When the last run ended that succeeded.
    pub succeeded_at: Option<Timestamp>,
}

/// A run that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The trigger that began it.
    pub trigger: String,
    /// The event that it came of; also the key that keeps it from being submitted twice.
    pub event: Ulid,
    /// Who asked for it with a token of the API; `None` is the trigger itself.
    pub by: Option<String>,
    /// What came with the event, as JSON.
    pub content: Option<String>,
    /// Its job, once that is on record.
    pub job_id: Option<JobId>,
    /// When it was decided.
    pub begun_at: Timestamp,
}

/// What one trigger knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// What waits to run.
    pub pending: Option<Pending>,
    /// Up to where its source has told: the digest of a tree, a revision, a time.
    pub mark: Option<String>,
}

/// An event, as far as it decides anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its id.
    pub event: Ulid,
    /// Whether the cooldown is to be passed over.
    pub forced: bool,
    /// Who asked for it with a token of the API; `None` is the trigger itself.
    pub by: Option<String>,
    /// What came with it, as JSON.
    pub content: Option<String>,
}

/// Events that wait to run together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The first of them, which the others are merged into.
    pub event: Ulid,
    /// Who asked for the last one.
    pub by: Option<String>,
    /// What came with the last one.
    pub content: Option<String>,
    /// When it came.
    pub first_at: Timestamp,
    /// When the last one came.
    pub last_at: Timestamp,
    /// Whether one of them was forced.
    pub forced: bool,
    /// Whether they wait for the end of a run, and so for its cooldown too.
    pub held: bool,
}

/// What becomes of what is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It runs now.
    Run,
    /// It goes on waiting.
    Wait(Wait),
    /// It does not run.
    Skip(Skip),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For quiet, until then at the latest if nothing more comes.
    Debounce(Timestamp),
    /// For the end of the run that goes on.
    Run,
    /// For the end of the cooldown.
    Cooldown(Timestamp),
    /// For the forge to take the issue's label.
    Label,
}

/// Why something does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// A run goes on.
    AlreadyRunning,
    /// The cooldown is not over before then.
    CooldownActive(Timestamp),
}

/// Whether a trigger may run now, as `consign trigger check` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing counts as a run before.
    NoPrevious,
    /// The cooldown is over.
    Expired,
    /// It is not over yet.
    Active(Timestamp),
    /// A run goes on.
    Running,
}

impl Rules {
    /// Takes an event in: what is pending afterwards.
    #[must_use]
    pub fn arrive(pending: Option<&Pending>, arrival: Arrival, now: Timestamp) -> Pending {
        let Arrival { event, forced, by, content } = arrival;
        let new = Pending { event, by, content, first_at: now, last_at: now, forced, held: false };
        match pending {
            None => new,
            Some(first) => Pending {
                event: first.event,
                first_at: first.first_at,
                forced: first.forced || forced,
                held: first.held,
                ..new
            },
        }
    }

    /// What becomes of what is pending. What waits for a run is held for the cooldown after it.
    #[must_use]
    pub fn decide(&self, course: &Course, pending: &Pending, now: Timestamp) -> Decision {
        let quiet = later(pending.last_at, self.debounce).min(later(pending.first_at, self.max_wait));
        if !pending.forced && now < quiet {
            return Decision::Wait(Wait::Debounce(quiet));
        }
        if course.run.is_some() {
            return match self.overlap {
                Overlap::Skip => Decision::Skip(Skip::AlreadyRunning),
                Overlap::Queue => Decision::Wait(Wait::Run),
            };
        }
        match self.standing(course, now) {
            Standing::Active(until) if pending.held && !pending.forced => {
                Decision::Wait(Wait::Cooldown(until))
            }
            Standing::Active(until) if !pending.forced => Decision::Skip(Skip::CooldownActive(until)),
            _ => Decision::Run,
        }
    }

    /// Whether a run may begin.
    #[must_use]
    pub fn standing(&self, course: &Course, now: Timestamp) -> Standing {
        if course.run.is_some() {
            return Standing::Running;
        }
        match self.last(course).map(|last| later(last, self.cooldown)) {
            None => Standing::NoPrevious,
            Some(until) if now < until => Standing::Active(until),
            Some(_) => Standing::Expired,
        }
    }

    /// The end that the cooldown is counted from.
    #[must_use]
    pub fn last(&self, course: &Course) -> Option<Timestamp> {
        match self.cooldown_on {
            CooldownOn::End => course.ended_at,
            CooldownOn::Success => course.succeeded_at,
        }
    }
}

impl Course {
    /// The run that goes on has ended.
    pub fn end(&mut self, succeeded: bool, at: Timestamp) {
        self.run = None;
        self.ended_at = Some(at);
        if succeeded {
            self.succeeded_at = Some(at);
        }
    }

    /// Takes times that lie in the future for now: the clock was set back.
    pub fn rebase(&mut self, now: Timestamp) {
        for at in self.ended_at.iter_mut().chain(&mut self.succeeded_at) {
            *at = (*at).min(now);
        }
    }
}

impl Pending {
    /// The run that it becomes.
    #[must_use]
    pub fn run(&self, trigger: &str, now: Timestamp) -> Run {
        Run {
            trigger: trigger.to_owned(),
            event: self.event,
            by: self.by.clone(),
            content: self.content.clone(),
            job_id: None,
            begun_at: now,
        }
    }

    /// The same for what is pending.
    pub fn rebase(&mut self, now: Timestamp) {
        self.first_at = self.first_at.min(now);
        self.last_at = self.last_at.min(now);
    }
}

impl Wait {
    /// The time that it is over by itself.
    #[must_use]
    pub const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Debounce(at) | Self::Cooldown(at) => Some(at),
            Self::Run | Self::Label => None,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debounce(_) => "debounce",
            Self::Run => "already_running",
            Self::Cooldown(_) => "cooldown_active",
            Self::Label => "label",
        }
    }
}

impl Skip {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyRunning => "already_running",
            Self::CooldownActive(_) => "cooldown_active",
        }
    }
}

/// A time after another; the last that there is where it is further away.
#[must_use]
pub fn later(at: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
