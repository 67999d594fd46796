//! What Prometheus reads: the metrics of the agent, and their exposition.
//!
//! Counters and histograms count what this process put on record since it started. What has a present value,
//! such as the number of jobs in each phase, is counted by whoever asks and set just before the exposition is
//! written ([`Present`]). No label carries an id, a name of a secret or any text of a user's but formula names,
//! and of those at most [`FORMULA_LIMIT`] are told apart.

mod families;
mod labels;
mod measure;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus_client::{encoding::text, registry::Registry};

use self::{
    families::Families,
    labels::{ByOutcome, ByPhase, BySubject, Ended, Formulas, Ran},
};
pub use self::{labels::FORMULA_LIMIT, measure::Measure};
use crate::{
    lifecycle::{Job, Phase},
    outcome::Outcome,
};

/// The media type of the exposition: `OpenMetrics`, which Prometheus reads since 2.5.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one agent. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    families: Families,
    formulas: Formulas,
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Its receiver has it.
    Delivered,
    /// A request for it failed.
    Failed,
    /// No further request is made for it.
    GivenUp,
}

/// What is counted when somebody asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// How many jobs are in each phase; a phase that is not named has none.
    pub jobs: Vec<(Phase, u64)>,
    /// How many results are not in the ops repo yet.
    pub results_pending: u64,
    /// Whether an operator paused the launching.
    pub paused: bool,
    /// What can be in trouble, and whether it is.
    pub degraded: Vec<(&'static str, bool)>,
}

impl Metrics {
    /// The metrics of an agent that started at `started_at`: nothing has been counted.
    #[must_use]
    pub fn new(started_at: Timestamp) -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry, started_at);
        // A rate can be computed only of what was seen at 0 before.
        for outcome in Outcome::ALL {
            drop(families.outcomes.get_or_create(&ByOutcome { outcome: outcome.into() }));
        }
        Self { shared: Arc::new(Shared { registry, families, formulas: Formulas::default() }) }
    }

    /// Counts what an event measured, once the event is on record.
    pub fn count(&self, measure: Measure) {
        let families = &self.shared.families;
        match measure {
            Measure::QueueWait(took) => families.queue_wait.observe(took.as_secs_f64()),
            Measure::DispatchLatency(took) => families.dispatch_latency.observe(took.as_secs_f64()),
        }
    }

    /// Counts a job that has ended, at `now`. One that is retried and ends again is counted again.
    pub fn ended(&self, job: &Job, now: Timestamp) {
        let Some(ending) = &job.ending else { return };
        let families = &self.shared.families;
        let (cause, outcome) = (ending.cause, ending.cause.outcome());
        let formula = self.shared.formulas.label(job.work.formula.as_ref(), cause);
        let ended = Ended { formula: formula.clone(), outcome: outcome.into(), cause: cause.into() };
        families.ended.get_or_create(&ended).inc();
        families.outcomes.get_or_create(&ByOutcome { outcome: outcome.into() }).inc();
        if let Some(started_at) = ending.started_at {
            let ran = Ran { formula, outcome: outcome.into() };
            let took = measure::between(started_at, ending.finished_at);
            families.duration.get_or_create(&ran).observe(took.as_secs_f64());
        }
        self.last_ended(now);
    }

    /// Takes down when a job last ended, for an agent that starts on a store in which some have.
    pub fn last_ended(&self, at: Timestamp) {
        self.shared.families.last_ended.set(at);
    }

    /// Counts a launch gate that was opened, this long after its allocation was admitted.
    pub fn gate_opened(&self, admitted_at: Timestamp, now: Timestamp) {
        let took = measure::between(admitted_at, now);
        self.shared.families.grant_latency.observe(took.as_secs_f64());
    }

    /// Counts a look at the ops repo that did not fail.
    pub fn looked(&self, took: Duration) {
        self.shared.families.look.observe(took.as_secs_f64());
    }

    /// Counts a try to push results, and those that are in the ops repo by it; `None` where it failed.
    pub fn pushed(&self, took: Duration, results: Option<usize>) {
        let families = &self.shared.families;
        families.push_latency.observe(took.as_secs_f64());
        if let Some(count) = results {
            families.results_pushed.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        } else {
            families.push_failures.inc();
        }
    }

    /// Counts what became of a webhook.
    pub fn webhook(&self, delivery: Delivery) {
        let families = &self.shared.families;
        match delivery {
            Delivery::Delivered => families.webhooks_delivered.inc(),
            Delivery::Failed => families.webhook_failures.inc(),
            Delivery::GivenUp => families.webhooks_given_up.inc(),
        };
    }

    /// Everything, in the format of [`MEDIA_TYPE`].
    #[must_use]
    pub fn exposition(&self, present: &Present) -> String {
        let families = &self.shared.families;
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for phase in Phase::ALL {
            let count =
                present.jobs.iter().find(|(counted, _)| *counted == phase).map_or(0, |(_, count)| *count);
            families.jobs.get_or_create(&ByPhase { phase: phase.as_str() }).set(gauge(count));
        }
        families.results_pending.set(gauge(present.results_pending));
        families.paused.set(i64::from(present.paused));
        for (subject, degraded) in &present.degraded {
            families.degraded.get_or_create(&BySubject { subject }).set(i64::from(*degraded));
        }
        let mut exposition = String::new();
        match text::encode(&mut exposition, &self.shared.registry) {
            Ok(()) => exposition,
            // Writing to a string does not fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}
