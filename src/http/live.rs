//! The steps of a job while it works, read from the wrapper's report when somebody asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    dispatch::report,
    formula::Body,
    ids::DispatchId,
    lifecycle::{Job, Stage},
    nomad,
    outcome::result_file::StepResult,
};

/// How old an answer may be: Nomad is asked once a second for each job, however many ask here.
const FRESH: Duration = Duration::from_secs(1);
/// How long Nomad's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer is kept that nobody asks for any more.
const KEPT: Duration = Duration::from_mins(1);

/// Reads reports of running tasks.
#[derive(Debug)]
pub struct Live {
    nomad: Arc<nomad::Client>,
    known: Mutex<HashMap<DispatchId, Arc<Known>>>,
}

/// What is known of one attempt.
#[derive(Debug)]
struct Known {
    asked_at: Mutex<Instant>,
    /// Held while Nomad is asked, so that others wait for that very answer.
    steps: tokio::sync::Mutex<Option<(Instant, Vec<StepResult>)>>,
}

impl Live {
    /// A reader that has read nothing yet.
    #[must_use]
    pub fn new(nomad: Arc<nomad::Client>) -> Self {
        Self { nomad, known: Mutex::default() }
    }

    /// The steps that the job's running attempt has ended. Where Nomad does not answer, those that were
    /// known; none for a job that does not work, or whose formula has no steps.
    pub async fn steps(&self, job: &Job) -> Vec<StepResult> {
        let has_steps = matches!(job.work.body, Some(Body::Steps(_)));
        let working = matches!(job.stage, Stage::Granted | Stage::Working) && has_steps;
        let Some(attempt) = job.attempt().filter(|_| working) else { return Vec::new() };
        let Some(allocation) = &attempt.allocation else { return Vec::new() };
        let known = self.known(attempt.dispatch_id);
        let mut steps = known.steps.lock().await;
        let before = match steps.take() {
            Some((at, steps_then)) if at.elapsed() < FRESH => {
                *steps = Some((at, steps_then.clone()));
                return steps_then;
            }
            Some((_, steps_then)) => steps_then,
            None => Vec::new(),
        };
        // Steps only become more; anything else is Nomad's word about a file that it cannot read.
        let read = self.read(allocation).await.filter(|read| read.len() >= before.len());
        let now = read.unwrap_or(before);
        *steps = Some((Instant::now(), now.clone()));
        now
    }

    fn known(&self, dispatch_id: DispatchId) -> Arc<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = |known: &Known| *known.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| asked(known).elapsed() < KEPT);
        let found = known.entry(dispatch_id).or_insert_with(|| {
            Arc::new(Known { asked_at: Mutex::new(Instant::now()), steps: tokio::sync::Mutex::default() })
        });
        *found.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Arc::clone(found)
    }

    async fn read(&self, allocation: &str) -> Option<Vec<StepResult>> {
        let path = format!("alloc/{}", report::PATH);
        let read = timeout(PATIENCE, self.nomad.file(allocation, &path, report::SIZE_LIMIT));
        match read.await {
            Ok(Ok(Some(bytes))) => Some(report::parse(&bytes).steps),
            Ok(Err(error)) => {
                tracing::debug!(allocation, %error, "cannot read the report of a running task");
                None
            }
            Ok(Ok(None)) | Err(_) => None,
        }
    }
}
