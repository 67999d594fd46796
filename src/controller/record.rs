//! Puts what was submitted on record, and hands it to the driver.
//!
//! It is a task of its own: while the disk takes one batch, the driver begins the one before.

use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::driver::{Inbox, Message};
use crate::{
    fail_point,
    ids::JobId,
    store::{self, KeyUse, Store, Submission},
};

/// How many submissions may wait to be put on record. Whoever sends more is held up.
const WAITING: usize = 1024;
/// How many are put on record at once.
const AT_ONCE: usize = 64;

/// Where the answer to a submission goes: its job's id.
pub type Reply = oneshot::Sender<Result<JobId, Error>>;

/// An idempotency key that stands for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Idempotency-Key was used for another request: give each request a key of its own")]
pub struct KeyTaken;

/// Why a submission is not on record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its key was used meanwhile.
    #[error(transparent)]
    KeyTaken(#[from] KeyTaken),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] store::Error),
}

/// Puts submissions on record.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    driver: Inbox,
    inbox: mpsc::Receiver<(Submission, Reply)>,
}

/// How submissions reach the recorder.
pub type Submissions = mpsc::Sender<(Submission, Reply)>;

impl Recorder {
    /// Has what is sent put on record and handed to `driver`, until `ending`: what is not on record by then is not
    /// taken.
    #[must_use]
    pub fn start(store: Store, driver: Inbox, tasks: &TaskTracker, ending: CancellationToken) -> Submissions {
        let (sender, inbox) = mpsc::channel(WAITING);
        tasks.spawn(Self { store, driver, inbox }.run(ending));
        sender
    }

    async fn run(mut self, ending: CancellationToken) {
        let (mut batch, mut recorded) = (Vec::new(), Vec::new());
        loop {
            if self.inbox.is_empty() {
                self.answer(std::mem::take(&mut recorded)).await;
            }
            let count = tokio::select! {
                () = ending.cancelled() => 0,
                count = self.inbox.recv_many(&mut batch, AT_ONCE) => count,
            };
            if count == 0 {
                return self.answer(recorded).await;
            }
            let (submissions, replies): (Vec<Submission>, Vec<Reply>) = batch.drain(..).unzip();
            fail_point::before("submitted");
            // Those before are answered while the database works.
            let (uses, ()) = tokio::join!(
                record(&self.store, &submissions, super::now()),
                self.answer(std::mem::take(&mut recorded)),
            );
            fail_point::after("submitted");
            recorded.extend(submissions.into_iter().zip(uses).zip(replies));
        }
    }

    async fn answer(&self, recorded: Vec<((Submission, Used), Reply)>) {
        let (mut taken, mut answers) = (Vec::new(), Vec::with_capacity(recorded.len()));
        for ((Submission { job, .. }, used), reply) in recorded {
            let answer = match used {
                Ok(None) => {
                    let job_id = job.job_id;
                    taken.push(*job);
                    Ok(job_id)
                }
                Ok(Some(KeyUse::Same(job_id))) => Ok(job_id),
                Ok(Some(KeyUse::Other)) => Err(KeyTaken.into()),
                Err(error) => Err(error.into()),
            };
            answers.push((reply, answer));
        }
        // Before the answers: an order about a job must not come before the job. A driver that has ended finds them
        // at the next start.
        if !taken.is_empty() {
            drop(self.driver.send(Message::Submitted(taken)).await);
        }
        for (reply, answer) in answers {
            fail_point::before("submission answered");
            // Whoever asked may be gone.
            drop(reply.send(answer));
            fail_point::after("submission answered");
        }
    }
}

/// What the key of a submission was used for before.
type Used = Result<Option<KeyUse>, store::Error>;

/// Puts submissions on record together, so that one sync of the disk serves all; where that fails each by itself, so
/// that none fails for another.
async fn record(store: &Store, submissions: &[Submission], now: jiff::Timestamp) -> Vec<Used> {
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
