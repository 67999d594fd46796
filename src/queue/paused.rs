//! That nothing is launched, because an operator said so.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who stopped the launching, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paused {
    /// The name of the token that was shown.
    pub by: String,
    /// Since when.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// Why, in the operator's words.
    pub reason: String,
}

impl fmt::Display for Paused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, since, reason } = self;
        write!(formatter, "paused by {by} since {}: {reason}", since.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}
