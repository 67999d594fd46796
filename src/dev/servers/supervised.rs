//! A server process that cannot outlive the program that started it.
//!
//! Between this program and the server stands a small shell script. It holds the reading end of a pipe from
//! here: when that closes, by whatever death, it ends the server and everything that the server left behind.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::Error;

/// How long a server may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the supervisor may take to tell of what it did, on a machine that is busy.
const ANSWER: Duration = Duration::from_mins(2);

/// What a supervised process is called, runs and writes to.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    folder: PathBuf,
    supervisor: Child,
    orders: Option<ChildStdin>,
    events: Lines<BufReader<ChildStdout>>,
    pid: Option<u32>,
}

impl Process {
    /// Starts the supervisor for `command`; the server itself waits for [`Process::launch`].
    pub(super) fn prepare(
        name: &'static str,
        folder: &Path,
        remove_at_end: bool,
        command: &[String],
        environment: &[(String, String)],
    ) -> Result<Self, Error> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", include_str!("supervisor.sh"), "consign-supervisor"])
            .arg(folder)
            .arg(if remove_at_end { "remove" } else { "keep" })
            .args(command)
            .env_remove("AWS_CA_BUNDLE")
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            // A terminal's Ctrl-C is for this program, which ends its servers in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut supervisor = shell.spawn().map_err(|source| Error::Spawn { name, source })?;
        let (Some(orders), Some(events)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
            return Err(Error::Supervisor { name });
        };
        Ok(Self {
            name,
            folder: folder.to_owned(),
            supervisor,
            orders: Some(orders),
            events: BufReader::new(events).lines(),
            pid: None,
        })
    }

    /// The process id of the running server.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Where the server's output goes.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Starts the server and returns when its process exists.
    pub(super) async fn launch(&mut self) -> Result<(), Error> {
        self.order("start\n").await?;
        let line = self.event(ANSWER).await?.ok_or(Error::Supervisor { name: self.name })?;
        self.pid = line.strip_prefix("started ").and_then(|pid| pid.parse().ok());
        if self.pid.is_some() { Ok(()) } else { Err(Error::Supervisor { name: self.name }) }
    }

    /// Ends the server by SIGTERM, after a while by SIGKILL. What it started, such as tasks, goes on.
    pub(super) async fn terminate(&mut self) -> Result<(), Error> {
        if self.pid.is_none() {
            return Ok(());
        }
        self.order("term\n").await?;
        if self.event(PATIENCE).await?.is_none() {
            return self.kill().await;
        }
        self.pid = None;
        Ok(())
    }

    /// Ends the server by SIGKILL. What it started, such as tasks, goes on.
    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        if self.pid.is_none() {
            return Ok(());
        }
        self.order("kill\n").await?;
        self.event(ANSWER).await?.ok_or(Error::Supervisor { name: self.name })?;
        self.pid = None;
        Ok(())
    }

    /// Ends the server and everything that it left, and returns when nothing of it is there any more.
    pub(super) async fn clear(&mut self) -> Result<(), Error> {
        drop(self.orders.take());
        let name = self.name;
        match timeout(ANSWER, self.supervisor.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(Error::Spawn { name, source }),
            Err(_) => Err(Error::Supervisor { name }),
        }
    }

    /// Waits until `ready` is `Ok`; its error says what is still missing.
    pub(super) async fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let missing = match ready().await {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            // The pause between two looks is spent listening for the server's own end.
            if let Some(line) = self.event(Duration::from_millis(50)).await? {
                self.pid = None;
                let tail = self.log_tail();
                return Err(Error::Ended { name: self.name, event: line, tail });
            }
            if Instant::now() >= deadline {
                let tail = self.log_tail();
                return Err(Error::NotReady { name: self.name, limit, missing, tail });
            }
        }
    }

    async fn order(&mut self, order: &str) -> Result<(), Error> {
        let name = self.name;
        let pipe = self.orders.as_mut().ok_or(Error::Supervisor { name })?;
        pipe.write_all(order.as_bytes()).await.map_err(|source| Error::Spawn { name, source })
    }

    /// The next line from the supervisor, or none within `limit`.
    async fn event(&mut self, limit: Duration) -> Result<Option<String>, Error> {
        let name = self.name;
        match timeout(limit, self.events.next_line()).await {
            Err(_) => Ok(None),
            Ok(Ok(Some(line))) => Ok(Some(line)),
            Ok(Ok(None)) => Err(Error::Supervisor { name }),
            Ok(Err(source)) => Err(Error::Spawn { name, source }),
        }
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
