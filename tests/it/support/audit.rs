//! Vault's own record of who read what.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{World, oracles::Allocation};

/// The launch gate's entry.
const GATE: &str = "secret/data/consign/go";

/// An audit device of Vault's that writes for one test.
#[derive(Debug)]
pub(crate) struct Audit {
    device: String,
    token: String,
    file: PathBuf,
}

impl World {
    /// Has Vault write down every request from now on.
    pub(crate) async fn audit(&self) -> Audit {
        let audit = Audit {
            device: format!("{}/v1/sys/audit/{}", self.servers.vault_address, self.name),
            token: self.servers.vault_token.expose_secret().to_owned(),
            file: self.path("audit.log"),
        };
        // Else the names of aliases are hashed.
        let options = json!({ "file_path": audit.file, "log_raw": "true" });
        audit.request(Method::PUT, &json!({ "type": "file", "options": options })).await;
        audit
    }
}

impl Audit {
    async fn request(&self, method: Method, body: &Value) {
        let request =
            crate::support::http().request(method, &self.device).header("X-Vault-Token", &self.token);
        let answer = request.json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Has Vault write no more: its file is about to go.
    pub(crate) async fn stop(self) {
        self.request(Method::DELETE, &Value::Null).await;
    }

    /// Tells of every read of the gate or of a secret below `prefix` that was not by an admitted one of the world's
    /// `allocations`, with the work that it was for.
    pub(super) fn reads_were_granted(
        &self,
        prefix: &str,
        allocations: &BTreeMap<String, Allocation>,
        mut tell: impl FnMut(&str, String),
    ) {
        let text = fs::read_to_string(&self.file).unwrap();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let answers: Vec<Value> = entries.filter(|entry| entry["type"] == "response").collect();
        let mut allocation_of: HashMap<&str, &str> = HashMap::new();
        for answer in &answers {
            let (request, data) = (&answer["request"]["data"], &answer["response"]["data"]);
            let (allocation, entity) = match answer["request"]["path"].as_str() {
                Some("identity/entity-alias") => (&request["name"], &data["canonical_id"]),
                Some("identity/lookup/entity") => (&request["alias_name"], &data["id"]),
                _ => continue,
            };
            if let (Some(allocation), Some(entity)) = (allocation.as_str(), entity.as_str()) {
                allocation_of.insert(entity, allocation);
            }
        }
        let folder = format!("secret/data/{prefix}/");
        for answer in answers.iter().filter(|answer| answer["error"].is_null()) {
            let path = answer["request"]["path"].as_str().unwrap_or_default();
            let entity = answer["auth"]["entity_id"].as_str().unwrap_or_default();
            let allocation = allocation_of.get(entity).copied();
            // All tests have one gate, and their allocations.
            let is_ours = path.starts_with(&folder)
                || path == GATE && allocation.is_some_and(|allocation| allocations.contains_key(allocation));
            let is_read = answer["request"]["operation"] == "read" && is_ours;
            let known = allocation.and_then(|allocation| allocations.get(allocation));
            if is_read && !known.is_some_and(|known| known.is_admitted) {
                let name = known.map(|known| known.name.as_str()).unwrap_or_default();
                tell(
                    name,
                    format!("{path} was read by {entity}, allocation {allocation:?}, which was not admitted"),
                );
            }
        }
    }
}
