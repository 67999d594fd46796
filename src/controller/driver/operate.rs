//! What people ask of a job: that it ends, runs again, or may run.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Driver, Message};
use crate::{
    approval, fail_point,
    ids::JobId,
    lifecycle::{Cancellation, Event, Job, RetryRefused},
    outcome::Cause,
    store,
};

/// How often it is looked whether a step in hand has ended that an order waits for.
const NEXT_LOOK: Duration = Duration::from_millis(50);

/// One operator's wish about one job, answered with the job's record once the wish is on record.
#[derive(Debug)]
pub struct Order {
    /// The job.
    pub job_id: JobId,
    /// Who asks.
    pub by: String,
    /// For what.
    pub wish: Wish,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Job, Refused>>,
}

/// What an operator wants of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// That it ends. It is over when its record says so, and not before: then its allocation is dead and its
    /// grant withdrawn. A job that has ended, or is ending, is left as it is.
    Cancel,
    /// That it may run, though somebody else submitted it.
    Approve {
        /// The digest of what was looked at; `None` is whatever would run.
        digest: Option<String>,
    },
    /// That it may not run.
    Reject {
        /// Why.
        reason: String,
    },
    /// That it runs again, though it has ended.
    Retry {
        /// The step that it begins from; `None` is the first.
        from_step: Option<String>,
    },
}

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such job.
    #[error("there is no such job")]
    Unknown,
    /// It cannot run again.
    #[error(transparent)]
    Retry(#[from] RetryRefused),
    /// It is not theirs to approve or reject, or not now.
    #[error(transparent)]
    Approval(#[from] approval::Refused),
    /// It could not be put on record.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Driver {
    /// Carries an order out, or has it come again once the step in hand is over.
    pub(super) async fn operate(&mut self, order: Order) {
        let answer = match &order.wish {
            Wish::Cancel => self.cancel(&order).await,
            Wish::Approve { digest } => self.approve(&order, digest.as_deref()).await,
            Wish::Reject { reason } => self.reject(&order, reason).await,
            Wish::Retry { from_step } => self.retry(&order, from_step.as_deref()).await.map(Some),
        };
        match answer {
            Ok(None) => self.come_again(order),
            // Whoever asked may be gone.
            Ok(Some(job)) => drop(order.reply.send(Ok(job))),
            Err(refused) => drop(order.reply.send(Err(refused))),
        }
    }

    fn come_again(&self, order: Order) {
        if order.reply.is_closed() {
            return;
        }
        let sender = self.sender.clone();
        self.steps.spawn(async move {
            tokio::time::sleep(NEXT_LOOK).await;
            // The driver may have ended.
            drop(sender.send(Message::Operate(order)).await);
        });
    }

    /// The job's record once the cancellation is in it, or it has ended; `None` while a step is in hand.
    async fn cancel(&mut self, order: &Order) -> Result<Option<Job>, Refused> {
        let Some(slot) = self.slots.get_mut(&order.job_id) else {
            return self.rooms.store.job(order.job_id).await?.map(Some).ok_or(Refused::Unknown);
        };
        if slot.job.cancelled.is_some() {
            return Ok(Some(slot.job.clone()));
        }
        let reason = format!("it was cancelled by {}", order.by);
        let event = Event::Cancelled(Cancellation { cause: Cause::Cancelled, reason });
        let busy = slot.busy;
        if !slot.deferred.iter().any(|deferred| matches!(deferred, Event::Cancelled(_))) {
            let (name, by) = (slot.job.name(), &order.by);
            super::super::span(order.job_id).in_scope(|| tracing::info!(job = name, by, "asked to cancel"));
            self.tell_slot(order.job_id, event).await;
        }
        // A step in hand takes the event up when it is over.
        Ok(self.slots.get(&order.job_id).filter(|_| !busy).map(|slot| slot.job.clone()))
    }

    /// Puts an ended job back in the queue.
    async fn retry(&mut self, order: &Order, from_step: Option<&str>) -> Result<Job, Refused> {
        if let Some(slot) = self.slots.get(&order.job_id) {
            return Err(RetryRefused::Live(slot.job.phase()).into());
        }
        let mut job = self.rooms.store.job(order.job_id).await?.ok_or(Refused::Unknown)?;
        let now = super::super::now();
        let event = Event::Retried(job.retry(from_step, &order.by, now)?);
        let name = event.name();
        if job.apply(event, now).is_err() {
            return Err(RetryRefused::Live(job.phase()).into());
        }
        fail_point::before(name);
        self.rooms.store.save(&job, name, now).await?;
        fail_point::after(name);
        self.rooms.tell(&job, name, format!("by {}", order.by));
        self.insert(job.clone());
        self.consider(order.job_id);
        Ok(job)
    }
}
