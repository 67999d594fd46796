//! What is in trouble, and whether launching is paused: read by the health endpoints, written by whoever meets
//! trouble and by the driver.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use crate::queue::Paused;

/// What can be in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Nomad.
    Nomad,
    /// Vault.
    Vault,
    /// The ops repo, when it is read.
    OpsRepo,
    /// The ops repo, when results are pushed.
    Results,
    /// The evidence that approvals need.
    Approvals,
    /// The ops repo's history was rewritten.
    History,
    /// The forge that reviews are read from.
    Forge,
    /// The agent's own store.
    Store,
}

/// The troubles of the moment, one at most for each subject, and the pause, which is none.
#[derive(Debug, Clone, Default)]
pub struct Health {
    troubles: Arc<RwLock<BTreeMap<Subject, String>>>,
    paused: Arc<RwLock<Option<Paused>>>,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 8] = [
        Self::Nomad,
        Self::Vault,
        Self::OpsRepo,
        Self::Results,
        Self::Approvals,
        Self::History,
        Self::Forge,
        Self::Store,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nomad => "nomad",
            Self::Vault => "vault",
            Self::OpsRepo => "ops repo",
            Self::Results => "results",
            Self::Approvals => "approvals",
            Self::History => "history",
            Self::Forge => "forge",
            Self::Store => "store",
        }
    }
}

impl Health {
    /// Takes a trouble down; it is logged where it is new.
    pub fn report(&self, subject: Subject, trouble: impl Into<String>) {
        let trouble = trouble.into();
        if let Ok(mut troubles) = self.troubles.write() {
            let before = troubles.insert(subject, trouble.clone());
            if before.is_none() {
                tracing::warn!(subject = subject.as_str(), trouble, "degraded");
            }
        }
    }

    /// The trouble has passed.
    pub fn clear(&self, subject: Subject) {
        let clear = self.troubles.read().is_ok_and(|troubles| !troubles.contains_key(&subject));
        if clear {
            return;
        }
        if let Ok(mut troubles) = self.troubles.write()
            && troubles.remove(&subject).is_some()
        {
            tracing::info!(subject = subject.as_str(), "recovered");
        }
    }

    /// Takes down that launching is paused, or goes on.
    pub fn pause(&self, paused: Option<Paused>) {
        if let Ok(mut known) = self.paused.write() {
            *known = paused;
        }
    }

    /// Who paused the launching, where somebody did.
    #[must_use]
    pub fn paused(&self) -> Option<Paused> {
        self.paused.read().ok()?.clone()
    }

    /// Whether a subject is in trouble.
    #[must_use]
    pub fn is_degraded(&self, subject: Subject) -> bool {
        self.troubles.read().is_ok_and(|troubles| troubles.contains_key(&subject))
    }

    /// Everything that is in trouble, in words.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.troubles
            .read()
            .map(|troubles| {
                troubles.iter().map(|(subject, trouble)| format!("{}: {trouble}", subject.as_str())).collect()
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_stays_until_it_has_passed() {
        let health = Health::default();
        health.report(Subject::Vault, "sealed");
        health.clear(Subject::Nomad);
        assert_eq!(health.reasons(), ["vault: sealed"]);
        health.clear(Subject::Vault);
        assert!(health.reasons().is_empty());
    }
}
