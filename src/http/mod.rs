//! The agent's HTTP server: health, and the push webhook of the forge.
//!
//! The webhook decides nothing: it makes the agent look at the ops repo now instead of at the next poll.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sha2::Sha256;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use crate::controller::health::Health;

/// The largest webhook body that is read, in bytes. Forges send some 10 KiB for each pushed commit.
const HOOK_LIMIT: usize = 4 * 1024 * 1024;

/// The headers in which forges send the HMAC-SHA256 of a webhook's body, and what stands before it.
const SIGNATURES: [(&str, &str); 3] =
    [("x-hub-signature-256", "sha256="), ("x-forgejo-signature", ""), ("x-gitea-signature", "")];

/// Who may send the push webhook.
#[derive(Debug)]
pub enum HookSecret {
    /// Whoever signs the body with this.
    Hmac(SecretString),
    /// Whoever is on this machine.
    LoopbackOnly,
}

/// What the routes need.
#[derive(Debug, Clone)]
pub struct State {
    /// What is in trouble.
    pub health: Health,
    /// Wakes the watch over the ops repo.
    pub wake: Arc<Notify>,
    /// Whether the agent takes work.
    pub ready: Arc<AtomicBool>,
    /// Who may send the push webhook.
    pub secret: Arc<HookSecret>,
}

/// Serves until `ending`.
pub async fn serve(listener: TcpListener, state: State, ending: CancellationToken) {
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(ending.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server ended");
    }
}

/// The routes.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .route("/hooks/git", post(git_hook).layer(DefaultBodyLimit::max(HOOK_LIMIT)))
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
        })
        .with_state(state)
}

/// An error as RFC 9457 has it.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

type AppState = axum::extract::State<State>;

async fn readyz(state: AppState) -> Response {
    if state.ready.load(Ordering::Acquire) {
        "ok\n".into_response()
    } else {
        let reasons = state.health.reasons();
        let detail = if reasons.is_empty() { "starting or ending".to_owned() } else { reasons.join("; ") };
        problem(StatusCode::SERVICE_UNAVAILABLE, &detail)
    }
}

async fn health(state: AppState) -> Response {
    let reasons = state.health.reasons();
    if reasons.is_empty() {
        Json(json!({ "status": "ok", "degraded": false })).into_response()
    } else {
        Json(json!({ "status": "ok", "degraded": true, "reasons": reasons })).into_response()
    }
}

async fn git_hook(
    state: AppState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let allowed = match &*state.secret {
        HookSecret::Hmac(secret) => signed(secret, &headers, &body),
        HookSecret::LoopbackOnly => peer.ip().to_canonical().is_loopback(),
    };
    if !allowed {
        let detail = match &*state.secret {
            HookSecret::Hmac(_) => "the signature of the body is missing or wrong",
            HookSecret::LoopbackOnly => "without [ops] hook_secret_file this is taken from loopback only",
        };
        return problem(StatusCode::UNAUTHORIZED, detail);
    }
    state.wake.notify_one();
    (StatusCode::ACCEPTED, Json(json!({ "status": "looking" }))).into_response()
}

/// Whether one of the forges' headers carries the HMAC of the body.
fn signed(secret: &SecretString, headers: &HeaderMap, body: &[u8]) -> bool {
    SIGNATURES.iter().any(|(name, prefix)| {
        let Some(given) = headers.get(*name).and_then(|value| value.to_str().ok()) else { return false };
        let Some(signature) = given.strip_prefix(prefix).and_then(hex) else { return false };
        let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
            return false;
        };
        hmac.update(body);
        hmac.verify_slice(&signature).is_ok()
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    const KEY: &str = "Jefe";
    const BODY: &[u8] = b"what do ya want for nothing?";
    const HMAC: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn each_forges_signature_is_taken_and_no_other() {
        let secret = SecretString::from(KEY);
        assert!(signed(&secret, &headers("x-hub-signature-256", &format!("sha256={HMAC}")), BODY));
        assert!(signed(&secret, &headers("x-gitea-signature", HMAC), BODY));
        assert!(signed(&secret, &headers("x-forgejo-signature", HMAC), BODY));
        for (name, value) in [
            ("x-hub-signature-256", HMAC),
            ("x-hub-signature-256", "sha256="),
            ("x-gitea-signature", "zz"),
            ("x-gitea-signature", &HMAC.replace('5', "6")),
            ("authorization", HMAC),
        ] {
            assert!(!signed(&secret, &headers(name, value), BODY), "{name}: {value}");
        }
        assert!(!signed(&secret, &headers("x-gitea-signature", HMAC), b"something else"));
    }
}
