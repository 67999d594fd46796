//! How an action runs: a program, or a list of steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    action::{Driver, Resources},
    duration::Span,
    ids::{FormulaName, SecretName},
};

pub mod bind;
pub mod file;
pub mod keys;
pub mod pattern;

/// The most that Nomad takes as the payload of a dispatch, in bytes; a formula's script travels so.
pub const PAYLOAD_LIMIT: usize = 16 * 1024;

/// A valid formula.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formula {
    /// The stem of its file.
    pub name: FormulaName,
    /// What it does, in a sentence.
    pub description: String,
    /// The base job that runs it; `None` is `runner`.
    pub job: Option<String>,
    /// The arguments that it takes. A program (`.sh`) declares none and takes any.
    pub args: BTreeMap<String, Argument>,
    /// The secrets that it cannot do without.
    pub secrets: Vec<SecretName>,
    /// The mounts that it cannot do without.
    pub mounts: Vec<String>,
    /// The task driver; `None` is the configured one.
    #[serde(default)]
    pub driver: Option<Driver>,
    /// The longest that it may run, counted from the task's start.
    pub timeout: Option<Span>,
    /// What the task needs of a node.
    pub resources: Option<Resources>,
    /// Globs, relative to the task's working directory, of what to keep.
    pub artifacts: Vec<String>,
    /// What runs.
    pub body: Body,
}

/// What a formula runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A program, run as the file it is.
    Program(String),
    /// Steps, run in order.
    Steps(Vec<Step>),
}

/// One step of a formula.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, unique in the formula.
    pub name: String,
    /// The script that it runs.
    pub run: String,
    /// The longest that it may run.
    pub timeout: Option<Span>,
    /// How often it is run again after it failed.
    pub retries: u32,
    /// Whether the next step runs although this one failed.
    pub continue_on_error: bool,
}

/// One argument of a formula.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Whether an action must give it.
    pub required: bool,
    /// Its value where an action gives none.
    pub default: Option<String>,
    /// The regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// What it is for.
    pub help: Option<String>,
}
