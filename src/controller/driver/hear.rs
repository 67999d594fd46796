//! What is heard of Nomad, brought to the jobs that it is about.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;

use super::{
    super::{
        meet::{self, Met},
        scan::Scan,
        step,
    },
    Driver, Message,
    troubles::Held,
};
use crate::{ids::JobId, nomad, store::dispatch_id_of};

/// How many children of ended jobs are kept in mind, so that late events about them cost nothing.
const RECENT: usize = 8192;

impl Driver {
    /// The job that a child belongs to.
    pub(super) fn job_of(&self, child: &str) -> Option<JobId> {
        self.by_child.get(child).or_else(|| self.by_attempt.get(&dispatch_id_of(child)?)).copied()
    }

    pub(super) fn heard_allocation(&mut self, allocation: nomad::Allocation) {
        let Some(job_id) = self.job_of(&allocation.job_id) else {
            return self.heard_child(&allocation.job_id);
        };
        if let Some(slot) = self.slots.get_mut(&job_id) {
            slot.seen.take(allocation);
            self.consider(job_id);
        }
    }

    pub(super) fn heard_child(&mut self, child: &str) {
        if !self.rooms.base_jobs.is_child(child)
            || self.job_of(child).is_some()
            || self.recent_set.contains(child)
        {
            return;
        }
        if self.meeting.insert(child.to_owned()) {
            let (rooms, rules, child) = (Arc::clone(&self.rooms), self.rules.adopt.clone(), child.to_owned());
            let sender = self.sender.clone();
            self.steps.spawn(async move {
                let met = meet::meet(&rooms, &rules, &child).await;
                // The driver may have ended.
                drop(sender.send(Message::Met(child, Box::new(met))).await);
            });
        }
    }

    pub(super) fn met(&mut self, child: String, met: Result<Met, step::Error>) {
        self.meeting.remove(&child);
        let held = Held::Child(child.clone());
        match &met {
            Ok(_) => self.unhold(&held),
            Err(error) => self.hold(held, error),
        }
        match met {
            Ok(Met::Old | Met::Stopped) => self.remember(child),
            Ok(Met::Adopted(job)) => {
                let job_id = job.job_id;
                self.insert(*job);
                self.consider(job_id);
            }
            // The next event or scan meets it again.
            Ok(Met::Absent) | Err(_) => {}
        }
    }

    pub(super) fn remember(&mut self, child: String) {
        if self.recent_set.insert(child.clone()) {
            self.recent.push_back(child);
        }
        while self.recent.len() > RECENT {
            if let Some(oldest) = self.recent.pop_front() {
                self.recent_set.remove(&oldest);
            }
        }
    }

    pub(super) fn scanned(&mut self, scan: Scan) {
        let children: HashSet<&str> = scan.children.iter().map(String::as_str).collect();
        let allocations: HashSet<&str> =
            scan.allocations.iter().map(|allocation| allocation.id.as_str()).collect();
        let mut missed = Vec::new();
        let now = super::super::now();
        // A dispatch that is still to come was before the clock was set back.
        let before = |at: Timestamp| at < scan.began_at || at > now;
        for (job_id, slot) in &mut self.slots {
            let Some(attempt) = slot.job.attempt().filter(|_| slot.job.stage.launched()) else { continue };
            let dispatched = attempt.dispatched_at.is_some_and(before);
            let found = match (&attempt.allocation, &attempt.child) {
                (Some(allocation), _) => allocations.contains(allocation.as_str()),
                (None, Some(child)) => children.contains(child.as_str()),
                (None, None) => true,
            };
            if dispatched && !found {
                slot.seen.missed = true;
                missed.push(*job_id);
            }
        }
        for allocation in scan.allocations {
            self.heard_allocation(allocation);
        }
        for child in &scan.children {
            self.heard_child(child);
        }
        let gone: Vec<Held> = self
            .troubles
            .children()
            .filter(|child| !children.contains(child) && !self.meeting.contains(*child))
            .map(|child| Held::Child(child.to_owned()))
            .collect();
        for held in gone {
            self.unhold(&held);
        }
        for job_id in missed {
            self.consider(job_id);
        }
    }
}
