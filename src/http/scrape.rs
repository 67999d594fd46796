//! What Prometheus reads.
//!
//! It needs no token, as `/health` needs none: Prometheus expects that of what it scrapes, and what stands there
//! is numbers, by the names of formulas and by words that are part of consign.

use std::time::Duration;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use tokio::{sync::Mutex, time::Instant};

use super::{App, problem::Problem};
use crate::{
    controller::health::{Health, Subject},
    metrics::{MEDIA_TYPE, Metrics, Present},
    store::{self, Counts, Store},
};

/// How old the numbers from the store may be: it is asked once a second, however many ask here.
const FRESH: Duration = Duration::from_secs(1);

/// The metrics, and the numbers that are counted when somebody asks.
#[derive(Debug)]
pub struct Scrape {
    metrics: Metrics,
    /// Held while the store counts, so that others wait for that very answer.
    counted: Mutex<Option<(Instant, Counts)>>,
}

impl Scrape {
    /// Nothing has been counted yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, counted: Mutex::default() }
    }

    async fn exposition(&self, store: &Store, health: &Health) -> Result<String, store::Error> {
        let counts = self.counts(store).await?;
        let degraded = Subject::ALL.map(|subject| (label(subject), health.is_degraded(subject)));
        Ok(self.metrics.exposition(&Present {
            jobs: counts.jobs,
            results_pending: counts.results_pending,
            paused: health.paused().is_some(),
            degraded: degraded.to_vec(),
        }))
    }

    async fn counts(&self, store: &Store) -> Result<Counts, store::Error> {
        let mut counted = self.counted.lock().await;
        if let Some((at, counts)) = &*counted
            && at.elapsed() < FRESH
        {
            return Ok(counts.clone());
        }
        let counts = store.counts().await?;
        *counted = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }
}

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let exposition = app.scrape.exposition(&app.store, &app.health).await?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], exposition).into_response())
}

/// The subject's word, as label values are written.
const fn label(subject: Subject) -> &'static str {
    match subject {
        Subject::OpsRepo => "ops_repo",
        Subject::Nomad
        | Subject::Vault
        | Subject::Results
        | Subject::Approvals
        | Subject::History
        | Subject::Forge
        | Subject::Store => subject.as_str(),
    }
}
