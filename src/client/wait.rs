//! Waits until a job has ended.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Client, Error, PAUSE, receiver::Receiver};
use crate::{http::view::JobDetails, ids::JobId};

/// How long an agent may be away before nobody waits for it any more: a restart takes far less.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long the first webhook may take. It is sent when the job is on record; without it the agent is asked.
const FIRST: Duration = Duration::from_secs(5);
/// How often the agent is asked although its webhooks come: the one of the end may be lost.
const SELDOM: Duration = Duration::from_secs(30);

/// How a job's end is waited for. The default hears it by webhook and waits for ever.
#[derive(Debug, Clone, Default)]
pub struct Wait {
    /// How its end is heard of.
    pub by: By,
    /// The longest that is waited, counted from the call.
    pub deadline: Option<Duration>,
    /// What becomes of the job when the deadline has passed.
    pub at_deadline: AtDeadline,
}

/// How a job's end is heard of.
#[derive(Debug, Clone)]
pub enum By {
    /// The agent tells a receiver on a free port of this machine. Where it refuses the receiver's URL, as it does
    /// with private addresses of other machines unless `[webhooks] allow_private` says otherwise, or where
    /// nothing arrives, it is asked as by [`Self::Polling`].
    Webhook {
        /// The agent's `[webhooks] secret_file`: what is not signed with it is not heard.
        secret: Option<SecretString>,
    },
    /// The agent is asked twice a second.
    Polling,
}

impl Default for By {
    fn default() -> Self {
        Self::Webhook { secret: None }
    }
}

/// What becomes of a job that has not ended in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AtDeadline {
    /// It goes on.
    #[default]
    Leave,
    /// It is cancelled. When that is on record nobody waits for its end.
    Cancel,
}

impl Client {
    /// Submits an action without an id, and gives its job when that has ended, however it ended.
    ///
    /// It needs a token with the scopes submit and read. [`Error::Deadline`] names the job that has not ended in
    /// time. Whoever has to know the job's id whatever happens meanwhile calls [`Self::submit`] and
    /// [`Self::wait`].
    pub async fn submit_and_wait(&self, action: &Value, wait: &Wait) -> Result<JobDetails, Error> {
        let begun = Instant::now();
        let (job_id, receiver) = self.submit_heard(action, wait).await?;
        self.until(&job_id, begun, wait, receiver.as_ref(), |_| {}).await
    }

    /// Waits for a job that was submitted before, and tells `look` of it each time that it was looked at. It
    /// polls: who hears of a job is fixed when it is submitted.
    pub async fn wait(
        &self,
        id: &str,
        wait: &Wait,
        look: impl FnMut(&JobDetails),
    ) -> Result<JobDetails, Error> {
        self.until(id, Instant::now(), wait, None, look).await
    }

    /// Submits, where it can be with a receiver of the job's webhooks.
    async fn submit_heard(&self, action: &Value, wait: &Wait) -> Result<(String, Option<Receiver>), Error> {
        let key = || JobId::new().to_string();
        if let By::Webhook { secret } = &wait.by
            && let Some(receiver) = self.receiver(secret.clone()).await
            && let Some(told) = with_receiver(action, receiver.url())
        {
            match self.submit(&told, &key()).await {
                // Perhaps it is the URL. If it is the action, that is refused again.
                Err(Error::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) => {}
                answer => return Ok((answer?.job_id, Some(receiver))),
            }
        }
        Ok((self.submit(action, &key()).await?.job_id, None))
    }

    async fn receiver(&self, secret: Option<SecretString>) -> Option<Receiver> {
        Receiver::start(&Url::parse(&self.address).ok()?, secret).await.ok()
    }

    async fn until(
        &self,
        id: &str,
        begun: Instant,
        wait: &Wait,
        receiver: Option<&Receiver>,
        look: impl FnMut(&JobDetails),
    ) -> Result<JobDetails, Error> {
        let ended = self.ended(id, receiver, look);
        let Some(deadline) = wait.deadline else { return ended.await };
        if let Ok(ended) = timeout_at(begun + deadline, ended).await {
            return ended;
        }
        let cancelled = wait.at_deadline == AtDeadline::Cancel && self.cancel(id).await.is_ok();
        Err(Error::Deadline { job_id: id.to_owned(), cancelled })
    }

    /// The job once it has ended.
    async fn ended(
        &self,
        id: &str,
        receiver: Option<&Receiver>,
        mut look: impl FnMut(&JobDetails),
    ) -> Result<JobDetails, Error> {
        let begun = Instant::now();
        let mut away_since = None;
        loop {
            match self.job(id).await {
                Ok(job) => {
                    away_since = None;
                    look(&job);
                    if job.summary.outcome.is_some() {
                        return Ok(job);
                    }
                }
                Err(error) if error.may_pass() => {
                    if away_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            match receiver {
                Some(receiver) if receiver.has_heard() || begun.elapsed() < FIRST => {
                    let pause = if receiver.has_heard() { SELDOM } else { FIRST };
                    tokio::select! {
                        () = receiver.heard() => {}
                        () = sleep(pause) => {}
                    }
                }
                _ => sleep(PAUSE).await,
            }
        }
    }
}

/// The action with one URL more that is told; `None` for what is no action.
fn with_receiver(action: &Value, url: &str) -> Option<Value> {
    let mut action = action.as_object()?.clone();
    let notify = action.entry("notify").or_insert_with(|| Value::Array(Vec::new()));
    notify.as_array_mut()?.push(url.into());
    Some(action.into())
}
