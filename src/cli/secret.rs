//! `consign secret`.

use std::{io::Read as _, process::ExitCode};

use super::{Failure, Outcome, Surroundings, output};
use crate::{
    agent,
    ids::SecretName,
    secret::{Done, Secrets},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a secret, or give it a new value: standard input, byte for byte.
    Put {
        /// Its name.
        name: SecretName,
    },
    /// Make an entry that stands in Vault already grantable.
    Link {
        /// Its name.
        name: SecretName,
    },
    /// List the secrets, without their values.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret with its Vault policy and group.
    Rm {
        /// Its name.
        name: SecretName,
    },
}

pub(super) async fn run(command: Command, surroundings: &Surroundings) -> Outcome {
    let config = surroundings.config()?;
    let vault = agent::vault_client(&config, surroundings.operator_token()?)?;
    let secrets = Secrets::new(vault, &config.vault.kv, &config.vault.prefix);
    match command {
        Command::Put { name } => {
            let mut value = Vec::new();
            std::io::stdin()
                .read_to_end(&mut value)
                .map_err(|error| Failure(format!("cannot read the value from standard input: {error}")))?;
            print(&secrets.put(&name, &value).await?);
        }
        Command::Link { name } => print(&secrets.link(&name).await?),
        Command::Rm { name } => print(&secrets.rm(&name).await?),
        Command::List { json } => list(&secrets, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(done: &[Done]) {
    if done.is_empty() {
        output::line("nothing to change");
    }
    for done in done {
        output::line(&done.to_string());
    }
}

async fn list(secrets: &Secrets, json: bool) -> Result<(), Failure> {
    let listed = secrets.list().await?;
    if json {
        let rows: Vec<_> = listed
            .iter()
            .map(|secret| serde_json::json!({ "name": secret.name, "complete": secret.is_complete() }))
            .collect();
        output::line(&serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let width = listed.iter().map(|secret| secret.name.as_str().len()).max().unwrap_or_default();
    for secret in &listed {
        let parts = [("entry", secret.entry), ("Vault policy", secret.policy), ("group", secret.group)];
        let missing: Vec<&str> =
            parts.into_iter().filter(|(_, there)| !there).map(|(part, _)| part).collect();
        let state =
            if missing.is_empty() { "complete".to_owned() } else { format!("lacks {}", missing.join(", ")) };
        output::line(&format!("{:width$}  {state}", secret.name.as_str()));
    }
    if listed.is_empty() {
        output::remark("no secrets: make one with `consign secret put NAME < value`");
    }
    Ok(())
}
