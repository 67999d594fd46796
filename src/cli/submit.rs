//! `consign submit`: hands the running agent work that has no commit, and may stay until it has ended.
//!
//! With `--wait` or `--follow` the exit code is the job's own; 125 where the agent took no job, or it was
//! not heard of to its end.

use std::{
    io::{IsTerminal as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap_complete::ArgValueCompleter;
use serde_json::{Map, Value};

use super::{Failure, Outcome, Surroundings, completions, jobs, output, remote, table::plain};
use crate::{
    client::{Client, Error, Wait},
    http::view::JobDetails,
    ids::JobId,
    lifecycle::Phase,
};

/// What a command that waits ends with where there is no exit code of the job's own.
const NOT_RUN: u8 = 125;

#[derive(Debug, clap::Args)]
pub(super) struct Submission {
    /// An action file. Its `id` is left out: the run goes by its job id.
    #[arg(required_unless_present = "formula", conflicts_with_all = ["formula", "arg", "secret", "context", "blast_radius"])]
    file: Option<PathBuf>,
    /// The formula that runs.
    #[arg(long, add = ArgValueCompleter::new(completions::formulas))]
    formula: Option<String>,
    /// An argument for the formula; may stand more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    arg: Vec<(String, String)>,
    /// A secret that the task may read; may stand more than once.
    #[arg(long, value_name = "NAME")]
    secret: Vec<String>,
    /// Why it runs.
    #[arg(long, value_name = "TEXT")]
    context: Option<String>,
    /// How much it can break: low, medium or high. Without it, it counts as high.
    #[arg(long, value_name = "TIER")]
    blast_radius: Option<String>,
    /// Wait for the end of the job, and end with its exit code.
    #[arg(long)]
    wait: bool,
    /// Print what the job prints, and end with its exit code.
    #[arg(long, conflicts_with = "json")]
    follow: bool,
    /// The same key with the same work makes one job, however often it is submitted.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: remote::Arguments,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(arguments: &Submission, surroundings: &Surroundings) -> Outcome {
    match perform(arguments, surroundings).await {
        // 1 could be the job's own.
        Err(Failure(text)) if arguments.wait || arguments.follow => {
            output::error(&text);
            Ok(ExitCode::from(NOT_RUN))
        }
        outcome => outcome,
    }
}

async fn perform(arguments: &Submission, surroundings: &Surroundings) -> Outcome {
    let action = match &arguments.file {
        Some(file) => from_file(file)?,
        None => from_arguments(arguments),
    };
    let client = remote::client(&arguments.agent, surroundings)?;
    let key = arguments.idempotency_key.clone().unwrap_or_else(|| JobId::new().to_string());
    let submitted = client.submit(&action.into(), &key).await?;
    let id = submitted.job_id.as_str();
    if arguments.json && !arguments.wait {
        output::line(&serde_json::to_string_pretty(&submitted)?);
    } else if !arguments.json && !arguments.follow {
        output::line(id);
    }
    if !arguments.wait && !arguments.follow {
        if !arguments.json {
            output::remark(&format!(
                "`consign logs -f {id}` follows it; `consign show {id}` says how it ended"
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::remark(&format!("job {id}; it goes on also where this command ends"));
    if arguments.follow
        && let Err(Failure(text)) = jobs::follow(&client, id).await
    {
        output::remark(&format!("its log is no longer followed: {text}"));
    }
    let job = ended(&client, id).await?;
    if arguments.json {
        output::line(&serde_json::to_string_pretty(&job)?);
    } else if let Some(error) = &job.summary.error {
        output::remark(&plain(error));
    }
    let code = job.summary.exit_code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(NOT_RUN)))
}

/// The job once it has ended. Tells what it waits for, and on a terminal each change of its state.
async fn ended(client: &Client, id: &str) -> Result<JobDetails, Error> {
    let mut told = None;
    client
        .wait(id, &Wait::default(), |job| {
            let state = (job.summary.state, job.summary.waits_for.clone());
            if job.summary.outcome.is_none() && told.as_ref() != Some(&state) {
                tell(state.0, state.1.as_deref());
                told = Some(state);
            }
        })
        .await
}

fn tell(state: Phase, waits_for: Option<&str>) {
    match waits_for {
        Some(what) => output::remark(&format!("{}: for {}", state.as_str(), plain(what))),
        None if stderr().is_terminal() => output::remark(state.as_str()),
        None => {}
    }
}

/// What an action file says, without its id.
fn from_file(path: &Path) -> Result<Map<String, Value>, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure(format!("cannot read {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let table: toml::Table = text.parse().map_err(|error| failed(&error))?;
    let mut action: Map<String, Value> = table.into_iter().map(|(key, value)| (key, json(value))).collect();
    action.remove("id");
    Ok(action)
}

fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(word) => word.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(elements) => elements.into_iter().map(json).collect(),
        toml::Value::Table(entries) => {
            Value::Object(entries.into_iter().map(|(key, value)| (key, json(value))).collect())
        }
    }
}

fn from_arguments(arguments: &Submission) -> Map<String, Value> {
    let mut action = Map::new();
    let mut set = |key: &str, value: Value| drop(action.insert(key.to_owned(), value));
    set("formula", arguments.formula.clone().into());
    set(
        "args",
        Value::Object(
            arguments.arg.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
        ),
    );
    set("secrets", arguments.secret.clone().into());
    if let Some(context) = &arguments.context {
        set("context", context.as_str().into());
    }
    if let Some(tier) = &arguments.blast_radius {
        set("blast_radius", tier.as_str().into());
    }
    action
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Submission,
    }

    fn parsed(arguments: &[&str]) -> Result<Submission, clap::Error> {
        Alone::try_parse_from([&["submit"], arguments].concat()).map(|alone| alone.arguments)
    }

    #[test]
    fn arguments_make_an_action() {
        let arguments =
            parsed(&["--formula", "f", "--arg", "a=b=c", "--arg", "d=", "--secret", "S"]).unwrap();
        let expected = json!({ "formula": "f", "args": { "a": "b=c", "d": "" }, "secrets": ["S"] });
        assert_eq!(Value::Object(from_arguments(&arguments)), expected);
        for wrong in [&[][..], &["file", "--formula", "f"], &["--formula", "f", "--arg", "a"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_read_without_its_id() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "id = \"a\"\nformula = \"f\"\npriority = 7\nnot_before = 2027-01-31T22:00:00Z\nmask = false\n\
             [[constraints]]\nattribute = \"x\"\n",
        )
        .unwrap();
        let expected = json!({
            "formula": "f",
            "priority": 7,
            "not_before": "2027-01-31T22:00:00Z",
            "mask": false,
            "constraints": [{ "attribute": "x" }],
        });
        assert_eq!(Value::Object(from_file(file.path()).ok().unwrap()), expected);
    }
}
