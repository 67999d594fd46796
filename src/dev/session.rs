//! One session of the development mode, from the servers' start to their end.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{
    servers,
    stage::{self, Stage, git, work_tree},
    whereabouts::{Posted, Whereabouts},
};
use crate::{
    action, agent, bootstrap, config,
    controller::step::Progress,
    ids::JobId,
    outcome::result_file::ResultFile,
    sample, secret,
    tokens::{self, HolderName, Scope, TokensFile},
    vault,
};

/// Why a session did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nomad or Vault did not start.
    #[error("cannot start the servers (`scripts/dev` provides them where they are not installed)")]
    Servers(#[source] servers::Error),
    /// A file could not be written or read.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration made here does not read.
    #[error("the development configuration does not read")]
    Config(#[source] config::Error),
    /// Vault.
    #[error("cannot speak to Vault")]
    Vault(#[source] vault::Error),
    /// The bootstrap.
    #[error("cannot set Vault up")]
    Bootstrap(#[source] bootstrap::Error),
    /// A sample secret.
    #[error("cannot put a secret")]
    Secret(#[source] secret::Error),
    /// The session's token.
    #[error("cannot make a token for the commands")]
    Token(#[source] tokens::Error),
    /// Git.
    #[error("git {command} failed: {said}")]
    Git {
        /// Its arguments.
        command: String,
        /// What it said.
        said: String,
    },
    /// The agent.
    #[error("{0}")]
    Agent(#[source] agent::Error),
    /// The agent ended before every action had a result.
    #[error("the agent ended before every action had a result")]
    Unfinished,
}

/// Runs a session; with `once` until every sample action has a result, and else until `ending`.
pub async fn run(once: bool, ending: CancellationToken, say: impl Fn(&str)) -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("consign-dev-{}", JobId::new()));
    std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let outcome = session(&folder, once, ending, &say).await;
    if let Err(source) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(folder = %folder.display(), error = %source, "cannot remove the session's folder");
    }
    outcome
}

async fn session(
    folder: &Path,
    once: bool,
    ending: CancellationToken,
    say: &impl Fn(&str),
) -> Result<(), Error> {
    let mut stage = tokio::select! {
        stage = stage::set(folder, say) => stage?,
        () = ending.cancelled() => return Ok(()),
    };
    let _posted = post(&stage)?;
    let (progress, heard) = broadcast::channel(4096);
    let agent_ending = ending.child_token();
    let options = agent::Options {
        config: stage.config.clone(),
        nomad_token: None,
        vault_token: None,
        take_over: false,
        listener: stage.listener.take(),
        progress: Some(progress),
    };
    let agent = agent::run(options, agent_ending.clone());
    let audience = async {
        let outcome = attend(heard, &stage, once, &ending, say).await;
        agent_ending.cancel();
        outcome
    };
    let (ended, outcome) = tokio::join!(agent, audience);
    let Stage { nomad, vault, .. } = stage;
    let stopped = nomad.stop().await.and(vault.stop().await).map_err(Error::Servers);
    ended.map_err(Error::Agent).and(outcome).and(stopped)
}

/// Makes a token for the commands and lets them find the agent.
fn post(stage: &Stage) -> Result<Option<Posted>, Error> {
    let file = stage.config.tokens_file();
    let folder = &stage.config.store.path;
    std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let Ok(name) = "developer".parse::<HolderName>() else { return Ok(None) };
    let token = TokensFile::new(file).create(name, &[Scope::Admin], jiff::Timestamp::now(), None);
    let address = format!("http://{}", stage.config.server.listen);
    let posted = Whereabouts { address, token: token.map_err(Error::Token)? }.post();
    posted.map(Some).or_else(|error| {
        tracing::warn!(%error, "the commands will not find this agent by themselves");
        Ok(None)
    })
}

/// Shows what happens until every action has its result, then the results; without `once` it stays
/// until `ending`.
async fn attend(
    heard: broadcast::Receiver<Progress>,
    stage: &Stage,
    once: bool,
    ending: &CancellationToken,
    say: &impl Fn(&str),
) -> Result<(), Error> {
    say("agent    started");
    say("");
    if !show(heard, stage, say, ending).await? {
        return if ending.is_cancelled() { Ok(()) } else { Err(Error::Unfinished) };
    }
    results(stage, say).await?;
    if !once {
        look_here(stage, say);
        ending.cancelled().await;
    }
    Ok(())
}

/// Prints each stage as it happens, until every sample action has its result; false where the agent
/// or the session ended before.
async fn show(
    mut heard: broadcast::Receiver<Progress>,
    stage: &Stage,
    say: &impl Fn(&str),
    ending: &CancellationToken,
) -> Result<bool, Error> {
    let actions = sample::FILES
        .iter()
        .filter_map(|(path, _)| action::stem(path).filter(|_| path.starts_with("actions/")));
    let mut open: BTreeSet<String> = actions.collect();
    let width = open.iter().map(String::len).max().unwrap_or_default();
    while !open.is_empty() {
        let progress = tokio::select! {
            progress = heard.recv() => progress,
            () = ending.cancelled() => return Ok(false),
        };
        match progress {
            Ok(Progress { name, event, detail }) => {
                if let Some((word, detail)) = told(event, &detail) {
                    say(format!("{name:width$}  {word:18}{detail}").trim_end());
                }
                if event == "result committed" {
                    open.remove(&name);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(false),
        }
    }
    // What the agent pushed last is in the work tree, too.
    git(&work_tree(&stage.folder), &["pull", "--quiet", "--ff-only"]).await?;
    Ok(true)
}

/// The word and the detail of an event that people watch; `None` for what is of no interest to them.
fn told<'detail>(event: &'static str, detail: &'detail str) -> Option<(&'static str, &'detail str)> {
    Some(match event {
        "seen" => ("validated", detail),
        "granted" => ("granted", "its secrets are readable, the launch gate is open"),
        "admitted" | "approved" | "dispatched" | "working" | "grant withdrawn" | "ended"
        | "result committed" | "waiting" | "rejected" | "adopted" | "stopped" | "cancelled" => {
            (event, detail)
        }
        _ => return None,
    })
}

/// Prints the results from the work tree.
async fn results(stage: &Stage, say: &impl Fn(&str)) -> Result<(), Error> {
    say("");
    say(&format!("{:10} {:10} {:10} {:>4}  message", "action", "outcome", "cause", "exit"));
    for (path, _) in sample::FILES {
        let Some(result_path) = action::result_path(path).filter(|_| path.starts_with("actions/")) else {
            continue;
        };
        let file = work_tree(&stage.folder).join(result_path);
        let unreadable = |source| Error::File { path: file.clone(), source };
        let text = tokio::fs::read_to_string(&file).await.map_err(unreadable)?;
        let result: ResultFile =
            serde_json::from_str(&text).map_err(|error| unreadable(std::io::Error::other(error)))?;
        let ResultFile { id, outcome, cause, exit_code, message, .. } = result;
        say(&format!("{id:10} {outcome:10} {cause:10} {exit_code:>4}  {message}"));
    }
    Ok(())
}

/// Says where to look.
fn look_here(stage: &Stage, say: &impl Fn(&str)) {
    let work_tree = work_tree(&stage.folder);
    say("");
    say("Now try it: change an action, commit and push, and its result is committed beside it.");
    say(&format!("  ops repo   cd {}", work_tree.display()));
    say("             cp actions/samples/hello.toml actions/samples/mine.toml   # then set id = \"mine\"");
    say(
        "             git add -A && git commit -m mine && git push && sleep 5 && git pull && cat actions/samples/mine.result.json",
    );
    say(&format!(
        "  by hand    echo 'echo hello $ARG_WHO' | NOMAD_ADDR={} nomad job dispatch -meta args='{{\"WHO\":\"you\"}}' runner -",
        stage.nomad.address()
    ));
    say(&format!("  Nomad      {}/ui", stage.nomad.address()));
    say(&format!(
        "  Vault      {} (development token in {})",
        stage.vault.address(),
        stage.vault.log().display()
    ));
    let program =
        std::env::current_exe().map_or_else(|_| "consign".to_owned(), |path| path.display().to_string());
    say(&format!("  jobs       {program} jobs    # also: show hello, logs steps, retry fails"));
    say(&format!("  page       http://{}/    # log in with a token:", stage.config.server.listen));
    say(&format!(
        "             {program} token create me --scope admin --config {}/consign.toml",
        stage.folder.display()
    ));
    say(&format!("  health     http://{}/health", stage.config.server.listen));
    say(&format!("  config     {}/consign.toml", stage.folder.display()));
    say("Ctrl-C ends everything and removes the folder.");
}
