//! What can go wrong when a forge is asked.

use jiff::Timestamp;
use reqwest::StatusCode;

use super::Kind;

/// A question that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be built from its settings.
    #[error("cannot set up the forge client: {what}")]
    Setup {
        /// Which setting does not work.
        what: String,
    },
    /// No reply, or a broken one.
    #[error("the forge cannot be reached: no usable reply to {request}")]
    Request {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The token may not do that.
    #[error("the forge's token has no right to {right}: {said}; {}", right.remedy(*kind))]
    Rights {
        /// What was to be done.
        right: Right,
        /// Whose API it is.
        kind: Kind,
        /// What the forge says, shortened.
        said: String,
    },
    /// The forge takes no more questions for now.
    #[error("the forge takes no more requests of this token until {until}")]
    Limited {
        /// When it takes some again.
        until: Timestamp,
    },
    /// Another reply that says no.
    #[error("the forge answered {request} with {status}: {said}")]
    Status {
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the forge says, shortened.
        said: String,
    },
    /// A reply that is not what the API promises.
    #[error("the forge's reply to {request} is not understood")]
    Reply {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A reply that is longer than it is read.
    #[error("the forge's reply to {request} has more than {limit} {unit}")]
    TooLong {
        /// Method and path.
        request: String,
        /// How much is read.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
}

/// What a token must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read the repository, its pull requests and their reviews.
    Repository,
    /// Read who pushed to a pull request.
    Timeline,
    /// Read who is in a team.
    Team,
    /// Read what somebody may do in the repository.
    Permission,
    /// Write a commit status.
    Status,
    /// Read issues, change their labels, and comment on them.
    Issues,
}

impl Right {
    /// How to grant it.
    #[must_use]
    pub const fn remedy(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Repository, Kind::Gitea) => {
                "check `repository`, give the token the scope read:repository and its account read access to the repository"
            }
            (Self::Repository, Kind::GitHub) => {
                "check `repository`, and give the token read access to the repository's contents, metadata and pull requests"
            }
            (Self::Timeline, Kind::Gitea) => "give the token the scope read:issue",
            (Self::Timeline | Self::Permission, Kind::GitHub) => {
                "give the token read access to the repository's metadata"
            }
            (Self::Team, Kind::Gitea) => {
                "check the rule's `team`, give the token the scope read:organization and make its account a member of the team or an owner of the organization"
            }
            (Self::Team, Kind::GitHub) => {
                "check the rule's `team`, and give the token read access to the organization's members"
            }
            (Self::Permission, Kind::Gitea) => {
                "make its account an administrator of the repository, or name a `team` in the rule"
            }
            (Self::Status, Kind::Gitea) => {
                "give the token the scope write:repository and its account write access to the repository"
            }
            (Self::Issues, Kind::Gitea) => {
                "give the token the scopes read:repository and write:issue, and its account write access to the repository's issues"
            }
            (Self::Issues, Kind::GitHub) => "give the token write access to the repository's issues",
            (Self::Status, Kind::GitHub) => "give the token write access to the repository's commit statuses",
        }
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Repository => "read the repository and its pull requests",
            Self::Timeline => "read who pushed to a pull request",
            Self::Team => "read the members of the team",
            Self::Permission => "read who may write to the repository",
            Self::Status => "write commit statuses",
            Self::Issues => "read, label and comment on issues",
        })
    }
}

impl Error {
    /// Whether it may pass by itself: the forge is down, in trouble, or wants a pause.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Request { .. } | Self::Limited { .. } | Self::Reply { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Setup { .. } | Self::Rights { .. } | Self::TooLong { .. } => false,
        }
    }
}
