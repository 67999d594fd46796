//! Git and the ops repo.

use std::{fs, path::Path, time::Duration};

use super::{Finding, scratch::Scratch};
use crate::{
    agent,
    config::Config,
    ids::Revision,
    ops_repo::{Error, ErrorKind, OpsRepo, Tips},
    telemetry::chain,
};

const SUBJECT: &str = "ops repo";
/// How long reading the content may take: a long history is not worth more here.
const CONTENT_LIMIT: Duration = Duration::from_secs(6);

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(error) => {
            let message = format!("cannot make a temporary folder: {error}");
            return vec![Finding::failure(
                SUBJECT,
                message,
                "Set TMPDIR to a folder that this user may write.",
            )];
        }
    };
    let settings = match agent::ops_settings(config, scratch.path().to_owned()) {
        Ok(settings) => settings,
        Err(error) => return vec![Finding::failure(SUBJECT, error.to_string(), "Set [ops] repo.")],
    };
    let mut findings = Vec::new();
    let target = settings.results_branch.as_ref().unwrap_or(&settings.branch);
    if let Some(path) = settings.remote.local_path() {
        findings.extend(work_tree(&path, target));
    }
    let remote = settings.remote.to_string();
    let repo = match OpsRepo::open(settings).await {
        Ok(repo) => repo,
        Err(error) => {
            findings.push(Finding::failure("git", chain(&error), remedy(&error)));
            return findings;
        }
    };
    findings.push(Finding::ok("git", "git is installed and new enough"));
    let tips = match repo.tips().await {
        Ok(tips) => tips,
        Err(error) => {
            findings.push(Finding::failure(SUBJECT, chain(&error), remedy(&error)));
            return findings;
        }
    };
    let branch = &config.ops.branch;
    let Some(revision) = &tips.branch else {
        let message = format!("{remote} has no branch {branch}");
        findings.push(Finding::failure(
            SUBJECT,
            message,
            "Push a first commit (`consign init DIR` makes one), or set [ops] branch.",
        ));
        return findings;
    };
    findings.push(Finding::ok(SUBJECT, format!("{remote} has branch {branch} at {revision}")));
    match tokio::time::timeout(CONTENT_LIMIT, content(&repo, &tips, revision, config)).await {
        Ok(found) => findings.extend(found),
        Err(_) => findings.push(Finding::ok(SUBJECT, "its history is long: owner and folders were not read")),
    }
    findings
}

async fn content(repo: &OpsRepo, tips: &Tips, revision: &Revision, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match repo.owner().await {
        Ok(None) => Finding::ok(SUBJECT, "no store has claimed it yet"),
        Ok(Some((_, owner))) => {
            let message =
                format!("claimed by store {} on {} since {}", owner.store_id, owner.host, owner.claimed_at);
            Finding::ok(SUBJECT, message)
        }
        Err(error) => Finding::failure(SUBJECT, chain(&error), remedy(&error)),
    });
    if let Err(error) = repo.fetch(tips).await {
        findings.push(Finding::failure(SUBJECT, chain(&error), remedy(&error)));
        return findings;
    }
    let (actions, formulas) = (&config.ops.actions, &config.ops.formulas);
    for (key, folder, listed) in [
        ("[ops] actions", actions, repo.snapshot(revision).await),
        ("[ops] formulas", formulas, repo.formulas(revision).await),
    ] {
        let inside = format!("{}/", folder.trim_end_matches('/'));
        findings.push(
            match listed.map(|entries| entries.iter().any(|entry| entry.path.starts_with(&inside))) {
                Ok(true) => Finding::ok(SUBJECT, format!("it has a folder {folder}")),
                Ok(false) => {
                    let message = format!("it has no folder {folder}");
                    Finding::warning(SUBJECT, message, format!("Commit a file to the folder, or set {key}."))
                }
                Err(error) => Finding::failure(SUBJECT, chain(&error), remedy(&error)),
            },
        );
    }
    findings
}

/// A repository with a work tree whose checked-out branch git will not let be pushed to.
fn work_tree(repository: &Path, branch: &str) -> Option<Finding> {
    let folder = repository.join(".git");
    let head = fs::read_to_string(folder.join("HEAD")).ok()?;
    let configuration = fs::read_to_string(folder.join("config")).unwrap_or_default();
    (is_checked_out(&head, branch) && !takes_pushes(&configuration)).then(|| {
        let message = format!("{} has branch {branch} checked out: git refuses pushes to it", repository.display());
        let remedy = "Use a bare repository (git clone --bare), check out another branch there, or set [results] branch.";
        Finding::failure(SUBJECT, message, remedy)
    })
}

fn is_checked_out(head: &str, branch: &str) -> bool {
    head.trim().strip_prefix("ref: refs/heads/") == Some(branch)
}

/// Whether the repository's owner allowed pushes to the checked-out branch.
fn takes_pushes(configuration: &str) -> bool {
    configuration.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
        key.trim().eq_ignore_ascii_case("denyCurrentBranch")
            && ["ignore", "warn", "false", "updateinstead"]
                .contains(&value.trim().to_ascii_lowercase().as_str())
    })
}

fn remedy(error: &Error) -> String {
    if matches!(error, Error::Spawn { .. } | Error::OldGit { .. }) {
        return "Install git 2.36 or newer and have it on the agent's PATH.".to_owned();
    }
    match error.kind() {
        ErrorKind::Unreachable => "Try `git ls-remote` on [ops] repo from here, as the agent's user.",
        ErrorKind::Missing => "Set [ops] repo to a repository that exists.",
        ErrorKind::Refused => {
            "Give the agent's user access to [ops] repo: its ssh key, or a token in the URL."
        }
        _ => "Look at the section [ops] of the configuration.",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_checked_out_branch_is_refused() {
        assert!(is_checked_out("ref: refs/heads/main\n", "main"));
        assert!(!is_checked_out("ref: refs/heads/main\n", "results"));
        assert!(!is_checked_out("0123456789012345678901234567890123456789\n", "main"));
        assert!(takes_pushes("[receive]\n\tdenyCurrentBranch = updateInstead\n"));
        assert!(!takes_pushes("[receive]\n\tdenyCurrentBranch = refuse\n[core]\n\tbare = false\n"));
    }
}
