//! The agent's HTTP server: health, the push webhook of the forge, the API, and the page at `/`.
//!
//! Reading goes to the store, and for what works right now to Nomad; whatever changes a job is an order to
//! the driver. `routes` is the one list of what programs can ask for and who may; `page` has what browsers can.

mod access;
mod artifacts;
mod events;
mod formulas;
mod hooks;
mod jobs;
mod live;
mod local;
mod logs;
pub mod openapi;
mod page;
mod pause;
mod problem;
mod rate;
mod routes;
mod scrape;
mod session;
mod stream;
pub mod submit;
#[cfg(test)]
mod tests;
pub mod triggers;
pub mod view;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    middleware::from_fn,
    response::{IntoResponse as _, Response},
    routing::any,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

pub use self::{events::Audience, hooks::HookSecret, live::Live, rate::Limits, scrape::Scrape};
use self::{problem::Problem, routes::Route};
use crate::{
    controller::{driver::Inbox, health::Health, submit::Desk},
    nomad,
    store::Store,
    tokens::{Sessions, TokensFile},
    track::artifact::Archive,
    trigger::attend,
};

/// The largest body of a request, in bytes, but for the webhook's.
const BODY_LIMIT: usize = 64 * 1024;
/// How long requests in hand may take to end when the agent ends.
const DRAIN: Duration = Duration::from_secs(5);

/// What the routes need.
#[derive(Debug)]
pub struct Rooms {
    /// What is in trouble.
    pub health: Health,
    /// Wakes the watch over the ops repo.
    pub wake: Arc<Notify>,
    /// Whether the agent takes work.
    pub ready: Arc<AtomicBool>,
    /// Who may send the push webhook.
    pub secret: HookSecret,
    /// Who may use the API; `None` is whoever is on this machine.
    pub tokens: Option<TokensFile>,
    /// How often they may.
    pub limits: Limits,
    /// Who has logged in to the page.
    pub sessions: Sessions,
    /// The record of all jobs.
    pub store: Store,
    /// Where logs are while their tasks run.
    pub nomad: Arc<nomad::Client>,
    /// The steps of jobs while they work.
    pub live: Live,
    /// Where orders go; set once the agent takes work.
    pub driver: Arc<OnceLock<Inbox>>,
    /// What Prometheus reads.
    pub scrape: Scrape,
    /// Who takes submissions; set once the agent takes work.
    pub desk: Arc<OnceLock<Desk>>,
    /// Where the artifacts of jobs are kept.
    pub archive: Archive,
    /// Who listens to events.
    pub audience: Audience,
    /// How triggers are reached; set once the agent takes work.
    pub triggers: Arc<OnceLock<attend::Handle>>,
    /// Ends what would go on for ever.
    pub ending: CancellationToken,
}

/// What every handler gets.
type App = Arc<Rooms>;

/// Serves until the agent ends.
pub async fn serve(listener: TcpListener, rooms: Arc<Rooms>) {
    let ending = rooms.ending.clone();
    let service = router(rooms).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(ending.clone().cancelled_owned());
    let late = async {
        ending.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = served.into_future() => {
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP server ended");
            }
        }
        () = late => tracing::warn!("some HTTP requests did not end in time"),
    }
}

/// The routes.
pub fn router(rooms: Arc<Rooms>) -> Router {
    let is_open = rooms.tokens.is_none();
    let table = routes::table();
    let router = table
        .into_iter()
        .fold(Router::new(), |router, route| {
            let Route { path, access, handler, .. } = route;
            router.route(path, access::guarded(handler, access, &rooms))
        })
        .merge(page::router(&rooms))
        .fallback(any(triggers::own_path).layer(DefaultBodyLimit::max(triggers::BODY_LIMIT)))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
        })
        .with_state(rooms);
    if is_open { router.layer(from_fn(local::guard)) } else { router }
}

async fn readyz(State(app): State<App>) -> Response {
    if app.ready.load(Ordering::Acquire) {
        "ok\n".into_response()
    } else {
        let reasons = app.health.reasons();
        let detail = if reasons.is_empty() { "starting or ending".to_owned() } else { reasons.join("; ") };
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
    }
}

async fn health(State(app): State<App>) -> Response {
    let reasons = app.health.reasons();
    let mut document = json!({ "status": "ok", "degraded": !reasons.is_empty() });
    if !reasons.is_empty() {
        document["reasons"] = reasons.into();
    }
    if let Some(paused) = app.health.paused() {
        document["paused"] = json!(paused);
    }
    Json(document).into_response()
}
