//! Words that several views share: states, times, sizes, links.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use crate::{http::view::JobSummary, lifecycle::Phase};

/// The path of a job's own page.
#[must_use]
pub fn place(job_id: &str) -> String {
    format!("/ui/jobs/{job_id}")
}

/// What people call a job: the action's id, or the job's.
pub(super) fn name(job: &JobSummary) -> &str {
    job.action_id.as_deref().unwrap_or(&job.job_id)
}

/// A phase as a badge, told apart by its word and its colour.
pub(super) fn badge(phase: Phase) -> Markup {
    word_in(phase, phase.as_str())
}

/// A word as a badge in the colour of a phase.
pub(super) fn word_in(phase: Phase, word: &str) -> Markup {
    html! { span.badge data-state=(phase.as_str()) { (word) } }
}

/// Names and what they stand for, as far as that is known.
pub(super) fn list_of(facts: &[(&str, Option<Markup>)]) -> Markup {
    html! {
        dl {
            @for (name, value) in facts {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// A time as how long ago it is, with the time itself behind it.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let passed = now.duration_since(at);
    let words = if passed.is_negative() {
        format!("in {}", long(passed.abs()))
    } else {
        format!("{} ago", long(passed))
    };
    html! { time datetime=(at) title=(at.strftime("%Y-%m-%d %H:%M:%S UTC")) { (words) } }
}

/// A length of time in its two largest units.
pub(super) fn long(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        (..) => format!("{days} d {} h", hours % 24),
    }
}

/// A size in the largest binary unit that leaves a number of at least one.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}
