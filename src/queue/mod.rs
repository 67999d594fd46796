//! Which job is launched next, and what holds the others up: pure, and in one place.
//!
//! The order is priority with ageing, then the model that is loaded, then first come. The first in that
//! order that no limit holds is next; what waits behind a full limit does not hold up the rest.

pub mod estimate;
mod load;
mod order;
mod paused;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use self::order::{Claim, Rank};
pub use self::{
    load::{Caps, Full, Load, Running, Scope},
    order::{Ageing, Loaded, Models},
    paused::Paused,
};
use crate::{action::Concurrency, ids::JobId};

/// How many launches are under way at a time: enough to keep Nomad's dispatch busy (it takes about
/// three times as many over eight connections as over one), few enough that a burst leaves it
/// breathing space.
pub const LAUNCHES: usize = 16;

/// How many jobs that ask the same of a node may be launched and not have started: enough to keep nodes busy
/// where thousands of short tasks follow each other, few enough that nearly all wait here, in our order and at
/// no cost. What Nomad cannot place yet holds up only what it could not place either.
pub const PENDING: usize = 32;

/// One job that may be launched as far as its approval goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The job.
    pub job_id: JobId,
    /// When it was first seen.
    pub submitted_at: Timestamp,
    /// 0 to 100, the highest first.
    pub priority: u8,
    /// The formula that it runs.
    pub formula: Option<String>,
    /// The model that it needs loaded.
    pub model: Option<String>,
    /// The group whose limit it counts against.
    pub concurrency: Option<Concurrency>,
    /// What it asks of a node: the same for jobs with one base job and one shape.
    pub place: Arc<str>,
}

/// What the queue decides by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// The limits.
    pub caps: Caps,
    /// How waiting counts.
    pub ageing: Ageing,
    /// How models take turns.
    pub models: Models,
}

/// What a waiting job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// That an operator lets work go on.
    Paused(Arc<Paused>),
    /// Nothing: it is launched as soon as the launches under way leave room.
    Turn,
    /// A limit is reached.
    Full(Arc<Full>),
    /// Another model is loaded.
    Model {
        /// The models that are loaded.
        loaded: Vec<String>,
        /// The time from which one of them may make room, where only that is waited for.
        until: Option<Timestamp>,
    },
    /// Its own model is loaded, and makes room for another one that was waited for long enough.
    Yields {
        /// The other model.
        to: String,
    },
}

/// The jobs that wait for their turn.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<JobId, Candidate>,
    paused: Option<Arc<Paused>>,
}

impl Queue {
    /// Puts a job in, or replaces what is known of it.
    pub fn push(&mut self, candidate: Candidate) {
        self.waiting.insert(candidate.job_id, candidate);
    }

    /// Takes a job out, if it is in.
    pub fn remove(&mut self, job_id: JobId) {
        self.waiting.remove(&job_id);
    }

    /// Launches nothing more, or goes on where there is nothing to say why not.
    pub fn pause(&mut self, paused: Option<Paused>) {
        self.paused = paused.map(Arc::new);
    }

    /// Whether an operator holds it.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes the next job out, where the load leaves room for one.
    pub fn next(&mut self, load: &Load, rules: &Rules, now: Timestamp) -> Option<JobId> {
        if self.paused.is_some() || load.launching() >= LAUNCHES || rules.caps.is_full(load) {
            return None;
        }
        let claims = self.claims(load, rules, now);
        let is_free = |rank: &Rank, candidate: &Candidate| {
            !rules.caps.hold(candidate, load)
                && order::model_hold(candidate, load, &rules.models, now).is_none()
                && order::yields(candidate, rank, &claims).is_none()
        };
        let mut first: Option<(Rank, JobId)> = None;
        for candidate in self.waiting.values() {
            let rank = rank(candidate, load, rules, now);
            // Thousands may wait: limits are looked at only for those who would come before the first one known.
            if first.is_none_or(|(least, _)| rank < least) && is_free(&rank, candidate) {
                first = Some((rank, candidate.job_id));
            }
        }
        let (_, job_id) = first?;
        self.waiting.remove(&job_id);
        Some(job_id)
    }

    /// Every waiting job in order, with what it waits for.
    #[must_use]
    pub fn explain(&self, load: &Load, rules: &Rules, now: Timestamp) -> Vec<(JobId, Hold)> {
        let claims = self.claims(load, rules, now);
        let order = self.order(load, rules, now);
        // Many wait behind one limit: who holds it is looked up once.
        let mut limits: BTreeMap<(Scope, usize), Arc<Full>> = BTreeMap::new();
        let mut hold = |rank: &Rank, candidate: &Candidate| {
            if let Some(paused) = &self.paused {
                return Hold::Paused(Arc::clone(paused));
            }
            if let Some((scope, limit)) = rules.caps.reached(candidate, load) {
                let full = limits
                    .entry((scope, limit))
                    .or_insert_with_key(|(scope, limit)| Arc::new(load.full(scope.clone(), *limit)));
                return Hold::Full(Arc::clone(full));
            }
            order::model_hold(candidate, load, &rules.models, now)
                .or_else(|| order::yields(candidate, rank, &claims))
                .unwrap_or(Hold::Turn)
        };
        order.into_iter().map(|(rank, candidate)| (candidate.job_id, hold(&rank, candidate))).collect()
    }

    /// The loaded models that make room for others, which were waited for long enough. Without that, jobs of
    /// a loaded model could come so close on each other that it never falls idle.
    fn claims(&self, load: &Load, rules: &Rules, now: Timestamp) -> Vec<Claim> {
        if rules.models.loaded == 0 {
            return Vec::new();
        }
        let held = self.waiting.values().filter(|candidate| {
            !rules.caps.hold(candidate, load)
                && order::model_hold(candidate, load, &rules.models, now).is_some()
        });
        let held = held.map(|candidate| (rank(candidate, load, rules, now), candidate));
        order::claims(held.collect(), load, &rules.models, now)
    }

    fn order(&self, load: &Load, rules: &Rules, now: Timestamp) -> Vec<(Rank, &Candidate)> {
        let ranked = self.waiting.values().map(|candidate| (rank(candidate, load, rules, now), candidate));
        let mut order: Vec<(Rank, &Candidate)> = ranked.collect();
        order.sort_by_key(|(rank, _)| *rank);
        order
    }

    /// The same queue with the first `count` jobs in line alone.
    fn first(&self, count: usize, load: &Load, rules: &Rules, now: Timestamp) -> Self {
        let first = self.order(load, rules, now).into_iter().take(count);
        let waiting = first.map(|(_, candidate)| (candidate.job_id, candidate.clone())).collect();
        Self { waiting, paused: self.paused.clone() }
    }

    /// When the answer of [`Self::next`] may change by time alone; `None` where only the end of a job
    /// changes it.
    #[must_use]
    pub fn wake_at(&self, load: &Load, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        if self.paused.is_some() || rules.models.loaded == 0 {
            return None;
        }
        let others = self.waiting.values().filter(|candidate| !rules.caps.hold(candidate, load));
        let holds = others.filter_map(|candidate| order::model_hold(candidate, load, &rules.models, now));
        holds.filter_map(|hold| if let Hold::Model { until, .. } = hold { until } else { None }).min()
    }

    /// The waiting jobs of a concurrency group, the first seen first.
    #[must_use]
    pub fn of_group(&self, group: &str) -> Vec<JobId> {
        let of_group = |candidate: &&Candidate| {
            candidate.concurrency.as_ref().is_some_and(|concurrency| concurrency.group == group)
        };
        let mut found: Vec<(Timestamp, JobId)> = self
            .waiting
            .values()
            .filter(of_group)
            .map(|candidate| (candidate.submitted_at, candidate.job_id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, job_id)| job_id).collect()
    }
}

fn rank(candidate: &Candidate, load: &Load, rules: &Rules, now: Timestamp) -> Rank {
    order::rank(candidate, &rules.ageing, &rules.models, load.loaded(), now)
}

#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;
