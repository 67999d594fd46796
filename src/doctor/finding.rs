//! What was found, and how bad it is.

use serde::Serialize;

/// How bad a finding is; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, with a risk.
    Warning,
    /// The agent cannot work like this.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, such as `vault`.
    pub subject: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen, in one sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, level: Level::Ok, message: message.into(), remedy: None }
    }

    pub(super) fn warning(
        subject: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { subject, level: Level::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn failure(
        subject: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { subject, level: Level::Failure, message: message.into(), remedy: Some(remedy.into()) }
    }
}

/// The worst level among the findings; [`Level::Ok`] where there is none.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}
