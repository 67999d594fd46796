//! Grants: the secrets of one allocation, bound to it at its start and withdrawn at its end.
//!
//! Each allocation logs in to Vault with an identity that names the allocation and that only Nomad
//! can sign. Alone it opens nothing. A grant makes the entity behind it a member of the identity
//! groups `runner-<NAME>` of just the requested secrets, of the group `bot-<name>` where the run is a bot,
//! and last of the launch gate's group, so that an open gate means that all of it can be read. Withdrawing deletes the entity: Vault takes it
//! out of all groups and its tokens die at once.
//!
//! The agent's token can neither list entities nor tell which allocation an entity belongs to. So
//! nothing here sweeps by itself: whoever has the records asks for the entities of the allocations that live, and has
//! all other members expelled. [`Grants::withdraw`] may be repeated at will.

mod error;
mod grantable;
mod membership;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use self::membership::{Added, Membership};
pub use self::{
    error::Error,
    grantable::{BOT_TOKEN, Grantable},
    upkeep::Upkeep,
};
use crate::{
    fail_point,
    ids::{BotName, SecretName},
    vault::{self, Vault},
};

/// How many secrets are looked up at once.
const LOOKUPS_AT_ONCE: usize = 8;

/// The name of the metadata in the gate's group that holds the accessor of the JWT auth method.
pub const ACCESSOR_KEY: &str = "mount_accessor";

/// The field of an entry that holds a secret's value.
pub const FIELD: &str = "value";

/// Where things are in Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The KV version 2 secrets engine.
    pub kv: String,
    /// The folder of the secrets in it.
    pub prefix: String,
    /// The folder of the bots' tokens in it.
    pub bots: String,
    /// The launch gate's group.
    pub gate: String,
    /// The accessor of the auth method that allocations log in with; see [`mount_accessor`].
    pub accessor: String,
}

/// The accessor of the auth method that allocations log in with, as `consign bootstrap` left it in
/// the metadata of the gate's group: the agent's token can read it nowhere else.
pub async fn mount_accessor(vault: &Vault, gate: &str) -> Result<String, Error> {
    let group = vault.group(gate).await.map_err(Error::vault(format!("reading group {gate}")))?;
    let group = group.ok_or_else(|| Error::NoGate(gate.to_owned()))?;
    let accessor = group.metadata.get(ACCESSOR_KEY).filter(|accessor| !accessor.is_empty());
    accessor.cloned().ok_or_else(|| Error::NoAccessor(gate.to_owned()))
}

/// Issues and withdraws grants. Clones share the one writer of groups.
#[derive(Debug, Clone)]
pub struct Grants {
    vault: Vault,
    settings: Settings,
    membership: Membership,
}

impl Grants {
    /// Starts the writer of groups. There must be one per Vault prefix: a second would lose members.
    #[must_use]
    pub fn spawn(vault: Vault, settings: Settings) -> Self {
        let membership = Membership::spawn(vault.clone());
        Self { vault, settings, membership }
    }

    /// Lets an allocation read what is `wanted`, then opens the launch gate for it; gives its entity's id.
    ///
    /// May be repeated. Where it fails the gate stays shut, and a part of the grant may stand until
    /// it is withdrawn.
    pub async fn issue(&self, allocation: &str, wanted: &[Grantable]) -> Result<String, Error> {
        fail_point::before("alias made");
        let entity = self.entity(allocation).await?;
        fail_point::after("alias made");
        future::try_join_all(wanted.iter().map(|one| self.grant(allocation, &entity, one))).await?;
        match self.membership.add(self.settings.gate.clone(), entity.clone()).await? {
            Added::Member => Ok(entity),
            Added::NoGroup => Err(Error::NoGate(self.settings.gate.clone())),
            Added::NoEntity => Err(Error::Withdrawn(allocation.to_owned())),
        }
    }

    async fn grant(&self, allocation: &str, entity: &str, wanted: &Grantable) -> Result<(), Error> {
        match self.membership.add(wanted.group(), entity.to_owned()).await? {
            Added::Member => Ok(()),
            Added::NoGroup => Err(Error::UnknownSecret(wanted.clone())),
            Added::NoEntity => Err(Error::Withdrawn(allocation.to_owned())),
        }
    }

    /// The id of an allocation's entity, made where the allocation has not logged in yet.
    async fn entity(&self, allocation: &str) -> Result<String, Error> {
        let accessor = &self.settings.accessor;
        let made = self.vault.create_alias(allocation, accessor).await;
        if let Some(entity) = made.map_err(Error::vault(format!("making the alias {allocation}")))? {
            return Ok(entity);
        }
        let found = self.lookup(allocation).await?;
        found.map(|entity| entity.id).ok_or_else(|| Error::Withdrawn(allocation.to_owned()))
    }

    async fn lookup(&self, allocation: &str) -> Result<Option<vault::Entity>, Error> {
        let found = self.vault.entity_by_alias(allocation, &self.settings.accessor).await;
        found.map_err(Error::vault(format!("looking up the alias {allocation}")))
    }

    /// Ends an allocation's rights at once. May be repeated; an allocation without any is fine.
    pub async fn withdraw(&self, allocation: &str) -> Result<(), Error> {
        let Some(entity) = self.lookup(allocation).await? else { return Ok(()) };
        let turn = self.membership.deletion().await;
        fail_point::before("entity deleted");
        let deleted = self.vault.delete_entity(&entity.name).await;
        fail_point::after("entity deleted");
        drop(turn);
        deleted.map_err(Error::vault(format!("deleting the entity of {allocation}")))
    }

    /// Those of `wanted` that no grant could give: no entry with a value, no group, or a group
    /// without the Vault policy of the same name. In the order given. Vault is asked also where nothing is
    /// wanted, for without it no gate opens.
    pub async fn unknown_secrets(&self, wanted: &[Grantable]) -> Result<Vec<Grantable>, Error> {
        if wanted.is_empty() {
            return self.members(&self.settings.gate).await.map(|_| Vec::new());
        }
        let looked_up: Vec<_> = stream::iter(wanted.iter().cloned())
            .map(|one| async move { self.is_known(&one).await.map(|known| (one, known)) })
            .buffered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(looked_up.into_iter().filter(|(_, known)| !known).map(|(one, _)| one).collect())
    }

    async fn is_known(&self, wanted: &Grantable) -> Result<bool, Error> {
        let name = wanted.group();
        let group = self.vault.group(&name).await.map_err(Error::vault(format!("reading group {name}")))?;
        if !group.is_some_and(|group| group.policies.contains(&wanted.policy())) {
            return Ok(false);
        }
        let Settings { kv, prefix, bots, .. } = &self.settings;
        let path = format!("{}/{}", wanted.folder(prefix, bots), wanted.name());
        let entry = self.vault.entry(kv, &path).await;
        let entry = entry.map_err(Error::vault(format!("looking for {wanted}")))?;
        Ok(entry.is_some_and(|entry| entry.readable))
    }

    /// Whether the launch gate is open for an allocation.
    pub async fn passes_gate(&self, allocation: &str) -> Result<bool, Error> {
        let entity = self.vault.entity_by_alias(allocation, &self.settings.accessor).await;
        let entity = entity.map_err(Error::vault(format!("looking up allocation {allocation}")))?;
        let members = self.gate_members().await?;
        Ok(entity.is_some_and(|entity| members.contains(&entity.id)))
    }

    /// The ids of the entities that the launch gate is open for.
    pub async fn gate_members(&self) -> Result<Vec<String>, Error> {
        self.members(&self.settings.gate).await
    }

    /// The ids of the entities in each group of this installation: the launch gate's, and those of its secrets and
    /// bots.
    pub async fn memberships(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let Settings { kv, prefix, bots, gate, .. } = &self.settings;
        let listed = |folder| Error::vault(format!("listing {kv}/{folder}"));
        let secrets = self.vault.entries(kv, prefix).await.map_err(listed(prefix))?;
        let bots = self.vault.entries(kv, bots).await.map_err(listed(bots))?;
        let secrets =
            secrets.iter().filter_map(|name| Some(Grantable::Secret(SecretName::parse(name).ok()?)));
        let bots = bots.iter().filter_map(|name| Some(Grantable::Bot(BotName::parse(name).ok()?)));
        let groups: Vec<String> = secrets.chain(bots).map(|one| one.group()).chain([gate.clone()]).collect();
        stream::iter(groups)
            .map(|group| async move {
                let members = self.members(&group).await?;
                Ok((group, members))
            })
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await
    }

    /// The ids of the entities behind allocations, of those that have one.
    pub async fn entities(&self, allocations: Vec<String>) -> Result<BTreeMap<String, String>, Error> {
        let found: Vec<_> = stream::iter(allocations)
            .map(|allocation| async move {
                let entity = self.lookup(&allocation).await?;
                Ok(entity.map(|entity| (allocation, entity.id)))
            })
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Takes entities out of a group.
    pub async fn expel(&self, group: &str, strangers: &BTreeSet<String>) -> Result<(), Error> {
        self.membership.remove(&self.vault, group, strangers).await
    }

    /// The ids of the entities in a group; none where there is no such group.
    pub async fn members(&self, group: &str) -> Result<Vec<String>, Error> {
        let found = self.vault.group(group).await.map_err(Error::vault(format!("reading group {group}")))?;
        Ok(found.map(|group| group.member_entity_ids).unwrap_or_default())
    }
}
