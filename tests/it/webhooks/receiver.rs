//! A receiver of webhooks on this machine.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::LOCATION},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::wait_for;

/// What a receiver does with what comes.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    Take,
    /// Answers 500.
    Fail,
    /// Never answers.
    Hang,
    /// Sends elsewhere.
    Redirect(String),
    /// Wants no more.
    Gone,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) signature: String,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
    taken: bool,
}

#[derive(Debug)]
struct Ledger {
    behaviour: Behaviour,
    got: Vec<Got>,
}

/// A running receiver; ends when the test is over.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: String,
    ledger: Arc<Mutex<Ledger>>,
    task: JoinHandle<()>,
}

type Shared = Arc<Mutex<Ledger>>;

fn lock(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(State(ledger): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let behaviour = {
        let mut open = lock(&ledger);
        let signature = headers.get("x-consign-signature").map(|value| value.to_str().unwrap().to_owned());
        let taken = matches!(open.behaviour, Behaviour::Take);
        open.got.push(Got {
            path: uri.path().to_owned(),
            signature: signature.unwrap_or_default(),
            body: body.to_vec(),
            at: Instant::now(),
            taken,
        });
        open.behaviour.clone()
    };
    match behaviour {
        Behaviour::Take => StatusCode::OK.into_response(),
        Behaviour::Fail => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, to)]).into_response(),
        Behaviour::Gone => StatusCode::GONE.into_response(),
    }
}

impl Receiver {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger { behaviour, got: Vec::new() }));
        let router = Router::new().route("/{*path}", post(take)).with_state(Arc::clone(&ledger));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, ledger, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        lock(&self.ledger).behaviour = behaviour;
    }

    /// Everything that came, in order.
    pub(crate) fn got(&self) -> Vec<Got> {
        lock(&self.ledger).got.clone()
    }

    /// Everything that came, as JSON.
    #[cfg(feature = "fail-points")]
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.got().iter().map(Got::json).collect()
    }

    /// What it answered 200 to.
    pub(crate) fn taken(&self) -> Vec<Got> {
        self.got().into_iter().filter(|got| got.taken).collect()
    }

    /// Waits until so many came, and gives them all.
    pub(crate) async fn wait_for(&self, count: usize, limit: Duration) -> Vec<Got> {
        wait_for(&format!("{count} webhooks"), limit, async || {
            let got = self.got();
            if got.len() >= count { Ok(got) } else { Err(format!("{} came", got.len())) }
        })
        .await
    }
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
