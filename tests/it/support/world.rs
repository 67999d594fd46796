//! What one test has for itself on the shared servers.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::{Git, NomadApi, Servers, servers, shared::AUTH_PATH, wait_for};

/// A test's own Nomad namespace, names in Vault, folder and ops repo.
#[derive(Debug)]
pub(crate) struct World {
    /// Short, of lower-case letters, digits and hyphens, and not used twice.
    pub(crate) name: String,
    pub(crate) servers: Servers,
    pub(crate) nomad: NomadApi,
    pub(crate) ops: Git,
    folder: TempDir,
}

impl World {
    /// Makes the world of the test `name`; every call makes another one.
    pub(crate) async fn new(name: &str) -> Self {
        Self::on(servers(), name).await
    }

    /// The same on servers that a test started for itself, to stop and seal them.
    pub(crate) async fn on(servers: Servers, name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("consign-{name}-")).tempdir().unwrap();
        let suffix: String = ulid::Ulid::generate().to_string().to_lowercase().chars().skip(18).collect();
        let name = format!("{name}-{suffix}");
        let nomad = NomadApi::new(&servers.nomad_address, &name);
        nomad.create_namespace().await;
        let ops = Git::new(folder.path());
        fs::write(folder.path().join("ledger"), "").unwrap();
        Self { name, servers, nomad, ops, folder }
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

    /// The agent's configuration file. `further` is appended: whole sections, or keys of `[results]`.
    pub(crate) fn write_config(&self, further: &str) -> PathBuf {
        let path = self.path("consign.toml");
        fs::write(&path, format!("{}{further}", self.config_toml())).unwrap();
        path
    }

    /// The agent's configuration, ending in the section `[results]`.
    pub(crate) fn config_toml(&self) -> String {
        let quoted = |path: PathBuf| Value::from(path.to_str().unwrap()).to_string();
        format!(
            r#"[ops]
repo = {ops}
branch = "main"
poll = "200ms"

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
listen = "127.0.0.1:0"

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
            role = self.role(),
            prefix = self.prefix(),
            gate = self.gate(),
            store = quoted(self.path("store.db")),
        )
    }

    /// Waits for the result file of the action `id` in the ops repo, in whatever folder, and gives its content.
    pub(crate) async fn result(&self, id: &str, limit: Duration) -> Value {
        let name = format!("{id}.result.json");
        wait_for(&name, limit, async || {
            let paths = self.ops.paths();
            let found = paths.iter().find(|path| path.rsplit('/').next() == Some(name.as_str()));
            let path = found.ok_or_else(|| format!("the repository has {paths:?}"))?;
            let text = self.ops.read(path).ok_or_else(|| format!("{path} went away"))?;
            serde_json::from_str(&text).map_err(|error| format!("{path}: {error}: {text}"))
        })
        .await
    }
}
