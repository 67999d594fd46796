//! Bearer tokens of the HTTP API: who holds one, what it may do, and until when; and the sessions of browsers.
//!
//! A token is 256 random bits that are shown once. What is kept is its SHA-256, so nobody who reads the
//! file can use it.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

mod file;
mod holder;
mod session;

pub use file::{Error, TokensFile};
pub use holder::HolderName;
pub use session::Sessions;

/// What stands before the random part, so that a leaked token is recognized as one.
const PREFIX: &str = "consign_";
/// The bytes of randomness in a token, and in the key of sessions.
const RANDOM: usize = 32;

/// What a token may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See jobs, logs and results.
    Read,
    /// Submit, cancel and retry jobs.
    Submit,
    /// Approve and reject what waits.
    Approve,
    /// All of that, and pause and resume the agent.
    Admin,
}

/// A token on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it; it appears wherever something is done with the token.
    pub name: HolderName,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The SHA-256 of the token.
    sha256: Hash,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Why a bearer token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No token on record is that one.
    #[error("the token is not known: it was revoked, or is not for this agent")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Approve, Self::Admin];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Approve => "approve",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Token {
    /// A new token: the record of it, and the token itself, which is nowhere else.
    pub fn create(
        name: HolderName,
        scopes: &[Scope],
        created_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<(Self, SecretString), Error> {
        let text = SecretString::from(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random()?)));
        let mut scopes = scopes.to_vec();
        scopes.sort();
        scopes.dedup();
        let sha256 = Hash::of(text.expose_secret());
        Ok((Self { name, scopes, sha256, created_at, expires_at }, text))
    }

    /// Whether it may do what needs `scope`.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// Bytes that nobody can guess.
fn random() -> Result<[u8; RANDOM], Error> {
    let mut random = [0_u8; RANDOM];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    if filled.map_err(|error| Error::Random(error.into()))? != RANDOM {
        return Err(Error::Random(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(random)
}

/// The token in the value of an `Authorization` header, where that is a bearer's (RFC 6750).
#[must_use]
pub fn bearer(authorization: &str) -> Option<SecretString> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token =
        Some(token.trim()).filter(|token| !token.is_empty() && scheme.eq_ignore_ascii_case("bearer"))?;
    Some(SecretString::from(token))
}

/// The token on record that `bearer` is. Every record is compared in full, whichever it is.
pub fn verify<'tokens>(
    tokens: &'tokens [Token],
    bearer: &SecretString,
    now: Timestamp,
) -> Result<&'tokens Token, Refused> {
    let hash = Hash::of(bearer.expose_secret());
    let mut found = None;
    for token in tokens {
        if token.sha256.is_equal(&hash) {
            found = Some(token);
        }
    }
    match found {
        None => Err(Refused::Unknown),
        Some(token) if token.is_expired(now) => Err(Refused::Expired),
        Some(token) => Ok(token),
    }
}

/// A SHA-256, written in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hash([u8; 32]);

impl Hash {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Compares in a time that does not depend on where the two differ.
    fn is_equal(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(other.0);
        std::hint::black_box(pairs.fold(0, |differs, (one, two)| differs | (one ^ two))) == 0
    }
}

/// A text that is no SHA-256.
#[derive(Debug, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
struct NotAHash;

impl FromStr for Hash {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAHash);
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * index..2 * index + 2).ok_or(NotAHash)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAHash)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Hash {
    type Error = NotAHash;
    fn try_from(text: String) -> Result<Self, NotAHash> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        crate::hexadecimal::encode(&hash.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn token(name: &str, scopes: &[Scope], expires_at: Option<Timestamp>) -> (Token, SecretString) {
        Token::create(name.parse().unwrap(), scopes, NOW, expires_at).unwrap()
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (ann, ann_bearer) = token("ann", &[Scope::Read], None);
        let (ben, ben_bearer) = token("ben", &[Scope::Submit], None);
        let kept = [ann, ben];
        assert_eq!(verify(&kept, &ann_bearer, NOW).unwrap().name.as_str(), "ann");
        assert_eq!(verify(&kept, &ben_bearer, NOW).unwrap().name.as_str(), "ben");
        assert_ne!(ann_bearer.expose_secret(), ben_bearer.expose_secret());
        assert_eq!(ann_bearer.expose_secret().len(), PREFIX.len() + 43, "256 bits in base64");
        let written = serde_json::to_string(&kept).unwrap() + &format!("{kept:?}");
        assert!(!written.contains(ann_bearer.expose_secret()));
        for wrong in ["", "consign_", &String::from(kept[0].sha256.clone())] {
            assert_eq!(verify(&kept, &wrong.into(), NOW), Err(Refused::Unknown), "{wrong}");
        }
        assert_eq!(verify(&[], &ann_bearer, NOW), Err(Refused::Unknown));
    }

    #[test]
    fn a_token_is_refused_from_its_last_moment_on() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (token, bearer) = token("ann", &[Scope::Read], Some(at(10)));
        let tokens = [token];
        assert!(verify(&tokens, &bearer, at(9)).is_ok());
        assert_eq!(verify(&tokens, &bearer, at(10)), Err(Refused::Expired));
    }

    #[test]
    fn admin_may_everything_and_the_others_only_their_own() {
        for held in Scope::ALL {
            let (token, _) = token("ann", &[held], None);
            for asked in Scope::ALL {
                assert_eq!(token.may(asked), held == asked || held == Scope::Admin, "{held} {asked}");
            }
        }
    }

    #[test]
    fn hashes_are_written_and_read() {
        let hash = Hash::of("a");
        let text = String::from(hash.clone());
        assert_eq!(text.parse::<Hash>().unwrap(), hash);
        for wrong in
            ["", "a", &text[1..], &text.replace(|letter: char| letter.is_ascii_digit(), "g"), &"ä".repeat(32)]
        {
            assert!(wrong.parse::<Hash>().is_err(), "{wrong}");
        }
    }
}
