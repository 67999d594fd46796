//! What each job waits for that has no task yet, in words, and when it may start and end.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::{super::plan, Driver, Slot};
use crate::{
    action::after,
    ids::{ActionId, FormulaName, JobId},
    lifecycle::Stage,
    queue::{
        Full, Hold, Scope,
        estimate::{self, Estimate},
    },
};

/// How many names of others are told.
const NAMES: usize = 5;

/// What is told of live jobs, by job.
pub type Explanation = HashMap<JobId, Explained>;

/// What is told of one live job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explained {
    /// What it waits for; `None` where its record says it, or where it waits for nothing.
    pub waits_for: Option<String>,
    /// When it may start and end; `None` where nothing is known.
    pub estimate: Option<Estimate>,
}

impl Driver {
    /// Why each job that is not launched is not, why each launched one is not placed, until when each one that is
    /// not approved may wait for that, and what the past lets expect.
    pub(super) fn explain(&self) -> Explanation {
        let now = super::super::now();
        let mut explanation = Explanation::default();
        let order = self.queue.explain(&self.load, &self.rules.queue, now);
        let count = order.len();
        for (index, (job_id, hold)) in order.into_iter().enumerate() {
            let words = format!("place {} of {count} in the queue: {}", index + 1, words(&hold));
            explanation.entry(job_id).or_default().waits_for = Some(words);
        }
        for (job_id, slot) in &self.slots {
            let reasons = &slot.seen.placement;
            if slot.job.stage == Stage::Dispatched && !reasons.is_empty() {
                explanation.entry(*job_id).or_default().waits_for = Some(format!("a node: {reasons}"));
            }
            if let Some(at) = plan::approval_expires_at(&slot.job, self.rules.expires)
                && let Some(what) = &slot.job.waits_for
            {
                let words = format!("{what}; it ends at {at:.0} without");
                explanation.entry(*job_id).or_default().waits_for = Some(words);
            }
        }
        for (job_id, words) in self.circles() {
            explanation.entry(job_id).or_default().waits_for = Some(words);
        }
        for (job_id, estimate) in self.estimates(now) {
            explanation.entry(job_id).or_default().estimate = Some(estimate);
        }
        explanation
    }

    /// The jobs that wait for each other, so that none of them will ever run.
    fn circles(&self) -> Vec<(JobId, String)> {
        let waiting = self.slots.iter().filter(|(_, slot)| slot.job.stage == Stage::Waiting);
        let waiting: HashMap<String, (JobId, &Slot)> = waiting
            .filter_map(|(job_id, slot)| {
                Some((ActionId::parse(&slot.job.name()).ok()?.key(), (*job_id, slot)))
            })
            .collect();
        let after = waiting.iter().map(|(key, (_, slot))| (key.clone(), slot.job.work.after.as_slice()));
        let circles = after::circles(&after.collect());
        let told = circles.iter().filter_map(|(key, circle)| {
            let (job_id, slot) = waiting.get(key)?;
            Some((*job_id, format!("nothing that can happen: {}", after::message(&slot.job.name(), circle))))
        });
        told.collect()
    }

    /// What the past lets expect of live jobs.
    fn estimates(&self, now: Timestamp) -> HashMap<JobId, Estimate> {
        let (mut ends, mut estimates) = (BTreeMap::new(), HashMap::new());
        for (job_id, slot) in &self.slots {
            let job = &slot.job;
            let formula = job.work.formula.as_ref().map(FormulaName::as_str);
            if job.stage == Stage::Waiting {
                let time = job.work.not_before.filter(|at| *at > now && job.approved_by.is_some());
                let starts_at = time.filter(|_| job.work.after.is_empty());
                estimates.extend(starts_at.map(|at| {
                    (*job_id, Estimate { starts_at, finishes_at: self.past.end(formula, at, at) })
                }));
            } else if job.stage > Stage::Queued {
                let started_at = job.attempt().and_then(|attempt| attempt.started_at);
                let finishes_at = self.past.end(formula, started_at.unwrap_or(now), now);
                ends.extend(finishes_at.map(|at| (*job_id, at)));
                estimates.extend(finishes_at.map(|_| (*job_id, Estimate { starts_at: None, finishes_at })));
            }
        }
        estimates.extend(estimate::ahead(&self.queue, &self.load, &self.rules.queue, &self.past, &ends, now));
        estimates
    }
}

fn words(hold: &Hold) -> String {
    match hold {
        Hold::Paused(paused) => paused.to_string(),
        Hold::Turn => "launched next".to_owned(),
        Hold::Full(full) => {
            let Full { scope, limit, holders } = &**full;
            let verb = if matches!(scope, Scope::Place(_)) { "be launched" } else { "run" };
            format!("{limit} may {verb} at a time of {scope}, held by {}", some(holders))
        }
        Hold::Model { loaded, until } => {
            let until = until.map(|at: Timestamp| format!(" until {at}")).unwrap_or_default();
            format!("another model is loaded{until}: {}", some(loaded))
        }
        Hold::Yields { to } => format!("its model makes room for {to}, which was waited for long enough"),
    }
}

/// The first names of a list, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_full_limit_names_some_of_those_who_hold_it() {
        let holders = (1..=7).map(|number| format!("train-{number}")).collect();
        let full = Full { scope: Scope::Formula("train".to_owned()), limit: 7, holders };
        assert_eq!(
            words(&Hold::Full(Arc::new(full))),
            "7 may run at a time of the formula train, held by train-1, train-2, train-3, train-4, train-5 and 2 more"
        );
    }

    #[test]
    fn another_model_is_named_with_the_time_it_stays() {
        let loaded = vec!["llama".to_owned()];
        let until = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(
            words(&Hold::Model { loaded: loaded.clone(), until }),
            "another model is loaded until 1970-01-01T00:00:00Z: llama"
        );
        assert_eq!(words(&Hold::Model { loaded, until: None }), "another model is loaded: llama");
    }
}
