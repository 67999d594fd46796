//! `GET /events`: every change of a job's phase, as Server-Sent Events (HTML Living Standard, section 9.2).
//!
//! Each listener has a task of its own that reads from the store what came after what it told last, so nothing
//! is kept for a listener and nobody waits for one. A slow listener gets everything, one that takes nothing is
//! left.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{
    App,
    access::{self, By, Holder},
    jobs::find,
    problem::Problem,
    stream,
};
use crate::{
    ids::JobId,
    store,
    telemetry::chain,
    tokens::{HolderName, Scope},
};

/// The number of the last event that a listener has.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How many listeners there may be at a time.
const LISTENERS: usize = 64;
/// How many pieces wait for a slow listener; then the store is read no further.
const PIECES: usize = 16;
/// How many changes are read at a time.
const PAGE: u32 = 100;
/// How long changes are gathered before they are read.
const GATHER: Duration = Duration::from_millis(50);
/// When a listener that lost the connection comes back, and what is said first.
const GREETING: &str = "retry: 2000\n\n";
/// What is said where nothing has changed for a while.
const KEEP_ALIVE: &str = ": nothing new\n\n";

/// Whoever listens.
#[derive(Debug, Clone)]
pub struct Audience {
    pub(super) places: Arc<Semaphore>,
    /// How long a listener may take nothing.
    pub(super) patience: Duration,
    /// How long nothing is said at most, so that what stands between keeps the connection; as often tokens are
    /// looked at again.
    pub(super) silence: Duration,
}

impl Default for Audience {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(LISTENERS)),
            patience: Duration::from_secs(10),
            silence: Duration::from_secs(15),
        }
    }
}

#[cfg(test)]
impl Audience {
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }
}

/// What is listened to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    job: Option<String>,
}

/// One who listens.
struct Listener {
    app: App,
    by: HolderName,
    job: Option<JobId>,
    /// The last event that it has, or does not want.
    after: i64,
    pieces: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

/// Why nothing more is told.
enum Over {
    /// The listener has gone, takes nothing, or may not listen any more.
    Left,
    /// The store failed.
    Store(store::Error),
}

impl From<store::Error> for Over {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

pub(super) async fn events(
    State(app): State<App>,
    Extension(Holder(by)): By,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(EventsQuery { job }) = query?;
    let job = match job {
        Some(id) => Some(find(&app, &id).await?.job_id),
        None => None,
    };
    let (gone, last) = app.store.events_window().await?;
    let after = match (last_event_id(&headers)?, job) {
        (Some(after), _) => after,
        (None, Some(_)) => gone,
        (None, None) => last,
    };
    let place = Arc::clone(&app.audience.places).try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{LISTENERS} listen already"))
            .with_header(header::RETRY_AFTER, "5")
    })?;
    let (pieces, receiver) = mpsc::channel(PIECES);
    let ending = app.ending.clone();
    let mut listener = Listener { app, by, job, after, pieces, _place: place };
    tokio::spawn(async move {
        tokio::select! {
            over = listener.tell() => {
                if let Err(Over::Store(error)) = over {
                    tracing::warn!(error = chain(&error), "cannot tell a listener of events");
                }
            }
            () = ending.cancelled() => {}
        }
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, stream::body(receiver)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|number| *number >= 0);
    let wrong = || Problem::new(StatusCode::BAD_REQUEST, "Last-Event-ID is no number of an event");
    number.map(Some).ok_or_else(wrong)
}

impl Listener {
    /// Tells what changes, until it is over.
    async fn tell(&mut self) -> Result<(), Over> {
        let mut changes = self.app.store.events();
        self.say(GREETING.to_owned()).await?;
        let mut looked_at = Instant::now();
        loop {
            if looked_at.elapsed() >= self.app.audience.silence {
                looked_at = Instant::now();
                self.may_listen()?;
            }
            changes.mark_unchanged();
            let (gone, last) = self.app.store.events_window().await?;
            if self.after < gone || self.after > last {
                // Events went by that nobody keeps, or it listened to another store.
                self.after = if self.after > last { last } else { gone };
                self.say(format!("id: {}\nevent: gap\ndata: {{}}\n\n", self.after)).await?;
            }
            let events = self.app.store.events_after(self.after, self.job, PAGE).await?;
            for event in &events {
                let store::Event { sequence, body } = event;
                self.say(format!("id: {sequence}\nevent: phase\ndata: {body}\n\n")).await?;
                self.after = *sequence;
            }
            if !events.is_empty() {
                continue;
            }
            if timeout(self.app.audience.silence, changes.changed()).await.is_ok() {
                sleep(GATHER).await;
            } else {
                self.say(KEEP_ALIVE.to_owned()).await?;
            }
        }
    }

    async fn say(&self, text: String) -> Result<(), Over> {
        match timeout(self.app.audience.patience, self.pieces.send(text.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over::Left),
        }
    }

    /// Whether its token is on record still, and good for this.
    fn may_listen(&self) -> Result<(), Over> {
        let now = Timestamp::now();
        let Some(tokens) = access::tokens(&self.app).map_err(|_| Over::Left)? else { return Ok(()) };
        let mut own = tokens.iter().filter(|token| token.name == self.by && !token.is_expired(now));
        own.any(|token| token.may(Scope::Read)).then_some(()).ok_or(Over::Left)
    }
}
