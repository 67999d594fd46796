//! What an allocation can be granted, and the names that it goes by in Vault.

use std::fmt;

use crate::ids::{BotName, SecretName};

/// The environment variable in which a task finds its bot's token.
pub const BOT_TOKEN: &str = "BOT_TOKEN";

/// Something that an allocation can be granted: an entry, with a Vault policy that reads it and an
/// identity group that carries the Vault policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantable {
    /// A secret of an action.
    Secret(SecretName),
    /// The token of the bot that a run is.
    Bot(BotName),
}

impl Grantable {
    /// The identity group.
    #[must_use]
    pub fn group(&self) -> String {
        match self {
            Self::Secret(name) => format!("runner-{name}"),
            Self::Bot(name) => format!("bot-{name}"),
        }
    }

    /// The Vault policy; Vault keeps the names of Vault policies in lower case.
    #[must_use]
    pub fn policy(&self) -> String {
        self.group().to_ascii_lowercase()
    }

    /// Its name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Secret(name) => name.as_str(),
            Self::Bot(name) => name.as_str(),
        }
    }

    /// The environment variable in which the task finds it.
    #[must_use]
    pub fn variable(&self) -> &str {
        match self {
            Self::Secret(name) => name.as_str(),
            Self::Bot(_) => BOT_TOKEN,
        }
    }

    /// The command that makes it.
    #[must_use]
    pub fn put_command(&self) -> String {
        match self {
            Self::Secret(name) => format!("consign secret put {name}"),
            Self::Bot(name) => format!("consign secret put --bot {name}"),
        }
    }

    /// The folder of its entry below the KV mount: `prefix` for secrets, `bots` for bots' tokens.
    #[must_use]
    pub fn folder<'folder>(&self, prefix: &'folder str, bots: &'folder str) -> &'folder str {
        match self {
            Self::Secret(_) => prefix,
            Self::Bot(_) => bots,
        }
    }
}

impl fmt::Display for Grantable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(formatter, "secret {name}"),
            Self::Bot(name) => write!(formatter, "bot {name}"),
        }
    }
}

impl From<SecretName> for Grantable {
    fn from(name: SecretName) -> Self {
        Self::Secret(name)
    }
}

impl From<BotName> for Grantable {
    fn from(name: BotName) -> Self {
        Self::Bot(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_and_a_secret_never_share_a_name_in_vault() {
        let secret = Grantable::from(SecretName::parse("BOT_A").unwrap());
        let bot = Grantable::from(BotName::parse("a").unwrap());
        assert_eq!((secret.group(), secret.policy()), ("runner-BOT_A".to_owned(), "runner-bot_a".to_owned()));
        assert_eq!((bot.group(), bot.policy()), ("bot-a".to_owned(), "bot-a".to_owned()));
        assert_eq!((secret.variable(), bot.variable()), ("BOT_A", "BOT_TOKEN"));
    }
}
