//! `consign doctor`.

use std::process::ExitCode;

use super::{Outcome, Surroundings, output};
use crate::doctor::{self, Level};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, surroundings: &Surroundings) -> Outcome {
    let config = surroundings.config()?;
    let tokens =
        doctor::Tokens { nomad: surroundings.token("NOMAD_TOKEN"), vault: surroundings.token("VAULT_TOKEN") };
    let findings = doctor::examine(&config, &tokens).await;
    if arguments.json {
        output::line(&serde_json::to_string_pretty(&findings)?);
    } else {
        output::text(&doctor::render(&findings, output::colour()));
    }
    Ok(if doctor::worst(&findings) == Level::Failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
