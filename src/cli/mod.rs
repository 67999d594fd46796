//! The command line: one file for each command.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `submit` that waits ends with the job's own.

mod agent;
mod artifacts;
mod bootstrap;
mod completions;
mod doctor;
mod init;
mod jobs;
mod output;
mod pause;
mod remote;
mod secret;
mod submit;
mod table;
mod token;
mod trigger;
mod validate;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use secrecy::SecretString;

use crate::{
    config::{self, Config, Environment},
    schema,
    telemetry::{self, chain},
};

/// Runs approved work on Nomad from a git repository, with exactly the Vault secrets that it names.
#[derive(Debug, Parser)]
#[command(name = "consign", version, max_term_width = 100)]
struct Arguments {
    /// The configuration; without it ./consign.toml, then /etc/consign/consign.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the dispatcher.
    Agent(agent::Arguments),
    /// Make a new ops repo with samples in it.
    Init(init::Arguments),
    /// Check actions, formulas, base jobs and the configuration; exit 1 where something is wrong.
    Validate(validate::Arguments),
    /// Set up Vault and Nomad, as an operator; a second time changes nothing.
    Bootstrap(bootstrap::Arguments),
    /// Make, list and remove secrets, as an operator.
    #[command(subcommand)]
    Secret(secret::Command),
    /// Check servers, rights, files and clocks; each finding comes with its remedy.
    Doctor(doctor::Arguments),
    /// Submit work without a commit, with a formula of the ops repo.
    Submit(submit::Submission),
    /// List jobs, the newest first.
    Jobs(jobs::List),
    /// Show one job with its attempts and steps.
    Show(jobs::One),
    /// Print what a job printed.
    Logs(jobs::Logs),
    /// List what was kept of a job's files, or print one of them.
    Artifacts(artifacts::Artifacts),
    /// End a job.
    Cancel(jobs::One),
    /// Let work run that somebody else submitted and that waits for an approval.
    Approve(jobs::Approve),
    /// End work that somebody else submitted and that waits for an approval.
    Reject(jobs::Reject),
    /// Run a job again that was launched and ended without success.
    Retry(jobs::Retry),
    /// Launch nothing more, also after a restart; what is launched goes on, and work is still taken.
    Pause(pause::Pause),
    /// Let a paused queue go on.
    Resume(pause::Resume),
    /// Make, list and revoke the bearer tokens of the HTTP API, on the agent's machine.
    #[command(subcommand)]
    Token(token::Command),
    /// See triggers and their events, fire one, or ask whether one may run.
    #[command(subcommand)]
    Trigger(trigger::Command),
    /// Print the JSON Schema of a file, or of a webhook's body.
    Schema {
        /// Of what.
        kind: SchemaKind,
    },
    /// Print the completions for a shell, ids and formulas included: `source <(consign completions bash)`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    Action,
    Formula,
    Result,
    Webhook,
    Config,
}

/// What a command ends with where it cannot do what it was asked.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(chain(&error))
    }
}

type Outcome = Result<ExitCode, Failure>;

/// The tokens and settings that the environment gives.
struct Surroundings {
    config_path: Option<PathBuf>,
    environment: Environment,
}

impl Surroundings {
    fn new(config_path: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { config_path, environment: environment.collect() }
    }

    fn config(&self) -> Result<Config, config::Error> {
        config::load(self.config_path.as_deref(), &self.environment)
    }

    /// A variable of the environment; an empty one is none.
    fn given(&self, name: &str) -> Option<String> {
        self.environment.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn token(&self, name: &str) -> Option<SecretString> {
        self.given(name).map(Into::into)
    }

    /// The Vault token that an operator's command needs.
    fn operator_token(&self) -> Result<SecretString, Failure> {
        let missing =
            "VAULT_TOKEN is not set: this is an operator's command and needs an operator's Vault token";
        self.token("VAULT_TOKEN").ok_or_else(|| Failure(missing.to_owned()))
    }
}

/// Runs the command that the process was given.
#[must_use]
pub fn run() -> ExitCode {
    if let Some(ended) = completions::answered() {
        return ended;
    }
    let arguments = Arguments::parse();
    telemetry::start(!matches!(&arguments.command, Command::Agent(agent) if !agent.dev));
    let surroundings = Surroundings::new(arguments.config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(perform(arguments.command, &surroundings));
    runtime.shutdown_background();
    outcome.unwrap_or_else(|Failure(text)| {
        output::error(&text);
        ExitCode::FAILURE
    })
}

async fn perform(command: Command, surroundings: &Surroundings) -> Outcome {
    match command {
        Command::Agent(arguments) => agent::run(arguments, surroundings).await,
        Command::Init(arguments) => init::run(&arguments).await,
        Command::Validate(arguments) => validate::run(&arguments, surroundings),
        Command::Bootstrap(arguments) => bootstrap::run(&arguments, surroundings).await,
        Command::Secret(command) => secret::run(command, surroundings).await,
        Command::Doctor(arguments) => doctor::run(&arguments, surroundings).await,
        Command::Submit(arguments) => submit::run(&arguments, surroundings).await,
        Command::Jobs(arguments) => jobs::list(&arguments, surroundings).await,
        Command::Show(arguments) => jobs::show(&arguments, surroundings).await,
        Command::Logs(arguments) => jobs::logs(&arguments, surroundings).await,
        Command::Artifacts(arguments) => artifacts::run(&arguments, surroundings).await,
        Command::Cancel(arguments) => jobs::cancel(&arguments, surroundings).await,
        Command::Approve(arguments) => jobs::approve(&arguments, surroundings).await,
        Command::Reject(arguments) => jobs::reject(&arguments, surroundings).await,
        Command::Retry(arguments) => jobs::retry(&arguments, surroundings).await,
        Command::Pause(arguments) => pause::pause(&arguments, surroundings).await,
        Command::Resume(arguments) => pause::resume(&arguments, surroundings).await,
        Command::Token(command) => token::run(command, surroundings),
        Command::Trigger(command) => trigger::run(command, surroundings).await,
        Command::Schema { kind } => {
            let schema = match kind {
                SchemaKind::Action => schema::schema(schema::Kind::Action),
                SchemaKind::Formula => schema::schema(schema::Kind::Formula),
                SchemaKind::Result => schema::schema(schema::Kind::Result),
                SchemaKind::Webhook => schema::schema(schema::Kind::Webhook),
                SchemaKind::Config => schema::schema(schema::Kind::Config),
            };
            output::line(&serde_json::to_string_pretty(&schema)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => completions::run(shell),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Arguments::command().debug_assert();
    }
}
