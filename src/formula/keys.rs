//! The keys of a formula file as its schema and the reference tell them.
//!
//! The doc comments here are what people read in `docs/action-reference.md`; `file` decides what is
//! accepted, and a test holds the two together.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use crate::action::{Driver, keys::ResourceKeys};

/// How an action runs, as steps: a file `<name>.toml` in the formulas folder of the ops repo.
#[derive(Debug, JsonSchema)]
#[schemars(title = "consign formula", deny_unknown_fields)]
pub struct FormulaKeys {
    /// What it does, in a sentence.
    #[schemars(length(min = 1))]
    pub description: String,
    /// The base job that runs it.
    #[schemars(extend("default" = "runner"))]
    pub job: Option<String>,
    /// The arguments that it takes, by name. An action that gives another one is invalid.
    pub args: Option<BTreeMap<String, ArgumentKeys>>,
    /// The secrets that it cannot do without. An action that does not list them is invalid.
    #[schemars(length(max = 32), inner(regex(pattern = r"^[A-Z][A-Z0-9_]{0,63}$")), extend("uniqueItems" = true))]
    pub secrets: Option<Vec<String>>,
    /// The mounts that it cannot do without. An action that does not list them is invalid.
    #[schemars(extend("uniqueItems" = true))]
    pub mounts: Option<Vec<String>>,
    /// The Nomad task driver that it runs under, instead of the configured one. Only what `[shapes]
    /// drivers` lists is allowed.
    pub driver: Option<Driver>,
    /// The longest that all steps together may run, such as `90m`, unless the action says otherwise.
    #[schemars(extend("default" = "60m"))]
    pub timeout: Option<String>,
    /// What the task needs of a node, unless the action says otherwise.
    pub resources: Option<ResourceKeys>,
    /// What to keep of the task's files: globs relative to its working directory; see
    /// [artifacts](#artifacts).
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("uniqueItems" = true))]
    pub artifacts: Option<Vec<String>>,
    /// What runs, in order. The first step that fails ends the job with its exit code. All scripts
    /// together may have 16 KiB.
    #[schemars(length(min = 1, max = 64))]
    pub steps: Vec<StepKeys>,
}

/// One argument of a formula.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ArgumentKeys {
    /// Whether an action must give it. Such an argument has no default.
    #[schemars(extend("default" = false))]
    pub required: Option<bool>,
    /// Its value where the action gives none. Without it the variable is not set.
    pub default: Option<String>,
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// What it is for, for whoever leaves it out.
    pub help: Option<String>,
}

/// One step of a formula.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StepKeys {
    /// Its name, unique in the formula.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"))]
    pub name: String,
    /// The script that it runs.
    pub run: String,
    /// The longest that it may run. A step that runs longer ends with exit code 124.
    pub timeout: Option<String>,
    /// How often it is run again after it failed.
    #[schemars(range(min = 0, max = 10), extend("default" = 0))]
    pub retries: Option<u32>,
    /// Whether the next step runs although this one failed.
    #[schemars(extend("default" = false))]
    pub continue_on_error: Option<bool>,
}
