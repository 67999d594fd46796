//! A real Nomad agent on this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{Error, START_LIMIT, create_folder, program, server::Server, supervised::Process, write_file};

/// Which parts of Nomad one process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Server and client in one, the state in memory: `nomad agent -dev`. A restart forgets everything.
    #[default]
    Dev,
    /// Server and client in one, the state on disk: a restart remembers.
    Single,
    /// A server without a client: nothing can be placed until a client joins.
    Server,
    /// A client of the server at this RPC address.
    Client {
        /// The server's [`Nomad::rpc_address`].
        server: SocketAddr,
    },
}

impl Role {
    fn has_server(self) -> bool {
        !matches!(self, Self::Client { .. })
    }

    fn has_client(self) -> bool {
        self != Self::Server
    }
}

/// The Vault that Nomad's tasks get their tokens from.
#[derive(Debug, Clone)]
pub struct VaultForNomad {
    /// Its address, such as `http://127.0.0.1:8200`.
    pub address: String,
    /// Where its JWT auth method for Nomad's workload identities is mounted, such as `jwt-nomad`.
    pub auth_path: String,
    /// The role of tasks that name none.
    pub role: Option<String>,
    /// The audience that workload identities are made for.
    pub audience: String,
}

/// A folder of this machine that jobs may mount.
#[derive(Debug, Clone)]
pub struct HostVolume {
    /// The folder.
    pub path: PathBuf,
    /// Whether jobs may only read it.
    pub read_only: bool,
}

/// How a Nomad agent is started.
#[derive(Debug, Clone, Default)]
pub struct NomadOptions {
    /// Its own folder, absolute: configuration, data and log (`server.log`). Made if it is not there.
    pub folder: PathBuf,
    /// Whether the folder goes when the agent is stopped or this program ends.
    pub remove_folder: bool,
    /// Which parts of Nomad it is.
    pub role: Role,
    /// The Vault behind its `vault` blocks; start that one first, for a client looks for it as it starts.
    pub vault: Option<VaultForNomad>,
    /// The management token, a UUID: ACLs are on where there is one.
    pub management_token: Option<SecretString>,
    /// How often a template asks Vault again, 0 for ever; none leaves Nomad's default (12).
    pub vault_retry_attempts: Option<u32>,
    /// The socket of the Docker engine that runs tasks; with none Nomad looks for the machine's.
    pub docker: Option<PathBuf>,
    /// Host volumes by name.
    pub host_volumes: BTreeMap<String, HostVolume>,
    /// Further lines of the `server` block, such as `job_gc_threshold = "1s"`.
    pub server_settings: String,
    /// Further lines of the `client` block, such as `gc_max_allocs = 5`.
    pub client_settings: String,
    /// Further lines of the whole configuration, such as `log_level = "TRACE"`.
    pub settings: String,
}

/// A running Nomad agent.
pub type Nomad = Server<Agent>;

/// What a Nomad agent has besides its process.
#[derive(Debug)]
pub struct Agent {
    role: Role,
    drivers: &'static [&'static str],
    rpc: u16,
    management_token: Option<SecretString>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    rpc: u16,
    serf: u16,
}

impl Nomad {
    /// Starts an agent on free ports and returns when it is ready: the API answers, and where it has a client,
    /// its node is ready and `raw_exec` healthy, and docker too where an engine was named.
    pub async fn start(options: &NomadOptions) -> Result<Self, Error> {
        let program = program("nomad", "CONSIGN_NOMAD")?;
        Self::on_free_ports(async |[http, rpc, serf]| {
            Self::start_on(&program, options, Ports { http, rpc, serf }).await
        })
        .await
    }

    async fn start_on(program: &str, options: &NomadOptions, ports: Ports) -> Result<Self, Error> {
        create_folder(&options.folder.join("data"))?;
        let configuration = options.folder.join("nomad.hcl");
        write_file(&configuration, &configuration_text(options, ports))?;
        let mut command = vec![program.to_owned(), "agent".to_owned()];
        if options.role == Role::Dev {
            command.push("-dev".to_owned());
        }
        command.push(format!("-config={}", configuration.display()));
        let process = Process::prepare("nomad", &options.folder, options.remove_folder, &command, &[])?;
        let kind = Agent {
            role: options.role,
            drivers: if options.docker.is_some() { &["raw_exec", "docker"] } else { &["raw_exec"] },
            rpc: ports.rpc,
            management_token: options.management_token.clone(),
        };
        let mut nomad = Self::new(process, ports.http, kind)?;
        let launch = nomad.launch().await;
        nomad.launched(launch).await
    }

    /// Where clients reach this server.
    #[must_use]
    pub fn rpc_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.kind.rpc).into()
    }

    /// Starts the agent again after it ended, with the same ports and data, and returns when it is ready.
    pub async fn launch(&mut self) -> Result<(), Error> {
        self.process.launch().await?;
        let token = self.kind.management_token.clone();
        let probe = Probe { http: self.http.clone(), address: self.address(), token };
        let (role, drivers) = (self.kind.role, self.kind.drivers);
        self.process.wait_until(START_LIMIT, async || probe.ready(role, drivers).await).await
    }

    /// Ends the agent by SIGTERM and starts it again.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.terminate().await?;
        self.launch().await
    }
}

/// Asks an agent whether it takes and runs jobs.
struct Probe {
    http: reqwest::Client,
    address: String,
    token: Option<SecretString>,
}

impl Probe {
    /// Whether it does; else what is missing.
    async fn ready(&self, role: Role, drivers: &[&str]) -> Result<(), String> {
        let leader = self.get("/v1/status/leader").await?;
        if leader.as_str().is_none_or(str::is_empty) {
            return Err("no leader is elected".to_owned());
        }
        if role.has_server() {
            self.bootstrap().await?;
        }
        if !role.has_client() {
            return Ok(());
        }
        let agent = self.get("/v1/agent/self").await?;
        let id = agent
            .pointer("/stats/client/node_id")
            .and_then(Value::as_str)
            .ok_or("the client has no node id")?;
        let node = self.get(&format!("/v1/node/{id}")).await?;
        if node["Status"] != "ready" || node["SchedulingEligibility"] != "eligible" {
            return Err(format!("the node is {}, {}", node["Status"], node["SchedulingEligibility"]));
        }
        let healthy = |driver: &&&str| node["Drivers"][**driver]["Healthy"] == true;
        match drivers.iter().find(|driver| !healthy(driver)) {
            Some(driver) => Err(format!("the driver {driver} is not healthy")),
            None => Ok(()),
        }
    }

    /// Gives the ACL system its management token, where it has none yet.
    async fn bootstrap(&self) -> Result<(), String> {
        let Some(token) = &self.token else { return Ok(()) };
        if self.get("/v1/acl/token/self").await.is_ok() {
            return Ok(());
        }
        let request = self.http.put(format!("{}/v1/acl/bootstrap", self.address));
        let body = json!({ "BootstrapSecret": token.expose_secret() });
        let answer = request.json(&body).send().await.and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(|error| error.to_string())
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let mut request = self.http.get(format!("{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("X-Nomad-Token", token.expose_secret());
        }
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }
}

/// `text` as a string of Nomad's configuration language, which is that of HCL 1 and escapes as JSON does.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn configuration_text(options: &NomadOptions, ports: Ports) -> String {
    let mut text = String::new();
    let data = options.folder.join("data");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        r#"bind_addr            = "127.0.0.1"
data_dir             = {data}
name                 = "consign-{http}"
disable_update_check = true
ports {{
  http = {http}
  rpc  = {rpc}
  serf = {serf}
}}
advertise {{
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}}
limits {{
  http_max_conns_per_client = 0
  rpc_max_conns_per_client  = 0
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
{settings}"#,
        data = quoted(&data.display().to_string()),
        http = ports.http,
        rpc = ports.rpc,
        serf = ports.serf,
        settings = options.settings,
    );
    if options.management_token.is_some() {
        text.push_str("acl {\n  enabled = true\n}\n");
    }
    if options.role.has_server() {
        let _ = writeln!(
            text,
            "server {{\n  enabled = true\n  bootstrap_expect = 1\n  raft_multiplier = 1\n{}\n}}",
            options.server_settings
        );
    }
    if let Some(socket) = &options.docker {
        // Nomad removes an image a few minutes after its last use, and an imported one cannot be had again.
        let _ = writeln!(
            text,
            "plugin \"docker\" {{\n  config {{\n    endpoint = {}\n    gc {{\n      image = false\n    }}\n  }}\n}}",
            quoted(&format!("unix://{}", socket.display()))
        );
    }
    if options.role.has_client() {
        text.push_str(&client_text(options));
    }
    if let Some(vault) = &options.vault {
        let role = vault
            .role
            .as_deref()
            .map(|role| format!("  create_from_role = {}\n", quoted(role)))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "vault {{\n  enabled = true\n  address = {}\n  jwt_auth_backend_path = {}\n{role}  default_identity {{\n    \
             aud = [{}]\n    ttl = \"1h\"\n  }}\n}}",
            quoted(&vault.address),
            quoted(&vault.auth_path),
            quoted(&vault.audience),
        );
    }
    text
}

fn client_text(options: &NomadOptions) -> String {
    let mut text = String::new();
    // The cloud fingerprinters ask the network for what is not there, and one of them refuses to start where
    // AWS_CA_BUNDLE is set. The chroot of `exec` is kept small, since Nomad links every file of it for each task;
    // Debian's awk is a link by way of /etc/alternatives.
    let _ = writeln!(
        text,
        r#"client {{
  enabled           = true
  network_interface = "lo"
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,cni,consul"
  }}
  chroot_env {{
    "/bin" = "/bin"
    "/usr/bin/env" = "/usr/bin/env"
    "/usr/bin/mawk" = "/usr/bin/mawk"
    "/usr/bin/gawk" = "/usr/bin/gawk"
    "/etc/alternatives" = "/etc/alternatives"
    "/lib64" = "/lib64"
    "/lib/x86_64-linux-gnu" = "/lib/x86_64-linux-gnu"
    "/lib/aarch64-linux-gnu" = "/lib/aarch64-linux-gnu"
  }}
{}"#,
        options.client_settings
    );
    if let Role::Client { server } = options.role {
        let _ = writeln!(text, "  servers = [{}]", quoted(&server.to_string()));
    }
    if let Some(attempts) = options.vault_retry_attempts {
        let _ = writeln!(
            text,
            "  template {{\n    vault_retry {{\n      attempts = {attempts}\n      backoff = \"250ms\"\n      \
             max_backoff = \"1m\"\n    }}\n  }}"
        );
    }
    for (name, volume) in &options.host_volumes {
        let _ = writeln!(
            text,
            "  host_volume {} {{\n    path = {}\n    read_only = {}\n  }}",
            quoted(name),
            quoted(&volume.path.display().to_string()),
            volume.read_only
        );
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { http: 1, rpc: 2, serf: 3 };

    fn text(role: Role) -> String {
        let options = NomadOptions { folder: "/srv/nomad \"one\"".into(), role, ..NomadOptions::default() };
        configuration_text(&options, PORTS)
    }

    #[test]
    fn each_role_has_its_blocks() {
        let client = Role::Client { server: (Ipv4Addr::LOCALHOST, 4647).into() };
        assert!(text(Role::Single).contains("server {") && text(Role::Single).contains("client {"));
        assert!(text(Role::Server).contains("server {") && !text(Role::Server).contains("client {"));
        assert!(
            !text(client).contains("server {") && text(client).contains(r#"servers = ["127.0.0.1:4647"]"#)
        );
    }

    #[test]
    fn a_management_token_turns_acls_on_and_stands_nowhere() {
        assert!(!text(Role::Dev).contains("acl"));
        let options = NomadOptions {
            management_token: Some("5bb9bd2d-0f0c-4fd0-9b7a-3e5a9c2f0c11".into()),
            ..NomadOptions::default()
        };
        let text = configuration_text(&options, PORTS);
        assert!(text.contains("acl {\n  enabled = true\n}") && !text.contains("5bb9bd2d"), "{text}");
    }

    #[test]
    fn paths_are_quoted() {
        assert!(text(Role::Dev).contains(r#"data_dir             = "/srv/nomad \"one\"/data""#));
    }
}
