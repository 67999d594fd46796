//! What an event measures: pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::lifecycle::{Event, Job};

/// What one event measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// From getting into the queue to the launch.
    QueueWait(Duration),
    /// From getting into the queue until Nomad accepted the dispatch.
    DispatchLatency(Duration),
}

impl Measure {
    /// What `event` measures of a job that has not taken it yet.
    #[must_use]
    pub fn of(job: &Job, event: &Event, now: Timestamp) -> Option<Self> {
        let waited = between(job.queued_at?, now);
        match event {
            Event::Intended { .. } => Some(Self::QueueWait(waited)),
            // An attempt whose first child was never made is dispatched more than once, and accepted once.
            Event::Dispatched { .. } if job.attempt()?.dispatched_at.is_none() => {
                Some(Self::DispatchLatency(waited))
            }
            _ => None,
        }
    }
}

/// The time from one to the other; none where a clock was set back.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
