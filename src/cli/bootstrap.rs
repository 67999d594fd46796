//! `consign bootstrap`.

use std::{path::PathBuf, process::ExitCode};

use super::{Failure, Outcome, Surroundings, output};
use crate::{
    agent,
    bootstrap::{self, Settings},
    dispatch::launch::Registered,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Say what would be changed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write the agent's Vault token to this file, with mode 0600.
    #[arg(long, value_name = "FILE")]
    token_out: Option<PathBuf>,
}

pub(super) async fn run(arguments: &Arguments, surroundings: &Surroundings) -> Outcome {
    let config = surroundings.config()?;
    let vault = agent::vault_client(&config, surroundings.operator_token()?)?;
    let nomad = agent::nomad_client(&config, surroundings.token("NOMAD_TOKEN"))?;
    let settings = Settings::of(&config, arguments.token_out.clone())
        .map_err(|error| Failure(format!("cannot read [nomad] ca_cert: {error}")))?;
    let changes = bootstrap::plan(&vault, &settings).await?;
    for change in &changes {
        if arguments.dry_run {
            output::line(&format!("would {change}"));
        } else {
            bootstrap::apply(&vault, &settings, change).await?;
            output::line(&format!("done: {change}"));
        }
    }
    let base_jobs = agent::base_jobs(&config)?;
    let states =
        if arguments.dry_run { base_jobs.survey(&nomad).await? } else { base_jobs.ensure(&nomad).await? };
    let mut count = changes.len();
    for (name, state) in states {
        let what = match state {
            Registered::Unchanged => continue,
            Registered::New => "register",
            Registered::Changed => "register anew",
        };
        count += 1;
        let mark = if arguments.dry_run { "would" } else { "done:" };
        output::line(&format!("{mark} {what} the base job {name} in Nomad namespace {}", nomad.namespace()));
    }
    if count == 0 {
        output::line("everything is set up: nothing to change");
    }
    output::line("");
    output::line("To see to in Nomad's own configuration, which no API sets:");
    for point in bootstrap::nomad_check_list(&settings) {
        output::line(&format!("  - {point}"));
    }
    Ok(ExitCode::SUCCESS)
}
