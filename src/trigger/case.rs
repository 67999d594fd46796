//! An issue that a trigger runs for, and what is said of that on the forge.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::{
    ids::JobId,
    outcome::{Cause, Outcome},
};

/// How much of a message is told, in characters.
const TOLD: usize = 500;

/// An issue that a trigger runs for: from its label until the outcome stands on the forge. There is one at most for
/// each issue, whichever trigger it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The forge and the repository, as [`repository_key`](super::labels::Issues::repository_key) gives them.
    pub repository: String,
    /// The issue's number.
    pub issue: u32,
    /// The trigger.
    pub trigger: String,
    /// The event that it came of; also the key that keeps it from being submitted twice.
    pub event: Ulid,
    /// Who asked for it with a token of the API; `None` is the trigger itself.
    pub by: Option<String>,
    /// When it was opened.
    pub begun_at: Timestamp,
    /// Its job, once that is on record.
    pub job_id: Option<JobId>,
}

/// How the run for an issue ended.
#[derive(Debug, Clone, Copy)]
pub enum End<'text> {
    /// Its job ended.
    Ended {
        /// Why.
        cause: Cause,
        /// One plain sentence with the evidence.
        message: &'text str,
        /// The task's own exit code.
        exit_code: Option<i64>,
    },
    /// Its job could not be made, and why.
    Refused(&'text str),
    /// Its job is on record no more.
    Forgotten,
}

impl Case {
    /// What no other run's comment contains. Forges show nothing of it.
    #[must_use]
    pub fn marker(&self) -> String {
        format!("<!-- consign {} -->", self.event)
    }

    /// What is said on the issue at the end.
    #[must_use]
    pub fn comment(&self, label: &str, end: End<'_>) -> String {
        let (became, why) = match end {
            End::Ended { cause, message, exit_code } => {
                let code = exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
                (format!("{} ({cause}{code})", words(cause.outcome())), literal(message))
            }
            End::Refused(problem) => ("could not be started".to_owned(), literal(problem)),
            End::Forgotten => ("ended; how is not on record any more".to_owned(), String::new()),
        };
        let job = self.job_id.map(|job_id| format!("\n\nJob `{job_id}`")).unwrap_or_default();
        let why = if why.is_empty() { why } else { format!("\n\n{why}") };
        format!("The run for the label {} {became}.{why}{job}", literal(label))
    }
}

impl End<'_> {
    /// Whether it did what it was for.
    #[must_use]
    pub fn succeeded(self) -> bool {
        matches!(self, Self::Ended { cause: Cause::Success, .. })
    }
}

const fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Cancelled => "was cancelled",
        Outcome::Lost => "was lost",
        Outcome::Rejected => "was rejected",
    }
}

/// A text that the forge shows as it is: no markup, no mention, one line.
fn literal(text: &str) -> String {
    let plain = |character: char| match character {
        '`' => '\'',
        other if other.is_control() => ' ',
        other => other,
    };
    let text: String = text.trim().chars().take(TOLD).map(plain).collect();
    if text.is_empty() { text } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        Case {
            repository: "main:acme/app".to_owned(),
            issue: 7,
            trigger: "triage".to_owned(),
            event: Ulid::nil(),
            by: None,
            begun_at: Timestamp::UNIX_EPOCH,
            job_id: None,
        }
    }

    #[test]
    fn a_comment_says_how_it_ended_and_nothing_in_it_is_markup() {
        let message = "it said ``` @ann\n# see [this](http://a)";
        let end = End::Ended { cause: Cause::ExitCode, message, exit_code: Some(3) };
        assert!(!end.succeeded());
        assert_eq!(
            case().comment("to `do`", end),
            "The run for the label `to 'do'` failed (exit_code, exit code 3).\n\n\
             `it said ''' @ann # see [this](http://a)`"
        );
        let end = End::Ended { cause: Cause::Success, message: "", exit_code: Some(0) };
        assert!(end.succeeded());
        let job_id = JobId::new();
        let case = Case { job_id: Some(job_id), ..case() };
        assert_eq!(
            case.comment("triage", end),
            format!("The run for the label `triage` succeeded (success, exit code 0).\n\nJob `{job_id}`")
        );
        let long = "x".repeat(10_000);
        assert!(case.comment("triage", End::Refused(&long)).len() < 1000);
        assert!(!End::Forgotten.succeeded());
    }
}
