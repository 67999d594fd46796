//! `consign completions`: shells ask the program itself, which asks the agent for ids and formulas.

use std::{ffi::OsStr, path::Path, process::ExitCode, time::Duration};

use clap::CommandFactory as _;
use clap_complete::{CompleteEnv, CompletionCandidate, Shell, env::Shells};

use super::{Arguments, Failure, Outcome, Surroundings, output, remote};
use crate::client::{Client, Error};

/// The variable with which a shell's script asks, its value the shell's name.
const VARIABLE: &str = "_CONSIGN_COMPLETE";
/// How long the agent may take to answer: somebody has pressed a key.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many jobs are offered, the newest.
const JOBS: usize = 100;

/// Prints the script for a shell.
pub(super) fn run(shell: Shell) -> Outcome {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let completer =
        shells.completer(&name).ok_or_else(|| Failure(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "consign", "consign", &program(), &mut script)?;
    output::bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The program as the script calls it: by the name that it was called by, or where that is a path by all of it.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_else(|| "consign".into());
    let path = Path::new(&called);
    let path = if path.components().count() > 1 { std::path::absolute(path) } else { Ok(path.to_path_buf()) };
    path.unwrap_or_else(|_| "consign".into()).to_string_lossy().into_owned()
}

/// Answers a shell, where one asks; `None` where none does.
pub(super) fn answered() -> Option<ExitCode> {
    let here = std::env::current_dir().ok();
    let completions = CompleteEnv::with_factory(Arguments::command).var(VARIABLE);
    match completions.try_complete(std::env::args_os(), here.as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(error) => {
            output::error(&error.to_string());
            Some(ExitCode::FAILURE)
        }
    }
}

/// The ids of the newest jobs.
pub(super) fn jobs(current: &OsStr) -> Vec<CompletionCandidate> {
    let jobs = asked(async |client| client.jobs(None, JOBS).await).unwrap_or_default();
    let candidates = jobs.into_iter().map(|job| {
        let about = format!("{}, {}", job.state.as_str(), job.formula.as_deref().unwrap_or("by hand"));
        (job.action_id.unwrap_or(job.job_id), about)
    });
    offered(current, candidates)
}

/// The formulas of the ops repo that can be used.
pub(super) fn formulas(current: &OsStr) -> Vec<CompletionCandidate> {
    let formulas =
        asked(async |client| client.formulas().await).map(|list| list.formulas).unwrap_or_default();
    let sound = formulas.into_iter().filter(|formula| formula.problem.is_none());
    offered(current, sound.map(|formula| (formula.name, formula.description)))
}

fn offered(current: &OsStr, found: impl Iterator<Item = (String, String)>) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    found
        .filter(|(word, _)| word.starts_with(&*begun))
        .map(|(word, about)| CompletionCandidate::new(word).help(Some(about.into())))
        .collect()
}

/// What the agent answers. Nothing is said where there is none, or it takes too long.
fn asked<T>(ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = remote::client(&remote::Arguments::default(), &Surroundings::new(None)).ok()?;
    let answer = async { tokio::time::timeout(PATIENCE, ask(&client)).await.ok()?.ok() };
    let answer = runtime.block_on(answer);
    runtime.shutdown_background();
    answer
}
