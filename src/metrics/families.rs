//! Every metric by its name, with what it says.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::labels::{ByOutcome, ByPhase, BySubject, Ended, Ran};

/// The upper bounds of waits and runs, in seconds: from a tenth of a second to a day.
const LONG: [f64; 13] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// The upper bounds of single effects, in seconds: the usual ones of Prometheus's libraries, to half a minute.
const SHORT: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Debug)]
pub(super) struct Families {
    pub(super) jobs: Family<ByPhase, Gauge>,
    pub(super) ended: Family<Ended, Counter>,
    pub(super) outcomes: Family<ByOutcome, Counter>,
    pub(super) duration: Family<Ran, Histogram>,
    pub(super) last_ended: LastEnded,
    pub(super) look: Histogram,
    pub(super) queue_wait: Histogram,
    pub(super) dispatch_latency: Histogram,
    pub(super) grant_latency: Histogram,
    pub(super) push_latency: Histogram,
    pub(super) push_failures: Counter,
    pub(super) results_pushed: Counter,
    pub(super) results_pending: Gauge,
    pub(super) paused: Gauge,
    pub(super) webhooks_delivered: Counter,
    pub(super) webhook_failures: Counter,
    pub(super) webhooks_given_up: Counter,
    pub(super) degraded: Family<BySubject, Gauge>,
}

/// When a job last ended, in seconds since 1970; 0 where none has, which is told by saying nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct LastEnded(Arc<AtomicI64>);

impl LastEnded {
    pub(super) fn set(&self, at: Timestamp) {
        self.0.store(at.as_second(), Ordering::Relaxed);
    }
}

impl Collector for LastEnded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let at = self.0.load(Ordering::Relaxed);
        if at == 0 {
            return Ok(());
        }
        let help = "When a job last ended, since 1970; absent until one has.";
        let unit = Some(&Unit::Seconds);
        let encoder = encoder.encode_descriptor("last_ended_timestamp", help, unit, MetricType::Gauge)?;
        ConstGauge::new(at).encode(encoder)
    }
}

impl Families {
    /// Gives every metric its name.
    pub(super) fn register(registry: &mut Registry, started_at: Timestamp) -> Self {
        let families = Self {
            jobs: Family::default(),
            ended: Family::default(),
            outcomes: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(LONG)),
            last_ended: LastEnded::default(),
            look: Histogram::new(SHORT),
            queue_wait: Histogram::new(LONG),
            dispatch_latency: Histogram::new(LONG),
            grant_latency: Histogram::new(SHORT),
            push_latency: Histogram::new(SHORT),
            push_failures: Counter::default(),
            results_pushed: Counter::default(),
            results_pending: Gauge::default(),
            paused: Gauge::default(),
            webhooks_delivered: Counter::default(),
            webhook_failures: Counter::default(),
            webhooks_given_up: Counter::default(),
            degraded: Family::default(),
        };
        let seconds = || Unit::Seconds;
        let since_1970 =
            Duration::try_from(started_at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        // The name that every Prometheus library gives it.
        registry.register_with_unit(
            "process_start_time",
            "When the agent started, since 1970",
            seconds(),
            ConstGauge::new(since_1970.as_secs_f64()),
        );
        let registry = registry.sub_registry_with_prefix("consign");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of consign that runs", version);
        registry.register("jobs", "Jobs on record by phase", families.jobs.clone());
        let help = "Jobs that ended, by formula, outcome and cause; one that is retried counts each time";
        registry.register("jobs_ended", help, families.ended.clone());
        let help = "Jobs that ended, by outcome alone: every outcome is there from the start";
        registry.register("outcomes", help, families.outcomes.clone());
        let help = "From the start of the last attempt's task to its end, of jobs whose task started";
        registry.register_with_unit("job_duration", help, seconds(), families.duration.clone());
        registry.register_collector(Box::new(families.last_ended.clone()));
        let help = "Looks at the ops repo that did not fail; most find nothing new";
        registry.register_with_unit("look", help, seconds(), families.look.clone());
        let help = "From getting into the queue to the launch";
        registry.register_with_unit("queue_wait", help, seconds(), families.queue_wait.clone());
        let help = "From getting into the queue until Nomad accepted the dispatch";
        registry.register_with_unit("dispatch_latency", help, seconds(), families.dispatch_latency.clone());
        let help = "From the admission of an allocation until its launch gate is open";
        registry.register_with_unit("grant_latency", help, seconds(), families.grant_latency.clone());
        let help = "Commits of results made and pushed, failed tries included";
        registry.register_with_unit("result_push", help, seconds(), families.push_latency.clone());
        let help = "Pushes of results that failed; they are tried again";
        registry.register("result_push_failures", help, families.push_failures.clone());
        let help = "Results that were pushed";
        registry.register("results_pushed", help, families.results_pushed.clone());
        let help = "Results that wait to be pushed";
        registry.register("results_pending", help, families.results_pending.clone());
        let help = "Whether an operator paused the launching (1)";
        registry.register("paused", help, families.paused.clone());
        let help = "Webhooks that their receivers have";
        registry.register("webhooks_delivered", help, families.webhooks_delivered.clone());
        let help = "Requests for webhooks that failed; there are five for one webhook at most";
        registry.register("webhook_request_failures", help, families.webhook_failures.clone());
        let help = "Webhooks that were given up";
        registry.register("webhooks_given_up", help, families.webhooks_given_up.clone());
        let help = "Whether something is in trouble (1), by what it is about";
        registry.register("degraded", help, families.degraded.clone());
        families
    }
}
