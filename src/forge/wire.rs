//! What the forges send. Gitea took GitHub's names; where they differ, both are read.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Permission, State};
use crate::{
    approval::review::{Merge, Person, PullRequest, Review, Verdict},
    ids::Revision,
};

#[derive(Debug, Deserialize)]
pub(super) struct User {
    id: i64,
    login: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pull {
    number: u64,
    html_url: String,
    user: Option<User>,
    base: Branch,
    head: Branch,
    merged_at: Option<String>,
    merge_commit_sha: Option<String>,
    #[serde(default)]
    merged_by: Option<User>,
}

#[derive(Debug, Deserialize)]
struct Branch {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct PullReview {
    id: i64,
    user: Option<User>,
    state: String,
    /// Absent for what was not submitted.
    #[serde(default)]
    commit_id: Option<String>,
    #[serde(default)]
    submitted_at: Option<Timestamp>,
    #[serde(default)]
    updated_at: Option<Timestamp>,
    /// GitHub tells of it in the state.
    #[serde(default)]
    dismissed: bool,
    #[serde(default)]
    stale: bool,
}

/// A commit of a pull request. The accounts are those that own the addresses in it.
#[derive(Debug, Deserialize)]
pub(super) struct PullCommit {
    pub(super) author: Option<Account>,
    pub(super) committer: Option<Account>,
}

/// An account, or the empty object that GitHub gives for none.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    id: Option<i64>,
    #[serde(default)]
    login: String,
}

/// One entry of Gitea's timeline.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) user: Option<Account>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Team {
    pub(super) id: i64,
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Permitted {
    permission: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    pub(super) full_name: String,
    #[serde(default)]
    pub(super) permissions: Permissions,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    pub(super) push: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct BranchTip {
    pub(super) commit: TipCommit,
}

#[derive(Debug, Deserialize)]
pub(super) struct TipCommit {
    /// Gitea calls it `id`.
    #[serde(alias = "id")]
    pub(super) sha: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CommitStatus {
    pub(super) context: String,
    /// Gitea calls it `status`.
    #[serde(alias = "status")]
    pub(super) state: String,
    #[serde(default)]
    pub(super) description: Option<String>,
}

impl User {
    pub(super) fn person(self) -> Person {
        Person { id: self.id, login: self.login }
    }
}

impl Account {
    pub(super) fn person(self) -> Option<Person> {
        // Gitea gives 0 and -1 for accounts that are none, or gone.
        let id = self.id.filter(|id| *id > 0)?;
        Some(Person { id, login: self.login })
    }
}

impl Pull {
    /// The pull request; a merge commit that is no commit's id counts as none.
    pub(super) fn pull_request(self) -> PullRequest {
        let commit = self.merge_commit_sha.and_then(|sha| Revision::parse(&sha).ok());
        // GitHub gives a commit for what is not merged too: the one that it tries the merge with.
        let merged = commit.filter(|_| self.merged_at.is_some());
        let by = self.merged_by.map(User::person);
        PullRequest {
            number: self.number,
            url: self.html_url,
            base: self.base.name,
            tip: self.head.sha,
            author: self.user.map(User::person),
            merged: merged.map(|commit| Merge { commit, by }),
        }
    }
}

impl PullReview {
    /// The review; `None` where nobody's account stands behind it.
    pub(super) fn review(self) -> Option<Review> {
        let by = self.user.filter(|user| user.id > 0)?.person();
        let (verdict, dismissed) = match self.state.as_str() {
            "APPROVED" => (Verdict::Approved, self.dismissed),
            "REQUEST_CHANGES" | "CHANGES_REQUESTED" => (Verdict::ChangesRequested, self.dismissed),
            // What it was before is not told; that it no longer counts is.
            "DISMISSED" => (Verdict::Approved, true),
            _ => (Verdict::Open, self.dismissed),
        };
        Some(Review {
            id: self.id,
            by,
            verdict,
            commit: self.commit_id.unwrap_or_default(),
            dismissed,
            stale: self.stale,
            at: self.updated_at.max(self.submitted_at).unwrap_or_default(),
        })
    }
}

impl Permitted {
    pub(super) fn permission(&self) -> Permission {
        match self.permission.as_str() {
            "owner" | "admin" => Permission::Admin,
            "write" | "maintain" => Permission::Write,
            "read" | "triage" => Permission::Read,
            _ => Permission::None,
        }
    }
}

impl State {
    /// The forges' word for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Pending => "pending",
        }
    }
}
