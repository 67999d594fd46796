//! When waiting jobs may start and running ones end, from how long earlier runs of their formulas took.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Candidate, Load, Queue, Rules, Running};
use crate::ids::JobId;

/// How many runs of a formula count: the latest.
pub const RUNS: usize = 20;
/// How many waiting jobs are looked ahead for, the next ones in line. It bounds the time that an estimate
/// takes, which grows with its square.
pub const AHEAD: usize = 100;

/// When a job may start and end. It is no promise: what is not known is not said, and nothing lies in the past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// When it may start, RFC 3339; null once it is launched.
    #[schemars(with = "Option<String>")]
    pub starts_at: Option<Timestamp>,
    /// When it may end.
    #[schemars(with = "Option<String>")]
    pub finishes_at: Option<Timestamp>,
}

/// How long the latest successful runs of each formula took.
#[derive(Debug, Clone, Default)]
pub struct Past {
    runs: HashMap<String, VecDeque<Duration>>,
}

impl Past {
    /// Takes down a run that succeeded; only the latest [`RUNS`] of a formula are kept.
    pub fn add(&mut self, formula: &str, took: Duration) {
        let runs = self.runs.entry(formula.to_owned()).or_default();
        runs.push_back(took);
        while runs.len() > RUNS {
            runs.pop_front();
        }
    }

    /// How long a run may take that has taken `so_far`: the median of those that took longer. `None` where no
    /// run is known that did.
    #[must_use]
    pub fn expected(&self, formula: Option<&str>, so_far: Duration) -> Option<Duration> {
        let mut longer: Vec<Duration> =
            self.runs.get(formula?)?.iter().copied().filter(|took| *took > so_far).collect();
        longer.sort_unstable();
        longer.get(longer.len().checked_sub(1)? / 2).copied()
    }

    /// When a job may end that started, or starts, at `started_at`.
    #[must_use]
    pub fn end(&self, formula: Option<&str>, started_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let so_far = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
        let took = SignedDuration::try_from(self.expected(formula, so_far)?).ok()?;
        started_at.checked_add(took).ok()
    }
}

/// When the next [`AHEAD`] waiting jobs may start and end, where running jobs end at `ends`: the queue is let
/// run ahead on paper. A job behind one whose end nobody knows is not in the answer, and neither is any while
/// the queue is paused.
#[must_use]
pub fn ahead(
    queue: &Queue,
    load: &Load,
    rules: &Rules,
    past: &Past,
    ends: &BTreeMap<JobId, Timestamp>,
    now: Timestamp,
) -> HashMap<JobId, Estimate> {
    let (mut queue, mut load) = (queue.first(AHEAD, load, rules, now), load.launched());
    let candidates: HashMap<JobId, Candidate> =
        queue.waiting.iter().map(|(job_id, candidate)| (*job_id, candidate.clone())).collect();
    let mut ends: BTreeSet<(Timestamp, JobId)> =
        ends.iter().map(|(job_id, at)| ((*at).max(now), *job_id)).collect();
    let mut estimates = HashMap::new();
    let mut at = now;
    while !queue.is_empty() {
        while let Some(job_id) = queue.next(&load, rules, at) {
            let Some(candidate) = candidates.get(&job_id) else { continue };
            let formula = candidate.formula.as_deref();
            let finishes_at = past.end(formula, at, at);
            estimates.insert(job_id, Estimate { starts_at: Some(at), finishes_at });
            ends.extend(finishes_at.map(|end| (end, job_id)));
            load.insert(job_id, Running::of(candidate, at), rules.models.loaded);
        }
        let end = ends.first().map(|(end, _)| *end);
        let Some(next) = end.into_iter().chain(queue.wake_at(&load, rules, at)).min() else { break };
        at = next;
        while let Some((end, job_id)) = ends.first().copied()
            && end <= at
        {
            ends.pop_first();
            load.remove(job_id);
        }
    }
    estimates
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::queue::{Caps, Models, Paused};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn candidate(formula: &str, model: Option<&str>) -> Candidate {
        Candidate {
            job_id: JobId::new(),
            submitted_at: at(0),
            priority: 50,
            formula: Some(formula.to_owned()),
            model: model.map(ToOwned::to_owned),
            concurrency: None,
            place: "".into(),
        }
    }

    fn past(runs: &[(&str, u64)]) -> Past {
        let mut past = Past::default();
        for (formula, seconds) in runs {
            past.add(formula, Duration::from_secs(*seconds));
        }
        past
    }

    fn one_at_a_time() -> Rules {
        Rules { caps: Caps { running: 1, ..Caps::default() }, ..Rules::default() }
    }

    #[test]
    fn the_median_of_the_longer_runs_is_expected_and_only_the_latest_count() {
        let seconds = |past: &Past, so_far| {
            past.expected(Some("build"), Duration::from_secs(so_far)).map(|took| took.as_secs())
        };
        let mut known = past(&[("build", 10), ("build", 60), ("build", 20), ("other", 1)]);
        assert_eq!(
            [0, 10, 20, 59, 60].map(|so_far| seconds(&known, so_far)),
            [Some(20), Some(20), Some(60), Some(60), None]
        );
        assert_eq!(
            (known.expected(Some("unknown"), Duration::ZERO), known.expected(None, Duration::ZERO)),
            (None, None)
        );
        for _ in 0..RUNS {
            known.add("build", Duration::from_secs(5));
        }
        assert_eq!([seconds(&known, 0), seconds(&known, 5)], [Some(5), None]);
    }

    #[test]
    fn a_line_behind_a_limit_moves_up_as_those_before_end() {
        let (held, first, second) =
            (candidate("held", None), candidate("build", None), candidate("odd", None));
        let third = candidate("build", None);
        let (mut queue, mut load) = (Queue::default(), Load::default());
        load.insert(held.job_id, Running::of(&held, at(0)), 0);
        for (index, candidate) in [&first, &second, &third].into_iter().enumerate() {
            let submitted_at = at(i64::try_from(index).unwrap());
            queue.push(Candidate { submitted_at, ..candidate.clone() });
        }
        let (rules, past) = (one_at_a_time(), past(&[("build", 30)]));
        let look = |queue: &Queue, ends: &BTreeMap<JobId, Timestamp>| {
            ahead(queue, &load, &rules, &past, ends, at(10))
        };
        assert_eq!(look(&queue, &BTreeMap::new()), HashMap::new(), "nobody knows when the first ends");
        let ends = BTreeMap::from([(held.job_id, at(60))]);
        let estimate = |starts: i64, finishes: Option<i64>| Estimate {
            starts_at: Some(at(starts)),
            finishes_at: finishes.map(at),
        };
        let expected = HashMap::from([
            (first.job_id, estimate(60, Some(90))),
            // How long this one takes is not known, so nothing is said of the third.
            (second.job_id, estimate(90, None)),
        ]);
        assert_eq!(look(&queue, &ends), expected);
        queue.pause(Some(Paused { by: "ann".to_owned(), since: at(0), reason: "upgrade".to_owned() }));
        assert_eq!(look(&queue, &ends), HashMap::new());
    }

    #[test]
    fn the_time_that_a_model_stays_loaded_is_waited_for() {
        let (used, other) = (candidate("a", Some("one")), candidate("a", Some("two")));
        let models = Models { loaded: 1, patience: Duration::ZERO, minimum: Duration::from_mins(1) };
        let rules = Rules { models, ..Rules::default() };
        let (mut queue, mut load) = (Queue::default(), Load::default());
        load.insert(used.job_id, Running::of(&used, at(0)), 1);
        load.remove(used.job_id);
        queue.push(other.clone());
        let estimates = ahead(&queue, &load, &rules, &Past::default(), &BTreeMap::new(), at(10));
        assert_eq!(estimates[&other.job_id].starts_at, Some(at(60)));
    }

    proptest! {
        /// Whatever ran before, runs and waits: nothing is said to be in the past, each ends after it starts,
        /// and never more run at a time on paper than the limit allows.
        #[test]
        fn nothing_lies_in_the_past_and_limits_hold_on_paper(
            runs in proptest::collection::vec((0_u8..3, 0_u64..100), 0..30),
            waiting in proptest::collection::vec((0_u8..4, proptest::option::of(0_u8..2)), 0..120),
            working in proptest::collection::vec((0_u8..4, 0_i64..100), 0..3),
            limit in 1_usize..4,
            models in 0_usize..2,
        ) {
            let runs: Vec<(String, u64)> = runs.into_iter().map(|(formula, took)| (formula.to_string(), took)).collect();
            let past = past(&runs.iter().map(|(formula, took)| (formula.as_str(), *took)).collect::<Vec<_>>());
            let caps = Caps { running: limit, ..Caps::default() };
            let models = Models { loaded: models, patience: Duration::ZERO, minimum: Duration::from_secs(9) };
            let rules = Rules { caps, models, ..Rules::default() };
            let (mut queue, mut load, mut ends) = (Queue::default(), Load::default(), BTreeMap::new());
            let now = at(100);
            for (formula, model) in waiting {
                queue.push(candidate(&formula.to_string(), model.map(|model| model.to_string()).as_deref()));
            }
            let mut busy = 0;
            for (formula, started) in working.into_iter().take(limit) {
                let running = candidate(&formula.to_string(), None);
                let end = past.end(running.formula.as_deref(), at(started), now);
                prop_assert!(end.is_none_or(|end| end >= now));
                ends.extend(end.map(|end| (running.job_id, end)));
                busy += usize::from(end.is_none());
                load.insert(running.job_id, Running::of(&running, at(started)), 0);
            }
            let before = queue.len();
            let estimates = ahead(&queue, &load, &rules, &past, &ends, now);
            prop_assert!(estimates.len() <= before.min(AHEAD));
            for estimate in estimates.values() {
                let starts = estimate.starts_at.unwrap();
                prop_assert!(starts >= now && estimate.finishes_at.is_none_or(|end| end > starts));
                let together = estimates.values().filter(|other| {
                    other.starts_at.unwrap() <= starts && other.finishes_at.is_none_or(|end| end > starts)
                });
                let still = ends.values().filter(|end| **end > starts).count();
                prop_assert!(together.count() + still + busy <= limit);
            }
        }
    }
}
