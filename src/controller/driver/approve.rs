//! What people say of submitted work that waits for an approval, put on record.

use super::{
    Driver,
    operate::{Order, Refused},
};
use crate::{
    approval, fail_point,
    lifecycle::{Event, Job},
};

impl Driver {
    /// The job's record once the approval is in it; `None` while a step is in hand.
    pub(super) async fn approve(
        &mut self,
        order: &Order,
        seen: Option<&str>,
    ) -> Result<Option<Job>, Refused> {
        let Some(job) = self.unhindered(order).await? else { return Ok(None) };
        let now = super::super::now();
        let digest = self.rooms.digest(&job);
        match self.rooms.approval.approve(&job, &order.by, seen, digest, now)? {
            Some(approval) => self.put_on_record(job, Event::Approved(approval)).await.map(Some),
            None => Ok(Some(job)),
        }
    }

    /// The job's record once the rejection is in it; `None` while a step is in hand.
    pub(super) async fn reject(&mut self, order: &Order, reason: &str) -> Result<Option<Job>, Refused> {
        let Some(job) = self.unhindered(order).await? else { return Ok(None) };
        match approval::reject(&job, &order.by, reason)? {
            Some(cancellation) => self.put_on_record(job, Event::Cancelled(cancellation)).await.map(Some),
            None => Ok(Some(job)),
        }
    }

    /// The job that an order is about; `None` while something else is done about it.
    async fn unhindered(&self, order: &Order) -> Result<Option<Job>, Refused> {
        match self.slots.get(&order.job_id) {
            Some(slot) if slot.busy || !slot.deferred.is_empty() => Ok(None),
            Some(slot) => Ok(Some(slot.job.clone())),
            None => self.rooms.store.job(order.job_id).await?.map(Some).ok_or(Refused::Unknown),
        }
    }

    /// Applies an event to a job that waits, and goes on with it once that is on record.
    async fn put_on_record(&mut self, mut job: Job, event: Event) -> Result<Job, Refused> {
        let (job_id, name, now) = (job.job_id, event.name(), super::super::now());
        if job.apply(event, now).is_err() {
            return Err(approval::Refused::NotAwaited(job.phase()).into());
        }
        fail_point::before(name);
        self.rooms.store.save(&job, name, now).await?;
        fail_point::after(name);
        let rejected = job.cancelled.as_ref().map(|cancellation| cancellation.reason.clone());
        self.rooms.tell(&job, name, rejected.or_else(|| job.approved_by.clone()).unwrap_or_default());
        if let Some(slot) = self.slots.get_mut(&job_id) {
            slot.job = job.clone();
        }
        self.consider(job_id);
        Ok(job)
    }
}
