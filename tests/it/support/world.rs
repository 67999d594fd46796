//! What one test has for itself on the shared servers.

use std::{fs, path::PathBuf, time::Duration};

use consign::dev::servers::Port;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Git, LIMIT, NomadApi, Servers, servers, shared::AUTH_PATH, tell_failures, wait_for};

/// A test's own Nomad namespace, names in Vault, folder and ops repo.
#[derive(Debug)]
pub(crate) struct World {
    /// Short, of lower-case letters, digits and hyphens, and not used twice.
    pub(crate) name: String,
    pub(crate) servers: Servers,
    pub(crate) nomad: NomadApi,
    pub(crate) ops: Git,
    folder: TempDir,
    agent_port: Port,
    /// Where another agent on the same ops repo listens.
    pub(super) other_port: Port,
}

impl World {
    /// Makes the world of the test `name`; every call makes another one.
    pub(crate) async fn new(name: &str) -> Self {
        Self::on(servers(), name).await
    }

    /// The same on servers that a test started for itself, to stop and seal them.
    pub(crate) async fn on(servers: Servers, name: &str) -> Self {
        tell_failures();
        let folder = tempfile::Builder::new().prefix(&format!("consign-{name}-")).tempdir().unwrap();
        let suffix: String = ulid::Ulid::generate().to_string().to_lowercase().chars().skip(18).collect();
        let name = format!("{name}-{suffix}");
        let nomad = NomadApi::new(&servers.nomad_address, &name, servers.nomad_token.clone());
        nomad.create_namespace().await;
        let ops = Git::new(folder.path());
        fs::write(folder.path().join("ledger"), "").unwrap();
        let [agent_port, other_port] = [(); 2].map(|()| Port::reserve().unwrap());
        Self { name, servers, nomad, ops, folder, agent_port, other_port }
    }

    /// Where the test's agent listens.
    pub(crate) fn agent_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.agent_port.number())
    }

    /// A path in the test's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file that tasks append lines to, as evidence that does not pass through consign.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.path("ledger")
    }

    /// What tasks wrote to the ledger.
    pub(crate) fn ledger_lines(&self) -> Vec<String> {
        fs::read_to_string(self.ledger()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The folder of secrets under the KV engine, and the prefix of their Vault policies and groups.
    pub(crate) fn prefix(&self) -> String {
        format!("{}-runner", self.name)
    }

    /// The group whose members may start.
    pub(crate) fn gate(&self) -> String {
        format!("{}-go", self.name)
    }

    /// The Vault role of the allocations.
    pub(crate) fn role(&self) -> String {
        format!("{}-role", self.name)
    }

    /// The agent's configuration, ending in the section `[results]`.
    pub(crate) fn config_toml(&self) -> String {
        let quoted = |path: PathBuf| Value::from(path.to_str().unwrap()).to_string();
        format!(
            r#"[ops]
repo = {ops}
branch = "main"
poll = "1s"

[nomad]
addr = "{nomad}"
namespace = "{name}"
driver = "raw_exec"

[vault]
addr = "{vault}"
token_file = {token}
auth_path = "{AUTH_PATH}"
role = "{role}"
prefix = "{prefix}"
bots = "{name}-bots"
gate = "{gate}"

[approval]
low = "merged"
medium = "merged"
high = "merged"

[server]
listen = "127.0.0.1:{port}"

[store]
path = {store}

[results]
push_interval = "100ms"
"#,
            ops = quoted(self.ops.bare.clone()),
            nomad = self.servers.nomad_address,
            name = self.name,
            vault = self.servers.vault_address,
            token = quoted(self.path("agent.token")),
            port = self.agent_port.number(),
            role = self.role(),
            prefix = self.prefix(),
            gate = self.gate(),
            store = quoted(self.path("store")),
        )
    }

    /// The ids of all children of the base job `runner`, dead ones too.
    pub(crate) async fn children(&self) -> Vec<String> {
        let jobs = self.nomad.get("/v1/jobs?prefix=runner/dispatch-").await.unwrap();
        let ids = jobs.as_array().unwrap().iter().map(|job| job["ID"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// The members of an identity group of Vault's.
    pub(crate) async fn group_members(&self, group: &str) -> Vec<String> {
        let url = format!("{}/v1/identity/group/name/{group}", self.servers.vault_address);
        let token = self.servers.vault_token.expose_secret();
        let answer = crate::support::http().get(url).header("X-Vault-Token", token).send().await.unwrap();
        let group: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let members = group["data"]["member_entity_ids"].as_array().cloned().unwrap_or_default();
        members.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// The last lines that the agent logged, for messages.
    pub(crate) fn end_of_log(&self) -> String {
        let log = fs::read(self.path("consign.log")).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]);
        let lines: Vec<&str> = end.lines().rev().take(12).collect();
        format!("the agent logged, the last first: {lines:#?}")
    }

    /// Restarts the task of an allocation, as somebody may by hand. Nomad does so once it has noted that it runs.
    pub(crate) async fn restart_task(&self, allocation: &str, task: &str) {
        let path = format!("/v1/client/allocation/{allocation}/restart");
        wait_for("a task to be restarted", LIMIT, async || {
            self.nomad.request(Method::PUT, &path, Some(json!({ "TaskName": task }))).await.map(drop)
        })
        .await;
    }

    /// Waits for the result file of the action `id` in the ops repo, in whatever folder, and gives its content.
    pub(crate) async fn result(&self, id: &str, limit: Duration) -> Value {
        let name = format!("{id}.result.json");
        wait_for(&name, limit, async || {
            let paths = self.ops.paths();
            let found = paths.iter().find(|path| path.rsplit('/').next() == Some(name.as_str()));
            let path = found.ok_or_else(|| format!("the repository has {paths:?}; {}", self.end_of_log()))?;
            let text = self.ops.read(path).ok_or_else(|| format!("{path} went away"))?;
            serde_json::from_str(&text).map_err(|error| format!("{path}: {error}: {text}"))
        })
        .await
    }
}
