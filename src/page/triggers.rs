//! The triggers: whether each may run, and what became of what arrived.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, Render, html};

use super::{
    layout::{Viewer, document},
    words::{ago, list_of, long, place, word_in},
};
use crate::{
    http::triggers::TriggerDetails,
    lifecycle::Phase,
    trigger::{
        ledger::{Event, Fate},
        view::Summary,
    },
};

/// The path of the list.
const LIST: &str = "/ui/triggers";

/// The path of a trigger's own page.
#[must_use]
pub fn trigger_place(name: &str) -> String {
    format!("{LIST}/{name}")
}

/// All triggers as a document.
#[must_use]
pub fn triggers(triggers: &[Summary], viewer: &Viewer, now: Timestamp) -> String {
    let main = html! {
        #live {
            h1 { "Triggers" }
            @if triggers.is_empty() {
                p { "Nothing starts by itself: the configuration has no " code { "[[trigger]]" } "." }
            } @else {
                table.jobs {
                    thead { tr { th scope="col" { "Trigger" } th scope="col" { "State" } th scope="col" { "Why" } th scope="col" { "Last run ended" } } }
                    tbody { @for trigger in triggers { (row(trigger, now)) } }
                }
            }
        }
    };
    document("Triggers", Some(viewer), Some(LIST), &main)
}

fn row(trigger: &Summary, now: Timestamp) -> Markup {
    html! {
        tr {
            th.job scope="row" {
                a href=(trigger_place(&trigger.name)) id={ "trigger-" (trigger.name) } { (trigger.name) }
                " " span.formula { (trigger.kind) }
            }
            td.state { (standing(trigger)) }
            td.more { @for note in notes(trigger, now) { div { (note) } } }
            td.when { @if let Some(at) = trigger.check.last_trained { (ago(at, now)) } }
        }
    }
}

/// One trigger with its ledger as a document.
#[must_use]
pub fn trigger(details: &TriggerDetails, viewer: &Viewer, now: Timestamp) -> String {
    let trigger = &details.summary;
    let here = trigger_place(&trigger.name);
    let main = html! {
        #live {
            h1 { (trigger.name) " " (standing(trigger)) }
            @for note in notes(trigger, now) { p.lead { (note) } }
            @if viewer.may_submit {
                .orders {
                    form method="post" action={ (here) "/fire" } {
                        button #fire.main { "Fire" }
                        @if trigger.allow_force {
                            button #force.danger name="force" value="true" { "Fire in spite of the cooldown" }
                        }
                    }
                }
            }
            (facts(trigger, now))
            (ledger(details, now))
            p { a href=(LIST) { "All triggers" } }
        }
    };
    document(&trigger.name, Some(viewer), Some(&here), &main)
}

/// Whether it may run.
fn standing(trigger: &Summary) -> Markup {
    if trigger.check.should_train {
        word_in(Phase::Done, "ready")
    } else if trigger.check.next_allowed.is_some() {
        word_in(Phase::Waiting, "cooldown")
    } else {
        word_in(Phase::Working, "running")
    }
}

/// What is to be said of how it stands.
fn notes(trigger: &Summary, now: Timestamp) -> Vec<Markup> {
    let until = trigger.check.next_allowed.filter(|_| !trigger.check.should_train);
    let notes = [
        trigger.running.as_ref().map(|job_id| html! { "Runs as " (job(job_id)) "." }),
        until.map(|at| html! { "The cooldown is over " (ago(at, now)) "." }),
        trigger.waits_for.as_ref().map(|what| html! { "An event waits: " code { (what) } "." }),
        trigger.next_runs.first().map(|at| html! { "The next time comes " (ago(*at, now)) "." }),
    ];
    notes.into_iter().flatten().collect()
}

fn facts(trigger: &Summary, now: Timestamp) -> Markup {
    let cooldown = SignedDuration::from_secs(trigger.check.cooldown_seconds.try_into().unwrap_or(i64::MAX));
    let next = html! { ul { @for at in &trigger.next_runs { li { (at) ", " (ago(*at, now)) } } } };
    let facts = [
        ("Source", trigger.source.as_ref().map(Render::render)),
        ("Kind", Some(trigger.kind.render())),
        ("Cooldown", Some(long(cooldown).render())),
        ("Shared with the group", trigger.cooldown_group.as_ref().map(Render::render)),
        ("Last run ended", trigger.check.last_trained.map(|at| ago(at, now))),
        ("Next times", (!trigger.next_runs.is_empty()).then_some(next)),
    ];
    list_of(&facts)
}

/// What arrived and what became of it, the latest first.
fn ledger(details: &TriggerDetails, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="ledger" {
            h2 #ledger { "What arrived" }
            @if details.events.is_empty() {
                p.remark { "Nothing has arrived yet." }
            } @else {
                table.stack {
                    thead { tr { th scope="col" { "When" } th scope="col" { "From" } th scope="col" { "What became of it" } th scope="col" { "With" } } }
                    tbody { @for event in &details.events { (line(event, &details.summary.kind, now)) } }
                }
                p.remark { "These are the latest. " code { "consign trigger show " (details.summary.name) " --events N" } " lists more." }
            }
        }
    }
}

/// One event; `kind` is what it came of where nobody called.
fn line(event: &Event, kind: &str, now: Timestamp) -> Markup {
    html! {
        tr id={ "event-" (event.event_id) } {
            th scope="row" { (ago(event.at, now)) }
            td data-label="From" {
                (event.caller.as_deref().unwrap_or(kind))
                @if event.forced { ", forced" }
            }
            td data-label="What became of it" { (fate(event, now)) }
            td {
                @if let Some(content) = &event.content {
                    details id={ "content-" (event.event_id) } { summary { "Content" } pre { code { (content) } } }
                }
            }
        }
    }
}

fn fate(event: &Event, now: Timestamp) -> Markup {
    let colour = match event.fate {
        Fate::Ran => Phase::Done,
        Fate::Failed | Fate::Refused => Phase::Failed,
        Fate::Suppressed => Phase::Waiting,
        Fate::Pending | Fate::Merged => Phase::Queued,
    };
    let time = |event: ulid::Ulid| Timestamp::from_millisecond(event.timestamp_ms().try_into().ok()?).ok();
    html! {
        (word_in(colour, event.fate.as_str()))
        @if let Some(job_id) = &event.job_id { " as " (job(job_id)) }
        @if let Some(first) = event.merged_into {
            " into "
            a href={ "#event-" (first) } { "the one" @if let Some(at) = time(first) { " of " (ago(at, now)) } }
        }
        @if let Some(reason) = &event.reason { " " span.cause { (reason) } }
    }
}

fn job(job_id: &str) -> Markup {
    html! { a href=(place(job_id)) { (job_id) } }
}
