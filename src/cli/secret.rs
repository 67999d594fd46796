//! `consign secret`.

use std::{io::Read as _, process::ExitCode};

use super::{Failure, Outcome, Surroundings, output};
use crate::{
    agent,
    grant::Grantable,
    ids::{BotName, SecretName},
    secret::{Done, Kind, Secrets},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a secret, or give it a new value: standard input, byte for byte.
    Put(Name),
    /// Make an entry that stands in Vault already grantable.
    Link(Name),
    /// List the secrets, without their values.
    List {
        /// List the bots instead.
        #[arg(long)]
        bot: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret with its Vault policy and group.
    Rm(Name),
}

#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// Its name.
    #[arg(required_unless_present = "bot")]
    name: Option<SecretName>,
    /// The token of this bot, instead of a secret.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    bot: Option<BotName>,
}

impl Name {
    fn grantable(self) -> Result<Grantable, Failure> {
        let bot = self.bot.map(Grantable::Bot);
        // clap asks for one of the two.
        bot.or(self.name.map(Grantable::Secret)).ok_or_else(|| Failure("no name is given".to_owned()))
    }
}

pub(super) async fn run(command: Command, surroundings: &Surroundings) -> Outcome {
    let config = surroundings.config()?;
    let vault = agent::vault_client(&config, surroundings.operator_token()?)?;
    let secrets = Secrets::new(vault, &config.vault.kv, &config.vault.prefix, &config.vault.bots);
    match command {
        Command::Put(name) => {
            let name = name.grantable()?;
            let mut value = Vec::new();
            std::io::stdin()
                .read_to_end(&mut value)
                .map_err(|error| Failure(format!("cannot read the value from standard input: {error}")))?;
            print(&secrets.put(&name, &value).await?);
        }
        Command::Link(name) => print(&secrets.link(&name.grantable()?).await?),
        Command::Rm(name) => print(&secrets.rm(&name.grantable()?).await?),
        Command::List { bot, json } => {
            list(&secrets, if bot { Kind::Bots } else { Kind::Secrets }, json).await?;
        }
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

async fn list(secrets: &Secrets, kind: Kind, json: bool) -> Result<(), Failure> {
    let listed = secrets.list(kind).await?;
    if json {
        let rows: Vec<_> = listed
            .iter()
            .map(|secret| serde_json::json!({ "name": secret.name.name(), "complete": secret.is_complete() }))
            .collect();
        output::line(&serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let width = listed.iter().map(|secret| secret.name.name().len()).max().unwrap_or_default();
    for secret in &listed {
        let parts = [("entry", secret.entry), ("Vault policy", secret.policy), ("group", secret.group)];
        let missing: Vec<&str> =
            parts.into_iter().filter(|(_, there)| !there).map(|(part, _)| part).collect();
        let state =
            if missing.is_empty() { "complete".to_owned() } else { format!("lacks {}", missing.join(", ")) };
        output::line(&format!("{:width$}  {state}", secret.name.name()));
    }
    if listed.is_empty() {
        output::remark(match kind {
            Kind::Secrets => "no secrets: make one with `consign secret put NAME < value`",
            Kind::Bots => "no bots: make one with `consign secret put --bot NAME < token`",
        });
    }
    Ok(())
}
