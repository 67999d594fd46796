//! The `git` program as a hermetic subprocess.
//!
//! It sees nothing of the caller's environment but what is listed here: no personal or system
//! configuration, no hooks, no prompt, a home folder of its own. Each run has a time limit; what
//! exceeds it is first asked to end (so that git removes its lock files, also those in a remote on
//! the same machine) and then killed together with the processes it started.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

use super::{Error, error::tells_of_damage, remote::redact};
use crate::program;

const GIT: &str = "git";

/// The oldest git that works: `core.fsync`, `safe.directory` and `--porcelain` behave from here on.
pub(super) const MINIMUM_VERSION: (u32, u32) = (2, 36);

/// How long an operation on the mirror alone may take.
pub(super) const LOCAL_LIMIT: Duration = Duration::from_mins(2);
/// How long a look at the remote's references may take.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// How long a fetch or push may take; a stalled https transfer ends earlier by itself.
pub(super) const TRANSFER_LIMIT: Duration = Duration::from_mins(15);

/// How long git has to end by itself once its time is up.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// The most of git's standard error that is kept, in bytes.
const STDERR_LIMIT: u64 = 16 * 1024;

/// What git may see of this process's environment: how to reach the remote, nothing else.
const PASSED_ON: [&str; 17] = [
    "PATH",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "https_proxy",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Git, on one repository.
#[derive(Debug, Clone)]
pub(super) struct Git {
    /// The repository's folder.
    pub(super) repository: PathBuf,
    /// The home folder that git sees.
    pub(super) home: PathBuf,
    /// The configuration file that stands in for the personal one.
    pub(super) configuration: PathBuf,
    /// Whether git told of damage in the repository.
    pub(super) damaged: Arc<AtomicBool>,
}

/// One run of git.
#[derive(Debug)]
pub(super) struct Invocation {
    program: &'static str,
    operation: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    input: Option<Vec<u8>>,
    limit: Duration,
    place: Place,
}

/// What a run of git works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The mirror alone.
    Mirror,
    /// The mirror and the remote.
    Remote,
    /// No repository.
    Outside,
}

/// How a run of git ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) operation: &'static str,
    pub(super) place: Place,
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    /// Trimmed and without credentials.
    pub(super) stderr: String,
}

impl Invocation {
    /// A run that serves `operation`, which completes the sentence "could not …".
    pub(super) fn new(
        operation: &'static str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        Self {
            program: GIT,
            operation,
            arguments: arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            input: None,
            limit: LOCAL_LIMIT,
            place: Place::Mirror,
        }
    }

    /// Feeds `input` to git's standard input.
    pub(super) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Sets a variable that only this run sees.
    pub(super) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Ends the run after `limit`.
    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs another program than git, in the same surroundings.
    pub(super) fn program(mut self, program: &'static str) -> Self {
        self.program = program;
        self.outside()
    }

    /// Runs without a repository.
    pub(super) fn outside(mut self) -> Self {
        self.place = Place::Outside;
        self
    }

    /// Reaches the remote, and ends after `limit`.
    pub(super) fn remote(mut self, limit: Duration) -> Self {
        self.place = Place::Remote;
        self.limit(limit)
    }
}

impl Ended {
    /// Whether git's exit code was 0.
    pub(super) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// What git printed, where it succeeded.
    pub(super) fn output(self) -> Result<Vec<u8>, Error> {
        if self.succeeded() { Ok(self.stdout) } else { Err(self.error()) }
    }

    /// What git printed as text, where it succeeded.
    pub(super) fn text(self) -> Result<String, Error> {
        let operation = self.operation;
        String::from_utf8(self.output()?).map_err(|_| Error::Answer { operation })
    }

    /// The failure, in git's words.
    pub(super) fn error(self) -> Error {
        let stderr = if self.stderr.is_empty() {
            match self.code {
                Some(code) => format!("git ended with exit code {code}"),
                None => "git was killed".to_owned(),
            }
        } else {
            self.stderr
        };
        Error::Exit { operation: self.operation, place: self.place, code: self.code, stderr }
    }
}

impl Git {
    /// Runs git to its end and returns what it printed, where it succeeded.
    pub(super) async fn output(&self, invocation: Invocation) -> Result<Vec<u8>, Error> {
        self.run(invocation).await?.output()
    }

    /// As [`Self::output`], for an answer that is text.
    pub(super) async fn text(&self, invocation: Invocation) -> Result<String, Error> {
        self.run(invocation).await?.text()
    }

    /// Runs git to its end, however it ends.
    pub(super) async fn run(&self, invocation: Invocation) -> Result<Ended, Error> {
        let Invocation { operation, input, limit, place, .. } = &invocation;
        let (operation, limit, place) = (*operation, *limit, *place);
        let (mut child, mut group) = self.start(&invocation)?;
        let exchanged = timeout(limit, exchange(&mut child, input.as_deref())).await;
        match exchanged {
            Ok(Ok((code, stdout, stderr))) => {
                group.ended();
                let stderr = redact(String::from_utf8_lossy(&stderr).trim());
                // Some commands pass over what they cannot read.
                if place == Place::Mirror && tells_of_damage(&stderr) {
                    self.damaged.store(true, Ordering::Relaxed);
                }
                Ok(Ended { operation, place, code, stdout, stderr })
            }
            Ok(Err(source)) => Err(Error::Pipe { operation, source }),
            Err(_elapsed) => {
                group.signal(Signal::TERM);
                let by_itself = timeout(GRACE, child.wait()).await;
                group.signal(Signal::KILL);
                if by_itself.is_ok() {
                    group.ended();
                }
                Err(Error::TimedOut { operation, limit })
            }
        }
    }

    /// Starts git, with pipes to what it reads and prints; its time limit is the caller's to keep.
    pub(super) fn start(&self, invocation: &Invocation) -> Result<(Child, Group), Error> {
        let child = self.command(invocation).spawn();
        let child = child.map_err(|source| Error::Spawn { program: invocation.program, source })?;
        let group = Group::of(&child);
        Ok((child, group))
    }

    /// The process with its whole environment.
    fn command(&self, invocation: &Invocation) -> Command {
        // What is not found is left to the start, which says so.
        let found = program::find(invocation.program);
        let mut command = Command::new(found.unwrap_or_else(|| invocation.program.into()));
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
        }
        command
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.configuration)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_GRAFT_FILE", "/dev/null")
            .env("GIT_PAGER", "cat")
            .envs(invocation.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.home)
            .stdin(if invocation.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        if invocation.place != Place::Outside {
            command.arg("--git-dir").arg(&self.repository);
        }
        command.args(&invocation.arguments);
        command
    }
}

/// Feeds git its input and takes its output, all at once so that no pipe fills up.
async fn exchange(child: &mut Child, input: Option<&[u8]>) -> io::Result<(Option<i32>, Vec<u8>, Vec<u8>)> {
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // Git that ends before it has read everything says why on its standard error.
            match stdin.write_all(input).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => (),
            }
        }
        Ok(())
    };
    let ((), stdout, stderr, status) =
        tokio::try_join!(feed, read(stdout, u64::MAX), read(stderr, STDERR_LIMIT), child.wait())?;
    Ok((status.code(), stdout, stderr))
}

/// Reads up to `limit` bytes, and throws away what follows so that the writer does not block.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(limit).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// The process group of a running git: asked to end where whoever waited for it is gone.
pub(super) struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Git has ended and been waited for: its number may belong to another process by now.
    pub(super) fn ended(&mut self) {
        self.0 = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // A group that ended meanwhile is what is wanted.
            kill_process_group(group, signal).unwrap_or_default();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// The version that `git version` prints, as major and minor number.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("git version ")?.split(['.', ' ', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        assert_eq!(parse_version("git version 2.39.5\n"), Some((2, 39)));
        assert_eq!(parse_version("git version 2.50.1 (Apple Git-155)"), Some((2, 50)));
        assert_eq!(parse_version("git version 2.47.windows.1"), Some((2, 47)));
        assert_eq!(parse_version("hub 1.0"), None);
    }
}
