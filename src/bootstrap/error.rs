//! What can go wrong while Vault and Nomad are set up.

use std::{io, path::PathBuf};

use crate::{
    nomad,
    vault::{self, policy},
};

/// Vault or Nomad could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting could mean something else to Vault than it says.
    #[error("the setting `{name}` is {value:?}: {}", policy::RULE)]
    Setting {
        /// The setting's key.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Vault cannot ask for Nomad's keys there.
    #[error("Vault cannot get Nomad's keys from {0:?}: set `[vault] jwks_url` to an http or https address")]
    JwksUrl(String),
    /// Vault did not do what was asked.
    #[error("Vault refused while {doing}")]
    Vault {
        /// What was being done.
        doing: String,
        /// What Vault says.
        #[source]
        source: vault::Error,
    },
    /// Nomad did not do what was asked.
    #[error("Nomad refused while {doing}")]
    Nomad {
        /// What was being done.
        doing: String,
        /// What Nomad says.
        #[source]
        source: nomad::Error,
    },
    /// A namespace or job id could mean something else in a policy than it says.
    #[error("{value:?} cannot stand in a Nomad ACL policy: it must be letters, digits and `-`")]
    Name {
        /// The value.
        value: String,
    },
    /// A Nomad ACL policy cannot name a host volume.
    #[error(
        "the host volume {name:?} cannot stand in a Nomad ACL policy: name it with letters, digits and `-`, \
         in Nomad and where it is used, [mounts] or a base job"
    )]
    VolumeName {
        /// The host volume.
        name: String,
    },
    /// A Nomad ACL policy of the agent's name is bound to another job.
    #[error(
        "the Nomad ACL policy {name} is bound to {bound_to}: remove it, or name that job with --agent-job"
    )]
    PolicyTaken {
        /// The Nomad ACL policy.
        name: String,
        /// What it is bound to.
        bound_to: String,
    },
    /// A shipped Vault policy cannot be filled in.
    #[error("the Vault policy {name} cannot be written")]
    Policy {
        /// The Vault policy.
        name: String,
        /// What is wrong with it.
        #[source]
        source: policy::Error,
    },
    /// Secrets and bots' tokens would stand in one folder.
    #[error("`{path}` is both `[vault] prefix` and `[vault] bots`: give bots a folder of their own")]
    SameFolder {
        /// The folder.
        path: String,
    },
    /// Something else is mounted where secrets should be.
    #[error("`{path}` is not a KV version 2 secrets engine but {found}: set `[vault] kv` to another path")]
    NotKv {
        /// The path.
        path: String,
        /// What is there.
        found: String,
    },
    /// Another auth method is enabled where allocations should log in.
    #[error("the auth method at `{path}` is not jwt but {found}: set `[vault] auth_path` to another path")]
    NotJwt {
        /// The path.
        path: String,
        /// What is there.
        found: String,
    },
    /// The JWT auth method trusts another kind of issuer.
    #[error(
        "the auth method at `{path}` takes its keys from `{source_of_keys}`, not from a JWKS address: \
         set `[vault] auth_path` to another path"
    )]
    OtherIssuer {
        /// The path.
        path: String,
        /// The key of its configuration that is set.
        source_of_keys: &'static str,
    },
    /// The auth method is missing right after it was enabled.
    #[error("Vault shows no auth method at `{0}` after it was enabled")]
    NoAccessor(String),
    /// A file for the agent's token holds something that must not be lost.
    #[error("{path} is left alone: {reason}; remove it or name another file")]
    TokenFileTaken {
        /// The file.
        path: PathBuf,
        /// What it holds.
        reason: &'static str,
    },
    /// The token file could not be read or written.
    #[error("the token file {path} cannot be {doing}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(super) fn vault(doing: impl Into<String>) -> impl FnOnce(vault::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Vault { doing, source }
    }

    pub(super) fn nomad(doing: impl Into<String>) -> impl FnOnce(nomad::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Nomad { doing, source }
    }
}
