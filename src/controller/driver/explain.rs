//! What each job waits for that has no task yet, in words.

use std::collections::HashMap;

use jiff::Timestamp;

use super::Driver;
use crate::{
    ids::JobId,
    lifecycle::Stage,
    queue::{Full, Hold},
};

/// How many names of others are told.
const NAMES: usize = 5;

/// What jobs wait for, by job; jobs that wait for nothing are not in it.
pub type Explanation = HashMap<JobId, String>;

impl Driver {
    /// Why each queued job is not launched, and each launched one not placed.
    pub(super) fn explain(&self) -> Explanation {
        let now = super::super::now();
        let order = self.queue.explain(&self.load, &self.rules.queue, now);
        let count = order.len();
        let queued = order.into_iter().enumerate().map(|(index, (job_id, hold))| {
            (job_id, format!("place {} of {count} in the queue: {}", index + 1, words(&hold)))
        });
        let unplaced = self.slots.iter().filter_map(|(job_id, slot)| {
            let reasons = &slot.seen.placement;
            let waits = slot.job.stage == Stage::Dispatched && !reasons.is_empty();
            waits.then(|| (*job_id, format!("a node: {reasons}")))
        });
        queued.chain(unplaced).collect()
    }
}

fn words(hold: &Hold) -> String {
    match hold {
        Hold::Turn => "launched next".to_owned(),
        Hold::Full(full) => {
            let Full { scope, limit, holders } = &**full;
            format!("{limit} may run at a time of {scope}, held by {}", some(holders))
        }
        Hold::Model { loaded, until } => {
            let until = until.map(|at: Timestamp| format!(" until {at}")).unwrap_or_default();
            format!("another model is loaded{until}: {}", some(loaded))
        }
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
    use crate::queue::Scope;

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
