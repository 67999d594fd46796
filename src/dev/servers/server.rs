//! What can be done with every kind of server.

use std::path::PathBuf;

use super::{Error, Port, local_client, supervised::Process};

/// A running server. Dropped, it is ended in the background with everything that it started.
#[derive(Debug)]
pub struct Server<Kind> {
    pub(super) process: Process,
    pub(super) http: reqwest::Client,
    pub(super) port: u16,
    /// What keeps its ports its own.
    _ports: Vec<Port>,
    pub(super) kind: Kind,
}

impl<Kind> Server<Kind> {
    /// A server whose process waits for its first launch; its API is to be on `port`.
    pub(super) fn new(process: Process, port: u16, kind: Kind) -> Result<Self, Error> {
        Ok(Self { process, http: local_client()?, port, _ports: Vec::new(), kind })
    }

    /// Starts a server on ports that are free; on others where another program took one meanwhile.
    pub(super) async fn on_free_ports<const N: usize>(
        mut start: impl AsyncFnMut([u16; N]) -> Result<Self, Error>,
    ) -> Result<Self, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut ports = Vec::with_capacity(N);
            for _ in 0..N {
                ports.push(Port::reserve().map_err(|source| Error::System { what: "a free port", source })?);
            }
            match start(std::array::from_fn(|at| ports[at].number())).await {
                Err(error) if error.is_port_conflict() && tries < 5 => {}
                started => return started.map(|server| Self { _ports: ports, ..server }),
            }
        }
    }

    /// The server where its first launch went well; else its end.
    pub(super) async fn launched(mut self, launch: Result<(), Error>) -> Result<Self, Error> {
        if let Err(error) = launch {
            self.process.clear().await?;
            return Err(error);
        }
        Ok(self)
    }

    /// The address of the HTTP API, such as `http://127.0.0.1:4646`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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

    /// Ends it by SIGTERM. Tasks of Nomad's go on until its next launch finds them again.
    pub async fn terminate(&mut self) -> Result<(), Error> {
        self.process.terminate().await
    }

    /// Ends it by SIGKILL. Tasks of Nomad's go on.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.process.kill().await
    }

    /// Ends it with everything that it started, and unmounts what it mounted.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.process.clear().await
    }
}
