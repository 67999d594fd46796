//! A real Vault server on this machine.

use std::path::PathBuf;

use rustix::rand::{GetRandomFlags, getrandom};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{Error, START_LIMIT, create_folder, program, server::Server, supervised::Process, write_file};

/// How a Vault server is started.
#[derive(Debug, Clone, Default)]
pub struct VaultOptions {
    /// Its own folder, absolute: configuration, data and log (`server.log`). Made if it is not there.
    pub folder: PathBuf,
    /// Whether the folder goes when the server is stopped or this program ends.
    pub remove_folder: bool,
    /// Whether its data is on disk, so that it can be sealed and restarted; else it is `vault server -dev`,
    /// which keeps everything in memory. Both have a KV version 2 engine at `secret/`.
    pub persistent: bool,
}

/// A running, unsealed Vault.
pub type Vault = Server<Unsealed>;

/// What a Vault has besides its process.
#[derive(Debug)]
pub struct Unsealed {
    root_token: SecretString,
    /// None where the data is in memory.
    unseal_key: Option<SecretString>,
}

impl Vault {
    /// Starts a server on a free port, with a root token of its own, and returns when it is unsealed.
    pub async fn start(options: &VaultOptions) -> Result<Self, Error> {
        let program = program("vault", "CONSIGN_VAULT")?;
        Self::on_free_ports(async |[port, cluster]| {
            if options.persistent {
                Self::start_persistent(&program, options, port, cluster).await
            } else {
                Self::start_in_memory(&program, options, port).await
            }
        })
        .await
    }

    async fn start_in_memory(program: &str, options: &VaultOptions, port: u16) -> Result<Self, Error> {
        create_folder(&options.folder)?;
        let token = random_token()?;
        let command = ["server", "-dev", "-dev-no-store-token"];
        let command: Vec<String> =
            std::iter::once(program).chain(command).map(std::borrow::ToOwned::to_owned).collect();
        // By environment, since every user of the machine can read a command line.
        let environment = [
            ("VAULT_DEV_ROOT_TOKEN_ID".to_owned(), token.expose_secret().to_owned()),
            ("VAULT_DEV_LISTEN_ADDRESS".to_owned(), format!("127.0.0.1:{port}")),
        ];
        let process =
            Process::prepare("vault", &options.folder, options.remove_folder, &command, &environment)?;
        let mut vault = Self::new(process, port, Unsealed { root_token: token, unseal_key: None })?;
        let launch = vault.launch().await;
        vault.launched(launch).await
    }

    async fn start_persistent(
        program: &str,
        options: &VaultOptions,
        port: u16,
        cluster: u16,
    ) -> Result<Self, Error> {
        let data = options.folder.join("data");
        create_folder(&data)?;
        let configuration = options.folder.join("vault.json");
        let text = json!({
            "storage": {"raft": {"path": data, "node_id": "one", "performance_multiplier": 1}},
            "listener": {"tcp": {
                "address": format!("127.0.0.1:{port}"),
                "cluster_address": format!("127.0.0.1:{cluster}"),
                "tls_disable": true,
            }},
            "api_addr": format!("http://127.0.0.1:{port}"),
            "cluster_addr": format!("https://127.0.0.1:{cluster}"),
            "disable_mlock": true,
        });
        write_file(&configuration, &text.to_string())?;
        let command =
            vec![program.to_owned(), "server".to_owned(), format!("-config={}", configuration.display())];
        let process = Process::prepare("vault", &options.folder, options.remove_folder, &command, &[])?;
        let kind = Unsealed { root_token: SecretString::default(), unseal_key: None };
        let mut vault = Self::new(process, port, kind)?;
        let launch = vault.first_start().await;
        vault.launched(launch).await
    }

    async fn first_start(&mut self) -> Result<(), Error> {
        self.process.launch().await?;
        self.wait_for(|_| Ok(())).await?;
        let shares = json!({"secret_shares": 1, "secret_threshold": 1});
        let answer = self.put("initialise Vault", "/v1/sys/init", &shares).await?;
        let secret = |path: &str| answer.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.kind.root_token = secret("/root_token").into();
        self.kind.unseal_key = Some(secret("/keys/0").into());
        self.unseal().await?;
        let engine = json!({"type": "kv", "options": {"version": "2"}});
        self.put("mount the KV engine", "/v1/sys/mounts/secret", &engine).await?;
        // A fresh engine upgrades itself for a moment, in which it refuses.
        let (http, url) = (self.http.clone(), format!("{}/v1/secret/config", self.address()));
        let token = self.kind.root_token.clone();
        self.process
            .wait_until(START_LIMIT, async || {
                let answer = http.get(&url).header("X-Vault-Token", token.expose_secret()).send().await;
                match answer.and_then(reqwest::Response::error_for_status) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> &SecretString {
        &self.kind.root_token
    }

    /// Seals it: it refuses every request until [`Vault::unseal`].
    pub async fn seal(&self) -> Result<(), Error> {
        if self.kind.unseal_key.is_none() {
            return Err(Error::InMemory { operation: "be unsealed again" });
        }
        self.put("seal Vault", "/v1/sys/seal", &json!({})).await.map(drop)
    }

    /// Unseals it and returns when it is active.
    pub async fn unseal(&mut self) -> Result<(), Error> {
        let key = self.kind.unseal_key.as_ref().ok_or(Error::InMemory { operation: "be unsealed" })?;
        self.put("unseal Vault", "/v1/sys/unseal", &json!({"key": key.expose_secret()})).await?;
        self.wait_for(is_active).await
    }

    /// Starts it again after it ended, on the same port, and returns when it is unsealed. One that keeps its
    /// data in memory begins empty, with the same root token.
    pub async fn launch(&mut self) -> Result<(), Error> {
        self.process.launch().await?;
        if self.kind.unseal_key.is_none() {
            return self.wait_for(is_active).await;
        }
        self.wait_for(|_| Ok(())).await?;
        self.unseal().await
    }

    /// Ends it by SIGTERM and starts it again.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.terminate().await?;
        self.launch().await
    }

    async fn put(&self, operation: &'static str, path: &str, body: &Value) -> Result<Value, Error> {
        let failed = |source| Error::Request { operation, source };
        let answer = self
            .http
            .put(format!("{}{path}", self.address()))
            .header("X-Vault-Token", self.kind.root_token.expose_secret())
            .json(body)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        if answer.status() == reqwest::StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        answer.json().await.map_err(failed)
    }

    /// Waits until the server answers and `enough` is content with the HTTP status of its health.
    async fn wait_for(&mut self, enough: impl Fn(u16) -> Result<(), String>) -> Result<(), Error> {
        let (http, url) = (self.http.clone(), format!("{}/v1/sys/health", self.address()));
        self.process
            .wait_until(START_LIMIT, async || match http.get(&url).send().await {
                Ok(answer) => enough(answer.status().as_u16()),
                Err(error) => Err(error.to_string()),
            })
            .await
    }
}

/// Reads Vault's health: 200 is initialised, unsealed and active.
fn is_active(status: u16) -> Result<(), String> {
    match status {
        200 => Ok(()),
        501 => Err("it is not initialised".to_owned()),
        503 => Err("it is sealed".to_owned()),
        other => Err(format!("its health is HTTP {other}")),
    }
}

fn random_token() -> Result<SecretString, Error> {
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|source| Error::System { what: "a random number", source: source.into() })?;
    Ok(format!("dev-{}", crate::hexadecimal::encode(&bytes)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unsealed_active_server_is_ready() {
        assert!(is_active(200).is_ok());
        for status in [429, 472, 500, 501, 503] {
            assert!(is_active(status).is_err(), "{status}");
        }
    }

    #[test]
    fn tokens_differ() {
        let (one, two) = (random_token().unwrap(), random_token().unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert_eq!(one.expose_secret().len(), 36);
    }
}
