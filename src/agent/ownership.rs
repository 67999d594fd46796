//! Claims the ops repo, and recovers what another store had launched.

use super::{Error, Running};
use crate::{
    config::Config,
    controller::{
        recover::{Ground, recover},
        step::Rooms,
    },
    fail_point,
    ops_repo::{self, ClaimError, OpsRepo, Owner},
};

/// The setting of the store that says that a take-over is under way.
const TAKING_OVER: &str = "taking_over";

impl Running<'_> {
    /// Claims the ops repo for this store, unless it has.
    pub(super) async fn claim(&self, repo: &OpsRepo, take_over: bool) -> Result<(), Error> {
        let failed = |error| Error::Claim(Box::new(error));
        let expected = match repo.owner().await.map_err(failed)? {
            Some((revision, owner)) if owner.store_id == self.store.id() => {
                repo.hold(&revision);
                return Ok(());
            }
            Some((_, owner)) if !take_over => return Err(Error::Held(owner)),
            Some((revision, owner)) => {
                tracing::warn!(store = owner.store_id, host = owner.host, "taking the ops repo over");
                fail_point::before("take-over begun");
                self.store.set(TAKING_OVER, "yes").await?;
                fail_point::after("take-over begun");
                Some(revision)
            }
            None => None,
        };
        let owner =
            Owner { store_id: self.store.id().to_owned(), host: host(), claimed_at: jiff::Timestamp::now() };
        repo.claim_owner(&owner, expected.as_ref()).await.map(drop).map_err(|error| match error {
            ClaimError::Held { owner, .. } => Error::Held(owner),
            ClaimError::Failed(error) => failed(error),
        })
    }

    /// Recovers what a lost store had launched, where a take-over is under way.
    pub(super) async fn recover(&self, rooms: &Rooms, repo: &OpsRepo, config: &Config) -> Result<(), Error> {
        if self.store.get(TAKING_OVER).await?.as_deref() != Some("yes") {
            return Ok(());
        }
        let failed = |error: ops_repo::Error| Error::Recover(Box::new(error));
        let tips = repo.tips().await.map_err(failed)?;
        repo.fetch(&tips).await.map_err(failed)?;
        let mut entries = Vec::new();
        for tip in [&tips.branch, &tips.results].into_iter().flatten() {
            entries.extend(repo.snapshot(tip).await.map_err(failed)?);
        }
        let recovered = recover(rooms, &Ground::new(&entries), &config.ops.actions)
            .await
            .map_err(|error| Error::Recover(Box::new(error)))?;
        tracing::info!(recovered, "took over what was launched before");
        fail_point::before("take-over ended");
        self.store.set(TAKING_OVER, "no").await?;
        fail_point::after("take-over ended");
        Ok(())
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
