//! Who comes first.

use std::{cmp::Reverse, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Candidate, Hold, Load, Scope};
use crate::ids::JobId;

/// The highest priority.
const HIGHEST: u8 = 100;

/// How waiting counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ageing {
    /// The time after which a waiting job counts as one point of priority higher, up to 100; zero for never.
    pub each: Duration,
}

/// How models take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Models {
    /// How many can be loaded at a time; 0 for any number.
    pub loaded: usize,
    /// How long a job may be passed over for others whose model is loaded.
    pub patience: Duration,
    /// How long a model stays loaded at least before another takes its place.
    pub minimum: Duration,
}

/// A model that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name.
    pub model: String,
    /// Since when.
    pub since: Timestamp,
}

/// A job's place; the least is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: Reverse<u8>,
    swap: bool,
    submitted_at: Timestamp,
    job_id: JobId,
}

/// A loaded model that makes room for another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The loaded model.
    on: String,
    /// The one that it makes room for.
    by: String,
    /// The place of the job that waits for that one: nobody before it is held up.
    rank: Rank,
}

impl Default for Ageing {
    fn default() -> Self {
        Self { each: Duration::from_mins(1) }
    }
}

impl Ageing {
    /// The priority that a job has after it waited.
    #[must_use]
    pub fn priority(&self, own: u8, submitted_at: Timestamp, now: Timestamp) -> u8 {
        let each = i64::try_from(self.each.as_secs()).unwrap_or(i64::MAX);
        if each == 0 {
            return own.min(HIGHEST);
        }
        let points = waited(submitted_at, now).as_secs() / each;
        own.saturating_add(u8::try_from(points).unwrap_or(HIGHEST)).min(HIGHEST)
    }
}

fn waited(since: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(since).max(SignedDuration::ZERO)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Whether a job may still be passed over for others whose model is loaded.
fn is_patient(candidate: &Candidate, models: &Models, now: Timestamp) -> bool {
    waited(candidate.submitted_at, now) < signed(models.patience)
}

pub(super) fn rank(
    candidate: &Candidate,
    ageing: &Ageing,
    models: &Models,
    loaded: &[Loaded],
    now: Timestamp,
) -> Rank {
    let patient = is_patient(candidate, models, now);
    let other =
        candidate.model.as_ref().is_some_and(|model| loaded.iter().all(|known| known.model != *model));
    Rank {
        priority: Reverse(ageing.priority(candidate.priority, candidate.submitted_at, now)),
        swap: patient && other && !loaded.is_empty(),
        submitted_at: candidate.submitted_at,
        job_id: candidate.job_id,
    }
}

/// Whether a job waits for its model; `None` where it is loaded or can be.
pub(super) fn model_hold(
    candidate: &Candidate,
    load: &Load,
    models: &Models,
    now: Timestamp,
) -> Option<Hold> {
    let model = candidate.model.as_ref()?;
    let loaded = load.loaded();
    if models.loaded == 0 || loaded.len() < models.loaded || loaded.iter().any(|known| known.model == *model)
    {
        return None;
    }
    let free_at = loaded
        .iter()
        .filter(|known| load.count(&Scope::Model(known.model.clone())) == 0)
        .map(|known| known.since.checked_add(signed(models.minimum)).unwrap_or(Timestamp::MAX))
        .min();
    if free_at.is_some_and(|at| at <= now) {
        return None;
    }
    let loaded = loaded.iter().map(|known| known.model.clone()).collect();
    Some(Hold::Model { loaded, until: free_at })
}

/// Which loaded models make room for the jobs that are held up by their model: one for each model whose job is
/// out of patience, the longest loaded first, but none before its least time is over.
pub(super) fn claims(
    mut held: Vec<(Rank, &Candidate)>,
    load: &Load,
    models: &Models,
    now: Timestamp,
) -> Vec<Claim> {
    held.retain(|(_, candidate)| !is_patient(candidate, models, now));
    held.sort_by_key(|(rank, _)| *rank);
    let may_go = |known: &&Loaded| waited(known.since, now) >= signed(models.minimum);
    let mut loaded = load.loaded().iter().filter(may_go);
    let mut claims: Vec<Claim> = Vec::new();
    for (rank, candidate) in held {
        let Some(model) = &candidate.model else { continue };
        if claims.iter().any(|claim| claim.by == *model) {
            continue;
        }
        let Some(on) = loaded.next() else { break };
        claims.push(Claim { on: on.model.clone(), by: model.clone(), rank });
    }
    claims
}

/// Whether a job waits because its model makes room for another.
pub(super) fn yields(candidate: &Candidate, rank: &Rank, claims: &[Claim]) -> Option<Hold> {
    let model = candidate.model.as_ref()?;
    let claim = claims.iter().find(|claim| claim.on == *model && claim.rank < *rank)?;
    Some(Hold::Yields { to: claim.by.clone() })
}
