//! The questions that consign has for a forge.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    DESCRIPTION_LIMIT, Error, Kind, Permission, Right, Settings, Status,
    http::{Http, Question},
    wire::{BranchTip, CommitStatus, Entry, Permitted, Pull, PullCommit, PullReview, Repository, Team, User},
};
use crate::{
    approval::review::{Person, PullRequest, Review},
    ids::Revision,
};

/// How many statuses of a commit are looked through for the one with a context.
const STATUSES: &str = "50";

/// What an account may do in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether it may push, and write commit statuses.
    pub may_push: bool,
}

/// A client for one repository of one forge.
#[derive(Debug)]
pub struct Client {
    pub(super) http: Http,
    repository: String,
}

impl Client {
    /// A client; nothing is asked yet.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut parts = settings.repository.split('/');
        let (Some(owner), Some(name), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unusable("repository", &settings.repository));
        };
        if !is_plain(owner) || !is_plain(name) {
            return Err(unusable("repository", &settings.repository));
        }
        Ok(Self { http: Http::new(settings)?, repository: settings.repository.clone() })
    }

    /// The repository, as `owner/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/repos/{}{rest}", self.repository)
    }

    /// What the token's account may do in the repository; an error where the token does not see it.
    pub async fn access(&self) -> Result<Access, Error> {
        let question = Question { path: &self.path(""), right: Right::Repository };
        match self.http.find::<Repository>(question).await? {
            Some(found) if found.full_name.eq_ignore_ascii_case(&self.repository) => {
                Ok(Access { may_push: found.permissions.push })
            }
            _ => Err(Error::Rights {
                right: Right::Repository,
                kind: self.http.kind,
                said: format!("there is no repository {}, or it is hidden from the token", self.repository),
            }),
        }
    }

    /// Whether the token may read who pushed to pull requests, where the forge tells that.
    pub async fn reads_timeline(&self) -> Result<(), Error> {
        if self.http.kind == Kind::GitHub {
            return Ok(());
        }
        let path = self.path("/issues");
        let question = Question { path: &path, right: Right::Timeline };
        self.http.get::<serde::de::IgnoredAny>(question, &[("limit", "1")]).await.map(drop)
    }

    /// Where a branch stands, as the forge's API tells it; `None` where there is no such branch.
    pub async fn branch_tip(&self, branch: &str) -> Result<Option<String>, Error> {
        let path = self.path(&format!("/branches/{branch}"));
        let question = Question { path: &path, right: Right::Repository };
        Ok(self.http.find::<BranchTip>(question).await?.map(|tip| tip.commit.sha))
    }

    /// The merged pull request that left `branch` at `commit`.
    pub async fn merged_as(&self, commit: &Revision, branch: &str) -> Result<Option<PullRequest>, Error> {
        let right = Right::Repository;
        let numbers: Vec<u64> = match self.http.kind {
            Kind::Gitea => {
                let path = self.path(&format!("/commits/{commit}/pull"));
                let found: Option<Pull> = self.http.find(Question { path: &path, right }).await?;
                found.into_iter().map(|pull| pull.pull_request().number).collect()
            }
            Kind::GitHub => {
                let path = self.path(&format!("/commits/{commit}/pulls"));
                let found: Vec<Pull> = self.http.list(Question { path: &path, right }, &[]).await?;
                let found = found.into_iter().map(Pull::pull_request);
                found.filter(|pull| pull.merged.is_some()).map(|pull| pull.number).collect()
            }
        };
        for number in numbers {
            // A list does not tell who merged.
            let path = self.path(&format!("/pulls/{number}"));
            let pull: Pull = self.http.get(Question { path: &path, right }, &[]).await?;
            let pull = pull.pull_request();
            if pull.base == branch && pull.merged.as_ref().is_some_and(|merge| merge.commit == *commit) {
                return Ok(Some(pull));
            }
        }
        // No pull request, or no right to see one: they must not be mistaken for each other.
        self.access().await?;
        Ok(None)
    }

    /// The open pull requests for a branch.
    pub async fn open(&self, branch: &str) -> Result<Vec<PullRequest>, Error> {
        let path = self.path("/pulls");
        let question = Question { path: &path, right: Right::Repository };
        let found: Vec<Pull> = self.http.list(question, &[("state", "open")]).await?;
        let found = found.into_iter().map(Pull::pull_request);
        Ok(found.filter(|pull| pull.base == branch).collect())
    }

    /// Whoever opened a pull request, wrote or committed one of its commits, or (where the forge tells) pushed to
    /// it; and how many commits it has.
    pub async fn authors(&self, pull: &PullRequest) -> Result<(BTreeSet<Person>, usize), Error> {
        let path = self.path(&format!("/pulls/{}/commits", pull.number));
        let question = Question { path: &path, right: Right::Repository };
        let commits: Vec<PullCommit> = self.http.list(question, &[]).await?;
        let count = commits.len();
        let accounts = commits.into_iter().flat_map(|commit| [commit.author, commit.committer]);
        let mut people: BTreeSet<Person> =
            accounts.flatten().filter_map(super::wire::Account::person).collect();
        people.extend(pull.author.clone());
        if self.http.kind == Kind::Gitea {
            let path = self.path(&format!("/issues/{}/timeline", pull.number));
            let question = Question { path: &path, right: Right::Timeline };
            let entries: Vec<Entry> = self.http.list(question, &[]).await?;
            let pushes = entries.into_iter().filter(|entry| entry.kind == "pull_push");
            people.extend(pushes.filter_map(|push| push.user?.person()));
        }
        Ok((people, count))
    }

    /// The reviews of a pull request.
    pub async fn reviews(&self, number: u64) -> Result<Vec<Review>, Error> {
        let path = self.path(&format!("/pulls/{number}/reviews"));
        let question = Question { path: &path, right: Right::Repository };
        let found: Vec<PullReview> = self.http.list(question, &[]).await?;
        Ok(found.into_iter().filter_map(PullReview::review).collect())
    }

    /// The members of a team, `organization/team` or a team of the repository's owner.
    pub async fn members(&self, team: &str) -> Result<BTreeSet<Person>, Error> {
        let right = Right::Team;
        let owner = self.repository.split('/').next().unwrap_or_default();
        let (organization, name) = team.split_once('/').unwrap_or((owner, team));
        if !is_plain(organization) || !is_plain(name) {
            return Err(unusable("team", team));
        }
        let unknown = || Error::Rights {
            right,
            kind: self.http.kind,
            said: format!("{organization} has no team {name}, or it is hidden from the token"),
        };
        let path = match self.http.kind {
            Kind::GitHub => format!("/orgs/{organization}/teams/{name}/members"),
            Kind::Gitea => {
                let path = format!("/orgs/{organization}/teams");
                let teams: Vec<Team> =
                    self.listed(Question { path: &path, right }).await?.ok_or_else(unknown)?;
                let found = teams.into_iter().find(|known| known.name.eq_ignore_ascii_case(name));
                format!("/teams/{}/members", found.ok_or_else(unknown)?.id)
            }
        };
        let members: Option<Vec<User>> = self.listed(Question { path: &path, right }).await?;
        Ok(members.ok_or_else(unknown)?.into_iter().map(User::person).collect())
    }

    /// A list; `None` where there is no such thing.
    async fn listed<T: serde::de::DeserializeOwned>(
        &self,
        question: Question<'_>,
    ) -> Result<Option<Vec<T>>, Error> {
        match self.http.list(question, &[]).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::Status { status: reqwest::StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What somebody may do in the repository.
    pub async fn permission(&self, person: &Person) -> Result<Permission, Error> {
        if !is_plain(&person.login) {
            return Ok(Permission::None);
        }
        let path = self.path(&format!("/collaborators/{}/permission", person.login));
        let question = Question { path: &path, right: Right::Permission };
        let found: Option<Permitted> = self.http.find(question).await?;
        Ok(found.map_or(Permission::None, |found| found.permission()))
    }

    /// Gives a commit a status, unless that is its latest with this context already.
    pub async fn set_status(&self, commit: &str, status: &Status) -> Result<(), Error> {
        let description: String = status.description.chars().take(DESCRIPTION_LIMIT).collect();
        let path = self.path(&format!("/commits/{commit}/statuses"));
        let question = Question { path: &path, right: Right::Repository };
        let query = [("per_page", STATUSES), ("limit", STATUSES), ("sort", "recentupdate")];
        let known: Vec<CommitStatus> = self.http.get(question, &query).await?;
        let latest = known.iter().find(|known| known.context == status.context);
        if latest.is_some_and(|known| {
            known.state == status.state.as_str() && known.description.as_deref() == Some(&description)
        }) {
            return Ok(());
        }
        let body = json!({
            "context": status.context,
            "state": status.state.as_str(),
            "description": description,
        });
        let path = self.path(&format!("/statuses/{commit}"));
        let question = Question { path: &path, right: Right::Status };
        self.http.post::<serde::de::IgnoredAny>(question, &body).await.map(drop)
    }
}

/// Whether a text can stand in a path as it is, as names of accounts, organizations and repositories can.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn unusable(setting: &str, value: &str) -> Error {
    Error::Setup { what: format!("{setting} {value:?} is not a name that a forge has") }
}
