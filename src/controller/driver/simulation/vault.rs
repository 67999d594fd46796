//! A stand-in for Vault: aliases, entities and groups, as far as consign asks for them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::random::Random;
use crate::ambient::simulated::Request;

/// The group of the launch gate.
pub(super) const GATE: &str = "consign-go";

/// An answer: status and body.
pub(super) type Answer = (u16, Value);

#[derive(Debug, Default)]
pub(super) struct Vault {
    /// Entities by the allocation that their alias names: id, and name.
    entities: BTreeMap<String, (String, String)>,
    /// Members of groups, by the group's name.
    groups: BTreeMap<String, BTreeSet<String>>,
    made: u64,
    /// Whether it answers nothing but that it is sealed.
    pub(super) sealed: bool,
    /// How many times in a thousand another writer undoes a change of a group.
    pub(super) undone: u64,
}

impl Vault {
    /// A Vault with the gate and the secrets.
    pub(super) fn with_secrets(secrets: &[&str]) -> Self {
        let mut vault = Self::default();
        vault.groups.insert(GATE.to_owned(), BTreeSet::new());
        vault.groups.extend(secrets.iter().map(|name| (format!("runner-{name}"), BTreeSet::new())));
        vault
    }

    /// Makes sure that an allocation has an entity, as its login does; says whether it is new.
    pub(super) fn log_in(&mut self, allocation: &str) -> bool {
        if self.entities.contains_key(allocation) {
            return false;
        }
        self.made += 1;
        let entity = (format!("entity-{}", self.made), format!("entity_{}", self.made));
        self.entities.insert(allocation.to_owned(), entity);
        true
    }

    /// Whether an allocation may read what its templates ask for: the gate's entry and `secrets`.
    pub(super) fn opens(&self, allocation: &str, secrets: &[String]) -> bool {
        let Some((entity, _)) = self.entities.get(allocation).filter(|_| !self.sealed) else { return false };
        let is_in = |group: &str| self.groups.get(group).is_some_and(|members| members.contains(entity));
        is_in(GATE) && secrets.iter().all(|secret| is_in(&format!("runner-{secret}")))
    }

    /// Every membership: the group, and the allocation.
    pub(super) fn memberships(&self) -> Vec<(String, String)> {
        let of = |entity: &String| self.entities.iter().find(|(_, (id, _))| id == entity);
        let name =
            |entity| of(entity).map_or_else(|| "nobody".to_owned(), |(allocation, _)| allocation.clone());
        let groups = self.groups.iter();
        groups
            .flat_map(|(group, members)| members.iter().map(move |one| (group.clone(), name(one))))
            .collect()
    }

    pub(super) fn answer(&mut self, request: &Request, random: &mut Random) -> Answer {
        if self.sealed {
            return (503, json!({ "errors": ["Vault is sealed"] }));
        }
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let text = |name: &str| request.body[name].as_str().unwrap_or_default().to_owned();
        match (request.method.as_str(), path.as_slice()) {
            ("POST", ["identity", "entity-alias"]) => {
                let allocation = text("name");
                if !self.log_in(&allocation) {
                    return (204, Value::Null);
                }
                (200, json!({ "data": { "canonical_id": self.entities[&allocation].0 } }))
            }
            ("POST", ["identity", "lookup", "entity"]) => match self.entities.get(&text("alias_name")) {
                Some((id, name)) => (200, json!({ "data": { "id": id, "name": name } })),
                None => (204, Value::Null),
            },
            ("DELETE", ["identity", "entity", "name", name]) => {
                self.entities.retain(|_, (id, present)| {
                    let gone = present == name;
                    if gone {
                        self.groups.values_mut().for_each(|members| members.retain(|member| member != id));
                    }
                    !gone
                });
                (204, Value::Null)
            }
            ("GET", ["identity", "group", "name", name]) => match self.groups.get(*name) {
                Some(members) => {
                    let group = json!({
                        "id": name, "type": "internal", "metadata": null,
                        "member_entity_ids": members, "policies": [name.to_lowercase()],
                    });
                    (200, json!({ "data": group }))
                }
                None => (404, json!({ "errors": [] })),
            },
            ("POST", ["identity", "group", "name", name]) => self.set_members(name, request, random),
            ("GET", [_, "metadata", ..]) => {
                let version = json!({ "deletion_time": "", "destroyed": false });
                (200, json!({ "data": { "current_version": 1, "versions": { "1": version } } }))
            }
            _ => (404, json!({ "errors": [format!("the stand-in does not know {request:?}")] })),
        }
    }

    /// Sets a group's members; a list with an entity that is gone is refused as a whole.
    fn set_members(&mut self, name: &str, request: &Request, random: &mut Random) -> Answer {
        let group = self.groups.entry(name.to_owned()).or_default();
        let Some(list) = request.body["member_entity_ids"].as_array() else { return (204, Value::Null) };
        let members: BTreeSet<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let known = |entity: &&String| self.entities.values().any(|(id, _)| id == *entity);
        if let Some(gone) = members.iter().find(|entity| !known(entity)) {
            let words = format!("1 error occurred:\n\t* invalid entity ID \"{gone}\"\n\n");
            return (500, json!({ "errors": [words] }));
        }
        if !random.chance(self.undone) {
            *group = members;
        }
        (204, Value::Null)
    }
}
