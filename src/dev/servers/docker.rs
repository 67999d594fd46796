//! A Docker engine of its own on this machine; it must be started as root.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::{Error, START_LIMIT, create_folder, program, supervised::Process, write_file};

/// How long an image may take to be imported.
const IMPORT_LIMIT: Duration = Duration::from_mins(2);

/// How a Docker engine is started.
#[derive(Debug, Clone, Default)]
pub struct DockerOptions {
    /// Its own folder, absolute, of some 60 bytes at most, since a socket's path is short: configuration,
    /// images, containers, socket and log (`server.log`). Made if it is not there.
    pub folder: PathBuf,
    /// Whether the folder goes when the engine is stopped or this program ends.
    pub remove_folder: bool,
}

/// A running Docker engine. Dropped, it is ended in the background with every container.
///
/// It changes nothing of the machine's network: containers have the loopback interface alone, or the host's.
#[derive(Debug)]
pub struct Docker {
    process: Process,
    http: reqwest::Client,
    socket: PathBuf,
}

impl Docker {
    /// Starts an engine and returns when it answers.
    pub async fn start(options: &DockerOptions) -> Result<Self, Error> {
        let program = program("dockerd", "CONSIGN_DOCKERD")?;
        create_folder(&options.folder)?;
        let configuration = options.folder.join("docker.json");
        write_file(&configuration, &configuration_text(&options.folder))?;
        // Where the machine's containerd is used, it holds other engines' containers too.
        let name = options.folder.file_name().unwrap_or_default().to_string_lossy();
        let command = [
            program,
            format!("--config-file={}", configuration.display()),
            format!("--containerd-namespace={name}"),
            format!("--containerd-plugins-namespace={name}-plugins"),
        ];
        let process = Process::prepare("dockerd", &options.folder, options.remove_folder, &command, &[])?;
        let socket = socket(&options.folder);
        let mut docker = Self { process, http: client(&socket)?, socket };
        if let Err(error) = docker.launch().await {
            docker.process.clear().await?;
            return Err(error);
        }
        Ok(docker)
    }

    async fn launch(&mut self) -> Result<(), Error> {
        self.process.launch().await?;
        let http = self.http.clone();
        let ready = async || match http.get("http://docker/_ping").send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answers {}", answer.status())),
            Err(error) => Err(error.to_string()),
        };
        self.process.wait_until(START_LIMIT, ready).await
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process id, where it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Makes the image `repository:tag` of a root file system, a tar archive. `changes` are lines of a
    /// Dockerfile, such as `USER 65534`.
    pub async fn import(
        &self,
        repository: &str,
        tag: &str,
        archive: Vec<u8>,
        changes: &[&str],
    ) -> Result<(), Error> {
        let failed = |source| Error::Request { operation: "import an image", source };
        let request = self.http.post("http://docker/images/create").timeout(IMPORT_LIMIT);
        let mut query = vec![("fromSrc", "-"), ("repo", repository), ("tag", tag)];
        query.extend(changes.iter().map(|change| ("changes", *change)));
        let answer = request.query(&query).body(archive).send().await.map_err(failed)?;
        // The answer goes on until the image is there.
        answer.error_for_status().map_err(failed)?.bytes().await.map_err(failed)?;
        Ok(())
    }

    /// Ends the engine and every container.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.process.clear().await
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("docker.sock")
}

fn client(socket: &Path) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .no_proxy()
        .unix_socket(socket)
        .tls_certs_only(Vec::new())
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(|source| Error::Request { operation: "make an HTTP client", source })
}

/// Everything of its own, so that another engine on the machine is not touched, and none of the machine's network.
fn configuration_text(folder: &Path) -> String {
    json!({
        "data-root": folder.join("data"),
        "exec-root": folder.join("exec"),
        "pidfile": folder.join("docker.pid"),
        "hosts": [format!("unix://{}", socket(folder).display())],
        "group": "root",
        "bridge": "none",
        "iptables": false,
        "ip6tables": false,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "shutdown-timeout": 1,
    })
    .to_string()
}
