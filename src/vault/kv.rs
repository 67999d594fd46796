//! Entries of a KV version 2 secrets engine. Values are written, never read.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{client::Vault, error::Error};

/// What is known of an entry without reading its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The version that a read would give.
    pub version: u64,
    /// Whether that version is there: not deleted, not destroyed.
    pub readable: bool,
}

impl Vault {
    /// An entry's metadata. `path` is relative to the engine mounted at `kv`.
    pub async fn entry(&self, kv: &str, path: &str) -> Result<Option<Entry>, Error> {
        Ok(self.read(&format!("{kv}/metadata/{path}")).await?.map(|data| read_entry(&data)))
    }

    /// The names below `folder`, folders with a trailing slash.
    pub async fn entries(&self, kv: &str, folder: &str) -> Result<Vec<String>, Error> {
        self.list(&format!("{kv}/metadata/{folder}")).await
    }

    /// Writes a new version with the single field `field`; gives its number.
    pub async fn write_entry(
        &self,
        kv: &str,
        path: &str,
        field: &str,
        value: &SecretString,
    ) -> Result<u64, Error> {
        let body = json!({ "data": { field: value.expose_secret() } });
        let response = self.write(&format!("{kv}/data/{path}"), &body).await?;
        Ok(response.data()["version"].as_u64().unwrap_or_default())
    }

    /// Whether the present version has a field `field` with a plain value, without reading it.
    pub async fn entry_has_field(&self, kv: &str, path: &str, field: &str) -> Result<bool, Error> {
        let data = self.read(&format!("{kv}/subkeys/{path}")).await?;
        let subkeys = data.as_ref().and_then(|data| data["subkeys"].as_object());
        Ok(subkeys.and_then(|keys| keys.get(field)).is_some_and(Value::is_null))
    }

    /// Deletes an entry with all its versions; none there is fine.
    pub async fn delete_entry(&self, kv: &str, path: &str) -> Result<(), Error> {
        self.delete(&format!("{kv}/metadata/{path}")).await
    }
}

fn read_entry(data: &Value) -> Entry {
    let version = data["current_version"].as_u64().unwrap_or_default();
    let present = &data["versions"][version.to_string()];
    let readable = present.is_object()
        && present["deletion_time"].as_str().unwrap_or_default().is_empty()
        && present["destroyed"] != Value::Bool(true);
    Entry { version, readable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_destroyed_or_missing_version_is_not_readable() {
        let entry = |version: Value| {
            read_entry(&json!({ "current_version": 2, "versions": { "2": version } })).readable
        };
        assert!(entry(json!({ "deletion_time": "", "destroyed": false })));
        assert!(!entry(json!({ "deletion_time": "2026-01-01T00:00:00Z", "destroyed": false })));
        assert!(!entry(json!({ "deletion_time": "", "destroyed": true })));
        assert!(!entry(Value::Null));
        assert!(!read_entry(&json!({ "current_version": 0, "versions": {} })).readable);
    }
}
