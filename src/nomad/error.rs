//! What can go wrong when Nomad is asked.

use std::time::Duration;

use reqwest::StatusCode;

/// A request that did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be built from its settings.
    #[error("cannot set up the Nomad client: {what}")]
    Setup {
        /// Which setting does not work.
        what: String,
    },
    /// No reply, or a broken one.
    #[error("no usable reply from Nomad to {request}")]
    Request {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A reply that says no.
    #[error("Nomad answered {request} with {status}: {text}")]
    Status {
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: StatusCode,
        /// What Nomad says, shortened.
        text: String,
    },
    /// A reply that is not what the API promises.
    #[error("Nomad's reply to {request} is not understood")]
    Reply {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A reply that is longer than it is read.
    #[error("Nomad's reply to {request} has more than {limit} bytes")]
    TooLong {
        /// Method and path.
        request: String,
        /// How much is read, in bytes.
        limit: usize,
    },
    /// A reply that stopped coming.
    #[error("Nomad sent nothing for {} s in reply to {request}", limit.as_secs())]
    Stalled {
        /// Method and path.
        request: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// What sort of trouble an error is, for deciding what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nomad cannot be reached or is in trouble itself: it may pass.
    Unavailable,
    /// The token lacks a right.
    Denied,
    /// There is no such thing.
    NotFound,
    /// Nomad refuses the request as it is.
    Refused,
}

impl Error {
    /// Whether nobody answers at Nomad's address.
    #[must_use]
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_connect())
    }

    /// Whether another token might be taken.
    pub(super) fn may_be_the_token(&self) -> bool {
        match self {
            // The reply to an identity that has expired is of the second kind.
            Self::Status { status, text, .. } => {
                self.kind() == Kind::Denied
                    || (*status == StatusCode::INTERNAL_SERVER_ERROR && text.contains("invalid claims"))
            }
            _ => false,
        }
    }

    /// What sort of trouble it is.
    ///
    /// Nomad gives 500 for bad input and for trouble of its own alike, so a 500 counts as trouble.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Setup { .. } | Self::TooLong { .. } => Kind::Refused,
            Self::Request { .. } | Self::Reply { .. } | Self::Stalled { .. } => Kind::Unavailable,
            Self::Status { status, .. } => match *status {
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Kind::Denied,
                StatusCode::NOT_FOUND => Kind::NotFound,
                status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    Kind::Refused
                }
                _ => Kind::Unavailable,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_or_expired_token_may_be_replaced() {
        let answered =
            |status, text: &str| Error::Status { request: "GET /".to_owned(), status, text: text.to_owned() };
        let expired =
            "rpc error: invalid claims: go-jose/go-jose/jwt: validation failed, token is expired (exp)";
        assert!(answered(StatusCode::INTERNAL_SERVER_ERROR, expired).may_be_the_token());
        assert!(answered(StatusCode::FORBIDDEN, "Permission denied").may_be_the_token());
        assert!(!answered(StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").may_be_the_token());
        assert!(!answered(StatusCode::NOT_FOUND, "alloc not found").may_be_the_token());
    }
}
