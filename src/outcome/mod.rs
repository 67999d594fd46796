//! How work ends: the outcome, its cause, and the result file that says so in the ops repo.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub mod result_file;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The task ran and ended with exit code 0.
    Succeeded,
    /// The task ran and failed, or could not be started.
    Failed,
    /// The task ran longer than it may.
    TimedOut,
    /// Somebody, or a rule, ended it.
    Cancelled,
    /// What became of the task is not known.
    Lost,
    /// It was refused before launch.
    Rejected,
}

/// Why a job ended so: a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the codes are defined by the table in docs/action-reference.md")]
pub enum Cause {
    Success,
    ExitCode,
    StepTimeout,
    Oom,
    Driver,
    Artifact,
    MissingMount,
    NoCapacity,
    SecretDenied,
    DispatchFailed,
    DependencyFailed,
    Restarted,
    Timeout,
    Cancelled,
    Superseded,
    Skipped,
    Lost,
    Vanished,
    Preempted,
    Invalid,
    UnknownFormula,
    UnknownSecret,
    NotApproved,
    ApprovalExpired,
    NotAdopted,
}

impl Outcome {
    /// Every outcome, in the order of the table in the documentation.
    pub const ALL: [Self; 6] =
        [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Lost, Self::Rejected];
}

impl Cause {
    /// Every cause, in the order of the table in the documentation.
    pub const ALL: [Self; 25] = [
        Self::Success,
        Self::ExitCode,
        Self::StepTimeout,
        Self::Oom,
        Self::Driver,
        Self::Artifact,
        Self::MissingMount,
        Self::NoCapacity,
        Self::SecretDenied,
        Self::DispatchFailed,
        Self::DependencyFailed,
        Self::Restarted,
        Self::Timeout,
        Self::Cancelled,
        Self::Superseded,
        Self::Skipped,
        Self::Lost,
        Self::Vanished,
        Self::Preempted,
        Self::Invalid,
        Self::UnknownFormula,
        Self::UnknownSecret,
        Self::NotApproved,
        Self::ApprovalExpired,
        Self::NotAdopted,
    ];

    /// The outcome that a cause belongs to; each belongs to one.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Success => Outcome::Succeeded,
            Self::ExitCode
            | Self::StepTimeout
            | Self::Oom
            | Self::Driver
            | Self::Artifact
            | Self::MissingMount
            | Self::NoCapacity
            | Self::SecretDenied
            | Self::DispatchFailed
            | Self::DependencyFailed
            | Self::Restarted => Outcome::Failed,
            Self::Timeout => Outcome::TimedOut,
            Self::Cancelled | Self::Superseded | Self::Skipped => Outcome::Cancelled,
            Self::Lost | Self::Vanished | Self::Preempted => Outcome::Lost,
            Self::Invalid
            | Self::UnknownFormula
            | Self::UnknownSecret
            | Self::NotApproved
            | Self::ApprovalExpired
            | Self::NotAdopted => Outcome::Rejected,
        }
    }

    /// The exit code that stands in the result where the task gave none of its own.
    ///
    /// 124, 125 and 130 are what `timeout(1)`, `docker run` and a shell's SIGINT use.
    #[must_use]
    pub const fn exit_code(self) -> i64 {
        match self.outcome() {
            Outcome::Succeeded => 0,
            Outcome::TimedOut => 124,
            Outcome::Cancelled => 130,
            Outcome::Failed => match self {
                Self::StepTimeout => 124,
                _ => 125,
            },
            Outcome::Lost | Outcome::Rejected => 125,
        }
    }
}

/// The word that serde uses for a unit variant.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// A word that names no variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of the known words")]
pub struct UnknownWord(String);

/// Gives a serde word enum its `Display` and `FromStr`.
macro_rules! word_enum {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&word(self))
            }
        }
        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                serde_json::from_value(serde_json::Value::String(text.to_owned()))
                    .map_err(|_| UnknownWord(text.to_owned()))
            }
        }
    )*};
}
word_enum!(Outcome, Cause);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip() {
        for cause in Cause::ALL {
            assert_eq!(cause.to_string().parse(), Ok(cause));
        }
        assert_eq!(Cause::NoCapacity.to_string(), "no_capacity");
        assert!("fine".parse::<Outcome>().is_err());
    }
}
