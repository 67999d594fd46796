//! The operator's side of secrets and bots' tokens: making, listing and removing them.
//!
//! Each is three things of one name: an entry in the KV engine, a Vault policy that reads that entry,
//! and an identity group that carries the Vault policy. The base jobs read the entry at
//! `<kv>/<prefix>/<NAME>`, that of a bot at `<kv>/<bots>/<name>`, so an entry elsewhere cannot be linked
//! in: [`Secrets::link`] makes Vault policy and group for an entry that some other tool has put at that
//! place.

use std::{collections::BTreeSet, fmt};

use secrecy::SecretString;

use crate::{
    grant::{FIELD, Grantable},
    vault::{self, Vault, policy},
};

/// The longest `NAME=value` with its final NUL that Linux passes to a program, in bytes.
const LONGEST_VARIABLE: usize = 128 * 1024;

/// A secret that could not be made, listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value cannot be a secret.
    #[error("the value of {name} cannot be used: {reason}")]
    Value {
        /// The secret or bot.
        name: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// There is no entry to link.
    #[error(
        "{path} has no field `value`: an entry can be linked only where the base jobs read it; \
         copy it there, or use `consign secret put`"
    )]
    NoEntry {
        /// Where the entry would have to be.
        path: String,
    },
    /// A Vault policy of the secret's name allows something else.
    #[error(
        "the Vault policy {policy} is there already and allows something else than reading {path}: \
         remove it, or choose another name"
    )]
    PolicyTaken {
        /// The Vault policy.
        policy: String,
        /// The path that it should allow to read.
        path: String,
    },
    /// A group of the secret's name has other rights or other members.
    #[error("the identity group {group} is there already and {reason}: remove it, or choose another name")]
    GroupTaken {
        /// The group.
        group: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The Vault policy cannot be filled in.
    #[error("the Vault policy of {name} cannot be written")]
    Policy {
        /// The secret or bot.
        name: String,
        /// What is wrong with it.
        #[source]
        source: policy::Error,
    },
    /// Vault did not do what was asked.
    #[error("Vault refused while {doing}")]
    Vault {
        /// What was being done.
        doing: String,
        /// What Vault says.
        #[source]
        source: vault::Error,
    },
}

fn failed(doing: impl Into<String>) -> impl FnOnce(vault::Error) -> Error {
    let doing = doing.into();
    move |source| Error::Vault { doing, source }
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A version of an entry was written.
    EntryWritten {
        /// The entry.
        path: String,
        /// The version.
        version: u64,
    },
    /// A Vault policy was written.
    PolicyWritten(String),
    /// A group was written.
    GroupWritten(String),
    /// An entry was deleted with all its versions.
    EntryDeleted(String),
    /// A Vault policy was deleted.
    PolicyDeleted(String),
    /// A group was deleted.
    GroupDeleted(String),
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntryWritten { path, version } => write!(formatter, "wrote version {version} of {path}"),
            Self::PolicyWritten(name) => write!(formatter, "wrote Vault policy {name}"),
            Self::GroupWritten(name) => write!(formatter, "wrote identity group {name}"),
            Self::EntryDeleted(path) => write!(formatter, "deleted {path} with all its versions"),
            Self::PolicyDeleted(name) => write!(formatter, "deleted Vault policy {name}"),
            Self::GroupDeleted(name) => write!(formatter, "deleted identity group {name}"),
        }
    }
}

/// A secret or a bot's token, and which of its three parts are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub name: Grantable,
    /// Whether there is an entry.
    pub entry: bool,
    /// Whether there is a Vault policy that reads the entry.
    pub policy: bool,
    /// Whether there is an identity group.
    pub group: bool,
}

impl Listed {
    /// Whether it can be granted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entry && self.policy && self.group
    }
}

/// Secrets, or bots' tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Secrets.
    Secrets,
    /// Bots' tokens.
    Bots,
}

impl Kind {
    /// What of this kind has a name; `None` where it can be no such name.
    fn of(self, name: &str) -> Option<Grantable> {
        match self {
            Self::Secrets => name.parse().ok().map(Grantable::Secret),
            Self::Bots => name.parse().ok().map(Grantable::Bot),
        }
    }

    fn group_prefix(self) -> &'static str {
        match self {
            Self::Secrets => "runner-",
            Self::Bots => "bot-",
        }
    }
}

/// The secrets and bots of one installation, with an operator's token.
#[derive(Debug, Clone)]
pub struct Secrets {
    vault: Vault,
    kv: String,
    prefix: String,
    bots: String,
}

impl Secrets {
    /// The secrets below `<kv>/<prefix>`, and the bots' tokens below `<kv>/<bots>`.
    #[must_use]
    pub fn new(vault: Vault, kv: &str, prefix: &str, bots: &str) -> Self {
        Self { vault, kv: kv.to_owned(), prefix: prefix.to_owned(), bots: bots.to_owned() }
    }

    /// Writes a value, byte for byte, with its Vault policy and group; members of the group stay.
    pub async fn put(&self, name: &Grantable, value: &[u8]) -> Result<Vec<Done>, Error> {
        let value = check_value(name, value)?;
        // First the parts that may be refused, so that no value is written in vain.
        let mut done = self.admit(name).await?;
        let version = self.vault.write_entry(&self.kv, &self.path(name), FIELD, &value).await;
        let version = version.map_err(failed(format!("writing the value of {name}")))?;
        done.insert(0, Done::EntryWritten { path: self.full_path(name), version });
        Ok(done)
    }

    /// Makes Vault policy and group for an entry that is at its place already.
    pub async fn link(&self, name: &Grantable) -> Result<Vec<Done>, Error> {
        let there = self.vault.entry_has_field(&self.kv, &self.path(name), FIELD).await;
        if !there.map_err(failed(format!("looking for the entry of {name}")))? {
            return Err(Error::NoEntry { path: self.full_path(name) });
        }
        self.admit(name).await
    }

    /// Those of a kind of this installation of which some part is there, in order of their names: those with an
    /// entry below its prefix, and those whose Vault policy reads one there. A group alone may be that of
    /// another installation, for all share the names of groups.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Listed>, Error> {
        let folder = match kind {
            Kind::Secrets => &self.prefix,
            Kind::Bots => &self.bots,
        };
        let entries = self.vault.entries(&self.kv, folder).await.map_err(failed("listing entries"))?;
        let policies = self.vault.policies().await.map_err(failed("listing Vault policies"))?;
        let groups = self.vault.groups().await.map_err(failed("listing identity groups"))?;
        let mut listed = Vec::new();
        for name in candidates(kind, &entries, &groups) {
            let present = policies.contains(&name.policy());
            let policy = if present { self.has_own_policy(&name).await? } else { false };
            let entry = entries.iter().any(|entry| entry == name.name());
            if entry || policy {
                listed.push(Listed { entry, policy, group: groups.contains(&name.group()), name });
            }
        }
        Ok(listed)
    }

    /// Removes a secret or a bot's token: its group first, so that nobody is granted it any more. What is not there
    /// is passed over.
    pub async fn rm(&self, name: &Grantable) -> Result<Vec<Done>, Error> {
        let (group, policy) = (name.group(), name.policy());
        let mut done = Vec::new();
        if self.group(&group).await?.is_some() {
            let deleted = self.vault.delete_group(&group).await;
            deleted.map_err(failed(format!("deleting group {group}")))?;
            done.push(Done::GroupDeleted(group));
        }
        if self.policy(&policy).await?.is_some() {
            let deleted = self.vault.delete_policy(&policy).await;
            deleted.map_err(failed(format!("deleting Vault policy {policy}")))?;
            done.push(Done::PolicyDeleted(policy));
        }
        let entry = self.vault.entry(&self.kv, &self.path(name)).await;
        if entry.map_err(failed(format!("looking for the entry of {name}")))?.is_some() {
            let deleted = self.vault.delete_entry(&self.kv, &self.path(name)).await;
            deleted.map_err(failed(format!("deleting the entry of {name}")))?;
            done.push(Done::EntryDeleted(self.full_path(name)));
        }
        Ok(done)
    }

    /// Makes Vault policy and group where they are missing. Ones that mean something else are left
    /// alone: another installation may rely on them.
    async fn admit(&self, name: &Grantable) -> Result<Vec<Done>, Error> {
        let (group, policy) = (name.group(), name.policy());
        let text = self.policy_text(name)?;
        let present_policy = self.policy(&policy).await?;
        if present_policy.as_ref().is_some_and(|present| !policy::same(present, &text)) {
            return Err(Error::PolicyTaken { policy, path: self.full_path(name) });
        }
        let present_group = self.group(&group).await?;
        let taken = present_group.as_ref().and_then(|present| other_use(present, &policy));
        if let Some(reason) = taken {
            return Err(Error::GroupTaken { group, reason });
        }
        let mut done = Vec::new();
        if present_policy.is_none() {
            let written = self.vault.write_policy(&policy, &text).await;
            written.map_err(failed(format!("writing Vault policy {policy}")))?;
            done.push(Done::PolicyWritten(policy.clone()));
        }
        let metadata = present_group.as_ref().map(|group| group.metadata.clone()).unwrap_or_default();
        if present_group.is_none_or(|present| present.policies.is_empty()) {
            let written = self.vault.write_group(&group, &[policy], &metadata).await;
            written.map_err(failed(format!("writing group {group}")))?;
            done.push(Done::GroupWritten(group));
        }
        Ok(done)
    }

    /// The Vault policy that reads the entry.
    fn policy_text(&self, name: &Grantable) -> Result<String, Error> {
        let folder = name.folder(&self.prefix, &self.bots);
        let values = [("kv", self.kv.as_str()), ("prefix", folder), ("name", name.name())];
        policy::render(policy::SECRET, &values)
            .map_err(|source| Error::Policy { name: name.to_string(), source })
    }

    async fn has_own_policy(&self, name: &Grantable) -> Result<bool, Error> {
        let text = self.policy_text(name)?;
        Ok(self.policy(&name.policy()).await?.is_some_and(|present| policy::same(&present, &text)))
    }

    async fn group(&self, name: &str) -> Result<Option<vault::Group>, Error> {
        self.vault.group(name).await.map_err(failed(format!("reading group {name}")))
    }

    async fn policy(&self, name: &str) -> Result<Option<String>, Error> {
        self.vault.policy(name).await.map_err(failed(format!("reading Vault policy {name}")))
    }

    fn path(&self, name: &Grantable) -> String {
        format!("{}/{}", name.folder(&self.prefix, &self.bots), name.name())
    }

    fn full_path(&self, name: &Grantable) -> String {
        format!("{}/{}", self.kv, self.path(name))
    }
}

/// Why a group cannot carry the Vault policy, if it cannot.
fn other_use(group: &vault::Group, policy: &str) -> Option<&'static str> {
    if group.kind != "internal" {
        Some("takes its members from an auth method")
    } else if group.policies.iter().any(|name| name != policy) {
        Some("carries other Vault policies")
    } else {
        None
    }
}

/// Checks that a value arrives in a task's environment as it is given here.
fn check_value(name: &Grantable, value: &[u8]) -> Result<SecretString, Error> {
    let wrong = |reason: String| Error::Value { name: name.to_string(), reason };
    let most = LONGEST_VARIABLE - name.variable().len() - "=\0".len();
    if value.is_empty() {
        return Err(wrong("it is empty, as a secret that was not granted would be".to_owned()));
    }
    if value.len() > most {
        return Err(wrong(format!(
            "it has {} bytes, and the environment variable {} cannot hold more than {most}",
            value.len(),
            name.variable()
        )));
    }
    if let Some(place) = value.iter().position(|byte| *byte == 0) {
        return Err(wrong(format!("byte {} is NUL", place + 1)));
    }
    match std::str::from_utf8(value) {
        Ok(text) => Ok(SecretString::from(text)),
        Err(error) => Err(wrong(format!(
            "byte {} is not valid UTF-8; encode it first, for example with base64",
            error.valid_up_to() + 1
        ))),
    }
}

/// The names of entries and groups that may be of this kind.
fn candidates(kind: Kind, entries: &[String], groups: &[String]) -> BTreeSet<Grantable> {
    let of_groups = groups.iter().filter_map(|group| group.strip_prefix(kind.group_prefix()));
    entries.iter().map(String::as_str).chain(of_groups).filter_map(|name| kind.of(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Grantable {
        Kind::Secrets.of(text).unwrap()
    }

    #[test]
    fn values_that_would_not_arrive_as_given_are_refused() {
        let key = name("KEY");
        for good in ["x", "a\nb\n", "ä\"'$`\\", &"x".repeat(LONGEST_VARIABLE - 5)] {
            assert!(check_value(&key, good.as_bytes()).is_ok());
        }
        let long = vec![b'x'; LONGEST_VARIABLE - 4];
        for bad in [&b""[..], b"a\0b", b"\xff", &long] {
            let error = check_value(&key, bad).unwrap_err().to_string();
            assert!(error.starts_with("the value of secret KEY cannot be used: "), "{error}");
        }
    }

    #[test]
    fn secrets_are_looked_for_by_entry_and_by_group() {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let entries = texts(&["A", "B", "folder/", "lower"]);
        let groups = texts(&["runner-A", "runner-C", "bot-nobody", "people"]);
        let found = |kind: Kind| {
            let found = candidates(kind, &entries, &groups);
            found.iter().map(|found| found.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(Kind::Secrets), ["A", "B", "C"]);
        assert_eq!(found(Kind::Bots), ["lower", "nobody"]);
    }
}
