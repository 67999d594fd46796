//! Sets Vault up for consign: what is missing is found by reading, then made.
//!
//! [`plan`] only reads; [`apply`] makes one change. Applied in order they leave nothing to plan. For an agent
//! that is a Nomad job itself, [`acl`] does the same in Nomad.
//!
//! Several installations can share one Vault: each has a gate of its own, and the Vault policies are
//! named after it. With the gate `consign-go` they are `consign-agent` and `consign-task`, with any
//! other gate `<gate>-agent` and `<gate>-task`. The groups and Vault policies of secrets are called
//! `runner-<NAME>` everywhere, so installations that share a Vault namespace share those names too.

pub mod acl;
mod change;
mod error;
mod jwt;
mod token_file;

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::SecretString;

pub use self::{change::Change, error::Error, token_file::TokenFile};
use crate::{
    config::{Config, given},
    grant::{ACCESSOR_KEY, FIELD},
    vault::{Group, Vault, policy},
};

/// The launch gate's entry, relative to the secrets engine.
pub const GATE_ENTRY: &str = "consign/go";

/// The launch gate of a default installation, after which its Vault policies are not named.
const DEFAULT_GATE: &str = "consign-go";

/// What is to be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The KV version 2 secrets engine.
    pub kv: String,
    /// The folder of the secrets in it.
    pub prefix: String,
    /// The folder of the bots' tokens in it.
    pub bots: String,
    /// The launch gate's group and Vault policy.
    pub gate: String,
    /// The JWT auth method that allocations log in with.
    pub auth_path: String,
    /// Its role for them.
    pub role: String,
    /// The audience that their identities are made for.
    pub audience: String,
    /// Where Vault gets Nomad's public keys.
    pub jwks_url: String,
    /// The CA certificates that Vault is to trust there, in PEM; `None` for the system's.
    pub jwks_ca: Option<String>,
    /// The Nomad namespace whose jobs may log in.
    pub nomad_namespace: String,
    /// Where the agent's token goes; `None` where none is wanted.
    pub token_out: Option<PathBuf>,
    /// The agent's own Nomad job; `None` where the agent is none.
    pub agent_job: Option<AgentJob>,
}

/// The Nomad job that the agent runs as, by `jobs/consign.nomad.hcl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentJob {
    /// Its namespace.
    pub namespace: String,
    /// Its id.
    pub id: String,
}

impl AgentJob {
    /// Its id, where the operator gives it no other.
    pub const ID: &str = "consign";
    /// The name of its one group.
    pub const GROUP: &str = "consign";
    /// The name of its one task.
    pub const TASK: &str = "consign";
}

impl Settings {
    /// The settings that the configuration gives; it reads the file of `[nomad] ca_cert`.
    pub fn of(config: &Config, token_out: Option<PathBuf>) -> std::io::Result<Self> {
        Ok(Self {
            kv: config.vault.kv.clone(),
            prefix: config.vault.prefix.clone(),
            bots: config.vault.bots.clone(),
            gate: config.vault.gate.clone(),
            auth_path: config.vault.auth_path.clone(),
            role: config.vault.role.clone(),
            audience: config.vault.audience.clone(),
            jwks_url: config.jwks_url(),
            jwks_ca: given(&config.nomad.ca_cert).map(std::fs::read_to_string).transpose()?,
            nomad_namespace: config.nomad.namespace.clone(),
            token_out,
            agent_job: None,
        })
    }

    /// The name of the agent's Vault policy; of its Vault role and Nomad ACL policy too, where it is a Nomad job.
    #[must_use]
    pub fn agent_policy(&self) -> String {
        self.own_name("agent")
    }

    /// The name of the Vault policy of every task's token.
    #[must_use]
    pub fn task_policy(&self) -> String {
        self.own_name("task")
    }

    /// The name of the launch gate's Vault policy: the gate's, in lower case as Vault keeps it.
    #[must_use]
    pub fn gate_policy(&self) -> String {
        self.gate.to_ascii_lowercase()
    }

    fn own_name(&self, part: &str) -> String {
        if self.gate == DEFAULT_GATE {
            format!("consign-{part}")
        } else {
            format!("{}-{part}", self.gate).to_ascii_lowercase()
        }
    }

    /// Checks what becomes part of a path or of a Vault policy.
    fn check(&self) -> Result<(), Error> {
        let plain = [
            ("kv", &self.kv),
            ("prefix", &self.prefix),
            ("bots", &self.bots),
            ("gate", &self.gate),
            ("auth_path", &self.auth_path),
            ("role", &self.role),
        ];
        for (name, value) in plain {
            let single = matches!(name, "gate" | "role");
            if !policy::is_plain(value) || (single && value.contains('/')) {
                return Err(Error::Setting { name, value: value.clone() });
            }
        }
        // Where Nomad is reached over a socket, the address that is made of it is none.
        if !["http://", "https://"].iter().any(|scheme| self.jwks_url.starts_with(scheme)) {
            return Err(Error::JwksUrl(self.jwks_url.clone()));
        }
        if self.prefix == self.bots {
            return Err(Error::SameFolder { path: self.bots.clone() });
        }
        Ok(())
    }

    /// The text of the agent's Vault policy.
    pub fn render_agent_policy(&self, accessor: &str) -> Result<String, Error> {
        let values = [
            ("kv", self.kv.as_str()),
            ("prefix", &self.prefix),
            ("bots", &self.bots),
            ("gate", &self.gate),
            ("accessor", accessor),
        ];
        render(&self.agent_policy(), policy::AGENT, &values)
    }

    fn render_gate_policy(&self) -> Result<String, Error> {
        render(&self.gate_policy(), policy::GATE, &[("kv", &self.kv)])
    }

    fn render_task_policy(&self) -> Result<String, Error> {
        render(&self.task_policy(), policy::TASK, &[])
    }
}

fn render(name: &str, template: &str, values: &[(&'static str, &str)]) -> Result<String, Error> {
    policy::render(template, values).map_err(|source| Error::Policy { name: name.to_owned(), source })
}

/// Reads Vault's present state; gives what is to be changed, in order. Nothing where all is set up.
pub async fn plan(vault: &Vault, settings: &Settings) -> Result<Vec<Change>, Error> {
    settings.check()?;
    let mut changes = Vec::new();
    let kv_is_new = plan_kv(vault, settings, &mut changes).await?;
    let accessor = jwt::plan_method(vault, settings, &mut changes).await?;

    let task = settings.task_policy();
    if !has_policy(vault, &task, &settings.render_task_policy()?).await? {
        changes.push(Change::TaskPolicy { name: task });
    }
    jwt::plan_roles(vault, settings, accessor.is_some(), &mut changes).await?;

    if kv_is_new || !gate_entry_is_there(vault, settings).await? {
        changes.push(Change::GateEntry { path: format!("{}/{GATE_ENTRY}", settings.kv) });
    }
    let gate_policy = settings.gate_policy();
    if !has_policy(vault, &gate_policy, &settings.render_gate_policy()?).await? {
        changes.push(Change::GatePolicy { name: gate_policy.clone() });
    }
    let group = vault.group(&settings.gate).await;
    let group = group.map_err(Error::vault(format!("reading group {}", settings.gate)))?;
    if !gate_group_is_right(group.as_ref(), &gate_policy, accessor.as_deref()) {
        changes.push(Change::GateGroup { name: settings.gate.clone() });
    }

    let agent = settings.agent_policy();
    let agent_is_right = match &accessor {
        Some(accessor) => has_policy(vault, &agent, &settings.render_agent_policy(accessor)?).await?,
        None => false,
    };
    if !agent_is_right {
        changes.push(Change::AgentPolicy { name: agent.clone() });
    }
    if let Some(path) = &settings.token_out {
        match token_file::inspect(vault, path, &agent).await? {
            TokenFile::Good => {}
            TokenFile::TooOpen => changes.push(Change::TokenFileMode { path: path.clone() }),
            TokenFile::Absent | TokenFile::Expired => {
                changes.push(Change::AgentToken { path: path.clone(), policy: agent });
            }
        }
    }
    Ok(changes)
}

async fn plan_kv(vault: &Vault, settings: &Settings, changes: &mut Vec<Change>) -> Result<bool, Error> {
    let path = &settings.kv;
    let mount = vault.secrets_engine(path).await.map_err(Error::vault("reading the secrets engines"))?;
    match mount {
        None => {
            changes.push(Change::MountKv { path: path.clone() });
            Ok(true)
        }
        Some(mount) if mount.kind == "kv" && mount.options.get("version").is_some_and(|it| it == "2") => {
            Ok(false)
        }
        Some(mount) => {
            let version = mount.options.get("version").cloned().unwrap_or_default();
            let found = if mount.kind == "kv" { format!("KV version {version}") } else { mount.kind };
            Err(Error::NotKv { path: path.clone(), found: found.trim_end().to_owned() })
        }
    }
}

async fn gate_entry_is_there(vault: &Vault, settings: &Settings) -> Result<bool, Error> {
    let entry = vault.entry(&settings.kv, GATE_ENTRY).await;
    let entry = entry.map_err(Error::vault("looking for the launch gate's entry"))?;
    Ok(entry.is_some_and(|entry| entry.readable))
}

async fn has_policy(vault: &Vault, name: &str, text: &str) -> Result<bool, Error> {
    let present = vault.policy(name).await.map_err(Error::vault(format!("reading Vault policy {name}")))?;
    Ok(present.is_some_and(|present| policy::same(&present, text)))
}

fn gate_group_is_right(group: Option<&Group>, gate_policy: &str, accessor: Option<&str>) -> bool {
    group.is_some_and(|group| {
        group.policies == [gate_policy]
            && accessor.is_some()
            && group.metadata.get(ACCESSOR_KEY).map(String::as_str) == accessor
    })
}

/// Makes one change that [`plan`] proposed.
pub async fn apply(vault: &Vault, settings: &Settings, change: &Change) -> Result<(), Error> {
    let done = match change {
        Change::MountKv { path } => vault.mount_kv(path).await,
        Change::EnableJwt { path } => vault.enable_jwt(path).await,
        Change::ConfigureJwt { .. } => return jwt::configure(vault, settings).await,
        Change::TaskPolicy { name } => vault.write_policy(name, &settings.render_task_policy()?).await,
        Change::Role { name, .. } => {
            vault.write_jwt_role(&settings.auth_path, name, &jwt::role(settings)).await
        }
        Change::AgentRole { name, job, .. } => {
            vault.write_jwt_role(&settings.auth_path, name, &jwt::agent_role(settings, job)).await
        }
        Change::GateEntry { .. } => {
            vault.write_entry(&settings.kv, GATE_ENTRY, FIELD, &SecretString::from("go")).await.map(drop)
        }
        Change::GatePolicy { name } => vault.write_policy(name, &settings.render_gate_policy()?).await,
        Change::GateGroup { name } => {
            let accessor = jwt::accessor(vault, settings).await?;
            let present = vault.group(name).await.map_err(Error::vault(format!("reading group {name}")))?;
            let mut metadata: BTreeMap<String, String> =
                present.map(|group| group.metadata).unwrap_or_default();
            metadata.insert(ACCESSOR_KEY.to_owned(), accessor);
            vault.write_group(name, &[settings.gate_policy()], &metadata).await
        }
        Change::AgentPolicy { name } => {
            let accessor = jwt::accessor(vault, settings).await?;
            vault.write_policy(name, &settings.render_agent_policy(&accessor)?).await
        }
        Change::AgentToken { path, policy } => return token_file::make(vault, path, policy).await,
        Change::TokenFileMode { path } => return token_file::close(path),
    };
    done.map_err(Error::vault(change.doing()))
}

/// What an operator has to see to in Nomad's own configuration, one sentence each: no API sets it.
#[must_use]
pub fn nomad_check_list(settings: &Settings) -> Vec<String> {
    vec![
        format!(
            "Nomad's clients and servers have `vault {{ enabled = true  jwt_auth_backend_path = {:?} }}`, \
             and the servers `default_identity {{ aud = [{:?}] }}` in it.",
            settings.auth_path, settings.audience
        ),
        "Nomad's clients have `client { template { vault_retry { attempts = 0 } } }`, so that a task waits \
         at the launch gate for as long as the agent is away."
            .to_owned(),
        format!("Vault reaches Nomad's public keys at {}.", settings.jwks_url),
        match &settings.agent_job {
            None => format!(
                "With ACLs, the agent's Nomad token has what policies/nomad-agent.hcl says, in namespace {:?}.",
                settings.nomad_namespace
            ),
            Some(job) => format!(
                "Nobody else submits jobs in namespace {:?}: whoever can change the job {} has the agent's rights.",
                job.namespace, job.id
            ),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// What the default configuration gives.
    pub(super) fn settings() -> Settings {
        let config = config::read("consign.toml", "", &config::Environment::new()).unwrap();
        Settings::of(&config, None).unwrap()
    }

    #[test]
    fn installations_have_policies_of_their_own() {
        assert_eq!(settings().agent_policy(), "consign-agent");
        let other = Settings { gate: "Team-go".to_owned(), ..settings() };
        assert_eq!(
            (other.agent_policy(), other.task_policy(), other.gate_policy()),
            ("team-go-agent".to_owned(), "team-go-task".to_owned(), "team-go".to_owned())
        );
    }

    #[test]
    fn settings_with_a_second_meaning_are_refused() {
        assert!(settings().check().is_ok());
        for bad in ["", "*", "a/+/b", "a\"b", "../x"] {
            let wrong = Settings { prefix: bad.to_owned(), ..settings() };
            assert!(matches!(wrong.check(), Err(Error::Setting { name: "prefix", .. })), "{bad:?}");
        }
        assert!(Settings { gate: "a/b".to_owned(), ..settings() }.check().is_err());
        let socket = Settings { jwks_url: "unix:///x/.well-known/jwks.json".to_owned(), ..settings() };
        assert!(matches!(socket.check(), Err(Error::JwksUrl(_))));
        let shared = Settings { bots: "runner".to_owned(), ..settings() };
        assert!(matches!(shared.check(), Err(Error::SameFolder { .. })));
    }
}
