//! What must work before the agent takes its first look.

use std::{error::Error as StdError, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    config,
    controller::health::{Health, Subject},
    dispatch::launch::{self, BaseJobs},
    grant, nomad,
    ops_repo::{self, ErrorKind, OpsRepo},
    retry::Pause,
    telemetry::chain,
    vault::Vault,
};

/// How long something may be out of reach before the agent gives up starting.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the checks go about it.
pub(super) struct Checks<'agent> {
    /// Where trouble is reported meanwhile.
    pub health: &'agent Health,
    /// Whether to wait for ever, because there is live work on record.
    pub patient: bool,
    /// The agent is told to end.
    pub stopping: &'agent CancellationToken,
}

/// Why a check did not pass.
struct Failed {
    what: String,
    remedy: String,
    /// Whether it may pass by itself.
    temporary: bool,
}

impl Failed {
    fn new(error: &dyn StdError, remedy: impl Into<String>, temporary: bool) -> Self {
        Self { what: chain(error), remedy: remedy.into(), temporary }
    }
}

impl Checks<'_> {
    /// Tries until it passes; `None` where the agent is told to end.
    async fn until<T>(
        &self,
        subject: Subject,
        mut check: impl AsyncFnMut() -> Result<T, Failed>,
    ) -> Result<Option<T>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Pause::new(Duration::from_millis(200), Duration::from_secs(3));
        loop {
            let tried = tokio::select! {
                () = self.stopping.cancelled() => return Ok(None),
                tried = check() => tried,
            };
            let failed = match tried {
                Ok(value) => {
                    self.health.clear(subject);
                    return Ok(Some(value));
                }
                Err(failed) => failed,
            };
            let over = !failed.temporary || Instant::now() >= deadline;
            if over && !self.patient {
                return Err(Error::Check { what: failed.what, remedy: failed.remedy });
            }
            self.health.report(subject, failed.what);
            tokio::select! {
                () = self.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause.wait()) => {}
            }
        }
    }

    /// The ops repo can be reached and has the branch.
    pub(super) async fn ops_repo(&self, settings: &ops_repo::Settings) -> Result<Option<OpsRepo>, Error> {
        self.until(Subject::OpsRepo, async || {
            let remote = &settings.remote;
            let failed = |error: &ops_repo::Error| {
                let remedy = match error.kind() {
                    ErrorKind::Unreachable => {
                        format!("Is {remote} reachable from here, as this user? See [ops] repo.")
                    }
                    ErrorKind::Missing => format!("There is no repository at {remote}: see [ops] repo."),
                    ErrorKind::Refused => {
                        format!("{remote} refuses this user: see [ops] repo and its credentials.")
                    }
                    _ => "See [ops] in the configuration; `consign doctor` tells more.".to_owned(),
                };
                Failed::new(error, remedy, error.kind() == ErrorKind::Unreachable)
            };
            let repo = OpsRepo::open(settings.clone()).await.map_err(|error| failed(&error))?;
            let tips = repo.tips().await.map_err(|error| failed(&error))?;
            if tips.branch.is_none() {
                return Err(Failed {
                    what: format!("the ops repo {remote} has no branch {}", settings.branch),
                    remedy: "Push a first commit (`consign init DIR` makes one), or set [ops] branch."
                        .to_owned(),
                    temporary: false,
                });
            }
            Ok(repo)
        })
        .await
    }

    /// Vault is unsealed, takes the token, and has been bootstrapped; gives the auth method's accessor.
    pub(super) async fn vault(
        &self,
        vault: &Vault,
        settings: &config::Vault,
    ) -> Result<Option<String>, Error> {
        let config::Vault { addr, gate, .. } = settings;
        self.until(Subject::Vault, async || {
            let facts = vault.lookup_self().await;
            if let Err(error) = facts {
                let remedy = match error.kind() {
                    Some(crate::vault::Kind::Denied) => {
                        format!(
                            "Vault at {addr} does not take the agent's token: make one with \
                             `consign bootstrap --token-out F` and name it in [vault] token_file; for an agent \
                             under Nomad, `consign bootstrap --under-nomad`."
                        )
                    }
                    Some(crate::vault::Kind::Sealed) => {
                        format!("Unseal Vault at {addr} (`vault operator unseal`).")
                    }
                    _ => format!("Is Vault running, and is [vault] addr = {addr:?} right?"),
                };
                return Err(Failed::new(&error, remedy, error.is_temporary()));
            }
            grant::mount_accessor(vault, gate).await.map_err(|error| {
                Failed::new(
                    &error,
                    "Set Vault up with `consign bootstrap`, as an operator.",
                    error.is_temporary(),
                )
            })
        })
        .await
    }

    /// Nomad has a leader, and the base jobs are registered.
    pub(super) async fn nomad(
        &self,
        nomad: &nomad::Client,
        addr: &str,
        base_jobs: &BaseJobs,
    ) -> Result<Option<()>, Error> {
        self.until(Subject::Nomad, async || {
            nomad.leader().await.map_err(|error| {
                Failed::new(
                    &error,
                    format!("Is Nomad running, and is [nomad] addr = {addr:?} right?"),
                    error.kind() == nomad::Kind::Unavailable,
                )
            })?;
            let registered = base_jobs.ensure(nomad).await.map_err(|error| {
                let temporary = match &error {
                    launch::Error::Nomad { source, .. } => source.kind() == nomad::Kind::Unavailable,
                    launch::Error::Render { .. } | launch::Error::Foreign { .. } | launch::Error::Refused { .. } => false,
                };
                let remedy = "The agent's Nomad token needs the rights that docs/operate.md lists; `consign doctor` tells more.";
                Failed::new(&error, remedy, temporary)
            })?;
            for (name, what) in registered {
                tracing::info!(job = name, ?what, "base job");
            }
            Ok(())
        })
        .await
    }
}
