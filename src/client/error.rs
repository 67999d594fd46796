//! Why an agent did not do what it was asked.

use reqwest::StatusCode;

/// Why an agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address makes no sense.
    #[error("{address:?} is no address of an agent: give one such as http://127.0.0.1:8480")]
    Address {
        /// The address.
        address: String,
    },
    /// Nobody answers there.
    #[error("no agent answers at {address}: is it running there? --addr or CONSIGN_ADDR names another place")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke off.
    #[error("the agent at {address} did not answer to the end")]
    Broken {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No token was given.
    #[error(
        "the agent at {address} wants a token: set CONSIGN_TOKEN; on the agent's machine \
         `consign token create NAME --scope read,submit` makes one"
    )]
    NoToken {
        /// The address.
        address: String,
    },
    /// The token is not good, or not any more.
    #[error(
        "the agent at {address} refuses the token in CONSIGN_TOKEN: {detail}; `consign token create` makes another"
    )]
    Unauthorized {
        /// The address.
        address: String,
        /// What the agent says.
        detail: String,
    },
    /// The token has not the scope.
    #[error("{detail}: `consign token create NAME --scope …` makes one that has")]
    Scope {
        /// What the agent says.
        detail: String,
    },
    /// The agent says no.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the agent says.
        detail: String,
    },
    /// The answer is none of an agent's.
    #[error("what answers at {address} is no consign agent, or one of another version")]
    Reply {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The deadline has passed before the job has ended.
    #[error(
        "job {job_id} has not ended in time{}",
        if *.cancelled { ": it was asked to end" } else { ", and goes on" }
    )]
    Deadline {
        /// The job.
        job_id: String,
        /// Whether its cancellation is on record; else it goes on, also where the agent did not take that order.
        cancelled: bool,
    },
    /// What came is not the artifact that was kept.
    #[error("the content of {name:?} is not what was kept of it: its SHA-256 differs")]
    Damaged {
        /// The artifact.
        name: String,
    },
    /// What came could not be written.
    #[error("cannot write {name:?}")]
    Write {
        /// The artifact.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same may succeed soon: nobody answered, or somebody who is starting or ending.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => matches!(
                *status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            _ => false,
        }
    }
}
