//! One job with all that is known of it.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, Render, html};

use super::{
    approval,
    layout::{Viewer, document},
    printable::Printable,
    words::{ago, badge, list_of, long, name, place, size},
};
use crate::{
    artifact::Described,
    http::view::{JobDetails, JobSummary},
    lifecycle::Phase,
    outcome::result_file::{Attempt, LogStatus},
};

/// What may be asked of a job, by whoever may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Whether it can be cancelled.
    pub cancel: bool,
    /// Whether it can run again.
    pub retry: bool,
    /// The steps after the first that it can begin from.
    pub from_steps: Vec<String>,
    /// Whether it waits for an approval that the viewer may give.
    pub approval: bool,
}

/// A job as a document; `log` is what it printed, as far as that is at hand.
#[must_use]
pub fn job(job: &JobDetails, log: &str, offer: &Offer, viewer: &Viewer, now: Timestamp) -> String {
    let summary = &job.summary;
    let here = place(&summary.job_id);
    let ended = summary.outcome.is_some();
    let main = html! {
        #live {
            h1 { (name(summary)) " " (badge(summary.state)) }
            @if let Some(why) = &summary.waits_for { p.lead { "Waits for: " (why) } }
            @if let Some(message) = &summary.error { p.lead { (message) } }
            @if let Some(cancelled) = job.cancelled.as_ref().filter(|_| !ended) { p.lead { "It is ending: " (cancelled) } }
            (way(job, now))
            .orders {
                @if viewer.may_approve && offer.approval {
                    @if let Some(digest) = &job.digest { (approval::forms(&here, digest)) }
                }
                @if viewer.may_submit { (orders(&here, offer)) }
                a href="#log-title" { "To the log" }
            }
            (facts(job, now))
            @if let Some(action) = &job.action {
                details #action open[!ended] { summary { "Submitted action" } pre { code { (Shown(action)) } } }
            }
            (steps(job))
            (attempts(&job.attempts, now))
            (artifacts(&job.artifacts))
            @if let Some(result) = &job.result {
                details #result { summary { "Result file" } pre { code { (Shown(&result.to_text())) } } }
            }
        }
        section aria-labelledby="log-title" {
            h2 #log-title { "Log" }
            pre #log role="log" aria-live="off" aria-labelledby="log-title" tabindex="0"
                data-follow=[(summary.state == Phase::Working).then(|| format!("{here}/log"))] { (Shown(log)) }
        }
    };
    let title = format!("{} {}", name(summary), summary.state.as_str());
    document(&title, Some(viewer), Some(&format!("{here}?live=true")), &main)
}

/// A text that may hold anything.
struct Shown<'text>(&'text str);

impl Render for Shown<'_> {
    fn render(&self) -> Markup {
        // A line's end right behind the tag would be dropped.
        html! { (PreEscaped("\n")) (Printable::default().push(self.0.as_bytes())) }
    }
}

fn kept(status: LogStatus) -> &'static str {
    match status {
        LogStatus::Complete => "All that it printed.",
        LogStatus::Truncated => "The end of what it printed.",
        LogStatus::Lost => "It never ran, or Nomad no longer had what it printed.",
    }
}

/// The phases on its way, with the time of each as far as it is known.
fn way(job: &JobDetails, now: Timestamp) -> Markup {
    let JobSummary { state, submitted_at, started_at, finished_at, .. } = job.summary;
    let dispatched_at = job.attempts.last().and_then(|attempt| attempt.dispatched_at);
    let end = if state == Phase::Failed { Phase::Failed } else { Phase::Done };
    let first = if state == Phase::Waiting { Phase::Waiting } else { Phase::Queued };
    let phases = [
        (first, Some(submitted_at)),
        (Phase::Loading, dispatched_at),
        (Phase::Working, started_at),
        (end, finished_at),
    ];
    html! {
        ol.way aria-label="Phases" {
            @for (phase, at) in phases {
                // What ended early never got to some of them.
                @let at = at.filter(|_| phase <= state);
                li data-state=(phase.as_str()) aria-current=[(phase == state).then_some("step")] class=[at.map(|_| "past")] {
                    span { (phase.as_str()) }
                    @if let Some(at) = at { " " (ago(at, now)) }
                }
            }
        }
    }
}

/// The buttons of what may be asked.
fn orders(here: &str, offer: &Offer) -> Markup {
    html! {
        @if offer.cancel {
            form method="post" action={ (here) "/cancel" } { button #cancel.danger { "Cancel" } }
        }
        @if offer.retry {
            form method="post" action={ (here) "/retry" } {
                button #retry.main { "Retry" }
                @if !offer.from_steps.is_empty() {
                    label for="from_step" { "from" }
                    select #from_step name="from_step" {
                        option value="" { "the first step" }
                        @for step in &offer.from_steps { option value=(step) { (step) } }
                    }
                }
            }
        }
    }
}

fn facts(job: &JobDetails, now: Timestamp) -> Markup {
    let JobDetails { summary, .. } = job;
    let text = |text: Option<&String>| text.map(Render::render);
    let code = |text: Option<&String>| text.map(|text| html! { code { (text) } });
    let cause =
        summary.outcome.zip(summary.cause).map(|(outcome, cause)| html! { (outcome) ", " code { (cause) } });
    let secrets = html! { @for secret in &job.secrets { code { (secret) } " " } };
    let took =
        summary.started_at.zip(summary.finished_at.or((summary.state == Phase::Working).then_some(now)));
    let estimate = summary.estimate.unwrap_or_default();
    let facts = [
        ("Why it runs", text(Some(&job.context).filter(|context| !context.is_empty()))),
        ("Outcome", cause),
        ("Exit code", summary.exit_code.map(|code| code.render())),
        ("Formula", code(summary.formula.as_ref())),
        ("Secrets", Some(if job.secrets.is_empty() { "none".render() } else { secrets })),
        ("Approved by", text(job.approved_by.as_ref())),
        ("Evidence", job.approval.as_ref().map(|approval| approval::evidence(&approval.evidence, now))),
        ("Digest", code(job.digest.as_ref())),
        ("Cancelled", text(job.cancelled.as_ref())),
        ("Retried by", text(job.retried_by.as_ref())),
        ("Submitted", Some(ago(summary.submitted_at, now))),
        ("Submitted by", text(job.submitted_by.as_ref())),
        ("May start", estimate.starts_at.map(|at| ago(at, now))),
        ("May end", estimate.finishes_at.map(|at| ago(at, now))),
        ("Ran for", took.map(|(from, to)| long(to.duration_since(from)).render())),
        ("Priority", Some(job.priority.render())),
        ("Action", code(job.path.as_ref())),
        ("Revision", code(job.revision.as_ref())),
        ("Job id", code(Some(&summary.job_id))),
        ("Log", job.result.as_ref().map(|result| kept(result.log_status).render())),
    ];
    list_of(&facts)
}

fn steps(job: &JobDetails) -> Markup {
    let running = job.running_step.as_ref();
    html! {
        @if !job.steps.is_empty() || running.is_some() {
            section aria-labelledby="steps" {
                h2 #steps { "Steps" }
                table.stack {
                    thead { tr { th scope="col" { "Step" } th scope="col" { "Exit code" } th scope="col" { "Time" } } }
                    tbody {
                        @for step in &job.steps {
                            tr {
                                th scope="row" { (step.name) }
                                td data-label="Exit code" class=[(step.exit_code != 0).then_some("wrong")] { (step.exit_code) }
                                td data-label="Time" { (format!("{:.1} s", step.seconds)) }
                            }
                        }
                        @if let Some(step) = running {
                            tr { th scope="row" { (step) } td data-label="Exit code" { "runs now" } td data-label="Time" {} }
                        }
                    }
                }
            }
        }
    }
}

fn attempts(attempts: &[Attempt], now: Timestamp) -> Markup {
    html! {
        @if !attempts.is_empty() {
            section aria-labelledby="attempts" {
                h2 #attempts { "Attempts" }
                table.stack {
                    thead { tr {
                        th scope="col" { "Attempt" } th scope="col" { "Cause" } th scope="col" { "Exit code" } th scope="col" { "Node" }
                        th scope="col" { "Started" } th scope="col" { "Ended" } th scope="col" { "Nomad job" }
                    } }
                    tbody {
                        @for (index, attempt) in attempts.iter().enumerate() {
                            tr {
                                th scope="row" data-label="Attempt" { (index + 1) }
                                td data-label="Cause" { @if let Some(cause) = attempt.cause { code { (cause) } } }
                                td data-label="Exit code" { @if let Some(code) = attempt.exit_code { (code) } }
                                td data-label="Node" { @if let Some(node) = &attempt.node { (node) } }
                                td data-label="Started" { @if let Some(at) = attempt.started_at { (ago(at, now)) } }
                                td data-label="Ended" { @if let Some(at) = attempt.finished_at { (ago(at, now)) } }
                                td data-label="Nomad job" { @if let Some(child) = &attempt.nomad_job_id { code { (child) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn artifacts(artifacts: &[Described]) -> Markup {
    html! {
        @if !artifacts.is_empty() {
            section aria-labelledby="artifacts" {
                h2 #artifacts { "Artifacts" }
                table.stack {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Size" } th scope="col" { "SHA-256" } } }
                    tbody {
                        @for artifact in artifacts {
                            tr {
                                th scope="row" {
                                    @match &artifact.url {
                                        Some(url) => { a href={ "/ui" (url) } { (artifact.name) } }
                                        None => { (artifact.name) }
                                    }
                                }
                                td data-label="Size" { (size(artifact.size)) }
                                td data-label="SHA-256" { code { (artifact.sha256) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
