//! A real Nomad agent on this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use super::{Error, create_folder, free_ports, local_client, program, supervised::Process, write_file};

/// How long a fresh agent may take until it runs jobs.
const START_LIMIT: Duration = Duration::from_secs(90);

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
    /// How often a template asks Vault again, 0 for ever; none leaves Nomad's default (12).
    pub vault_retry_attempts: Option<u32>,
    /// Host volumes by name.
    pub host_volumes: BTreeMap<String, HostVolume>,
    /// Further lines of the `server` block, such as `job_gc_threshold = "1s"`.
    pub server_settings: String,
    /// Further lines of the `client` block, such as `gc_max_allocs = 5`.
    pub client_settings: String,
    /// Further lines of the whole configuration, such as `acl { enabled = true }`.
    pub settings: String,
}

/// A running Nomad agent. Dropped, it is ended in the background with every task that it started.
#[derive(Debug)]
pub struct Nomad {
    process: Process,
    http: reqwest::Client,
    role: Role,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    rpc: u16,
    serf: u16,
}

impl Nomad {
    /// Starts an agent on free ports and returns when it is ready: the API answers, and where it has a client,
    /// its node is ready and `raw_exec` healthy.
    pub async fn start(options: &NomadOptions) -> Result<Self, Error> {
        let program = program("nomad", "CONSIGN_NOMAD")?;
        let mut tries = 0;
        loop {
            let [http, rpc, serf] = free_ports()?;
            tries += 1;
            match Self::start_on(&program, options, Ports { http, rpc, serf }).await {
                Err(error) if error.is_port_conflict() && tries < 5 => {}
                done => return done,
            }
        }
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
        let mut nomad = Self { process, http: local_client()?, role: options.role, ports };
        if let Err(error) = nomad.launch().await {
            nomad.process.clear().await?;
            return Err(error);
        }
        Ok(nomad)
    }

    /// The address of the HTTP API, such as `http://127.0.0.1:4646`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// Where clients reach this server.
    #[must_use]
    pub fn rpc_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.rpc).into()
    }

    /// The process id, where it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// The file that its output goes to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.process.log()
    }

    /// Ends the agent by SIGTERM. Its tasks go on, as Nomad's do, until [`Nomad::launch`] finds them again.
    pub async fn terminate(&mut self) -> Result<(), Error> {
        self.process.terminate().await
    }

    /// Ends the agent by SIGKILL. Its tasks go on.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.process.kill().await
    }

    /// Starts the agent again after it ended, with the same ports and data, and returns when it is ready.
    pub async fn launch(&mut self) -> Result<(), Error> {
        self.process.launch().await?;
        let (http, address, role) = (self.http.clone(), self.address(), self.role);
        self.process.wait_until(START_LIMIT, async || ready(&http, &address, role).await).await
    }

    /// Ends the agent by SIGTERM and starts it again.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.terminate().await?;
        self.launch().await
    }

    /// Ends the agent and every task that it started, and unmounts what it mounted.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.process.clear().await
    }
}

/// Whether the agent at `address` takes and runs jobs; else what is missing.
async fn ready(http: &reqwest::Client, address: &str, role: Role) -> Result<(), String> {
    let get = async |path: String| -> Result<Value, String> {
        let answer = http.get(format!("{address}{path}")).send().await;
        let answer =
            answer.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    };
    let leader = get("/v1/status/leader".to_owned()).await?;
    if leader.as_str().is_none_or(str::is_empty) {
        return Err("no leader is elected".to_owned());
    }
    if !role.has_client() {
        return Ok(());
    }
    let agent = get("/v1/agent/self".to_owned()).await?;
    let id =
        agent.pointer("/stats/client/node_id").and_then(Value::as_str).ok_or("the client has no node id")?;
    let node = get(format!("/v1/node/{id}")).await?;
    if node["Status"] != "ready" || node["SchedulingEligibility"] != "eligible" {
        return Err(format!("the node is {}, {}", node["Status"], node["SchedulingEligibility"]));
    }
    if node.pointer("/Drivers/raw_exec/Healthy") != Some(&Value::Bool(true)) {
        return Err("the driver raw_exec is not healthy".to_owned());
    }
    Ok(())
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
    if options.role.has_server() {
        let _ = writeln!(
            text,
            "server {{\n  enabled = true\n  bootstrap_expect = 1\n  raft_multiplier = 1\n{}\n}}",
            options.server_settings
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
    // AWS_CA_BUNDLE is set. The chroot of `exec` is kept small, since Nomad copies it for each
    // task; Debian's awk is a link by way of /etc/alternatives.
    let _ = writeln!(
        text,
        r#"client {{
  enabled           = true
  network_interface = "lo"
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,cni,consul"
  }}
  chroot_env {{
    "/bin"       = "/bin"
    "/lib"       = "/lib"
    "/lib64"     = "/lib64"
    "/usr/bin/env" = "/usr/bin/env"
    "/usr/bin/mawk" = "/usr/bin/mawk"
    "/usr/bin/gawk" = "/usr/bin/gawk"
    "/etc/alternatives" = "/etc/alternatives"
    "/usr/lib/x86_64-linux-gnu" = "/usr/lib/x86_64-linux-gnu"
    "/usr/lib/aarch64-linux-gnu" = "/usr/lib/aarch64-linux-gnu"
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
    fn paths_are_quoted() {
        assert!(text(Role::Dev).contains(r#"data_dir             = "/srv/nomad \"one\"/data""#));
    }
}
