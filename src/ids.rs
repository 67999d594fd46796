//! The names of things, each a type of its own, so that one cannot stand where another belongs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::ambient;

/// A text that does not follow the rule for the kind of name it was given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a legal {kind}: {rule}")]
pub struct InvalidName {
    /// What the text was meant to name.
    pub kind: &'static str,
    /// The text as given.
    pub text: String,
    /// The rule that it breaks, in words.
    pub rule: &'static str,
}

/// Defines a string newtype with a checked constructor.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The rule for such a name, in words.
            pub const RULE: &'static str = $rule;

            /// Checks `text` against [`Self::RULE`].
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { kind: $kind, text: text.to_owned(), rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

/// Letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 128 bytes.
fn is_stem(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
}

checked_name!(
    /// The id of an action from the ops repo: the stem of its file.
    ActionId,
    "action id",
    "1 to 128 letters, digits, `.`, `_` or `-`, beginning with a letter or digit, not ending in `.` or `.result`",
    |text| is_stem(text) && !text.ends_with('.') && !text.ends_with(".result")
);

impl ActionId {
    /// The form under which ids are unique: two ids that differ in case alone are one id.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

checked_name!(
    /// The name of a formula: the stem of its file in the formulas folder.
    FormulaName,
    "formula name",
    "1 to 128 letters, digits, `.`, `_` or `-`, beginning with a letter or digit",
    is_stem
);

checked_name!(
    /// The name of a secret, which is also the environment variable that carries it.
    SecretName,
    "secret name",
    "a capital letter, then up to 63 capital letters, digits or `_`",
    |text| {
        text.len() <= 64
            && text.starts_with(|first: char| first.is_ascii_uppercase())
            && text.chars().all(|character| character.is_ascii_uppercase() || character.is_ascii_digit() || character == '_')
    }
);

checked_name!(
    /// The name of a bot: of the entry that holds its token, and, after `bot-`, of its Vault policy and group.
    ///
    /// Lower-case, because Vault keeps the names of Vault policies so: two bots never share one.
    BotName,
    "bot name",
    "a lower-case letter or digit, then up to 63 lower-case letters, digits, `-` or `_`",
    |text| {
        let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
        text.len() <= 64
            && text.starts_with(plain)
            && text.chars().all(|character| plain(character) || matches!(character, '-' | '_'))
    }
);

checked_name!(
    /// A git commit id in the ops repo.
    Revision,
    "revision",
    "40 or 64 lower-case hexadecimal digits",
    |text| matches!(text.len(), 40 | 64) && text.chars().all(|character| matches!(character, '0'..='9' | 'a'..='f'))
);

/// Defines a ULID newtype.
macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Ulid);

        impl $name {
            /// A new id: the present time and 80 random bits.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "every call gives another value")]
            pub fn new() -> Self {
                Self(Ulid::from_parts(
                    u64::try_from(ambient::now().as_millisecond()).unwrap_or_default(),
                    // The lowest 80 of them are kept.
                    ambient::random_bits(),
                ))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                // What is too large would be cut off at its head, and be another id.
                let id = Ulid::from_string(text).ok().filter(|id| id.to_string().eq_ignore_ascii_case(text));
                id.map(Self).ok_or_else(|| InvalidName {
                    kind: "ULID",
                    text: text.to_owned(),
                    rule: "26 characters of Crockford's base 32, at most 7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
                })
            }
        }
    };
}

ulid_id!(
    /// One piece of work, from the moment it is seen.
    JobId
);
ulid_id!(
    /// One attempt to run a job: Nomad's idempotency token and the prefix of the child's id.
    DispatchId
);
ulid_id!(
    /// One webhook: a change of a job's phase that receivers are told of.
    WebhookId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_ids_follow_the_rule() {
        for good in ["a", "fix-42", "2026.11.21_x", "A"] {
            assert!(ActionId::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".", "-rf", "../x", "a/b", "a.", "x.result", "ä", "a b", "a\n", "a\0", &long] {
            assert!(ActionId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secret_names_follow_the_rule() {
        for good in ["A", "DEPLOY_KEY", "K2"] {
            assert!(SecretName::parse(good).is_ok(), "{good}");
        }
        let long = "A".repeat(65);
        for bad in ["", "a", "_A", "2A", "A-B", "A,B", "*", "{{", "A\n", &long] {
            assert!(SecretName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bot_names_follow_the_rule() {
        for good in ["a", "triage", "release-bot_2", "7"] {
            assert!(BotName::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "Triage", "-a", "_a", "a.b", "a/b", "../a", "a b", "${x}", "a\n", "ä", &long] {
            assert!(BotName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_new_each_time_and_survive_a_round_trip() {
        let id = JobId::new();
        assert_ne!(id, JobId::new());
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
    }
}
