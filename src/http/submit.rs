//! `POST /jobs`: work that comes without a commit.

use std::net::SocketAddr;

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schemars::{JsonSchema as _, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{App, access::By, jobs::json, problem::Problem, view::Submitted};
use crate::{
    action::keys::ActionKeys, controller::submit::Refused, hexadecimal, intake::submission,
    store::IdempotencyKey, telemetry::chain,
};

/// The header that keeps a repeated request from making a second job.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The headers by which proxies tell of whom they speak for (RFC 7239, RFC 9110, and the usual ones).
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
/// The longest idempotency key, in bytes.
pub(super) const KEY_LIMIT: usize = 255;

pub(super) async fn submit(
    State(app): State<App>,
    by: By,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body?;
    let by = by.0.0.as_str();
    let action: Map<String, Value> = json(&body)?;
    let key = idempotency_key(&headers)?.map(|key| IdempotencyKey {
        submitter: by.to_owned(),
        key,
        digest: hexadecimal::encode(&Sha256::digest(&body)),
    });
    let desk = app.desk.get().ok_or_else(Problem::not_now)?;
    let job_id = desk.submit(by, is_on_loopback(peer, &headers), key, action).await?.to_string();
    let place = [(header::LOCATION, format!("/jobs/{job_id}"))];
    Ok((StatusCode::ACCEPTED, place, Json(Submitted { job_id })).into_response())
}

/// Whether who asks is on this machine. Behind a reverse proxy everybody seems to be: a request that says that it
/// was forwarded counts as one from elsewhere.
fn is_on_loopback(peer: SocketAddr, headers: &HeaderMap) -> bool {
    peer.ip().to_canonical().is_loopback() && !is_forwarded(headers)
}

/// Whether a proxy says that it passes this on.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(*name))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let text = first.to_str().unwrap_or_default();
    if given.next().is_some() || text.is_empty() || text.len() > KEY_LIMIT {
        let detail =
            format!("Idempotency-Key may stand once, with 1 to {KEY_LIMIT} printable ASCII characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok(Some(text.to_owned()))
}

/// The schema of a submission: that of an action file, without what such a file alone needs.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ActionKeys::json_schema(generator);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove("id");
        let url = json_schema!({
            "type": ["string", "null"],
            "description": "One URL more for `notify`. A loopback URL is fine for a submitter on loopback.",
        });
        properties.insert(submission::STATE_WEBHOOK_URL.to_owned(), url.into());
    }
    schema.insert("title".to_owned(), "consign submission".into());
    schema.insert("description".to_owned(), "What should run, and why: an action without an id.".into());
    schema.insert("required".to_owned(), Value::from(vec!["formula"]));
    schema
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unsound(submission::Refused::Invalid(detail)) => Self::invalid(detail),
            Refused::Unsound(submission::Refused::UnknownFormula(detail)) => {
                Self::new(StatusCode::NOT_FOUND, detail)
            }
            Refused::KeyTaken(taken) => Self::new(StatusCode::CONFLICT, taken.to_string()),
            Refused::NotNow => Self::not_now(),
            Refused::Unsound(submission::Refused::OpsRepo(error)) => {
                tracing::error!(error = chain(&error), "a submission's formula cannot be read");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the formula cannot be read; the agent's log says more",
                )
                .with_header(header::RETRY_AFTER, "5")
            }
            Refused::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_forwarded_is_not_on_loopback() {
        let direct = HeaderMap::new();
        for (peer, expected) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.1:1", false)]
        {
            assert_eq!(is_on_loopback(peer.parse().unwrap(), &direct), expected, "{peer}");
        }
        for name in FORWARDED {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static(name), "10.0.0.1".parse().unwrap())]);
            assert!(!is_on_loopback("127.0.0.1:1".parse().unwrap(), &headers), "{name}");
        }
    }
}
