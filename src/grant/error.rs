//! What can go wrong with a grant.

use std::sync::Arc;

use super::Grantable;
use crate::vault;

/// A grant that could not be issued, withdrawn or looked up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It is not set up: its group is missing.
    #[error("there is no {0}: an operator makes it with `{command}`", command = .0.put_command())]
    UnknownSecret(Grantable),
    /// The launch gate is not set up.
    #[error("Vault has no identity group {0} for the launch gate: run `consign bootstrap`")]
    NoGate(String),
    /// The gate's group does not say which auth method the allocations log in with.
    #[error("Vault's identity group {0} does not name a `mount_accessor`: run `consign bootstrap`")]
    NoAccessor(String),
    /// The allocation's entity is gone: its grant was withdrawn meanwhile.
    #[error("the entity of allocation {0} is gone: its grant was withdrawn meanwhile")]
    Withdrawn(String),
    /// A group did not keep a member that was added to it, time and again: something else writes to it.
    #[error("Vault's identity group {0} did not keep a new member: does something else write to it?")]
    Unstable(String),
    /// Vault did not do what was asked.
    #[error("Vault refused while {doing}")]
    Vault {
        /// What was being done.
        doing: String,
        /// What Vault says.
        #[source]
        source: Arc<vault::Error>,
    },
    /// The part of the agent that writes groups has ended.
    #[error("grants are no longer issued: the agent is ending")]
    Ended,
}

impl Error {
    pub(super) fn vault(doing: impl Into<String>) -> impl FnOnce(vault::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Vault { doing, source: Arc::new(source) }
    }

    /// Whether the same may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Vault { source, .. } => source.is_temporary(),
            Self::Unstable(_) => true,
            _ => false,
        }
    }
}
