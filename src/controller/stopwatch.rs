//! How long an attempt has waited and run, whatever is done to the clock meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::lifecycle::Job;

/// How long a job's last attempt has lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elapsed {
    /// Since its dispatch; `None` before that.
    pub dispatched: Option<Duration>,
    /// Since its task started; `None` before that.
    pub started: Option<Duration>,
}

/// Follows the attempts of one job by a clock that nobody sets.
#[derive(Debug, Clone, Default)]
pub struct Stopwatch {
    /// How many attempts there were at the last look; `None` before the first one.
    attempts: Option<usize>,
    dispatched: Option<Since>,
    started: Option<Since>,
}

/// Since when something lasts.
#[derive(Debug, Clone, Copy)]
struct Since {
    /// When it was seen first.
    at: Instant,
    /// How long it had lasted by then.
    before: Duration,
}

impl Stopwatch {
    /// Looks at the job as it now is. What is new has just happened, but at the first look, where the times on record
    /// tell how long ago it was: this process may be younger than the attempt.
    pub fn look(&mut self, job: &Job, now: Timestamp, instant: Instant) -> Elapsed {
        let is_first = self.attempts.is_none();
        if self.attempts != Some(job.attempts.len()) {
            *self = Self { attempts: Some(job.attempts.len()), ..Self::default() };
        }
        let since = |mark: Option<Timestamp>| {
            // A time that is still to come was told by another clock.
            let before = Duration::try_from(now.duration_since(mark?)).unwrap_or_default();
            Some(Since { at: instant, before: if is_first { before } else { Duration::ZERO } })
        };
        if let Some(attempt) = job.attempt() {
            self.dispatched = self.dispatched.or_else(|| since(attempt.dispatched_at));
            self.started = self.started.or_else(|| since(attempt.started_at));
        }
        let elapsed = |since: Since| since.before + instant.duration_since(since.at);
        Elapsed { dispatched: self.dispatched.map(elapsed), started: self.started.map(elapsed) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::ToSpan as _;

    use super::*;
    use crate::{
        ids::{DispatchId, Revision},
        lifecycle::{Event, Origin, Work},
    };

    #[test]
    fn what_is_seen_to_begin_lasts_however_the_clock_is_set() {
        let revision = Revision::parse(&"a".repeat(40)).unwrap();
        let origin = Origin::Submitted { by: "ann".to_owned(), revision };
        let (now, begun) = (Timestamp::UNIX_EPOCH, Instant::now());
        let mut job = Job::new(origin, Work::default(), now);
        let mut watch = Stopwatch::default();
        assert_eq!(watch.look(&job, now, begun), Elapsed::default());
        let dispatch_id = DispatchId::new();
        let intended = Event::Intended {
            dispatch_id,
            parent: "runner".to_owned(),
            meta: BTreeMap::new(),
            payload: vec![],
        };
        job.apply(intended, now).unwrap();
        job.apply(Event::Dispatched { child: "runner/dispatch-1".to_owned() }, now).unwrap();
        let later = now + 10.hours();
        let seconds = Duration::from_secs;
        let of = |elapsed: Elapsed| elapsed.dispatched;
        assert_eq!(of(watch.look(&job, later, begun + seconds(1))), Some(seconds(0)));
        assert_eq!(of(watch.look(&job, now, begun + seconds(8))), Some(seconds(7)));
        // Another process goes by what is on record.
        let mut other = Stopwatch::default();
        assert_eq!(of(other.look(&job, later, begun)), Some(seconds(36_000)));
        assert_eq!(of(other.look(&job, now, begun + seconds(3))), Some(seconds(36_003)));
        assert_eq!(of(Stopwatch::default().look(&job, now - 1.hour(), begun)), Some(seconds(0)));
    }
}
