//! Work that was submitted: put on record and in its slot.

use tokio::sync::oneshot;

use super::Driver;
use crate::{
    ids::JobId,
    lifecycle::Job,
    store::{self, IdempotencyKey, KeyUse},
};

/// A piece of work without an action file, answered with its job's id once it is on record.
#[derive(Debug)]
pub struct Submission {
    /// The job, just made.
    pub job: Box<Job>,
    /// Its action as the text of a file.
    pub text: String,
    /// What tells its request from others.
    pub key: Option<IdempotencyKey>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<JobId, Recording>>,
}

/// An idempotency key that stands for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Idempotency-Key was used for another request: give each request a key of its own")]
pub struct KeyTaken;

/// Why a submission is not on record.
#[derive(Debug, thiserror::Error)]
pub enum Recording {
    /// Its key was used meanwhile.
    #[error(transparent)]
    KeyTaken(#[from] KeyTaken),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Driver {
    /// Decides about a submission, puts it on record and begins it.
    pub(super) async fn submit(&mut self, submission: Submission) {
        let Submission { job, text, key, reply } = submission;
        let answer = self.record_submission(*job, &text, key.as_ref()).await;
        // Whoever asked may be gone.
        drop(reply.send(answer));
    }

    async fn record_submission(
        &mut self,
        mut job: Job,
        text: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<JobId, Recording> {
        let now = super::super::now();
        let decided = self.rooms.decided(&job);
        // A new job takes either decision.
        drop(job.apply(decided, now));
        match self.rooms.store.submit(&job, text, key, now).await? {
            Some(KeyUse::Same(job_id)) => Ok(job_id),
            Some(KeyUse::Other) => Err(KeyTaken.into()),
            None => {
                let job_id = job.job_id;
                self.taken(job, "submitted", false).await;
                Ok(job_id)
            }
        }
    }
}
