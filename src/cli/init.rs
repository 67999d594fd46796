//! `consign init`.

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use tokio::process::Command;

use super::{Failure, Outcome, output};
use crate::sample;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder of the new ops repo; it must be empty or not be there.
    dir: PathBuf,
}

pub(super) async fn run(arguments: &Arguments) -> Outcome {
    let folder = &arguments.dir;
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure(format!("{} is not empty: name a new folder", folder.display())));
    }
    for (path, content) in sample::FILES {
        let file = folder.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(file, content)?;
    }
    git(folder, &["init", "--quiet", "--initial-branch=main"]).await?;
    git(folder, &["add", "--all"]).await?;
    let identity = ["-c", "user.useConfigOnly=true"];
    let commit = ["commit", "--quiet", "--message=Sample actions and formulas"];
    let own = git(folder, &[&identity[..], &commit[..]].concat()).await;
    if own.is_err() {
        let fallback = ["-c", "user.name=consign", "-c", "user.email=consign@localhost"];
        git(folder, &[&fallback[..], &commit[..]].concat()).await?;
    }
    let shown = folder.display();
    output::line(&format!("made the ops repo {shown} with {} files", sample::FILES.len()));
    output::line(&format!("check it:        consign validate {shown}"));
    output::line(&format!(
        "share it:        git -C {shown} remote add origin URL && git -C {shown} push -u origin main"
    ));
    output::line("let it run:      set [ops] repo in consign.toml to that URL, then `consign agent`");
    Ok(ExitCode::SUCCESS)
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let run = Command::new("git").arg("-C").arg(folder).args(arguments).stdin(Stdio::null()).output().await;
    let output = run.map_err(|error| Failure(format!("cannot run git: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!("git {}: {}", arguments.join(" "), said.trim())))
}
