//! Vault itself: its health, Vault policies, and what is mounted where.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    client::{Method, Vault},
    error::Error,
};

/// Whether Vault can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it has been set up at all.
    pub initialized: bool,
    /// Whether somebody has to unseal it.
    pub sealed: bool,
    /// Whether another server of its cluster answers.
    pub standby: bool,
    /// Its version.
    pub version: String,
}

/// A secrets engine or auth method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it is, such as `kv` or `jwt`.
    pub kind: String,
    /// Its options, such as the `version` of a KV engine.
    pub options: BTreeMap<String, String>,
    /// The id by which entity aliases name it.
    pub accessor: String,
}

impl Vault {
    /// Whether Vault can answer. An error only where it gave no answer at all.
    pub async fn health(&self) -> Result<Health, Error> {
        // `sys/health` tells its state by status code and `sys/seal-status` always by 200, so that the
        // seal is read off the latter and only the standby off the former.
        let seal = self.read_body("sys/seal-status").await?;
        let sealed = seal["sealed"] != Value::Bool(false);
        let initialized = seal["initialized"] != Value::Bool(false);
        let version = seal["version"].as_str().unwrap_or_default().to_owned();
        let standby = !sealed && self.is_standby().await?;
        Ok(Health { initialized, sealed, standby, version })
    }

    async fn is_standby(&self) -> Result<bool, Error> {
        match self.request(Method::Get, "sys/health", None).await {
            Ok(_) => Ok(false),
            Err(Error::Refused { status, .. }) => Ok(matches!(status, 429 | 472 | 473)),
            Err(error) => Err(error),
        }
    }

    /// The server's clock, to the second; `None` where this server does not tell it.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, Error> {
        match self.request(Method::Get, "sys/health", None).await {
            Ok(response) => {
                let second = response.body["server_time_utc"].as_i64();
                Ok(second.and_then(|second| Timestamp::from_second(second).ok()))
            }
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_body(&self, path: &str) -> Result<Value, Error> {
        self.request(Method::Get, path, None).await.map(|response| response.body)
    }

    /// A Vault policy's text. Vault lower-cases the names of policies.
    pub async fn policy(&self, name: &str) -> Result<Option<String>, Error> {
        let data = self.read(&policy_path(name)).await?;
        Ok(data.and_then(|data| data["policy"].as_str().map(str::to_owned)))
    }

    /// The names of all Vault policies.
    pub async fn policies(&self) -> Result<Vec<String>, Error> {
        self.list("sys/policies/acl").await
    }

    /// Writes a Vault policy.
    pub async fn write_policy(&self, name: &str, text: &str) -> Result<(), Error> {
        self.write(&policy_path(name), &json!({ "policy": text })).await.map(drop)
    }

    /// Deletes a Vault policy; none of that name is fine.
    pub async fn delete_policy(&self, name: &str) -> Result<(), Error> {
        self.delete(&policy_path(name)).await
    }

    /// The secrets engine mounted at `path`.
    pub async fn secrets_engine(&self, path: &str) -> Result<Option<Mount>, Error> {
        self.mount("sys/mounts", path).await
    }

    /// Mounts a KV version 2 secrets engine at `path`.
    pub async fn mount_kv(&self, path: &str) -> Result<(), Error> {
        let body = json!({ "type": "kv", "options": { "version": "2" } });
        self.write(&format!("sys/mounts/{path}"), &body).await.map(drop)
    }

    /// The auth method enabled at `path`.
    pub async fn auth_method(&self, path: &str) -> Result<Option<Mount>, Error> {
        self.mount("sys/auth", path).await
    }

    /// Enables the JWT auth method at `path`.
    pub async fn enable_jwt(&self, path: &str) -> Result<(), Error> {
        let body = json!({ "type": "jwt", "description": "workload identities of Nomad" });
        self.write(&format!("sys/auth/{path}"), &body).await.map(drop)
    }

    /// The configuration of the JWT auth method at `path`.
    pub async fn jwt_config(&self, path: &str) -> Result<Option<Value>, Error> {
        self.read(&format!("auth/{path}/config")).await
    }

    /// Replaces the configuration of the JWT auth method at `path`.
    pub async fn write_jwt_config(&self, path: &str, config: &Value) -> Result<(), Error> {
        self.write(&format!("auth/{path}/config"), config).await.map(drop)
    }

    /// A role of the JWT auth method at `path`.
    pub async fn jwt_role(&self, path: &str, role: &str) -> Result<Option<Value>, Error> {
        self.read(&format!("auth/{path}/role/{role}")).await
    }

    /// Creates or replaces a role of the JWT auth method at `path`.
    pub async fn write_jwt_role(&self, path: &str, role: &str, fields: &Value) -> Result<(), Error> {
        self.write(&format!("auth/{path}/role/{role}"), fields).await.map(drop)
    }

    async fn mount(&self, table: &str, path: &str) -> Result<Option<Mount>, Error> {
        let data = self.read(table).await?.unwrap_or_default();
        Ok(data.get(format!("{path}/")).map(read_mount))
    }
}

fn policy_path(name: &str) -> String {
    format!("sys/policies/acl/{name}")
}

fn read_mount(data: &Value) -> Mount {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let options = data["options"].as_object().into_iter().flatten();
    Mount {
        kind: text(&data["type"]),
        options: options.map(|(key, value)| (key.clone(), text(value))).collect(),
        accessor: text(&data["accessor"]),
    }
}
