//! All jobs: what waits and why, what works, what ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    layout::{Viewer, document},
    words::{ago, badge, long, name, place},
};
use crate::http::view::JobSummary;

/// What there is to show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Home {
    /// What the agent is in trouble with.
    pub troubles: Vec<String>,
    /// Who keeps jobs from being launched, and why.
    pub paused: Option<String>,
    /// Jobs that have not been launched.
    pub waiting: Section,
    /// Jobs that were launched and have not ended.
    pub working: Section,
    /// The step that runs now, by job id.
    pub steps: BTreeMap<String, String>,
    /// Jobs that ended.
    pub ended: Section,
    /// Whether only older ended jobs are shown.
    pub older: bool,
}

/// Some jobs of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    /// The jobs, in the order that they are shown.
    pub jobs: Vec<JobSummary>,
    /// Whether there are more.
    pub more: bool,
}

impl Section {
    /// How many there are, as far as it is known.
    fn count(&self) -> String {
        format!("{}{}", self.jobs.len(), if self.more { "+" } else { "" })
    }
}

/// All jobs as a document.
#[must_use]
pub fn home(home: &Home, viewer: &Viewer, now: Timestamp) -> String {
    let Home { troubles, paused, waiting, working, steps, ended, older } = home;
    let nothing = !older && [waiting, working, ended].iter().all(|section| section.jobs.is_empty());
    let main = html! {
        #live {
            h1 { "Jobs" }
            @if !troubles.is_empty() {
                section.trouble aria-labelledby="trouble" {
                    h2 #trouble { "In trouble" }
                    ul { @for trouble in troubles { li { (trouble) } } }
                }
            }
            @if let Some(paused) = paused { p.lead { (paused) } }
            @if nothing {
                (first_steps())
            } @else {
                @if !older {
                    (list(&WAITING, waiting, steps, now))
                    (list(&WORKING, working, steps, now))
                }
                (list(if *older { &ENDED_BEFORE } else { &ENDED }, ended, steps, now))
                nav aria-label="Pages" {
                    @if *older { a href="/" { "Newest" } }
                    @if let Some(last) = ended.jobs.last().filter(|_| ended.more) {
                        a href={ "/?before=" (last.job_id) } { "Older" }
                    }
                }
            }
        }
    };
    let title = format!("{} working, {} waiting", working.count(), waiting.count());
    document(if *older { "Ended before" } else { &title }, Some(viewer), (!older).then_some("/"), &main)
}

/// What is said of a section.
struct Words {
    id: &'static str,
    title: &'static str,
    /// What stands in place of a table of nothing.
    none: &'static str,
    /// The column that says more of each job.
    more: &'static str,
}

const WAITING: Words =
    Words { id: "waiting", title: "Waiting", none: "No job is waiting.", more: "Waits for" };
const WORKING: Words =
    Words { id: "working", title: "Working", none: "No job is working now.", more: "Step" };
const ENDED: Words = Words { id: "ended", title: "Ended", none: "No job has ended yet.", more: "Why" };
const ENDED_BEFORE: Words = Words { title: "Ended before", none: "No job ended before.", ..ENDED };

/// One section as a table.
fn list(words: &Words, section: &Section, steps: &BTreeMap<String, String>, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby=(words.id) {
            h2 #(words.id) { (words.title) " " span.count { (section.count()) } }
            @if section.jobs.is_empty() {
                p.remark { (words.none) }
            } @else {
                table.jobs {
                    thead { tr { th scope="col" { "Job" } th scope="col" { "State" } th scope="col" { (words.more) } th scope="col" { "Since" } } }
                    tbody { @for job in &section.jobs { (row(job, steps.get(&job.job_id), now)) } }
                }
                @if section.more && words.id != "ended" {
                    p.remark { "These are the newest. `consign jobs` lists all." }
                }
            }
        }
    }
}

fn row(job: &JobSummary, step: Option<&String>, now: Timestamp) -> Markup {
    let more = step.or(job.waits_for.as_ref()).or(job.error.as_ref());
    html! {
        tr {
            th.job scope="row" {
                a href=(place(&job.job_id)) id={ "job-" (job.job_id) } { (name(job)) }
                @if let Some(formula) = &job.formula { " " span.formula { (formula) } }
            }
            td.state {
                (badge(job.state))
                @if let Some(cause) = job.cause.filter(|_| job.error.is_some()) { " " span.cause { (cause) } }
            }
            td.more {
                @if let Some(more) = more { (more) }
                @if job.attempt > 1 { " " span.remark { "Attempt " (job.attempt) } }
            }
            td.when {
                (ago(job.finished_at.or(job.started_at).unwrap_or(job.submitted_at), now))
                @if let (Some(started), Some(finished)) = (job.started_at, job.finished_at) {
                    span.remark { ", took " (long(finished.duration_since(started))) }
                }
            }
        }
    }
}

/// What to do where nothing has come in yet.
fn first_steps() -> Markup {
    html! {
        section.narrow {
            h2 { "Nothing has come in yet" }
            p { "Commit an action to the ops repo, and it shows here. A new ops repo that validates is made by" }
            pre { code { "consign init DIR" } }
            p { "An action names its formula, and the secrets that the formula may read:" }
            pre { code {
                "# actions/hello.toml\n"
                "id = \"hello\"\nformula = \"hello\"\ncontext = \"The first one\"\nsecrets = []\nblast_radius = \"low\"\n"
            } }
            p { "Or submit work without a commit, with a formula that the ops repo has:" }
            pre { code { "consign submit --formula hello --follow" } }
        }
    }
}
