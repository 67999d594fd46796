//! Gathers what the forge and the ops repo say of the pull requests that brought files in, and has it judged.
//!
//! What is trusted of the forge: which pull request a commit came from, who its authors are, its reviews, and who
//! may approve. What is read from git instead: the branch's own line, the pull request's final head, and the
//! content there. A pull request thus approves the content that was reviewed, however it was merged.

use std::collections::BTreeSet;

use super::{Client, Error as ForgeError, Permission};
use crate::{
    approval::review::{self, Evidence, Need, Person, PullRequest, Verdict},
    ids::Revision,
    ops_repo::{self, OpsRepo},
};

/// A file that runs, or decides what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path from the repo's root.
    pub path: String,
    /// Its content.
    pub blob: String,
    /// A revision of the branch that has it so.
    pub revision: Revision,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Every file was approved.
    Approved(Vec<Approved>),
    /// One was not, and why, in words.
    Refused(String),
}

/// An approved pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// Its page.
    pub url: String,
    /// Its head when it was merged: what was approved.
    pub head: Revision,
    /// Whose approvals count.
    pub by: Vec<String>,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The forge.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The ops repo.
    #[error(transparent)]
    OpsRepo(#[from] ops_repo::Error),
}

/// A pull request, whoever had a hand in it, and its final head.
struct Brought {
    pull: PullRequest,
    authors: BTreeSet<Person>,
    head: Revision,
}

/// Whether `files`, the action first, were approved. A file that the action's pull request has at its head with the
/// same content needs none of its own.
pub async fn reviewed(forge: &Client, repo: &OpsRepo, files: &[File], need: &Need) -> Result<Found, Error> {
    let mut approved: Vec<Approved> = Vec::new();
    for file in files {
        let mut covered = false;
        for known in &approved {
            covered |= has(repo, &known.head, file).await?;
        }
        if covered {
            continue;
        }
        let brought = match brought_in(forge, repo, file).await? {
            Ok(brought) => brought,
            Err(reason) => return Ok(Found::Refused(reason)),
        };
        let url = brought.pull.url.clone();
        let evidence = gathered(forge, brought, need).await?;
        match review::judge(&evidence, need.approvals) {
            Ok(people) => approved.push(Approved {
                url,
                head: evidence.head,
                by: people.into_iter().map(|person| person.login).collect(),
            }),
            Err(shortfall) => return Ok(Found::Refused(format!("{}: {shortfall}", file.path))),
        }
    }
    Ok(Found::Approved(approved))
}

/// The merged pull request that brought a file onto the branch, or why there is none.
async fn brought_in(forge: &Client, repo: &OpsRepo, file: &File) -> Result<Result<Brought, String>, Error> {
    let File { path, revision, .. } = file;
    let branch = &repo.settings().branch;
    let Some(arrival) = repo.arrival(revision, path).await? else {
        return Ok(Err(format!("{path} is not at {revision}")));
    };
    let none = format!(
        "{path} came onto {branch} with {} and no pull request: change it in one, and have that reviewed",
        arrival.commit
    );
    // A pull request merged by rebase came with several commits; the forge knows it by the last one.
    for (distance, commit) in std::iter::once(&arrival.commit).chain(&arrival.later).enumerate() {
        let Some(pull) = forge.merged_as(commit, branch).await? else { continue };
        let (authors, commits) = forge.authors(&pull).await?;
        if distance >= commits.max(1) {
            return Ok(Err(none));
        }
        let number = pull.number;
        let Some(head) = repo.pull_request_head(number).await? else {
            return Ok(Err(format!(
                "the ops repo has no head of pull request #{number}, which brought {path}"
            )));
        };
        if !has(repo, &head, file).await? {
            return Ok(Err(format!(
                "pull request #{number} brought {path} with other content than it has at its head {head}: the \
                 merge changed it"
            )));
        }
        let base = match &arrival.before {
            Some(before) => repo.common_ancestor(before, &head).await?,
            None => None,
        };
        if let Some(base) = base
            && has(repo, &base, file).await?
        {
            return Ok(Err(format!(
                "pull request #{number} does not change {path}: its merge put an earlier content back"
            )));
        }
        return Ok(Ok(Brought { pull, authors, head }));
    }
    Ok(Err(none))
}

/// Whether a file stands at a revision with exactly this content.
async fn has(repo: &OpsRepo, revision: &Revision, file: &File) -> Result<bool, Error> {
    let found = repo.files_at(revision, &[&file.path]).await?;
    Ok(found.iter().any(|entry| entry.path == file.path && entry.content.blob.as_str() == file.blob))
}

/// What the forge says of a pull request.
async fn gathered(forge: &Client, brought: Brought, need: &Need) -> Result<Evidence, Error> {
    let Brought { pull, authors, head } = brought;
    let reviews = forge.reviews(pull.number).await?;
    let mut approvers = BTreeSet::new();
    let circle = if let Some(team) = &need.team {
        approvers = forge.members(team).await?;
        format!("the team {team}")
    } else {
        let decided = reviews.iter().filter(|review| review.verdict != Verdict::Open);
        let people: BTreeSet<_> = decided.map(|review| review.by.clone()).collect();
        for person in people.difference(&authors) {
            if forge.permission(person).await? >= Permission::Write {
                approvers.insert(person.clone());
            }
        }
        format!("those who may write to {}", forge.repository())
    };
    let merged_by = pull.merged.and_then(|merge| merge.by);
    let merged_by_admin = match merged_by.filter(|_| need.admin_merge) {
        Some(person) if forge.permission(&person).await? == Permission::Admin => Some(person),
        _ => None,
    };
    Ok(Evidence { number: pull.number, head, authors, reviews, approvers, circle, merged_by_admin })
}
