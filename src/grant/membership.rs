//! The one writer of identity groups.
//!
//! Membership has no compare-and-set in Vault: a member is added by reading the list and writing it
//! back longer, and two writers lose each other's members without an error. So all additions pass
//! through one task. What arrived while it wrote goes out together, one write per group.
//!
//! Deleting an entity changes groups too, and a list that still names it is refused as a whole.
//! Deletions therefore take turns with the writer: many at once, but none between its reading and
//! its writing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{RwLock, RwLockReadGuard, mpsc, oneshot};

use super::error::Error;
use crate::{fail_point, vault::Vault};

/// How many additions may wait for the writer before those who ask have to wait as well.
const WAITING: usize = 1024;
/// How many groups are written at once.
const GROUPS_AT_ONCE: usize = 8;
/// How often a group is written anew because its list changed meanwhile.
const TRIES: usize = 5;

/// What became of one addition.
#[derive(Debug, Clone)]
pub(super) enum Added {
    /// The group lists the entity, as read back.
    Member,
    /// There is no such group; none was made.
    NoGroup,
    /// Vault no longer has the entity.
    NoEntity,
}

struct Addition {
    group: String,
    entity: String,
    reply: oneshot::Sender<Result<Added, Error>>,
}

/// Asks the writer for additions.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    additions: mpsc::Sender<Addition>,
    turns: Turns,
}

/// Held exclusively by the writer while it writes a batch, shared by deletions.
type Turns = Arc<RwLock<()>>;

impl Membership {
    /// Starts the writer; it ends when the last handle is gone.
    pub(super) fn spawn(vault: Vault) -> Self {
        let (additions, queue) = mpsc::channel(WAITING);
        let turns = Turns::default();
        tokio::spawn(write_groups(vault, queue, Arc::clone(&turns)));
        Self { additions, turns }
    }

    /// Waits until entities may be deleted; no group is written while the guard lives.
    pub(super) async fn deletion(&self) -> RwLockReadGuard<'_, ()> {
        self.turns.read().await
    }

    /// Takes entities out of a group, in turn with additions and deletions.
    pub(super) async fn remove(
        &self,
        vault: &Vault,
        name: &str,
        strangers: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let _turn = self.turns.write().await;
        let group = vault.group(name).await.map_err(Error::vault(format!("reading group {name}")))?;
        let Some(group) = group else { return Ok(()) };
        let mut members = group.member_entity_ids;
        members.retain(|member| !strangers.contains(member));
        vault.set_group_members(name, &members).await.map_err(Error::vault(format!("writing group {name}")))
    }

    /// Adds an entity to a group and comes back when Vault lists it there.
    pub(super) async fn add(&self, group: String, entity: String) -> Result<Added, Error> {
        let (reply, answer) = oneshot::channel();
        let addition = Addition { group, entity, reply };
        self.additions.send(addition).await.map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }
}

async fn write_groups(vault: Vault, mut queue: mpsc::Receiver<Addition>, turns: Turns) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, WAITING).await > 0 {
        let _turn = turns.write().await;
        let groups = by_group(batch.drain(..));
        stream::iter(groups)
            .for_each_concurrent(GROUPS_AT_ONCE, |(group, additions)| write_group(&vault, group, additions))
            .await;
    }
}

fn by_group(additions: impl Iterator<Item = Addition>) -> BTreeMap<String, Vec<Addition>> {
    let mut groups: BTreeMap<String, Vec<Addition>> = BTreeMap::new();
    for addition in additions {
        groups.entry(addition.group.clone()).or_default().push(addition);
    }
    groups
}

async fn write_group(vault: &Vault, group: String, additions: Vec<Addition>) {
    let entities = additions.iter().map(|addition| addition.entity.clone()).collect();
    let outcome = add_members(vault, &group, entities).await;
    for Addition { entity, reply, .. } in additions {
        let answer = match &outcome {
            Ok(None) => Ok(Added::NoGroup),
            Ok(Some(gone)) if gone.contains(&entity) => Ok(Added::NoEntity),
            Ok(Some(_)) => Ok(Added::Member),
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may have gone away; the membership stands all the same.
        drop(reply.send(answer));
    }
}

/// Adds entities to a group until they are read back. Gives those that Vault no longer has; `None`
/// where there is no such group.
async fn add_members(
    vault: &Vault,
    name: &str,
    mut wanted: BTreeSet<String>,
) -> Result<Option<BTreeSet<String>>, Error> {
    let mut gone = BTreeSet::new();
    let mut tries = 0;
    loop {
        let group = vault.group(name).await.map_err(Error::vault(format!("reading group {name}")))?;
        let Some(group) = group else { return Ok(None) };
        let Some(members) = merged(&group.member_entity_ids, &wanted, &gone) else {
            return Ok(Some(gone));
        };
        if tries == TRIES {
            return Err(Error::Unstable(name.to_owned()));
        }
        tries += 1;
        fail_point::before("group written");
        let written = vault.set_group_members(name, &members).await;
        fail_point::after("group written");
        if let Err(error) = written {
            let Some(entity) = error.missing_entity() else {
                return Err(Error::vault(format!("writing group {name}"))(error));
            };
            wanted.remove(entity);
            if gone.insert(entity.to_owned()) {
                // One entity fewer is progress; there are only so many.
                tries -= 1;
            }
        }
    }
}

/// The present members but those that are gone, and the wanted ones; `None` where all wanted ones
/// are members.
fn merged(present: &[String], wanted: &BTreeSet<String>, gone: &BTreeSet<String>) -> Option<Vec<String>> {
    let missing: Vec<&String> = wanted.iter().filter(|entity| !present.contains(entity)).collect();
    let kept = present.iter().filter(|entity| !gone.contains(*entity));
    (!missing.is_empty()).then(|| kept.chain(missing).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn members_are_kept_and_added_once() {
        let wanted = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
        let none = BTreeSet::new();
        assert_eq!(merged(&list(&["a", "b"]), &wanted, &none), Some(list(&["a", "b", "c"])));
        assert_eq!(merged(&list(&["c", "b"]), &wanted, &none), None);
        assert_eq!(merged(&[], &none, &none), None);
        let gone = BTreeSet::from(["a".to_owned()]);
        assert_eq!(merged(&list(&["a", "b"]), &wanted, &gone), Some(list(&["b", "c"])));
    }
}
