//! The keys of an action file as its schema and the reference tell them.
//!
//! The doc comments here are what people read in `docs/action-reference.md`; `file` decides what is
//! accepted, and a test holds the two together.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{BlastRadius, DispatchMode, Driver, WhenFull};

/// What should run, and why: a file `<id>.toml` anywhere below the actions folder of the ops repo.
#[derive(Debug, JsonSchema)]
#[schemars(title = "consign action", deny_unknown_fields)]
pub struct ActionKeys {
    /// The action's name, equal to its file's name without `.toml`. It is unique over all folders, with
    /// upper and lower case not told apart, and runs once.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"))]
    pub id: String,
    /// The formula that runs: the name of a file in the formulas folder, without its ending.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"))]
    pub formula: String,
    /// Why it runs, in your own words, at most 4 KiB. The task finds it in `CONSIGN_CONTEXT`.
    #[schemars(length(min = 1))]
    pub context: String,
    /// The secrets that the task may read, at most 32; `[]` for none. Each comes in the environment
    /// variable of its name.
    #[schemars(length(max = 32), inner(regex(pattern = r"^[A-Z][A-Z0-9_]{0,63}$")), extend("uniqueItems" = true))]
    pub secrets: Vec<String>,
    /// Arguments for the formula, all of them texts of at most 4 KiB. `model-name` becomes the
    /// environment variable `ARG_MODEL_NAME`; nothing is pasted into a script.
    pub args: Option<BTreeMap<String, String>>,
    /// The base job that runs it, instead of the one that the formula names, or else `runner`.
    pub job: Option<String>,
    /// Aliases of host volumes, as the agent's configuration defines them.
    #[schemars(extend("uniqueItems" = true))]
    pub mounts: Option<Vec<String>>,
    /// The Nomad task driver that it runs under, instead of the formula's or the configured one. Only
    /// what `[shapes] drivers` lists is allowed.
    pub driver: Option<Driver>,
    /// The model that the run needs loaded. It groups the queue, and the task finds it in
    /// `CONSIGN_MODEL`.
    pub model: Option<String>,
    /// Tools that the run may use. The task finds them in `CONSIGN_TOOLS`, separated by commas.
    #[schemars(extend("uniqueItems" = true))]
    pub tools: Option<Vec<String>>,
    /// The longest that the task may run, counted from its start, such as `90m` or `1h30m`; at most 7
    /// days. Without it the formula's holds, or else 60 minutes.
    pub timeout: Option<String>,
    /// The same in whole minutes. A file has one of the two.
    #[schemars(range(min = 1, max = 10_080))]
    pub timeout_minutes: Option<u64>,
    /// How the action is meant to reach the branch: `direct`, by a commit, or `pr`, by a pull request.
    pub dispatch_mode: Option<DispatchMode>,
    /// How much it can break. It decides which approval the action needs; without it, the action
    /// counts as `high`. An action that names a secret counts as `medium` at least.
    pub blast_radius: Option<BlastRadius>,
    /// What the task needs of a node, key by key instead of what the formula asks for.
    pub resources: Option<ResourceKeys>,
    /// Which nodes may run it, in Nomad's own words; all of them must hold.
    pub constraints: Option<Vec<ConstraintKeys>>,
    /// Its place in the queue, the highest first.
    #[schemars(range(min = 0, max = 100), extend("default" = 50))]
    pub priority: Option<u8>,
    /// When another attempt is made. Without it there is one attempt.
    pub retry: Option<RetryKeys>,
    /// A group of actions of which only so many work at a time.
    pub concurrency: Option<ConcurrencyKeys>,
    /// Ids of actions that must have succeeded before this one starts.
    #[schemars(extend("uniqueItems" = true))]
    pub after: Option<Vec<String>>,
    /// The time before which it does not start, with its offset from UTC, such as
    /// `2027-01-31T22:00:00Z`.
    pub not_before: Option<String>,
    /// Further environment variables of the task. `PATH`, the names of the action's secrets, and names
    /// that begin with `NOMAD_`, `VAULT_`, `CONSIGN_`, `ARG_` or `LD_` are taken.
    pub env: Option<BTreeMap<String, String>>,
    /// What to keep of the task's files: globs relative to its working directory, such as
    /// `reports/**/*.html`, in addition to the formula's; see [artifacts](#artifacts).
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("uniqueItems" = true))]
    pub artifacts: Option<Vec<String>>,
    /// The http or https URLs that are told of each change of phase; see [a webhook](#a-webhook). Private
    /// addresses are refused unless the agent's configuration allows them.
    #[schemars(extend("uniqueItems" = true))]
    pub notify: Option<Vec<String>>,
    /// Whether the values of its secrets, of 8 bytes or more, are printed as `***` in the log; see
    /// [masking](operate.md#masking).
    #[schemars(extend("default" = true))]
    pub mask: Option<bool>,
}

/// What the task needs of a node. What is not named stays as the base job has it.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ResourceKeys {
    /// CPU share in MHz.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub cpu: Option<u64>,
    /// Whole cores, instead of `cpu`.
    #[schemars(range(min = 1, max = 4096))]
    pub cores: Option<u64>,
    /// Memory with its unit, such as `512MiB` or `8GiB`.
    pub memory: Option<String>,
    /// Memory that it may reach where the node has room, at least `memory`.
    pub memory_max: Option<String>,
    /// The number of devices; 0 takes away what the base job or the formula asks for. Without it, one
    /// where `device` is given.
    #[schemars(range(min = 0, max = 64))]
    pub gpus: Option<u64>,
    /// Nomad's name for the device: type, vendor/type or vendor/type/model.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_. -]+(/[A-Za-z0-9_. -]+){0,2}$"), extend("default" = "nvidia/gpu"))]
    pub device: Option<String>,
}

/// A Nomad constraint.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ConstraintKeys {
    /// What is looked at: `${attr.…}`, `${node.…}` or `${meta.…}`.
    #[schemars(regex(pattern = r"^\$\{(attr|node|meta)\.[A-Za-z0-9._/-]+\}$"))]
    pub attribute: String,
    /// How it is compared: `=`, `!=`, `<`, `<=`, `>`, `>=`, `regexp`, `set_contains`,
    /// `set_contains_all`, `set_contains_any`, `version`, `semver`, `is_set` or `is_not_set`.
    #[schemars(extend("default" = "="))]
    pub operator: Option<String>,
    /// What it is compared with, a plain text. `is_set` and `is_not_set` need none.
    pub value: Option<String>,
}

/// When another attempt is made. Without it only an attempt that certainly never started is repeated.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RetryKeys {
    /// Attempts in all, the first included.
    #[schemars(range(min = 1, max = 10), extend("default" = 3))]
    pub attempts: Option<u8>,
    /// The causes after which another attempt is made, of the outcomes `failed`, `timed_out` and `lost`. After
    /// most of them the formula may have run: it must bear to run again.
    #[schemars(extend("default" = ["lost", "driver", "dispatch_failed"]))]
    pub on: Option<Vec<String>>,
}

/// A group of actions of which only so many work at a time.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ConcurrencyKeys {
    /// The group's name.
    pub group: String,
    /// How many of the group work at a time.
    #[schemars(range(min = 1), extend("default" = 1))]
    pub limit: Option<u32>,
    /// What happens to an action that finds the group full.
    #[schemars(extend("default" = "queue"))]
    pub when_full: Option<WhenFull>,
}
