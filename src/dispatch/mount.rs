//! What the configuration says of a mount: a Nomad host volume, and where a task finds it.
//!
//! The parts are checked as they are read, so that a bad one is told with its place in the file.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::action::environment;

/// The longest alias, name of a volume or variable, in bytes.
const NAME_LIMIT: usize = 128;
/// The longest destination, in bytes; Linux takes no longer path.
const PATH_LIMIT: usize = 4095;
/// The folders that Nomad itself puts into the root of every task.
/// <https://developer.hashicorp.com/nomad/docs/concepts/filesystem>
const NOMADS_OWN: [&str; 3] = ["alloc", "local", "secrets"];

/// A mount of the configuration, `[mounts.<alias>]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The Nomad host volume, as clients name it.
    #[schemars(with = "String")]
    pub volume: VolumeName,
    /// The folder in the task.
    #[schemars(with = "String")]
    pub destination: Destination,
    /// Whether the task may only read it.
    #[serde(default = "yes")]
    pub read_only: bool,
    /// Variables that tell the task of it.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<Variable, Value>,
}

const fn yes() -> bool {
    true
}

/// A text that does not make what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: {rule}")]
pub struct BadText {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// Makes a text of one kind, checked by a function that says which rule it breaks.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadText;
            fn try_from(text: String) -> Result<Self, BadText> {
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(rule) => Err(BadText { kind: $kind, text, rule }),
                }
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> Self {
                checked.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }
    };
}

checked_text!(
    /// The name by which actions ask for a mount.
    Alias, "the alias of a mount", name
);
checked_text!(
    /// The name of a Nomad host volume.
    VolumeName, "the name of a host volume", name
);
checked_text!(
    /// A folder in the task.
    Destination, "where a mount can be", destination
);
checked_text!(
    /// The name of an environment variable.
    Variable, "a variable that a mount can set", variable
);
checked_text!(
    /// The value of an environment variable.
    Value, "the value of a variable", value
);

fn name(text: &str) -> Result<(), &'static str> {
    let legal = (1..=NAME_LIMIT).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character));
    legal.then_some(()).ok_or("use letters, digits, `.`, `_` and `-`, beginning with a letter or digit")
}

fn destination(text: &str) -> Result<(), &'static str> {
    let Some(below) = text.strip_prefix('/') else { return Err("it must be absolute") };
    if below.is_empty() {
        return Err("the whole file system cannot be a mount");
    }
    if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("write it without `..`, `.`, `//` and a `/` at its end");
    }
    if text.len() > PATH_LIMIT
        || text.chars().any(|character| character.is_control() || "$%{}:\\\"".contains(character))
    {
        return Err("write a plain path, without interpolation, colons and quotes");
    }
    let first = below.split('/').next().unwrap_or_default();
    if NOMADS_OWN.contains(&first) {
        return Err("/alloc, /local and /secrets are Nomad's own");
    }
    Ok(())
}

fn variable(text: &str) -> Result<(), &'static str> {
    if !environment::is_variable_name(text) {
        return Err("use letters, digits and `_`, beginning with a letter or `_`");
    }
    if environment::is_reserved(text) {
        return Err("PATH and names that begin with NOMAD_, VAULT_, CONSIGN_, ARG_ or LD_ are taken");
    }
    Ok(())
}

fn value(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') { Err("a variable cannot carry a NUL character") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_plain_absolute_path_of_its_own() {
        for good in ["/root/.ssh", "/data", "/local-data", "/mnt/a b/ü"] {
            assert_eq!(destination(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "root",
            "/",
            "//",
            "/root/",
            "/root/../etc",
            "/./x",
            "/alloc",
            "/alloc/data",
            "/local/x",
            "/secrets",
            "/x/${env}",
            "/x/%{if}",
            "/x:rw",
            "/x\n",
            "/x\"",
        ] {
            assert!(destination(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mount_is_read_only_unless_it_says_otherwise() {
        let read = |text: &str| toml::from_str::<Settings>(text).map_err(|error| error.to_string());
        let mount = read("volume = \"keys\"\ndestination = \"/root/.ssh\"\n").unwrap();
        assert!(mount.read_only && mount.env.is_empty());
        for (text, words) in [
            ("volume = \"a b\"\ndestination = \"/x\"\n", "host volume"),
            ("volume = \"a\"\ndestination = \"/x/..\"\n", "without `..`"),
            ("volume = \"a\"\ndestination = \"/x\"\nenv = { PATH = \"/x\" }\n", "are taken"),
            ("volume = \"a\"\ndestination = \"/x\"\nenv = { X = \"\\u0000\" }\n", "NUL"),
            ("volume = \"a\"\ndestination = \"/x\"\nread-only = true\n", "unknown field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
