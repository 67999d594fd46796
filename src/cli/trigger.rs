//! `consign trigger`.

use std::process::ExitCode;

use jiff::Timestamp;

use super::{
    Failure, Outcome, Surroundings, output, remote,
    table::{Cell, GREEN, RED, Table, YELLOW, plain},
};
use crate::{
    client::Error,
    http::triggers::EVENTS_LIMIT,
    trigger::{
        attend::{Marker, marker_folder},
        ledger::{Event, Fate},
        view::{Check, Summary},
    },
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the triggers, and whether each may run.
    List {
        #[command(flatten)]
        remote: remote::Arguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one trigger with its latest events and what became of them.
    Show {
        /// Its name.
        name: String,
        /// How many events.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        events: u32,
        #[command(flatten)]
        remote: remote::Arguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fire a trigger, as an event of its own would.
    Fire {
        /// Its name.
        name: String,
        /// Pass over the cooldown, where the trigger allows that; never a run that goes on.
        #[arg(long)]
        force: bool,
        /// What comes with the event: a JSON object.
        #[arg(long, value_name = "JSON")]
        content: Option<String>,
        /// Fire it anew with what came with this event.
        #[arg(long, value_name = "ID", conflicts_with = "content")]
        event: Option<String>,
        #[command(flatten)]
        remote: remote::Arguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print whether a trigger may run, in lines for a script; also without the agent, from its marker file.
    Check {
        /// Its name.
        name: String,
        #[command(flatten)]
        remote: remote::Arguments,
    },
}

pub(super) async fn run(command: Command, surroundings: &Surroundings) -> Outcome {
    match command {
        Command::List { remote, json } => {
            let list = remote::client(&remote, surroundings)?.triggers().await?;
            if json {
                output::line(&serde_json::to_string_pretty(&list.triggers)?);
            } else if list.triggers.is_empty() {
                output::remark("no triggers: the configuration has no [[trigger]]");
            } else {
                output::text(&table(&list.triggers));
            }
        }
        Command::Show { name, events, remote, json } => {
            let details = remote::client(&remote, surroundings)?.trigger(&name, events).await?;
            if json {
                output::line(&serde_json::to_string_pretty(&details)?);
            } else {
                show(&details.summary);
                output::text(&ledger(&details.events));
            }
        }
        Command::Fire { name, force, content, event, remote, json } => {
            let client = remote::client(&remote, surroundings)?;
            let content = match event {
                None => content,
                Some(event) => {
                    let known = client.trigger(&name, EVENTS_LIMIT).await?.events;
                    let found = known.into_iter().find(|known| known.event_id.to_string() == event);
                    found.ok_or_else(|| Failure(format!("{name} has no event {event} on record")))?.content
                }
            };
            let called = client.fire(&name, force, content).await?;
            if json {
                output::line(&serde_json::to_string_pretty(&called)?);
            } else {
                let reason = called.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                let until = called.next_allowed.map(output::time).map(|at| format!(" until {at}"));
                let remark = format!("{}{reason}{}", called.status, until.unwrap_or_default());
                output::remark(&remark);
                output::line(&called.job_id.unwrap_or_default());
            }
        }
        Command::Check { name, remote } => output::text(&check(&name, &remote, surroundings).await?.lines()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the agent says, or where it does not answer, the marker file of a trigger that is configured here.
async fn check(
    name: &str,
    remote: &remote::Arguments,
    surroundings: &Surroundings,
) -> Result<Check, Failure> {
    let error = match remote::client(remote, surroundings)?.trigger(name, 0).await {
        Ok(details) => return Ok(details.summary.check),
        Err(error) => error,
    };
    let silent = error.may_pass()
        || matches!(error, Error::NoToken { .. } | Error::Unauthorized { .. } | Error::Scope { .. });
    let config = surroundings.config()?;
    let trigger = config.trigger.0.iter().find(|trigger| trigger.name == name).filter(|_| silent);
    let Some(trigger) = trigger else { return Err(error.into()) };
    let marker = Marker::of(trigger, &marker_folder(&config.store.path));
    let course = marker
        .read()
        .map_err(|unread| Failure(format!("{error}; and its marker file cannot be read: {unread}")))?;
    output::remark(&format!("told by the marker file: {error}"));
    Ok(Check::of(trigger, &course, Timestamp::now()))
}

fn table(triggers: &[Summary]) -> String {
    let mut table = Table::new(&["name", "kind", "reason", "last run ended", "next", "note"]);
    for trigger in triggers {
        let colour = if trigger.check.should_train { GREEN } else { YELLOW };
        let time = |at: Option<Timestamp>| Cell::new(at.map(output::time).unwrap_or_default());
        let next = trigger.next_runs.first().copied().or(trigger.check.next_allowed);
        let waits = trigger.waits_for.as_ref().map(|what| format!("an event waits: {what}"));
        table.row(vec![
            Cell::new(&trigger.name),
            Cell::new(&trigger.kind),
            Cell::coloured(&trigger.check.reason, Some(colour)),
            time(trigger.check.last_trained),
            time(next),
            Cell::new(waits.or_else(|| trigger.source.clone()).unwrap_or_default()),
        ]);
    }
    table.render(output::colour())
}

fn show(trigger: &Summary) {
    let time = |at: Option<Timestamp>| at.map(output::time);
    let next = trigger.next_runs.iter().map(|at| output::time(*at)).collect::<Vec<_>>().join(", ");
    let lines = [
        ("name", Some(trigger.name.clone())),
        ("kind", Some(trigger.kind.clone())),
        ("cooldown group", trigger.cooldown_group.clone()),
        ("source", trigger.source.clone()),
        ("standing", Some(trigger.check.reason.clone())),
        ("last run ended", time(trigger.check.last_trained)),
        ("next allowed", time(trigger.check.next_allowed)),
        ("next runs", Some(next).filter(|next| !next.is_empty())),
        ("running", trigger.running.clone()),
        ("waiting event", trigger.pending.clone()),
        ("waits for", trigger.waits_for.clone()),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            output::line(&format!("{name:<15} {}", plain(&value)));
        }
    }
    output::line("");
}

fn ledger(events: &[Event]) -> String {
    if events.is_empty() {
        return "no events yet\n".to_owned();
    }
    let mut table = Table::new(&["event", "arrived", "origin", "caller", "fate", "why or what"]);
    for event in events {
        let colour = match event.fate {
            Fate::Ran => Some(GREEN),
            Fate::Failed | Fate::Refused => Some(RED),
            Fate::Pending | Fate::Suppressed => Some(YELLOW),
            Fate::Merged => None,
        };
        let merged = event.merged_into.map(|first| format!("into {first}"));
        let note = event.job_id.clone().or(merged).or_else(|| event.reason.clone());
        let origin = serde_json::to_value(event.origin).ok();
        let origin = origin.as_ref().and_then(|origin| origin.as_str()).unwrap_or_default();
        table.row(vec![
            Cell::new(event.event_id.to_string()),
            Cell::new(output::time(event.at)),
            Cell::new(origin),
            Cell::new(event.caller.clone().unwrap_or_default()),
            Cell::coloured(event.fate.as_str(), colour),
            Cell::new(note.unwrap_or_default()),
        ]);
    }
    table.render(output::colour())
}
