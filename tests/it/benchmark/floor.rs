//! What Nomad and Vault take for gated jobs without consign: dispatches over eight connections, and a bare loop
//! that admits whatever waits at the launch gate, many at a time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::{Client, Method};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{World, wait_for};

/// More connections than this bring no more dispatches.
const CONNECTIONS: usize = 8;
const LIMIT: Duration = Duration::from_mins(10);

/// Dispatches the base job `job` so many times, as its child `model` was, and admits each; gives how long it took
/// until the last had ended. No agent may run meanwhile.
pub(crate) async fn time(world: &World, job: &str, model: &Value, count: usize) -> Duration {
    let mut meta = model["Meta"].clone();
    // The rest is the base job's own.
    meta.as_object_mut().unwrap().retain(|key, _| ["secrets", "args", "consign"].contains(&key.as_str()));
    let request = json!({ "Meta": meta, "Payload": model["Payload"] });
    let path = format!("/v1/job/{job}/dispatch");
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let dispatch = async || {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            world.nomad.request(Method::PUT, &path, Some(request.clone())).await.unwrap();
        }
    };
    let admitting = async {
        let vault = Vault::new(world).await;
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        while known.len() < count {
            vault.admit(world, &mut known).await;
        }
    };
    tokio::join!(join_all((0..CONNECTIONS).map(|_| dispatch())), admitting);
    wait_for("all children to end", LIMIT, async || {
        let live = live(world).await;
        if live.is_empty() { Ok(()) } else { Err(format!("{} live", live.len())) }
    })
    .await;
    begun.elapsed()
}

/// The ids of the allocations that may still change, with their client status.
async fn live(world: &World) -> Vec<(String, String)> {
    let filter = "ClientStatus == \"pending\" or ClientStatus == \"running\"";
    let path = format!(
        "/v1/allocations?task_states=false&filter={}",
        filter.replace(' ', "%20").replace('"', "%22")
    );
    let list = world.nomad.get(&path).await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|one| (text(&one["ID"]), text(&one["ClientStatus"]))).collect()
}

struct Vault {
    http: Client,
    address: String,
    token: String,
    accessor: String,
}

impl Vault {
    async fn new(world: &World) -> Self {
        let http = Client::builder().no_proxy().build().unwrap();
        let token = world.servers.vault_token.expose_secret().to_owned();
        let mut vault =
            Self { http, address: world.servers.vault_address.clone(), token, accessor: String::new() };
        let methods = vault.request(Method::GET, "sys/auth", &Value::Null).await;
        methods["data"]["jwt-nomad/"]["accessor"].as_str().unwrap().clone_into(&mut vault.accessor);
        vault
    }

    async fn request(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.http.request(method, format!("{}/v1/{path}", self.address));
        let answer = request.header("X-Vault-Token", &self.token).json(body).send().await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The entity of an allocation.
    async fn entity(&self, allocation: &str) -> String {
        let alias = json!({ "name": allocation, "mount_accessor": self.accessor });
        let made = self.request(Method::POST, "identity/entity-alias", &alias).await;
        if let Some(entity) = made["data"]["canonical_id"].as_str() {
            return entity.to_owned();
        }
        let alias = json!({ "alias_name": allocation, "alias_mount_accessor": self.accessor });
        let found = self.request(Method::POST, "identity/lookup/entity", &alias).await;
        found["data"]["id"].as_str().unwrap().to_owned()
    }

    /// Admits every allocation that is not known yet, with one write of the gate's group.
    async fn admit(&self, world: &World, known: &mut BTreeMap<String, String>) {
        let live = live(world).await;
        let new: Vec<&String> = live.iter().map(|(id, _)| id).filter(|id| !known.contains_key(*id)).collect();
        if new.is_empty() {
            return;
        }
        let entities = join_all(new.iter().map(|id| self.entity(id))).await;
        known.extend(new.into_iter().cloned().zip(entities));
        let members: Vec<&String> = live.iter().map(|(id, _)| &known[id]).collect();
        let path = format!("identity/group/name/{}", world.gate());
        self.request(Method::POST, &path, &json!({ "member_entity_ids": members })).await;
    }
}
