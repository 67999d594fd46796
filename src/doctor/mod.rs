//! `consign doctor`: looks at everything that the agent stands on, and says what to do about it.
//!
//! Nothing is changed: no file of the configuration, nothing in Nomad, Vault or the ops repo. The ops
//! repo is looked at through a mirror in a temporary folder. What is wrong with one subject hides
//! nothing about the others.

mod clocks;
mod configuration;
mod disk;
mod events;
mod finding;
mod forge;
mod mounts;
mod nomad;
mod ops_repo;
mod report;
mod scratch;
mod vault;
pub(crate) mod version;

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;

pub use self::{
    finding::{Finding, Level, worst},
    report::render,
};
use crate::config::Config;

/// How long one subject may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The tokens of the environment, which win over the configured files.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// `NOMAD_TOKEN`.
    pub nomad: Option<SecretString>,
    /// `VAULT_TOKEN`.
    pub vault: Option<SecretString>,
}

/// Examines every subject at once, each for ten seconds at most.
pub async fn examine(config: &Config, tokens: &Tokens) -> Vec<Finding> {
    let groups = join_all([
        within("configuration", Box::pin(async { configuration::examine(config, tokens) })),
        within(
            "store",
            Box::pin(async {
                let mut findings = disk::examine(&config.store.path);
                let reserve = config.store.artifact_reserve.as_u64();
                findings.push(disk::examine_artifacts(&config.artifacts(), reserve));
                findings
            }),
        ),
        within("ops repo", Box::pin(ops_repo::examine(config))),
        within("nomad", Box::pin(nomad::examine(config, tokens))),
        within("mounts", Box::pin(mounts::examine(config, tokens))),
        within("nomad events", Box::pin(events::examine(config, tokens))),
        within("vault", Box::pin(vault::examine(config, tokens))),
        within("forge", Box::pin(forge::examine(config))),
        within("clocks", Box::pin(clocks::examine(config))),
    ])
    .await;
    groups.into_iter().flatten().collect()
}

async fn within(
    subject: &'static str,
    examination: std::pin::Pin<Box<dyn Future<Output = Vec<Finding>> + Send + '_>>,
) -> Vec<Finding> {
    tokio::time::timeout(LIMIT, examination).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", LIMIT.as_secs());
        vec![Finding::failure(subject, message, "Look at the network between this host and the server.")]
    })
}
