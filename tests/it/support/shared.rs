//! One Nomad and one Vault for the whole test program, started when the first test asks for them.

use std::{
    path::PathBuf,
    sync::{OnceLock, mpsc},
    thread,
};

use consign::dev::servers::{Nomad, NomadOptions, Role, Vault, VaultForNomad, VaultOptions};
use secrecy::{ExposeSecret as _, SecretString};

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

/// The shared servers. A server that cannot be started fails every test that needs it.
pub(crate) fn servers() -> Servers {
    static SERVERS: OnceLock<Result<Servers, String>> = OnceLock::new();
    let started = SERVERS.get_or_init(|| {
        let (tell, told) = mpsc::channel();
        // A runtime of their own, that outlives the runtime of the test that came first. At the end of the
        // program the supervisors see their pipes close and remove servers and folders.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                match start().await {
                    Ok((nomad, vault, servers)) => {
                        tell.send(Ok(servers)).unwrap();
                        let _kept: (Nomad, Vault) = (nomad, vault);
                        std::future::pending::<()>().await;
                    }
                    Err(error) => tell.send(Err(error.to_string())).unwrap(),
                }
            });
        });
        told.recv().map_err(|error| error.to_string())?
    });
    match started {
        Ok(servers) => servers.clone(),
        Err(error) => panic!("the shared servers do not start: {error}"),
    }
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

async fn start() -> Result<(Nomad, Vault, Servers), consign::dev::servers::Error> {
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
        // Tests make many short allocations and read them after their end.
        client_settings: "gc_max_allocs = 1000".to_owned(),
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
    Ok((nomad, vault, servers))
}
