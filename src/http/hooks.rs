//! The webhooks of the forge.
//!
//! They decide nothing: they make the agent look at the ops repo or at issues now instead of at the next poll.

use std::{io, net::SocketAddr, path::Path};

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{App, problem::Problem};
use crate::{credential, trigger::access::Access, webhook};

/// The largest webhook body that is read, in bytes. Forges send some 10 KiB for each pushed commit.
pub(super) const HOOK_LIMIT: usize = 4 * 1024 * 1024;

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

impl HookSecret {
    /// Reads the secret of the forge's webhook from a file.
    pub fn read(path: &Path) -> io::Result<Self> {
        credential::read_secret_file(path).map(Self::Hmac)
    }
}

pub(super) async fn git_hook(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body?;
    let (key, otherwise) = match &app.secret {
        HookSecret::Hmac(secret) => (Some(secret), "the signature of the body is missing or wrong"),
        HookSecret::LoopbackOnly => (None, "without [ops] hook_secret_file this is taken from loopback only"),
    };
    if !is_allowed(key, peer, &headers, &body) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, otherwise));
    }
    app.wake.notify_one();
    Ok(looking())
}

/// The forge's webhook for issues: the triggers whose secret signs the body look now. One without a secret takes it
/// from this machine alone.
pub(super) async fn forge_hook(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body?;
    let handle = app.triggers.get().ok_or_else(Problem::not_now)?;
    let allowed = |access: &Access| is_allowed(access.key(), peer, &headers, &body);
    let mut told = handle.of_forges().filter(|(_, access)| allowed(access)).peekable();
    if told.peek().is_none() {
        let detail = "no trigger of kind forge has a secret that the body is signed with";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    }
    for (trigger, _) in told {
        handle.look(&trigger.name);
    }
    Ok(looking())
}

fn looking() -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "status": "looking" }))).into_response()
}

/// Whether a body is signed with the key, or comes from this machine where there is no key.
fn is_allowed(key: Option<&SecretString>, peer: SocketAddr, headers: &HeaderMap, body: &[u8]) -> bool {
    match key {
        Some(key) => signed(key, headers, body),
        None => peer.ip().to_canonical().is_loopback(),
    }
}

/// Whether one of the forges' headers carries the HMAC of the body.
fn signed(secret: &SecretString, headers: &HeaderMap, body: &[u8]) -> bool {
    SIGNATURES.iter().any(|(name, prefix)| {
        let Some(given) = headers.get(*name).and_then(|value| value.to_str().ok()) else { return false };
        let digits = given.strip_prefix(prefix);
        digits.is_some_and(|digits| webhook::is_hmac(secret.expose_secret().as_bytes(), body, digits))
    })
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
    fn a_secret_is_any_text_but_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (text, secret) in [
            ("two words\n", Some("two words")),
            (" ünusual \r\n", Some(" ünusual ")),
            ("one", Some("one")),
            ("", None),
            ("\n", None),
        ] {
            std::fs::write(&path, text).unwrap();
            let read = match HookSecret::read(&path) {
                Ok(HookSecret::Hmac(secret)) => Some(secret.expose_secret().to_owned()),
                Ok(HookSecret::LoopbackOnly) | Err(_) => None,
            };
            assert_eq!(read.as_deref(), secret, "{text:?}");
        }
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
