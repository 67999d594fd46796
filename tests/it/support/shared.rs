//! Servers for the whole test program, started when the first test asks for them: one Nomad and one Vault, and
//! the same once more with a Docker engine behind them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{OnceLock, mpsc},
    thread,
};

use consign::dev::servers::{
    Docker, DockerOptions, Nomad, NomadOptions, Role, Vault, VaultForNomad, VaultOptions,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::images::{self, Image};

/// Where Vault keeps Nomad's JWT auth method: Nomad's configuration names one path for all tests.
pub(crate) const AUTH_PATH: &str = "jwt-nomad";

/// How to reach the shared servers. They belong to no test: nothing may stop or seal them.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) nomad_address: String,
    pub(crate) nomad_pid: u32,
    pub(crate) nomad_folder: PathBuf,
    /// The management token, where ACLs are on.
    pub(crate) nomad_token: Option<SecretString>,
    pub(crate) vault_address: String,
    pub(crate) vault_pid: u32,
    pub(crate) vault_token: SecretString,
}

/// The host volumes of the shared Nomad, each a folder in `volumes` of its own folder.
const VOLUMES: [&str; 3] = ["project-repos", "ops-repo", "agent-data"];

impl Servers {
    /// The same Vault, beside another Nomad that keeps its files in `folder`.
    pub(crate) fn with_nomad(self, nomad: &Nomad, folder: PathBuf) -> Self {
        Self {
            nomad_address: nomad.address(),
            nomad_pid: nomad.pid().unwrap_or_default(),
            nomad_folder: folder,
            ..self
        }
    }

    /// The folder behind a host volume of the shared Nomad. It belongs to all tests: use a folder in it.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.nomad_folder.join("volumes").join(name)
    }
}

/// Makes the folders of the host volumes; gives the lines of the client's configuration.
fn host_volumes(nomad_folder: &Path) -> String {
    let volumes = VOLUMES.map(|name| {
        let folder = nomad_folder.join("volumes").join(name);
        fs::create_dir_all(&folder).unwrap();
        // Tasks of the driver exec run as nobody.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        format!("host_volume \"{name}\" {{\n    path = \"{}\"\n  }}\n", folder.display())
    });
    volumes.concat()
}

/// The shared servers. A server that cannot be started fails every test that needs it.
pub(crate) fn servers() -> Servers {
    static SERVERS: OnceLock<Result<Servers, String>> = OnceLock::new();
    let started = SERVERS.get_or_init(|| started(None));
    started.clone().unwrap_or_else(|error| panic!("the shared servers do not start: {error}"))
}

/// What Nomad is told of a Vault.
pub(super) fn as_nomad_sees(vault: &Vault) -> VaultForNomad {
    VaultForNomad {
        address: vault.address(),
        auth_path: AUTH_PATH.to_owned(),
        role: None,
        audience: "vault.io".to_owned(),
    }
}

/// Shared servers of which Nomad has a Docker engine with the images of [`super::images`]. They need root, and
/// `dockerd` on the `PATH`.
pub(crate) fn servers_with_docker() -> Servers {
    static SERVERS: OnceLock<Result<Servers, String>> = OnceLock::new();
    let started = SERVERS.get_or_init(|| started(Some(images::all())));
    started.clone().unwrap_or_else(|error| panic!("the shared servers with Docker do not start: {error}"))
}

/// Starts servers, with a Docker engine where it is given images.
fn started(images: Option<Vec<Image>>) -> Result<Servers, String> {
    let (tell, told) = mpsc::channel();
    // A runtime of their own, that outlives the runtime of the test that came first. At the end of the
    // program the supervisors see their pipes close and remove servers and folders.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            match start(images).await {
                Ok((docker, nomad, vault, servers)) => {
                    tell.send(Ok(servers)).unwrap();
                    let _kept: (Option<Docker>, Nomad, Vault) = (docker, nomad, vault);
                    std::future::pending::<()>().await;
                }
                Err(error) => tell.send(Err(error.to_string())).unwrap(),
            }
        });
    });
    told.recv().map_err(|error| error.to_string())?
}

/// A Docker engine of the test's own, with every image. It needs root, and `dockerd` on the `PATH`.
pub(crate) async fn docker() -> Docker {
    start_docker(images::all()).await.unwrap_or_else(|error| panic!("no Docker engine starts: {error}"))
}

async fn start_docker(images: Vec<Image>) -> Result<Docker, consign::dev::servers::Error> {
    let folder = tempfile::Builder::new().prefix("consign-docker-").tempdir().unwrap();
    let options = DockerOptions { folder: folder.path().to_owned(), remove_folder: true };
    let docker = Docker::start(&options).await?;
    let _kept = folder.keep();
    for image in images {
        docker.import(image.repository, image.tag, image.archive, &image.changes).await?;
    }
    Ok(docker)
}

async fn start(
    images: Option<Vec<Image>>,
) -> Result<(Option<Docker>, Nomad, Vault, Servers), consign::dev::servers::Error> {
    let docker = match images {
        Some(images) => Some(start_docker(images).await?),
        None => None,
    };
    let nomad_folder = tempfile::Builder::new().prefix("consign-nomad-").tempdir().unwrap();
    let vault_folder = tempfile::Builder::new().prefix("consign-vault-").tempdir().unwrap();
    let vault = Vault::start(&VaultOptions {
        folder: vault_folder.path().to_owned(),
        remove_folder: true,
        persistent: false,
    })
    .await?;
    let nomad = Nomad::start(&NomadOptions {
        folder: nomad_folder.path().to_owned(),
        remove_folder: true,
        role: Role::Dev,
        vault: Some(as_nomad_sees(&vault)),
        vault_retry_attempts: Some(0),
        docker: docker.as_ref().map(|docker| docker.socket().to_owned()),
        // Tests make many short allocations and read them after their end.
        client_settings: format!("gc_max_allocs = 1000\n{}", host_volumes(nomad_folder.path())),
        ..NomadOptions::default()
    })
    .await?;
    let _kept = vault_folder.keep();
    let servers = Servers {
        nomad_address: nomad.address(),
        nomad_pid: nomad.pid().unwrap_or_default(),
        // From here on the supervisors remove the folders.
        nomad_folder: nomad_folder.keep(),
        nomad_token: None,
        vault_address: vault.address(),
        vault_pid: vault.pid().unwrap_or_default(),
        vault_token: SecretString::from(vault.root_token().expose_secret().to_owned()),
    };
    Ok((docker, nomad, vault, servers))
}
