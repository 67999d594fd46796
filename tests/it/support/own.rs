//! A Nomad and a Vault that belong to one test, which may stop and seal them.

use consign::dev::servers::{Nomad, NomadOptions, Role, Vault, VaultOptions};

use super::{Servers, shared::as_nomad_sees};

/// Servers that remember what they knew when they are started again.
#[derive(Debug)]
pub(crate) struct OwnServers {
    pub(crate) nomad: Nomad,
    pub(crate) vault: Vault,
    pub(crate) servers: Servers,
}

impl OwnServers {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// The same with Nomad's ACLs on.
    pub(crate) async fn start_with_acls() -> Self {
        Self::start_with_acls_and(|_| ()).await
    }

    /// The same with what `change` makes of Nomad's options as well.
    pub(crate) async fn start_with_acls_and(change: impl FnOnce(&mut NomadOptions)) -> Self {
        let token = "3f7d35c1-5d4e-4a58-9c52-8b0f5b1a6a01";
        Self::start_with(|options| {
            options.management_token = Some(token.into());
            change(options);
        })
        .await
    }

    /// The same with what `change` makes of Nomad's options.
    pub(crate) async fn start_with(change: impl FnOnce(&mut NomadOptions)) -> Self {
        let folder = |name: &str| tempfile::Builder::new().prefix(name).tempdir().unwrap().keep();
        let vault = Vault::start(&VaultOptions {
            folder: folder("consign-vault-"),
            remove_folder: true,
            persistent: true,
        })
        .await
        .unwrap();
        let nomad_folder = folder("consign-nomad-");
        let mut options = NomadOptions {
            folder: nomad_folder.clone(),
            remove_folder: true,
            role: Role::Single,
            vault: Some(as_nomad_sees(&vault)),
            vault_retry_attempts: Some(0),
            ..NomadOptions::default()
        };
        change(&mut options);
        let nomad = Nomad::start(&options).await.unwrap();
        let servers = Servers {
            nomad_address: nomad.address(),
            nomad_pid: nomad.pid().unwrap_or_default(),
            nomad_folder,
            nomad_token: options.management_token,
            vault_address: vault.address(),
            vault_pid: vault.pid().unwrap_or_default(),
            vault_token: vault.root_token().clone(),
        };
        Self { nomad, vault, servers }
    }
}
