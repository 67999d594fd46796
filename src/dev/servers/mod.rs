//! Real Nomad, Vault and Docker servers, each in a folder of its own; Nomad and Vault listen on free ports of the
//! loopback interface, Docker on a socket in its folder.
//!
//! They end with the program that started them, even where that is killed, and so do the tasks that they run.
//! The programs are those that `CONSIGN_NOMAD`, `CONSIGN_VAULT` and `CONSIGN_DOCKERD` name, else those on `PATH`.

mod docker;
mod nomad;
mod port;
mod server;
mod supervised;
mod vault;

use std::{env, path::PathBuf, time::Duration};

pub use docker::{Docker, DockerOptions};
pub use nomad::{HostVolume, Nomad, NomadOptions, Role, VaultForNomad};
pub use port::Port;
pub use server::Server;
pub use vault::{Vault, VaultOptions};

/// How long a fresh server may take until it is of use: some seconds, but more on a machine that is busy. One that
/// ends by itself is not waited for.
const START_LIMIT: Duration = Duration::from_mins(3);

/// A server that could not be started, watched or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the environment nor `PATH` has the program.
    #[error("{name} is not on PATH; {} or name it in {variable}", remedy(name))]
    Missing {
        /// The program looked for.
        name: &'static str,
        /// The environment variable that can name it.
        variable: &'static str,
    },
    /// A file or folder of the server could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No free port was to be had, or no random number.
    #[error("cannot get {what} from the system")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The process that watches over the server could not be started or spoken to.
    #[error("cannot run {name}")]
    Spawn {
        /// The server.
        name: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The process that watches over the server does not answer as agreed.
    #[error("the supervisor of {name} does not answer")]
    Supervisor {
        /// The server.
        name: &'static str,
    },
    /// The server ended before it was ready.
    #[error("{name} {event} before it was ready; its last words:\n{tail}")]
    Ended {
        /// The server.
        name: &'static str,
        /// How it ended, such as "exited 1".
        event: String,
        /// The end of its log.
        tail: String,
    },
    /// The server runs and is not ready in time.
    #[error("{name} is not ready after {} s: {missing}; its last words:\n{tail}", limit.as_secs())]
    NotReady {
        /// The server.
        name: &'static str,
        /// How long it was waited for.
        limit: Duration,
        /// What is still missing.
        missing: String,
        /// The end of its log.
        tail: String,
    },
    /// A request that sets the server up failed.
    #[error("cannot {operation}")]
    Request {
        /// What was to be done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: reqwest::Error,
    },
    /// An operation that this kind of server does not have.
    #[error("a Vault that keeps its data in memory cannot {operation}")]
    InMemory {
        /// What was asked of it.
        operation: &'static str,
    },
}

impl Error {
    /// Whether another program has the port: of UDP, for Nomad's gossip, none can be reserved.
    fn is_port_conflict(&self) -> bool {
        matches!(self, Self::Ended { tail, .. } if tail.contains("address already in use"))
    }
}

fn remedy(name: &str) -> &'static str {
    match name {
        "dockerd" => "install it (Debian: `apt-get install docker.io`)",
        _ => "put it there (`PATH=\"$(scripts/servers):$PATH\"`)",
    }
}

/// The program `name`, from the environment variable or from `PATH`.
fn program(name: &'static str, variable: &'static str) -> Result<String, Error> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return Ok(path.to_string_lossy().into_owned());
    }
    crate::program::find(name)
        .map(|path| path.to_string_lossy().into_owned())
        .ok_or(Error::Missing { name, variable })
}

/// A client for servers on this machine: no proxy, short limits.
fn local_client() -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(Vec::new())
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(|source| Error::Request { operation: "make an HTTP client", source })
}

fn create_folder(path: &std::path::Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn write_file(path: &std::path::Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_remedy() {
        let error = program("no-such-server", "CONSIGN_NO_SUCH_SERVER").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("scripts/servers") && text.contains("CONSIGN_NO_SUCH_SERVER"), "{text}");
        let text = Error::Missing { name: "dockerd", variable: "CONSIGN_DOCKERD" }.to_string();
        assert!(text.contains("apt-get install docker.io") && text.contains("CONSIGN_DOCKERD"), "{text}");
    }
}
