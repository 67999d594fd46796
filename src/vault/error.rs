//! What can go wrong between consign and Vault.

use std::fmt;

/// What a failed answer of Vault means to the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Vault is sealed: somebody has to unseal it.
    Sealed,
    /// Vault cannot answer for now (a 5xx, or a rate limit): the same request may succeed later.
    Unavailable,
    /// The token may not do this (403), or is no longer valid.
    Denied,
    /// Nothing is there (404).
    NotFound,
    /// The request itself is wrong (any other 4xx).
    Invalid,
}

impl Kind {
    /// Reads the kind off a status code and Vault's own words.
    #[must_use]
    pub fn of(status: u16, text: &str) -> Self {
        match status {
            503 if text.contains("sealed") => Self::Sealed,
            403 => Self::Denied,
            404 => Self::NotFound,
            412 | 429 | 500.. => Self::Unavailable,
            _ => Self::Invalid,
        }
    }
}

/// Method and path of a request, never its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The HTTP method.
    pub method: &'static str,
    /// The path below `/v1/`.
    pub path: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)
    }
}

/// A request to Vault, or the preparation of one, that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured address is not one of a Vault server.
    #[error("{address:?} is not the address of a Vault server: {reason}")]
    Address {
        /// The address as configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client could not be made, for example because a CA certificate cannot be read.
    #[error("the connection to Vault cannot be prepared")]
    Prepare(#[source] Box<vaultrs::error::ClientError>),
    /// The client's settings are incomplete.
    #[error("the connection to Vault cannot be prepared: {0}")]
    Settings(String),
    /// No answer came: no connection, or none in time.
    #[error("Vault did not answer {asked}")]
    Unreachable {
        /// The request.
        asked: Asked,
        /// What the HTTP client says.
        #[source]
        source: Box<rustify::errors::ClientError>,
    },
    /// Vault answered that it did not do what was asked.
    #[error("Vault answered {asked} with {status}: {text}")]
    Refused {
        /// The request.
        asked: Asked,
        /// The HTTP status code.
        status: u16,
        /// What the answer means.
        kind: Kind,
        /// Vault's own words.
        text: String,
    },
    /// The answer is not what Vault's documentation promises.
    #[error("Vault's answer to {asked} cannot be understood: {what}")]
    Answer {
        /// The request.
        asked: Asked,
        /// What is missing or malformed.
        what: String,
    },
}

impl Error {
    /// What Vault's refusal means; `None` where no refusal came back.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            Self::Unreachable { .. } => Some(Kind::Unavailable),
            Self::Address { .. } | Self::Prepare(_) | Self::Settings(_) | Self::Answer { .. } => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing it or its rights.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind(), Some(Kind::Sealed | Kind::Unavailable))
    }

    /// The entity that a member list names and Vault no longer has, where that is what went wrong.
    ///
    /// Vault answers such a list with a 500 as a whole.
    #[must_use]
    pub fn missing_entity(&self) -> Option<&str> {
        match self {
            Self::Refused { text, .. } => missing_entity(text),
            _ => None,
        }
    }
}

fn missing_entity(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("invalid entity ID")?;
    Some(rest.split('"').nth(1).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_by_what_can_be_done_about_them() {
        for (status, text, kind) in [
            (503, "Vault is sealed", Kind::Sealed),
            (503, "", Kind::Unavailable),
            (500, "boom", Kind::Unavailable),
            (429, "rate limit", Kind::Unavailable),
            (412, "required index state not present", Kind::Unavailable),
            (403, "permission denied", Kind::Denied),
            (404, "", Kind::NotFound),
            (400, "missing", Kind::Invalid),
            (405, "unsupported operation", Kind::Invalid),
        ] {
            assert_eq!(Kind::of(status, text), kind, "{status} {text}");
        }
    }

    #[test]
    fn the_missing_entity_is_read_out_of_vaults_words() {
        let text = "1 error occurred:\n\t* invalid entity ID \"5e4b\"\n\n";
        assert_eq!(missing_entity(text), Some("5e4b"));
        assert_eq!(missing_entity("invalid entity ID"), Some(""));
        assert_eq!(missing_entity("no"), None);
    }
}
