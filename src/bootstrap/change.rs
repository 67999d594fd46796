//! One change to Vault, as it is told and as it is made.

use std::{fmt, path::PathBuf};

use super::AgentJob;

/// One change to make. Its text is a sentence that is true before and after it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Mount the secrets engine.
    MountKv {
        /// Where.
        path: String,
    },
    /// Enable the auth method that allocations log in with.
    EnableJwt {
        /// Where.
        path: String,
    },
    /// Tell the auth method where Nomad's public keys are.
    ConfigureJwt {
        /// The auth method.
        path: String,
        /// Where the keys are.
        jwks_url: String,
    },
    /// Write the Vault policy of every task's token.
    TaskPolicy {
        /// Its name.
        name: String,
    },
    /// Write the role that allocations log in with.
    Role {
        /// The auth method.
        path: String,
        /// The role.
        name: String,
        /// The fields that differ; all where there is no such role.
        fields: Vec<String>,
    },
    /// Write the role that the agent's own job logs in with.
    AgentRole {
        /// The auth method.
        path: String,
        /// The role.
        name: String,
        /// The job.
        job: AgentJob,
        /// The fields that differ; all where there is no such role.
        fields: Vec<String>,
    },
    /// Write the launch gate's entry.
    GateEntry {
        /// Where.
        path: String,
    },
    /// Write the launch gate's Vault policy.
    GatePolicy {
        /// Its name.
        name: String,
    },
    /// Write the launch gate's identity group.
    GateGroup {
        /// Its name.
        name: String,
    },
    /// Write the agent's Vault policy.
    AgentPolicy {
        /// Its name.
        name: String,
    },
    /// Make a token for the agent.
    AgentToken {
        /// The file that gets it.
        path: PathBuf,
        /// Its only Vault policy besides Vault's default one.
        policy: String,
    },
    /// Close the token file to everybody but its owner.
    TokenFileMode {
        /// The file.
        path: PathBuf,
    },
}

impl Change {
    /// The change as something under way, for an error message.
    pub(super) fn doing(&self) -> String {
        format!("making this change: {self}")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MountKv { path } => write!(formatter, "mount a KV version 2 secrets engine at {path}"),
            Self::EnableJwt { path } => write!(formatter, "enable the JWT auth method at {path}"),
            Self::ConfigureJwt { path, jwks_url } => {
                write!(formatter, "let the auth method {path} trust the keys at {jwks_url}")
            }
            Self::TaskPolicy { name } => {
                write!(formatter, "write Vault policy {name}, which every task's token has")
            }
            Self::Role { path, name, fields } => {
                write!(formatter, "write role {name} of the auth method {path} ({})", fields.join(", "))
            }
            Self::AgentRole { path, name, job: AgentJob { namespace, id }, fields } => {
                write!(
                    formatter,
                    "write role {name} of the auth method {path} for the job {id} in Nomad namespace {namespace} ({})",
                    fields.join(", ")
                )
            }
            Self::GateEntry { path } => write!(formatter, "write the launch gate's entry {path}"),
            Self::GatePolicy { name } => write!(formatter, "write Vault policy {name} for the launch gate"),
            Self::GateGroup { name } => {
                write!(formatter, "write identity group {name} for the launch gate")
            }
            Self::AgentPolicy { name } => write!(formatter, "write Vault policy {name} for the agent"),
            Self::AgentToken { path, policy } => {
                write!(
                    formatter,
                    "make a periodic token with Vault policy {policy} for the agent and put it into {}",
                    path.display()
                )
            }
            Self::TokenFileMode { path } => {
                write!(formatter, "close {} to everybody but its owner", path.display())
            }
        }
    }
}
