//! The agent's own Nomad job in a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::PATIENCE;
use crate::support::{NomadApi, World, is_ready, wait_for};

/// The job `consign` in a namespace of its own.
pub(super) struct AgentJob {
    pub(super) nomad: NomadApi,
    pub(super) vault_role: String,
    address: String,
    config: String,
}

impl AgentJob {
    /// Sets Vault and Nomad up for it, which says `told` of Nomad; a second time changes nothing.
    pub(super) async fn set_up(world: &World, told: &str) -> Self {
        Self::set_up_with(world, world.config_toml(), told).await
    }

    /// The same with a configuration of the test's own.
    pub(super) async fn set_up_with(world: &World, config: String, told: &str) -> Self {
        let namespace = format!("{}-agent", world.name);
        let nomad =
            NomadApi::new(&world.servers.nomad_address, &namespace, world.servers.nomad_token.clone());
        nomad.create_namespace().await;
        let arguments = ["--under-nomad", "--agent-namespace", &namespace];
        let said = world.bootstrap_for(&config, &arguments);
        let vault_role = format!("{}-agent", world.gate());
        assert!(said.contains(told), "{said}");
        let again = world.bootstrap_for(&config, &arguments);
        assert!(again.contains("everything is set up"), "{again}");
        assert!(!world.path("agent.token").exists());
        Self { nomad, vault_role, address: world.agent_address(), config }
    }

    /// Runs the shipped job, or its next version, as an operator does.
    pub(super) fn run(&self, world: &World, further: &[&str]) {
        self.job(world, "run", &[&["-detach"], further].concat());
    }

    /// A subcommand of `nomad job` on the shipped job.
    pub(super) fn job(&self, world: &World, subcommand: &str, further: &[&str]) {
        let variable = |name: &str, value: &str| ["-var".to_owned(), format!("{name}={value}")];
        let store = world.path("store");
        let port = self.address.rsplit(':').next().unwrap();
        let variables = [
            variable("config", &self.config),
            variable("namespace", &world.name),
            variable("vault_addr", &world.servers.vault_address),
            variable("vault_role", &self.vault_role),
            variable("binary", env!("CARGO_BIN_EXE_consign")),
            variable("store", store.to_str().unwrap()),
            variable("port", port),
        ];
        let operator = world.servers.nomad_token.clone().unwrap_or_default();
        let output = nomad_command(world, operator.expose_secret())
            .args(["job", subcommand, &format!("-namespace={}", self.nomad.namespace)])
            .args(variables.iter().flatten())
            .args(further)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/consign.nomad.hcl"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Waits until it takes work.
    pub(super) async fn ready(&self) {
        wait_for("the agent to be ready", PATIENCE, async || match is_ready(&self.address).await {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{error}; {}", self.events().await)),
        })
        .await;
    }

    /// Waits until Nomad's checks have found the latest version healthy.
    pub(super) async fn deployed(&self) {
        wait_for("the deployment to succeed", PATIENCE, async || {
            let deployment = self.nomad.get("/v1/job/consign/deployment").await?;
            if deployment["Status"] == "successful" { Ok(()) } else { Err(deployment.to_string()) }
        })
        .await;
    }

    /// What Nomad tells of its tasks.
    async fn events(&self) -> String {
        let allocations = self.nomad.get("/v1/job/consign/allocations").await.unwrap_or_default();
        let of = |allocation: &Value| allocation.pointer("/TaskStates/consign/Events").map(Value::to_string);
        allocations.as_array().into_iter().flatten().filter_map(of).collect()
    }

    /// Its allocations that run, newest first.
    async fn running(&self) -> Vec<Value> {
        let allocations = self.nomad.get("/v1/job/consign/allocations").await.unwrap();
        let runs = |allocation: &Value| allocation["ClientStatus"] == "running";
        allocations.as_array().unwrap().iter().filter(|allocation| runs(allocation)).cloned().collect()
    }

    /// Its one allocation, once Nomad's client has told that it runs, and `before` no longer does.
    async fn only_one(&self, before: Option<&str>) -> Value {
        wait_for("one allocation of the agent", PATIENCE, async || {
            let running = self.running().await;
            match running.as_slice() {
                [one] if one["ID"].as_str() != before => Ok(one.clone()),
                others => Err(format!("{} run; {}", others.len(), self.events().await)),
            }
        })
        .await
    }

    /// The id of its one allocation.
    pub(super) async fn allocation(&self) -> String {
        self.only_one(None).await["ID"].as_str().unwrap().to_owned()
    }

    /// The id of the node that it runs on.
    pub(super) async fn node(&self) -> String {
        self.only_one(None).await["NodeID"].as_str().unwrap().to_owned()
    }

    /// Waits until another allocation alone runs, and gives its id.
    pub(super) async fn replaced(&self, before: &str) -> String {
        self.only_one(Some(before)).await["ID"].as_str().unwrap().to_owned()
    }

    /// Waits until the allocation has ended.
    pub(super) async fn gone(&self, id: &str) {
        wait_for("the agent to end", PATIENCE, async || {
            let running = self.running().await;
            if running.iter().any(|allocation| allocation["ID"] == id) {
                Err(self.events().await)
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// The environment of the agent's process.
    fn environment(allocation: &str) -> Vec<String> {
        let own = format!("NOMAD_ALLOC_ID={allocation}");
        let program = Path::new(env!("CARGO_BIN_EXE_consign"));
        for process in fs::read_dir("/proc").unwrap() {
            let folder = process.unwrap().path();
            let Ok(environment) = fs::read(folder.join("environ")) else { continue };
            let variables: Vec<String> = environment
                .split(|byte| *byte == 0)
                .map(|variable| String::from_utf8_lossy(variable).into_owned())
                .collect();
            let runs = fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == program);
            if runs && variables.contains(&own) {
                return variables;
            }
        }
        panic!("no process of the allocation {allocation}");
    }

    /// The file of a token in the agent's secrets folder.
    pub(super) async fn secret_file(&self, name: &str) -> PathBuf {
        let environment = Self::environment(&self.allocation().await);
        let folder =
            environment.iter().find_map(|variable| variable.strip_prefix("NOMAD_SECRETS_DIR=")).unwrap();
        Path::new(folder).join(name)
    }

    /// Asserts that neither the job nor the environment of the agent holds a token, nor its store or log.
    pub(super) async fn has_no_token(&self, world: &World) {
        let mut tokens = vec![
            world.servers.vault_token.expose_secret().to_owned(),
            world.servers.nomad_token.as_ref().unwrap().expose_secret().to_owned(),
        ];
        for name in ["nomad_consign.jwt", "vault_token"] {
            tokens.push(fs::read_to_string(self.secret_file(name).await).unwrap());
        }
        let job = self.nomad.get("/v1/job/consign").await.unwrap().to_string();
        let allocation = self.allocation().await;
        let environment = Self::environment(&allocation);
        for variable in &environment {
            let name = variable.split('=').next().unwrap();
            assert!(!name.contains("TOKEN") || name.ends_with("_TOKEN_FILE"), "{name} is in the environment");
        }
        let places = [("job", job), ("environment", environment.join("\n"))];
        for (place, text) in places {
            // A service token of Vault's, and how each JWT begins.
            for start in ["hvs.", "eyJ"] {
                assert!(!text.contains(start), "{start} in the {place}");
            }
            assert!(!tokens.iter().any(|token| text.contains(token)), "a token in the {place}");
        }
        let store = walk(&world.path("store"));
        assert!(!store.is_empty());
        for (path, content) in store {
            let text = String::from_utf8_lossy(&content).into_owned();
            assert!(!tokens.iter().any(|token| text.contains(token)), "a token in {}", path.display());
        }
    }
}

/// Nomad's own command line, with a token.
pub(super) fn nomad_command(world: &World, token: &str) -> Command {
    let program = std::env::var_os("CONSIGN_NOMAD").unwrap_or_else(|| "nomad".into());
    let mut command = Command::new(program);
    command.env("NOMAD_ADDR", &world.servers.nomad_address).env("NOMAD_TOKEN", token);
    command
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else if let Ok(content) = fs::read(&path) {
            found.push((path, content));
        }
    }
    found
}
