//! Takes work that has no action file: reads it, and has it put on record.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{
    record::{self, KeyTaken, Submissions},
    step::Rooms,
};
use crate::{
    ids::{JobId, Revision},
    intake::{
        self, Listed,
        submission::{self, Sound, Submitted},
    },
    lifecycle::{Job, Origin},
    store::{self, IdempotencyKey, KeyUse, Submission},
};

/// What taking submissions needs.
#[derive(Debug)]
pub struct Desk {
    /// The ops repo, which has the formulas, the memory, the base jobs and the rules of approval.
    pub rooms: Arc<Rooms>,
    /// Where they go.
    pub submissions: Submissions,
    /// What they may ask for.
    pub rules: intake::Rules,
    /// The formulas that were named before.
    pub formulas: intake::Shelf,
}

/// Why a submission is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be launched as it is.
    #[error(transparent)]
    Unsound(#[from] submission::Refused),
    /// Its idempotency key stands for another request.
    #[error(transparent)]
    KeyTaken(#[from] KeyTaken),
    /// The agent has not read the ops repo yet, or is ending.
    #[error("the agent is starting or ending")]
    NotNow,
    /// It could not be put on record.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Desk {
    /// The formulas that submissions may use, and the revision that has them.
    pub async fn formulas(&self) -> Result<(Revision, Vec<Listed>), Refused> {
        let revision = self.rooms.store.revision().ok_or(Refused::NotNow)?;
        let formulas =
            intake::list(&self.rooms.repo, &revision).await.map_err(submission::Refused::OpsRepo)?;
        Ok((revision, formulas))
    }

    /// Takes an action as JSON from `by`; gives the id of its job once that is on record. The same key with
    /// the same body gives the same job. Webhooks may go to this machine where `on_loopback` says that the
    /// submitter is there.
    pub async fn submit(
        &self,
        by: &str,
        on_loopback: bool,
        key: Option<IdempotencyKey>,
        body: Map<String, Value>,
    ) -> Result<JobId, Refused> {
        if let Some(key) = &key {
            match self.rooms.store.key_use(key).await? {
                Some(KeyUse::Same(job_id)) => return Ok(job_id),
                Some(KeyUse::Other) => return Err(KeyTaken.into()),
                None => {}
            }
        }
        let revision = self.rooms.store.revision().ok_or(Refused::NotNow)?;
        let job_id = JobId::new();
        let submitted = Submitted { job_id, by, on_loopback, body };
        let Sound { action, mut work, text } =
            submission::read(&self.rooms.repo, &self.formulas, &revision, submitted, &self.rules).await?;
        let bot = self.rooms.base_jobs.declared(&work.base_job).bot(&action.formula, &work.args);
        work.bot = bot.map_err(|error| submission::Refused::Invalid(error.to_string()))?;
        let origin = Origin::Submitted { by: by.to_owned(), revision };
        let now = super::now();
        let mut job = Job { job_id, ..Job::new(origin, work, now) };
        let decided = self.rooms.decided(&job);
        // A new job takes either decision.
        drop(job.apply(decided, now));
        let (reply, answer) = oneshot::channel();
        let submission = Submission { job: Box::new(job), action: text, key };
        self.submissions.send((submission, reply)).await.map_err(|_| Refused::NotNow)?;
        answer.await.map_err(|_| Refused::NotNow)?.map_err(|refused| match refused {
            record::Error::KeyTaken(taken) => taken.into(),
            record::Error::Store(error) => error.into(),
        })
    }
}
