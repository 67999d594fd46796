//! Work that was submitted: put on record and in its slot.

use tokio::sync::oneshot;

use super::Driver;
use crate::{
    fail_point,
    ids::JobId,
    store::{self, KeyUse, Submission},
};

/// Where the answer to a submission goes: its job's id.
pub type Reply = oneshot::Sender<Result<JobId, Recording>>;

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
    /// Decides about what was submitted, puts it on record and begins it.
    pub(super) async fn take_submissions(&mut self) {
        if self.submitted.is_empty() {
            return;
        }
        let now = super::super::now();
        let (mut submissions, replies): (Vec<Submission>, Vec<Reply>) =
            std::mem::take(&mut self.submitted).into_iter().unzip();
        for Submission { job, .. } in &mut submissions {
            let decided = self.rooms.decided(job);
            // A new job takes either decision.
            drop(job.apply(decided, now));
        }
        fail_point::before("submitted");
        let uses = record(&self.rooms.store, &submissions, now).await;
        fail_point::after("submitted");
        let mut taken = Vec::new();
        for ((Submission { job, .. }, reply), used) in submissions.into_iter().zip(replies).zip(uses) {
            let is_new = matches!(used, Ok(None));
            let answer = match used {
                Ok(None) => Ok(job.job_id),
                Ok(Some(KeyUse::Same(job_id))) => Ok(job_id),
                Ok(Some(KeyUse::Other)) => Err(KeyTaken.into()),
                Err(error) => Err(error.into()),
            };
            fail_point::before("submission answered");
            // Whoever asked may be gone.
            drop(reply.send(answer));
            fail_point::after("submission answered");
            if is_new {
                taken.push(*job);
            }
        }
        // Whoever waits for an answer has it before anything begins.
        for job in taken {
            self.taken(job, "submitted", false).await;
        }
    }
}

/// Puts submissions on record together, so that one sync of the disk serves all; where that fails each by itself, so
/// that none fails for another.
async fn record(
    store: &store::Store,
    submissions: &[Submission],
    now: jiff::Timestamp,
) -> Vec<Result<Option<KeyUse>, store::Error>> {
    if let Ok(uses) = store.submit(submissions, now).await {
        return uses.into_iter().map(Ok).collect();
    }
    let mut answers = Vec::with_capacity(submissions.len());
    for one in submissions {
        let alone = store.submit(std::slice::from_ref(one), now).await;
        answers.push(alone.map(|uses| uses.into_iter().next().flatten()));
    }
    answers
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        ids::Revision,
        lifecycle::{Job, Origin, Work},
        store::Store,
    };

    fn submission() -> Submission {
        let revision = Revision::parse(&"a".repeat(40)).unwrap();
        let job = Job::new(
            Origin::Submitted { by: "ann".to_owned(), revision },
            Work::default(),
            Timestamp::UNIX_EPOCH,
        );
        Submission { job: Box::new(job), action: "formula = \"a\"\n".to_owned(), key: None }
    }

    #[tokio::test]
    async fn none_fails_for_another_that_came_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let batch = [submission(), submission(), submission()];
        let [first, taken, last] = &batch;
        store.submit(std::slice::from_ref(taken), Timestamp::UNIX_EPOCH).await.unwrap();

        let uses = record(&store, &batch, Timestamp::UNIX_EPOCH).await;
        assert!(matches!(uses[..], [Ok(None), Err(_), Ok(None)]), "{uses:?}");
        for recorded in [first, last] {
            assert!(store.job(recorded.job.job_id).await.unwrap().is_some());
        }
    }
}
