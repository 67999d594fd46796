//! The agent as a process of its own, and the operator's commands around it.

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, PoisonError},
};

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{LIMIT, World, http, wait_for};

/// Held while Vault is set up: two operators at one auth method get in each other's way.
static OPERATOR: Mutex<()> = Mutex::new(());

/// A running agent; killed when the test is over.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: String,
    log: PathBuf,
}

impl World {
    /// The program with the test's configuration, and no tokens or settings of whoever runs the tests:
    /// `CONSIGN_TEST_PROGRAM`, or the one that was built with the tests.
    pub(crate) fn consign(&self, arguments: &[&str]) -> Command {
        self.consign_as("consign.toml", arguments)
    }

    /// The program with another configuration, a file in the test's folder.
    fn consign_as(&self, config: &str, arguments: &[&str]) -> Command {
        let program = std::env::var("CONSIGN_TEST_PROGRAM");
        let mut command = Command::new(program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_consign")));
        command.args(arguments).arg("--config").arg(self.path(config));
        let foreign =
            |name: &str| ["CONSIGN_", "NOMAD_", "VAULT_"].iter().any(|prefix| name.starts_with(prefix));
        for (name, _) in std::env::vars().filter(|(name, _)| foreign(name)) {
            command.env_remove(name);
        }
        command
    }

    /// Runs an operator's command to its end, with `input` on its standard input.
    pub(crate) fn operate(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.consign(arguments);
        if let Some(token) = &self.servers.nomad_token {
            command.env("NOMAD_TOKEN", token.expose_secret());
        }
        let mut child = command
            .env("VAULT_TOKEN", self.servers.vault_token.expose_secret())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Writes the configuration and sets Vault and Nomad up for it. `further` is appended to the configuration.
    pub(crate) fn bootstrap(&self, further: &str) {
        self.bootstrap_with(&format!("{}{further}", self.config_toml()));
    }

    /// The same with a configuration of the test's own.
    pub(crate) fn bootstrap_with(&self, config: &str) {
        let token = self.path("agent.token");
        self.bootstrap_for(config, &["--token-out", token.to_str().unwrap()]);
    }

    /// The same with other arguments; gives what it says.
    pub(crate) fn bootstrap_for(&self, config: &str, arguments: &[&str]) -> String {
        std::fs::write(self.path("consign.toml"), config).unwrap();
        let _turn = OPERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        let output = self.operate(&[&["bootstrap"], arguments].concat(), b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A secret's name that no other test uses: groups of all tests stand in one Vault.
    pub(crate) fn secret(&self, name: &str) -> String {
        format!("{name}_{}", self.name.rsplit('-').next().unwrap().to_uppercase())
    }

    /// Puts a secret as an operator does.
    pub(crate) fn put_secret(&self, name: &str, value: &[u8]) {
        let output = self.operate(&["secret", "put", name], value);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the agent without waiting for it.
    pub(crate) fn launch_agent(&self, arguments: &[&str]) -> Agent {
        self.launch_agent_as("consign.toml", self.agent_address(), arguments)
    }

    /// Starts an agent on the same ops repo with the store in the folder `store`, which listens elsewhere and
    /// has its own log, without waiting for it.
    pub(crate) fn launch_another(&self, store: &str, arguments: &[&str]) -> Agent {
        let port = self.other_port.number();
        let config = self
            .config_toml()
            .replace(&self.agent_address()["http://".len()..], &format!("127.0.0.1:{port}"));
        let path = |name: &str| self.path(name).display().to_string();
        let config =
            config.replace(&format!("path = \"{}\"", path("store")), &format!("path = \"{}\"", path(store)));
        let name = format!("another-{store}.toml");
        std::fs::write(self.path(&name), config).unwrap();
        self.launch_agent_as(&name, format!("http://127.0.0.1:{port}"), arguments)
    }

    /// Starts the agent with these environment variables, without waiting for it.
    pub(crate) fn launch_agent_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Agent {
        let command = self.consign(&[&["agent"], arguments].concat());
        self.spawn_agent("consign.toml", self.agent_address(), command, environment)
    }

    /// Starts the agent as the last argument of another program, which runs it as itself, without waiting for it.
    pub(crate) fn launch_agent_within(&self, program: &[&str]) -> Agent {
        let agent = self.consign(&["agent"]);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(agent.get_program()).args(agent.get_args());
        for (name, value) in agent.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.spawn_agent("consign.toml", self.agent_address(), command, &[])
    }

    fn launch_agent_as(&self, config: &str, address: String, arguments: &[&str]) -> Agent {
        self.spawn_agent(config, address, self.consign_as(config, &[&["agent"], arguments].concat()), &[])
    }

    fn spawn_agent(
        &self,
        config: &str,
        address: String,
        mut command: Command,
        environment: &[(&str, &str)],
    ) -> Agent {
        let log = self.path(config).with_extension("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .env("RUST_LOG", "warn,consign=debug,vaultrs=off,rustify=off,sqlx=off")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Agent { child, address, log }
    }

    /// Starts the agent and waits until it takes work.
    pub(crate) async fn agent(&self) -> Agent {
        let agent = self.launch_agent(&[]);
        agent.ready().await;
        agent
    }

    /// Commits one action file in `actions/`, and gives the revision.
    pub(crate) fn commit_action(&self, id: &str, formula: &str, further: &str) -> String {
        let path = format!("actions/{id}.toml");
        let text = action(id, formula, further);
        self.ops.commit(&format!("add {id}"), &[(&path, Some(&text))])
    }
}

/// Whether the agent at `address` takes work.
pub(crate) async fn is_ready(address: &str) -> Result<(), String> {
    let response = http().get(format!("{address}/readyz")).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {:?}", response.text().await)) }
}

/// An action's text. `further` comes before the tables that it may end in.
pub(crate) fn action(id: &str, formula: &str, further: &str) -> String {
    let secrets = if further.contains("secrets =") { "" } else { "secrets = []\n" };
    format!(
        "id = \"{id}\"\nformula = \"{formula}\"\ncontext = \"a test\"\nblast_radius = \"low\"\n{secrets}{further}\n"
    )
}

impl Agent {
    /// Waits until it takes work.
    pub(crate) async fn ready(&self) {
        wait_for("the agent to be ready", LIMIT, async || {
            is_ready(&self.address).await.map_err(|error| format!("{error}; {}", self.log()))
        })
        .await;
    }

    /// Its answer to whoever shows no token.
    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        http().get(format!("{}{path}", self.address)).send().await.unwrap()
    }

    /// What `/health` says.
    pub(crate) async fn health(&self) -> Value {
        serde_json::from_str(&self.get("/health").await.text().await.unwrap()).unwrap()
    }

    /// Waits until `/health` names a trouble with `text` in it.
    pub(crate) async fn degraded(&self, text: &str) {
        wait_for(&format!("a trouble with {text:?}"), LIMIT, async || {
            let health = self.health().await;
            if health["reasons"].to_string().contains(text) { Ok(()) } else { Err(health.to_string()) }
        })
        .await;
    }

    /// Waits until nothing is in trouble.
    pub(crate) async fn recovered(&self) {
        wait_for("no trouble", LIMIT, async || {
            let health = self.health().await;
            if health["degraded"] == false { Ok(()) } else { Err(health.to_string()) }
        })
        .await;
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        wait_for("the agent to end", LIMIT, async || {
            self.child
                .try_wait()
                .unwrap()
                .ok_or_else(|| std::fs::read_to_string(&self.log).unwrap_or_default())
        })
        .await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
