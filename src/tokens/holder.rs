//! Who holds a token.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::{ActionId, InvalidName};

/// The name of whoever holds a token: a person or a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HolderName(String);

impl HolderName {
    /// Whoever asks an agent that asks for no tokens: nobody in particular.
    #[must_use]
    pub fn anyone() -> Self {
        Self("anyone".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HolderName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for HolderName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // The same letters as an action's id may have: it stands in sentences and in tables.
        let rule = ActionId::RULE;
        let invalid = |_| InvalidName { kind: "name of a token", text: text.to_owned(), rule };
        ActionId::parse(text).map_err(invalid).map(|name| Self(name.to_string()))
    }
}

impl TryFrom<String> for HolderName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<HolderName> for String {
    fn from(name: HolderName) -> Self {
        name.0
    }
}
