//! Vault's identity store: entity aliases, entities and groups.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    client::{Method, Vault, lacks, texts},
    error::Error,
};

const ALIAS: &str = "identity/entity-alias";
const LOOKUP: &str = "identity/lookup/entity";

/// An entity: one identity, whatever auth methods it logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its id, which groups list.
    pub id: String,
    /// Its name, by which it is deleted.
    pub name: String,
}

/// An identity group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// `internal`, or `external` where an auth method decides over its members.
    pub kind: String,
    /// The entities that are members.
    pub member_entity_ids: Vec<String>,
    /// Notes kept with it.
    pub metadata: BTreeMap<String, String>,
    /// The Vault policies that its members get.
    pub policies: Vec<String>,
}

impl Vault {
    /// Makes an alias named `name` with a new entity; `None` where the alias was there already.
    ///
    /// Vault does this in one step under its identity lock, so a login at the same moment ends up
    /// with the same entity.
    pub async fn create_alias(&self, name: &str, accessor: &str) -> Result<Option<String>, Error> {
        let body = json!({ "name": name, "mount_accessor": accessor });
        let response = self.write(ALIAS, &body).await?;
        Ok(response.data()["canonical_id"].as_str().map(str::to_owned))
    }

    /// The entity behind an alias.
    pub async fn entity_by_alias(&self, alias: &str, accessor: &str) -> Result<Option<Entity>, Error> {
        let body = json!({ "alias_name": alias, "alias_mount_accessor": accessor });
        let Some(data) = self.found(Method::Post, LOOKUP, Some(&body)).await? else {
            return Ok(None);
        };
        let field =
            |name: &str| data[name].as_str().map(str::to_owned).ok_or_else(|| lacks("POST", LOOKUP, name));
        Ok(Some(Entity { id: field("id")?, name: field("name")? }))
    }

    /// Deletes an entity; its tokens die at once and groups drop it. None of that name is fine.
    pub async fn delete_entity(&self, name: &str) -> Result<(), Error> {
        self.delete(&format!("identity/entity/name/{name}")).await
    }

    /// A group by its name.
    pub async fn group(&self, name: &str) -> Result<Option<Group>, Error> {
        let path = group_path(name);
        self.read(&path).await?.map(|data| read_group(&data, &path)).transpose()
    }

    /// The names of all groups.
    pub async fn groups(&self) -> Result<Vec<String>, Error> {
        self.list("identity/group/name").await
    }

    /// Sets a group's members and nothing else.
    ///
    /// A group that does not exist would be created by this: read it first.
    pub async fn set_group_members(&self, name: &str, entities: &[String]) -> Result<(), Error> {
        self.write(&group_path(name), &json!({ "member_entity_ids": entities })).await.map(drop)
    }

    /// Creates an internal group or changes its policies and metadata; its members stay.
    pub async fn write_group(
        &self,
        name: &str,
        policies: &[String],
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let body = json!({ "policies": policies, "metadata": metadata });
        self.write(&group_path(name), &body).await.map(drop)
    }

    /// Deletes a group; none of that name is fine.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        self.delete(&group_path(name)).await
    }
}

fn group_path(name: &str) -> String {
    format!("identity/group/name/{name}")
}

/// The members of a group, none where it has none; `None` where that is not what is said. The list is written back
/// longer, so one that is not understood must not pass for a short one.
fn members(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(all) => all.iter().map(|member| member.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn read_group(data: &Value, path: &str) -> Result<Group, Error> {
    let metadata = data["metadata"].as_object().into_iter().flatten();
    Ok(Group {
        id: data["id"].as_str().map(str::to_owned).ok_or_else(|| lacks("GET", path, "id"))?,
        kind: data["type"].as_str().unwrap_or_default().to_owned(),
        member_entity_ids: members(&data["member_entity_ids"])
            .ok_or_else(|| lacks("GET", path, "member_entity_ids"))?,
        metadata: metadata
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        policies: texts(&data["policies"]),
    })
}
