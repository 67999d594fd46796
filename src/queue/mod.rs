//! Which job is launched next: pure, and in one place.

use std::{cmp::Reverse, collections::BTreeSet};

use jiff::Timestamp;

use crate::ids::JobId;

/// How many launches are under way at a time: enough to keep Nomad's dispatch busy (it takes about
/// three times as many over eight connections as over one), few enough that a burst leaves it
/// breathing space.
pub const LAUNCHES: usize = 16;

/// The jobs that may be launched, in the order in which they will be.
#[derive(Debug, Default)]
pub struct Queue {
    order: BTreeSet<Place>,
}

/// A job's place: the highest priority first, then first come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    priority: Reverse<u8>,
    submitted_at: Timestamp,
    job_id: JobId,
}

impl Place {
    /// The place of a job.
    #[must_use]
    pub const fn new(priority: u8, submitted_at: Timestamp, job_id: JobId) -> Self {
        Self { priority: Reverse(priority), submitted_at, job_id }
    }
}

/// What counts against the limits.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Jobs that are launched and have not ended.
    pub running: usize,
    /// Of these, jobs whose dispatch is under way.
    pub launching: usize,
    /// The most that may run; 0 is no cap.
    pub limit: usize,
}

impl Load {
    /// Whether one more may be launched.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.launching < LAUNCHES && (self.limit == 0 || self.running < self.limit)
    }
}

impl Queue {
    /// Puts a job in its place; twice changes nothing.
    pub fn push(&mut self, place: Place) {
        self.order.insert(place);
    }

    /// Takes a job out, if it is in.
    pub fn remove(&mut self, place: &Place) {
        self.order.remove(place);
    }

    /// Takes the next job out, where the load leaves room for it.
    pub fn next(&mut self, load: Load) -> Option<JobId> {
        if !load.has_room() {
            return None;
        }
        self.order.pop_first().map(|place| place.job_id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: Load = Load { running: 0, launching: 0, limit: 0 };

    #[test]
    fn priority_comes_first_then_first_come() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (low, early, late) = (JobId::new(), JobId::new(), JobId::new());
        let mut queue = Queue::default();
        queue.push(Place::new(10, at(1), low));
        queue.push(Place::new(50, at(3), late));
        queue.push(Place::new(50, at(2), early));
        let order: Vec<_> = std::iter::from_fn(|| queue.next(FREE)).collect();
        assert_eq!(order, [early, late, low]);
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_exceeded(limit in 1_usize..9, running in 0_usize..12, launching in 0_usize..40) {
            let load = Load { running, launching, limit };
            prop_assert_eq!(load.has_room(), running < limit && launching < LAUNCHES);
        }
    }
}
