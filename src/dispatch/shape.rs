//! What an attempt needs that a dispatch cannot vary, and what of it the configuration allows: pure.
//!
//! The action's word counts before the formula's, key by key. What is too much is refused before
//! launch, with the limit and the rule that set it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    limits::Limits,
    mount::{self, Alias},
};
use crate::{
    action::{Action, Constraint, Driver, Resources},
    diagnostic::did_you_mean,
    formula::Formula,
    outcome::Cause,
};

/// The device that `gpus` means where none is named.
pub const DEFAULT_DEVICE: &str = "nvidia/gpu";

/// What an attempt needs beyond its base job. The default is the plain base job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// The task driver, where it is not the configured one.
    pub driver: Option<Driver>,
    /// What the task needs of a node; `gpus` and `device` are both given, or `gpus` alone is 0.
    pub resources: Resources,
    /// Which nodes may run it, in an order of their own and without repetition.
    pub constraints: Vec<Constraint>,
    /// The host volumes, in the order of their aliases.
    pub mounts: Vec<Mount>,
}

/// One host volume of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    /// What the action calls it.
    pub alias: String,
    /// The host volume.
    pub volume: String,
    /// The folder in the task.
    pub destination: String,
    /// Whether the task may only read it.
    pub read_only: bool,
}

impl Shape {
    /// Whether the plain base job will do.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Its one written form, which decides a variant's id.
    #[must_use]
    pub fn canonical(&self) -> String {
        // Texts, numbers and lists: writing them does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the configuration allows.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// The most that may be asked for.
    pub limits: Limits,
    /// The mounts.
    pub mounts: BTreeMap<Alias, mount::Settings>,
    /// The configured driver.
    pub driver: Driver,
}

/// What an action gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// The shape of its attempts.
    pub shape: Shape,
    /// The variables of its mounts, those that it sets itself left out.
    pub env: BTreeMap<String, String>,
}

/// Why an action gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The cause of its result.
    pub cause: Cause,
    /// The top-level key of the action that it is about.
    pub key: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

impl Refused {
    fn invalid(key: &'static str, message: impl Into<String>) -> Self {
        Self { cause: Cause::Invalid, key, message: message.into() }
    }

    fn mount(message: impl Into<String>) -> Self {
        Self { cause: Cause::MissingMount, key: "mounts", message: message.into() }
    }
}

/// Decides what an action and its formula get.
pub fn decide(action: &Action, formula: &Formula, allowed: &Allowed) -> Result<Decided, Refused> {
    let formula_resources = formula.resources.clone().unwrap_or_default();
    let resources = merge(action.resources.clone().unwrap_or_default(), formula_resources)?;
    let driver = action.driver.or(formula.driver).filter(|driver| *driver != allowed.driver);
    let limits = allowed.limits.of(&action.formula);
    limits
        .check(&resources, driver, allowed.driver, !action.constraints.is_empty())
        .map_err(|(key, message)| Refused::invalid(key, message))?;
    let mut constraints = action.constraints.clone();
    constraints.sort();
    constraints.dedup();
    let (mounts, env) = mounts(action, allowed, driver.unwrap_or(allowed.driver))?;
    Ok(Decided { shape: Shape { driver, resources, constraints, mounts }, env })
}

/// The action's resources, and the formula's where it names none. `cpu` and `cores` are one key, and so
/// are a device and its number.
fn merge(action: Resources, formula: Resources) -> Result<Resources, Refused> {
    let own_cpu = action.cpu.is_some() || action.cores.is_some();
    let (cpu, cores) = if own_cpu { (action.cpu, action.cores) } else { (formula.cpu, formula.cores) };
    let device = action.device.or(formula.device);
    let gpus = action.gpus.or(formula.gpus).or(device.is_some().then_some(1));
    let device = match gpus {
        None | Some(0) => None,
        Some(_) => Some(device.unwrap_or_else(|| DEFAULT_DEVICE.to_owned())),
    };
    let memory = action.memory.or(formula.memory);
    let memory_max = action.memory_max.or(formula.memory_max);
    if let (Some(least), Some(most)) = (memory, memory_max)
        && most < least
    {
        return Err(Refused::invalid(
            "resources",
            format!(
                "action and formula together ask for {least} bytes of memory and at most {most}: give both in the action"
            ),
        ));
    }
    Ok(Resources { cpu, cores, memory, memory_max, gpus, device })
}

fn mounts(
    action: &Action,
    allowed: &Allowed,
    driver: Driver,
) -> Result<(Vec<Mount>, BTreeMap<String, String>), Refused> {
    let mut mounts = Vec::new();
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for alias in &action.mounts {
        let Some((_, settings)) = allowed.mounts.iter().find(|(known, _)| known.as_str() == alias) else {
            return Err(Refused::mount(unknown(alias, allowed)));
        };
        for (name, value) in &settings.env {
            let name = name.as_str();
            if action.secrets.iter().any(|secret| secret.as_str() == name) {
                return Err(Refused::invalid(
                    "mounts",
                    format!(
                        "the mount {alias} sets the variable {name}, which is the name of a secret of the action as well"
                    ),
                ));
            }
            if action.env.contains_key(name) {
                continue;
            }
            if env
                .insert(name.to_owned(), value.as_str().to_owned())
                .is_some_and(|other| other != value.as_str())
            {
                return Err(Refused::invalid(
                    "mounts",
                    format!(
                        "the mount {alias} and another one set the variable {name} to different values: set it in `env`"
                    ),
                ));
            }
        }
        mounts.push(Mount {
            alias: alias.clone(),
            volume: settings.volume.as_str().to_owned(),
            destination: settings.destination.as_str().to_owned(),
            read_only: settings.read_only,
        });
    }
    mounts.sort();
    let mut destinations = BTreeSet::new();
    if let Some(twice) = mounts.iter().find(|mount| !destinations.insert(&mount.destination)) {
        return Err(Refused::mount(format!(
            "two mounts would be at {}: leave {} or the other one away",
            twice.destination, twice.alias
        )));
    }
    if let (Driver::RawExec, Some(mount)) = (driver, mounts.first()) {
        return Err(Refused::mount(format!(
            "the driver raw_exec cannot mount {}: it runs a task in the node's own file system, so it would see \
             that of the node at {}; use docker or exec",
            mount.alias, mount.destination
        )));
    }
    Ok((mounts, env))
}

fn unknown(alias: &str, allowed: &Allowed) -> String {
    let known = || allowed.mounts.keys().map(Alias::as_str);
    let help = did_you_mean(alias, known())
        .unwrap_or_else(|| format!("the mounts are {}", known().collect::<Vec<_>>().join(", ")));
    format!("no mount is called {alias}: {help}; an operator adds one as [mounts.{alias}]")
}

#[cfg(test)]
mod tests;
