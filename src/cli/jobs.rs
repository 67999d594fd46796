//! `consign jobs`, `show`, `logs`, `approve`, `reject`, `cancel` and `retry`: what the running agent knows, and what it is asked.

use std::{process::ExitCode, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap_complete::ArgValueCompleter;
use jiff::Timestamp;

use super::{
    Outcome, Surroundings, completions, output, remote,
    table::{Cell, GREEN, RED, Table, YELLOW, plain},
};
use crate::{
    client::Client,
    duration::Span,
    http::view::{JobDetails, JobSummary},
    lifecycle::Phase,
    queue::estimate::Estimate,
};

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Jobs in this phase alone.
    #[arg(long, value_parser = phase_parser())]
    phase: Option<Phase>,
    /// How many jobs at most, the newest first.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: remote::Arguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// A job id, or an action id.
    #[arg(add = ArgValueCompleter::new(completions::jobs))]
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: remote::Arguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// A job id, or an action id.
    #[arg(add = ArgValueCompleter::new(completions::jobs))]
    id: String,
    /// Go on until the job has ended.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    agent: remote::Arguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct Retry {
    #[command(flatten)]
    one: One,
    /// The step that it begins from; those before it must have passed.
    #[arg(long, value_name = "STEP")]
    from_step: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Approve {
    #[command(flatten)]
    one: One,
    /// Only where what would run still has this digest, which `show` tells.
    #[arg(long)]
    digest: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Reject {
    #[command(flatten)]
    one: One,
    /// Why, for whoever submitted it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Reads one of the six words.
fn phase_parser() -> impl TypedValueParser<Value = Phase> {
    let words = PossibleValuesParser::new(Phase::ALL.map(Phase::as_str));
    words.try_map(|word| Phase::ALL.into_iter().find(|phase| phase.as_str() == word).ok_or("no phase"))
}

pub(super) async fn list(arguments: &List, surroundings: &Surroundings) -> Outcome {
    let client = remote::client(&arguments.agent, surroundings)?;
    let jobs = client.jobs(arguments.phase, arguments.limit).await?;
    if arguments.json {
        output::line(&serde_json::to_string_pretty(&jobs)?);
    } else if jobs.is_empty() {
        output::remark("no jobs");
    } else {
        output::text(&table(&jobs).render(output::colour()));
    }
    if let Some(paused) = client.paused().await?.paused {
        output::remark(&plain(&format!("{paused}; `consign resume` launches what waits")));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(arguments: &One, surroundings: &Surroundings) -> Outcome {
    let job = remote::client(&arguments.agent, surroundings)?.job(&arguments.id).await?;
    if arguments.json {
        output::line(&serde_json::to_string_pretty(&job)?);
    } else {
        output::text(&details(&job, output::colour()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn logs(arguments: &Logs, surroundings: &Surroundings) -> Outcome {
    let client = remote::client(&arguments.agent, surroundings)?;
    if arguments.follow {
        follow(&client, &arguments.id).await
    } else {
        output::bytes(&client.logs(&arguments.id).await?)?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) async fn follow(client: &Client, id: &str) -> Outcome {
    let mut log = client.follow(id).await?;
    while let Some(piece) = log.next().await? {
        output::bytes(&piece)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn cancel(arguments: &One, surroundings: &Surroundings) -> Outcome {
    let job = remote::client(&arguments.agent, surroundings)?.cancel(&arguments.id).await?;
    let id = &arguments.id;
    let said = match job.summary.outcome {
        Some(outcome) => format!("{id} had ended already: {outcome}"),
        None => format!("{id} is being cancelled; `consign show {id}` says when it has ended"),
    };
    answer(arguments, &job, &said)
}

pub(super) async fn approve(arguments: &Approve, surroundings: &Surroundings) -> Outcome {
    let Approve { one, digest } = arguments;
    let job = remote::client(&one.agent, surroundings)?.approve(&one.id, digest.clone()).await?;
    let (id, state) = (&one.id, job.summary.state.as_str());
    answer(one, &job, &format!("{id} is approved, and {state}; `consign logs -f {id}` follows it"))
}

pub(super) async fn reject(arguments: &Reject, surroundings: &Surroundings) -> Outcome {
    let Reject { one, reason } = arguments;
    let job = remote::client(&one.agent, surroundings)?.reject(&one.id, reason).await?;
    answer(one, &job, &format!("{} is rejected", one.id))
}

pub(super) async fn retry(arguments: &Retry, surroundings: &Surroundings) -> Outcome {
    let Retry { one, from_step } = arguments;
    let job = remote::client(&one.agent, surroundings)?.retry(&one.id, from_step.clone()).await?;
    let (id, attempt) = (&one.id, job.summary.attempt + 1);
    let from = from_step.as_ref().map(|step| format!(" from step {step}")).unwrap_or_default();
    answer(one, &job, &format!("{id} runs again{from}, attempt {attempt}; `consign logs -f {id}` follows it"))
}

fn answer(arguments: &One, job: &JobDetails, said: &str) -> Outcome {
    if arguments.json {
        output::line(&serde_json::to_string_pretty(job)?);
    } else {
        output::line(&plain(said));
    }
    Ok(ExitCode::SUCCESS)
}

fn state(job: &JobSummary) -> Cell {
    let colour = match job.state {
        Phase::Done => Some(GREEN),
        Phase::Failed => Some(RED),
        Phase::Working => Some(YELLOW),
        Phase::Waiting | Phase::Queued | Phase::Loading => None,
    };
    Cell::coloured(job.state.as_str(), colour)
}

fn name(job: &JobSummary) -> &str {
    job.action_id.as_deref().unwrap_or(&job.job_id)
}

fn optional<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn table(jobs: &[JobSummary]) -> Table {
    let now = Timestamp::now();
    let mut table = Table::new(&["id", "state", "cause", "exit", "formula", "submitted", "estimate", "why"]);
    for job in jobs {
        table.row(vec![
            Cell::new(name(job)),
            state(job),
            Cell::new(optional(job.cause.as_ref())),
            Cell::new(optional(job.exit_code.as_ref())),
            Cell::new(job.formula.clone().unwrap_or_default()),
            Cell::new(output::time(job.submitted_at)),
            Cell::new(job.estimate.map(|estimate| expected(estimate, now)).unwrap_or_default()),
            Cell::new(job.waits_for.as_ref().or(job.error.as_ref()).cloned().unwrap_or_default()),
        ]);
    }
    table
}

/// What an estimate says of the next thing to come, such as `starts in 5m`.
fn expected(estimate: Estimate, now: Timestamp) -> String {
    let Estimate { starts_at, finishes_at } = estimate;
    let next = starts_at.map(|at| ("starts", at)).or_else(|| finishes_at.map(|at| ("ends", at)));
    let Some((what, at)) = next else { return String::new() };
    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default().as_secs();
    // Nobody counts the seconds of hours.
    let left = if left < 600 { left } else { left / 60 * 60 };
    if left == 0 { format!("{what} now") } else { format!("{what} in {}", Span::from_secs(left)) }
}

/// All that is known of a job, one thing a line, and its attempts and steps as tables.
fn details(job: &JobDetails, colour: bool) -> String {
    let JobDetails { summary, .. } = job;
    let time = |at: Option<Timestamp>| at.map(output::time).unwrap_or_default();
    let mut facts = Table::new(&[]);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.row(vec![Cell::new(name), Cell::new(value)]);
        }
    };
    fact("id", name(summary).to_owned());
    fact("job id", summary.job_id.clone());
    fact("state", summary.state.as_str().to_owned());
    fact("waits for", summary.waits_for.clone().unwrap_or_default());
    fact("outcome", optional(summary.outcome.as_ref()));
    fact("cause", optional(summary.cause.as_ref()));
    fact("exit code", optional(summary.exit_code.as_ref()));
    fact("why", summary.error.clone().unwrap_or_default());
    fact("cancelled", job.cancelled.clone().unwrap_or_default());
    fact("formula", summary.formula.clone().unwrap_or_default());
    fact("context", job.context.clone());
    fact("secrets", job.secrets.join(", "));
    fact("action", job.path.clone().unwrap_or_default());
    fact("revision", job.revision.clone().unwrap_or_default());
    fact("submitted by", job.submitted_by.clone().unwrap_or_default());
    fact("approved by", job.approved_by.clone().unwrap_or_default());
    fact("digest", job.digest.clone().unwrap_or_default());
    fact("retried by", job.retried_by.clone().unwrap_or_default());
    fact("submitted", output::time(summary.submitted_at));
    fact("started", time(summary.started_at));
    fact("finished", time(summary.finished_at));
    let estimate = summary.estimate.unwrap_or_default();
    fact("may start", time(estimate.starts_at));
    fact("may end", time(estimate.finishes_at));
    let mut text = facts.render(colour).trim_start().to_owned();
    if let Some(action) = &job.action {
        let mut lines = Table::new(&["submitted action"]);
        action.lines().for_each(|line| lines.row(vec![Cell::new(line)]));
        text = format!("{text}\n{}", lines.render(colour));
    }
    if !job.attempts.is_empty() {
        let mut attempts = Table::new(&["attempt", "cause", "exit", "node", "started", "finished", "child"]);
        for (index, attempt) in job.attempts.iter().enumerate() {
            attempts.row(vec![
                Cell::new((index + 1).to_string()),
                Cell::new(optional(attempt.cause.as_ref())),
                Cell::new(optional(attempt.exit_code.as_ref())),
                Cell::new(attempt.node.clone().unwrap_or_default()),
                Cell::new(time(attempt.started_at)),
                Cell::new(time(attempt.finished_at)),
                Cell::new(attempt.nomad_job_id.clone().unwrap_or_default()),
            ]);
        }
        text = format!("{text}\n{}", attempts.render(colour));
    }
    if !job.steps.is_empty() || job.running_step.is_some() {
        text = format!("{text}\n{}", steps(job).render(colour));
    }
    text
}

fn steps(job: &JobDetails) -> Table {
    let mut steps = Table::new(&["step", "exit", "seconds"]);
    for step in &job.steps {
        let colour = if step.exit_code == 0 { GREEN } else { RED };
        let code = Cell::coloured(step.exit_code.to_string(), Some(colour));
        steps.row(vec![Cell::new(step.name.as_str()), code, Cell::new(format!("{:.1}", step.seconds))]);
    }
    if let Some(name) = &job.running_step {
        steps.row(vec![Cell::new(name.as_str()), Cell::coloured("runs", Some(YELLOW))]);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_says_what_comes_next() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let now = Timestamp::from_second(100).unwrap();
        for (starts, finishes, said) in [
            (at(100), at(400), "starts now"),
            (at(145), None, "starts in 45s"),
            (at(4000), None, "starts in 1h5m"),
            (None, at(220), "ends in 2m"),
            (None, at(90), "ends now"),
            (None, None, ""),
        ] {
            assert_eq!(expected(Estimate { starts_at: starts, finishes_at: finishes }, now), said);
        }
    }
}
