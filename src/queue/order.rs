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

pub(super) fn rank(
    candidate: &Candidate,
    ageing: &Ageing,
    models: &Models,
    loaded: &[Loaded],
    now: Timestamp,
) -> Rank {
    let patient = waited(candidate.submitted_at, now) < signed(models.patience);
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
