//! What runs, and how much of it may run at a time.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;

use super::{Candidate, order::Loaded};
use crate::{action::Concurrency, ids::JobId};

/// The name in a table of limits that stands for every name without a limit of its own.
const EVERY_OTHER: &str = "*";

/// How many jobs may run at a time; 0 is no cap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// In all.
    pub running: usize,
    /// Of one formula.
    pub formula: BTreeMap<String, usize>,
    /// With one model.
    pub model: BTreeMap<String, usize>,
    /// Of one concurrency group; an action may ask for a lower limit.
    pub group: BTreeMap<String, usize>,
    /// Launched and not yet started, of those that ask the same of a node.
    pub pending: usize,
}

/// What a limit is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All jobs.
    All,
    /// The jobs of one formula.
    Formula(String),
    /// The jobs with one model.
    Model(String),
    /// The jobs of one concurrency group.
    Group(String),
    /// The jobs that ask the same of a node and have not started.
    Place(Arc<str>),
}

/// A limit that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// What is limited.
    pub scope: Scope,
    /// The limit.
    pub limit: usize,
    /// The names of the jobs that hold it, the first launched first.
    pub holders: Vec<String>,
}

/// One job that counts against the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The name that people use for it.
    pub name: String,
    /// Whether its dispatch is still under way.
    pub launching: bool,
    /// When it was launched.
    pub since: Timestamp,
    /// The formula that it runs.
    pub formula: Option<String>,
    /// The model that it needs.
    pub model: Option<String>,
    /// Its concurrency group.
    pub group: Option<String>,
    /// What it asks of a node, until its task has started.
    pub place: Option<Arc<str>>,
}

/// Everything that runs, and the models that are loaded for it.
#[derive(Debug, Clone, Default)]
pub struct Load {
    running: BTreeMap<JobId, Running>,
    counts: BTreeMap<Scope, usize>,
    launching: usize,
    loaded: Vec<Loaded>,
}

impl Running {
    /// A candidate that was launched and has started, under its job id.
    pub(super) fn of(candidate: &Candidate, since: Timestamp) -> Self {
        Self {
            name: candidate.job_id.to_string(),
            launching: false,
            since,
            formula: candidate.formula.clone(),
            model: candidate.model.clone(),
            group: candidate.concurrency.as_ref().map(|concurrency| concurrency.group.clone()),
            place: None,
        }
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> {
        let formula = self.formula.clone().map(Scope::Formula);
        let model = self.model.clone().map(Scope::Model);
        let group = self.group.clone().map(Scope::Group);
        let place = self.place.clone().map(Scope::Place);
        [Some(Scope::All), formula, model, group, place].into_iter().flatten()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(formatter, "all jobs"),
            Self::Formula(name) => write!(formatter, "the formula {name}"),
            Self::Model(name) => write!(formatter, "the model {name}"),
            Self::Group(name) => write!(formatter, "the concurrency group {name}"),
            Self::Place(_) => write!(formatter, "what asks the same of a node and has not started"),
        }
    }
}

impl Load {
    /// Takes down that a job runs, or what changed about it. `models` is how many models can be loaded at a
    /// time, 0 for any number.
    pub fn insert(&mut self, job_id: JobId, running: Running, models: usize) {
        self.remove(job_id);
        if let Some(model) = &running.model {
            let used = |model: &str| self.counts.contains_key(&Scope::Model(model.to_owned()));
            load(&mut self.loaded, model, running.since, models, used);
        }
        for scope in running.scopes() {
            *self.counts.entry(scope).or_default() += 1;
        }
        self.launching += usize::from(running.launching);
        self.running.insert(job_id, running);
    }

    /// Takes down that a job has ended, or was put back.
    pub fn remove(&mut self, job_id: JobId) {
        let Some(running) = self.running.remove(&job_id) else { return };
        self.launching -= usize::from(running.launching);
        for scope in running.scopes() {
            if let Some(count) = self.counts.get_mut(&scope) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&scope);
                }
            }
        }
    }

    /// The same with every dispatch over that is under way.
    pub(super) fn launched(&self) -> Self {
        let mut load = self.clone();
        load.launching = 0;
        for running in load.running.values_mut() {
            running.launching = false;
        }
        load
    }

    /// How many dispatches are under way.
    #[must_use]
    pub const fn launching(&self) -> usize {
        self.launching
    }

    /// How many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The models that are loaded, the longest loaded first.
    #[must_use]
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    /// How many running jobs count against a limit.
    #[must_use]
    pub fn count(&self, scope: &Scope) -> usize {
        self.counts.get(scope).copied().unwrap_or_default()
    }

    /// The running jobs that count against a limit, the first launched first.
    #[must_use]
    pub fn holders(&self, scope: &Scope) -> Vec<JobId> {
        let counts = |running: &Running| running.scopes().any(|other| other == *scope);
        let mut found: Vec<(Timestamp, JobId)> = self
            .running
            .iter()
            .filter(|(_, running)| counts(running))
            .map(|(job_id, running)| (running.since, *job_id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, job_id)| job_id).collect()
    }

    /// A limit that is reached, and who holds it.
    pub(super) fn full(&self, scope: Scope, limit: usize) -> Full {
        let holders = self.holders(&scope).into_iter().map(|job_id| self.name(job_id)).collect();
        Full { scope, limit, holders }
    }

    fn name(&self, job_id: JobId) -> String {
        self.running.get(&job_id).map(|running| running.name.clone()).unwrap_or_default()
    }
}

/// Takes down that a model is loaded. Where there is no room for one more, the longest loaded one that no
/// job needs is no longer.
fn load(loaded: &mut Vec<Loaded>, model: &str, since: Timestamp, models: usize, used: impl Fn(&str) -> bool) {
    if loaded.iter().any(|known| known.model == model) {
        return;
    }
    let room = models.max(1);
    while loaded.len() >= room {
        let Some(idle) = loaded.iter().position(|known| !used(&known.model)) else { break };
        loaded.remove(idle);
    }
    loaded.push(Loaded { model: model.to_owned(), since });
}

impl Caps {
    /// Whether no job at all may be launched.
    #[must_use]
    pub fn is_full(&self, load: &Load) -> bool {
        self.running != 0 && load.running() >= self.running
    }

    /// Whether a limit keeps a job from being launched.
    pub(super) fn hold(&self, candidate: &Candidate, load: &Load) -> bool {
        self.reached(candidate, load).is_some()
    }

    /// The limit that keeps a job from being launched: the overall one first.
    pub(super) fn reached(&self, candidate: &Candidate, load: &Load) -> Option<(Scope, usize)> {
        let formula =
            candidate.formula.as_ref().map(|name| (Scope::Formula(name.clone()), of(&self.formula, name)));
        let model = candidate.model.as_ref().map(|name| (Scope::Model(name.clone()), of(&self.model, name)));
        let group = candidate
            .concurrency
            .as_ref()
            .map(|concurrency| (Scope::Group(concurrency.group.clone()), self.of_group(concurrency)));
        let place = Some((Scope::Place(Arc::clone(&candidate.place)), self.pending));
        [Some((Scope::All, self.running)), formula, model, group, place]
            .into_iter()
            .flatten()
            .find(|(scope, limit)| *limit != 0 && load.count(scope) >= *limit)
    }

    /// The limit of a job's group: the lower one of the configuration's and the action's.
    #[must_use]
    pub fn of_group(&self, concurrency: &Concurrency) -> usize {
        let own = usize::try_from(concurrency.limit).unwrap_or(usize::MAX);
        match of(&self.group, &concurrency.group) {
            0 => own,
            limit => limit.min(own),
        }
    }
}

fn of(limits: &BTreeMap<String, usize>, name: &str) -> usize {
    limits.get(name).or_else(|| limits.get(EVERY_OTHER)).copied().unwrap_or_default()
}
