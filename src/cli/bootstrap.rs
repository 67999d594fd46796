//! `consign bootstrap`.

use std::{path::PathBuf, process::ExitCode};

use super::{Failure, Outcome, Surroundings, output};
use crate::{
    agent,
    bootstrap::{
        self, AgentJob, Settings,
        acl::{self, HostVolumes},
    },
    dispatch::launch::Registered,
    nomad,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Say what would be changed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write the agent's Vault token to this file, with mode 0600.
    #[arg(long, value_name = "FILE")]
    token_out: Option<PathBuf>,
    /// Set up an agent that is a Nomad job itself (jobs/consign.nomad.hcl): rights by workload identity, no
    /// token.
    #[arg(long, conflicts_with = "token_out")]
    under_nomad: bool,
    /// The namespace of that job; without it, [nomad] namespace.
    #[arg(long, value_name = "NAMESPACE", requires = "under_nomad")]
    agent_namespace: Option<String>,
    /// The id of that job.
    #[arg(long, value_name = "ID", requires = "under_nomad", default_value = AgentJob::ID)]
    agent_job: String,
}

impl Arguments {
    fn agent_job(&self, namespace: &str) -> Option<AgentJob> {
        let namespace = self.agent_namespace.clone().unwrap_or_else(|| namespace.to_owned());
        self.under_nomad.then(|| AgentJob { namespace, id: self.agent_job.clone() })
    }
}

pub(super) async fn run(arguments: &Arguments, surroundings: &Surroundings) -> Outcome {
    let config = surroundings.config()?;
    let vault = agent::vault_client(&config, surroundings.operator_token()?)?;
    let nomad = agent::nomad_client(&config, surroundings.token("NOMAD_TOKEN"))?;
    let mut settings = Settings::of(&config, arguments.token_out.clone())
        .map_err(|error| Failure(format!("cannot read [nomad] ca_cert: {error}")))?;
    settings.agent_job = arguments.agent_job(&config.nomad.namespace);
    let base_jobs = agent::base_jobs(&config)?;
    let changes = bootstrap::plan(&vault, &settings).await?;
    for change in &changes {
        if arguments.dry_run {
            output::line(&format!("would {change}"));
        } else {
            bootstrap::apply(&vault, &settings, change).await?;
            output::line(&format!("done: {change}"));
        }
    }
    let mut count = changes.len();
    if let Some(job) = &settings.agent_job {
        let volumes = HostVolumes::of(&config, &base_jobs);
        let state = acl::plan(&nomad, &settings, job, &volumes).await?;
        count += nomad_policy(arguments.dry_run, &nomad, state).await?;
    }
    let states =
        if arguments.dry_run { base_jobs.survey(&nomad).await? } else { base_jobs.ensure(&nomad).await? };
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

/// Writes the agent's ACL policy where it is missing; gives the number of changes.
async fn nomad_policy(dry_run: bool, nomad: &nomad::Client, state: acl::State) -> Result<usize, Failure> {
    match state {
        acl::State::Right => Ok(0),
        acl::State::Off => {
            output::line(
                "Nomad's ACLs are off: the agent needs no ACL policy, and everybody may do everything",
            );
            Ok(0)
        }
        acl::State::Missing(change) if dry_run => {
            output::line(&format!("would {change}"));
            Ok(1)
        }
        acl::State::Missing(change) => {
            acl::apply(nomad, &change).await?;
            output::line(&format!("done: {change}"));
            Ok(1)
        }
    }
}
