//! What is set up before the agent of the development mode starts: servers, bootstrap, ops repo.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{
    servers::{Nomad, NomadOptions, Vault, VaultForNomad, VaultOptions},
    session::Error,
};
use crate::{
    agent, bootstrap,
    config::{self, Config, Environment},
    ids::SecretName,
    sample,
    secret::Secrets,
};

/// Where the agent listens, if the port is free.
const LISTEN: &str = "127.0.0.1:8480";

/// All that the development mode runs on.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) nomad: Nomad,
    pub(super) vault: Vault,
    pub(super) config: Config,
    /// What the agent is to listen with.
    pub(super) listener: Option<TcpListener>,
}

/// The folder of a commit's work tree.
pub(super) fn work_tree(folder: &Path) -> PathBuf {
    folder.join("ops")
}

/// Starts the servers and sets everything up; `say` is told of each part.
pub(super) async fn set(folder: &Path, say: &impl Fn(&str)) -> Result<Stage, Error> {
    let vault =
        Vault::start(&VaultOptions { folder: folder.join("vault"), remove_folder: true, persistent: false })
            .await
            .map_err(Error::Servers)?;
    say(&format!("vault    started at {}", vault.address()));
    let nomad = Nomad::start(&NomadOptions {
        folder: folder.join("nomad"),
        remove_folder: true,
        vault: Some(VaultForNomad {
            address: vault.address(),
            auth_path: "jwt-nomad".to_owned(),
            role: None,
            audience: "vault.io".to_owned(),
        }),
        vault_retry_attempts: Some(0),
        ..NomadOptions::default()
    })
    .await
    .map_err(Error::Servers)?;
    say(&format!("nomad    started at {}", nomad.address()));
    let listener = TcpListener::bind(LISTEN).or_else(|_| TcpListener::bind("127.0.0.1:0")).ok();
    let listen = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let config = configuration(folder, &nomad.address(), &vault.address(), listen)?;
    set_vault_up(&config, &vault, folder, say).await?;
    make_ops_repo(folder).await?;
    say(&format!("ops repo {} with {} sample files", work_tree(folder).display(), sample::FILES.len()));
    Ok(Stage { folder: folder.to_path_buf(), nomad, vault, config, listener })
}

fn configuration(
    folder: &Path,
    nomad: &str,
    vault: &str,
    listen: Option<SocketAddr>,
) -> Result<Config, Error> {
    let listen = listen.map_or_else(|| LISTEN.to_owned(), |address| address.to_string());
    let folder_text = folder.display();
    let text = format!(
        "[ops]\nrepo = \"{folder_text}/ops.git\"\npoll = \"1s\"\n\
         [nomad]\naddr = \"{nomad}\"\ndriver = \"raw_exec\"\n\
         [vault]\naddr = \"{vault}\"\ntoken_file = \"{folder_text}/agent.token\"\n\
         [approval]\nlow = \"merged\"\nmedium = \"merged\"\nhigh = \"merged\"\n\
         [server]\nlisten = \"{listen}\"\n\
         [store]\npath = \"{folder_text}/store\"\n\
         [results]\npush_interval = \"200ms\"\n"
    );
    let file = folder.join("consign.toml");
    std::fs::write(&file, &text).map_err(|source| Error::File { path: file.clone(), source })?;
    config::read(&file.display().to_string(), &text, &Environment::new()).map_err(Error::Config)
}

async fn set_vault_up(
    config: &Config,
    vault: &Vault,
    folder: &Path,
    say: &impl Fn(&str),
) -> Result<(), Error> {
    let client = agent::vault_client(config, vault.root_token().clone()).map_err(Error::Vault)?;
    let token_out = Some(folder.join("agent.token"));
    let settings = bootstrap::Settings::of(config, token_out)
        .map_err(|source| Error::File { path: config.nomad.ca_cert.clone(), source })?;
    let changes = bootstrap::plan(&client, &settings).await.map_err(Error::Bootstrap)?;
    for change in &changes {
        bootstrap::apply(&client, &settings, change).await.map_err(Error::Bootstrap)?;
    }
    say(&format!("vault    bootstrapped: {} changes", changes.len()));
    let secrets = Secrets::new(client, &config.vault.kv, &config.vault.prefix, &config.vault.bots);
    for name in sample::SECRETS {
        let Ok(name) = SecretName::parse(name) else { continue };
        let value = format!("demo-{}", crate::ids::JobId::new());
        secrets.put(&name.clone().into(), value.as_bytes()).await.map_err(Error::Secret)?;
        say(&format!("secret   {name} put at {}/{}/{name}", config.vault.kv, config.vault.prefix));
    }
    Ok(())
}

async fn make_ops_repo(folder: &Path) -> Result<(), Error> {
    let work_tree = work_tree(folder);
    git(folder, &["init", "--quiet", "--bare", "--initial-branch=main", "ops.git"]).await?;
    git(folder, &["clone", "--quiet", "ops.git", "ops"]).await?;
    for (path, content) in sample::FILES {
        let file = work_tree.join(path);
        let written = file
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&file, content));
        written.map_err(|source| Error::File { path: file.clone(), source })?;
    }
    git(&work_tree, &["config", "user.name", "developer"]).await?;
    git(&work_tree, &["config", "user.email", "developer@localhost"]).await?;
    git(&work_tree, &["checkout", "--quiet", "-B", "main"]).await?;
    git(&work_tree, &["add", "--all"]).await?;
    git(&work_tree, &["commit", "--quiet", "--message=Sample actions and formulas"]).await?;
    git(&work_tree, &["push", "--quiet", "--set-upstream", "origin", "main"]).await
}

/// Runs git in a folder, without the configuration of whoever runs it.
pub(super) async fn git(folder: &Path, arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| Error::Git { command: arguments.join(" "), said: source.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Git { command: arguments.join(" "), said })
}
