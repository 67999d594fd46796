//! `/triggers`, what is below it, and the paths of the triggers' own.
//!
//! A trigger is called with its own bearer token or signature, or fired with a token of the API. Whoever is
//! refused is on record too, without what they showed.

use std::net::SocketAddr;

use axum::{
    Json,
    body::Bytes,
    extract::{
        ConnectInfo, Path, Query, RawQuery, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    App, Rooms,
    access::{authorized, bearer},
    jobs::{PathId, json},
    problem::Problem,
};
use crate::{
    tokens::{HolderName, Scope},
    trigger::{
        Trigger,
        access::{Access, KEPT},
        attend::{Answer, Error, Handle, Told, Verdict, record_refused},
        ledger::{Event, Origin},
        state::Skip,
        view::Summary,
    },
};

/// The largest body of a call, in bytes.
pub(super) const BODY_LIMIT: usize = 16 * 1024;
/// The header with a call's signature.
const SIGNATURE: &str = "x-consign-signature";
/// The header with the time that it was made.
const TIMESTAMP: &str = "x-consign-timestamp";
/// How many events are shown of a trigger, where nothing else is asked for.
pub(super) const EVENTS: u32 = 20;
/// How many are shown at most.
pub const EVENTS_LIMIT: u32 = 1000;

/// A trigger with its latest events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerDetails {
    /// What lists have of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// What arrived and what became of it, the latest first.
    pub events: Vec<Event>,
}

/// All triggers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerList {
    /// In the order of the configuration.
    pub triggers: Vec<Summary>,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Called {
    /// `triggered`, `skipped` or `pending`.
    pub status: String,
    /// When that was decided.
    #[schemars(with = "String")]
    pub timestamp: Timestamp,
    /// The call's ULID in the ledger.
    pub event_id: String,
    /// The job that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Why nothing started: `cooldown_active` or `already_running`; `debounce` for what waits for quiet,
    /// `label` for what waits for an issue's label to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the cooldown, or the wait, still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
    /// When it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next_allowed: Option<Timestamp>,
}

/// How many events are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    events: Option<u32>,
}

pub(super) async fn list(State(app): State<App>) -> Result<Json<TriggerList>, Problem> {
    Ok(Json(TriggerList { triggers: summaries(&app).await? }))
}

/// Every trigger, in the order of the configuration.
pub(super) async fn summaries(app: &Rooms) -> Result<Vec<Summary>, Problem> {
    let handle = handle(app)?;
    let now = Timestamp::now();
    let mut triggers = Vec::new();
    for trigger in handle.triggers() {
        triggers.push(handle.summary(trigger, now).await?);
    }
    Ok(triggers)
}

pub(super) async fn show(
    State(app): State<App>,
    name: PathId,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<TriggerDetails>, Problem> {
    let (Path(name), Query(query)) = (name?, query?);
    let limit = query.events.unwrap_or(EVENTS);
    if limit > EVENTS_LIMIT {
        return Err(Problem::invalid(format!("events is {limit}, and may be {EVENTS_LIMIT} at most")));
    }
    details(&app, &name, limit).await.map(Json)
}

/// One trigger with at most `limit` events.
pub(super) async fn details(app: &Rooms, name: &str, limit: u32) -> Result<TriggerDetails, Problem> {
    let handle = handle(app)?;
    let (trigger, _) = handle.find(name).ok_or_else(|| unknown(name))?;
    let summary = handle.summary(trigger, Timestamp::now()).await?;
    let events = app.store.trigger_events(name, limit).await?;
    Ok(TriggerDetails { summary, events })
}

/// Fires a trigger without a content, for the holder of a token of the API.
pub(super) async fn fire(
    app: &Rooms,
    name: &str,
    by: &HolderName,
    peer: SocketAddr,
    forced: bool,
) -> Result<Called, Problem> {
    let handle = handle(app)?;
    let (trigger, _) = handle.find(name).ok_or_else(|| unknown(name))?;
    let mut told = told_from(trigger, peer);
    note_holder(&mut told, by);
    note_force(&mut told, trigger, forced)?;
    answer(handle.tell(told).await)
}

/// What came with a request, but for its path.
pub(super) type Call = (ConnectInfo<SocketAddr>, RawQuery, HeaderMap, Result<Bytes, BytesRejection>);

pub(super) async fn call(
    State(app): State<App>,
    name: PathId,
    peer: ConnectInfo<SocketAddr>,
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    called(&app, &name, (peer, query, headers, body)).await
}

/// A path that no route has: a trigger's own, or nothing.
pub(super) async fn own_path(
    State(app): State<App>,
    method: axum::http::Method,
    uri: Uri,
    peer: ConnectInfo<SocketAddr>,
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let nothing = || Problem::new(StatusCode::NOT_FOUND, "there is nothing here");
    let name =
        app.triggers.get().and_then(|handle| handle.at_path(uri.path())).ok_or_else(nothing)?.to_owned();
    if method != axum::http::Method::POST {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here"));
    }
    called(&app, &name, (peer, query, headers, body)).await
}

async fn called(app: &Rooms, name: &str, call: Call) -> Result<Response, Problem> {
    let (ConnectInfo(peer), RawQuery(query), headers, body) = call;
    let handle = handle(app)?;
    let Some((trigger, access)) = handle.find(name) else {
        // Whoever may fire triggers may know which there are.
        authorized(app, Scope::Submit, &headers)?;
        return Err(unknown(name));
    };
    let mut told = told_from(trigger, peer);
    match admitted(app, trigger, access, query.as_deref(), &headers, body, &mut told).await {
        Ok(()) => {}
        Err(problem) => {
            // Nobody makes the agent write faster than others may ask.
            app.limits.address(peer.ip())?;
            record_refused(&app.store, &told, problem.detail()).await?;
            return Err(problem);
        }
    }
    Ok(Json(answer(handle.tell(told).await)?).into_response())
}

/// What a caller of a trigger tells, as far as their address goes.
fn told_from(trigger: &Trigger, peer: SocketAddr) -> Told {
    Told {
        trigger: trigger.name.clone(),
        origin: Origin::Webhook,
        caller: Some(peer.ip().to_canonical().to_string()),
        by: None,
        forced: false,
        content: None,
        mark: None,
        left_out: None,
    }
}

/// Notes that it was `holder` who called, with a token of the API.
fn note_holder(told: &mut Told, holder: &HolderName) {
    told.origin = Origin::Fired;
    told.caller = told.caller.take().map(|address| format!("{holder} from {address}"));
    told.by = Some(holder.to_string());
}

/// Notes whether the cooldown is to be passed over, where the trigger allows that.
fn note_force(told: &mut Told, trigger: &Trigger, forced: bool) -> Result<(), Problem> {
    told.forced = forced;
    if forced && !trigger.allow_force {
        let detail =
            format!("the trigger {} cannot be forced: its configuration has no `allow_force`", trigger.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(())
}

/// Checks who calls, and what with; completes what is told.
async fn admitted(
    app: &Rooms,
    trigger: &Trigger,
    access: &Access,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    told: &mut Told,
) -> Result<(), Problem> {
    let query = query.unwrap_or_default();
    if asks_with_a_secret(query) {
        let detail =
            "a token in the query ends up in logs, and is refused: send `Authorization: Bearer TOKEN`";
        return Err(unauthorized(detail));
    }
    let body = if let Some(signature) = headers.get(SIGNATURE) {
        let body = body?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let now = Timestamp::now();
        let signature = signature.to_str().unwrap_or_default();
        access
            .check(text(TIMESTAMP), &body, signature, now)
            .map_err(|refused| unauthorized(&refused.to_string()))?;
        let forget = now.checked_sub(KEPT).unwrap_or(now);
        if !app.store.take_signature(&trigger.name, signature, now, forget).await? {
            return Err(unauthorized(
                "this very call was taken before: sign each with the time that it is made",
            ));
        }
        body
    } else {
        if !bearer(headers).is_ok_and(|bearer| access.is_token(&bearer)) {
            note_holder(told, &authorized(app, Scope::Submit, headers)?);
        }
        body?
    };
    note_force(told, trigger, is_forced(query)?)?;
    if !body.is_empty() {
        // It is kept as it was read, so that the ledger has JSON and nothing else.
        let content: serde_json::Map<String, Value> = json(&body)?;
        told.content = Some(Value::Object(content).to_string());
    }
    Ok(())
}

fn asks_with_a_secret(query: &str) -> bool {
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default().to_ascii_lowercase());
    names.into_iter().any(|name| {
        ["token", "secret", "key", "password", "auth", "bearer", "signature"]
            .iter()
            .any(|word| name.contains(word))
    })
}

fn is_forced(query: &str) -> Result<bool, Problem> {
    match query {
        "" | "force=false" => Ok(false),
        "force=true" => Ok(true),
        _ => Err(Problem::invalid("the query may be force=true, and nothing else")),
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"consign\"")
}

fn answer(answer: Result<Answer, Error>) -> Result<Called, Problem> {
    let Answer { event_id, at, verdict } = answer.map_err(|error| match error {
        Error::Unknown(name) => unknown(&name),
        Error::Ending => Problem::not_now(),
        Error::Store(error) => error.into(),
    })?;
    let mut called = Called {
        status: "skipped".to_owned(),
        timestamp: at,
        event_id: event_id.to_string(),
        job_id: None,
        reason: None,
        seconds_left: None,
        next_allowed: None,
    };
    let until = match verdict {
        Verdict::Ran(job_id) => {
            "triggered".clone_into(&mut called.status);
            called.job_id = Some(job_id.to_string());
            None
        }
        Verdict::Waits(wait) => {
            "pending".clone_into(&mut called.status);
            called.reason = Some(wait.as_str().to_owned());
            wait.until()
        }
        Verdict::Skipped(skip) => {
            called.reason = Some(skip.as_str().to_owned());
            match skip {
                Skip::CooldownActive(until) => Some(until),
                Skip::AlreadyRunning => None,
            }
        }
        Verdict::LeftOut => None,
        Verdict::Failed(refused) => return Err(refused.into()),
    };
    called.seconds_left = until.map(|until| until.duration_since(at).as_secs() + 1);
    called.next_allowed = until;
    Ok(called)
}

fn unknown(name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no trigger {name:?}"))
}

fn handle(app: &Rooms) -> Result<&Handle, Problem> {
    app.triggers.get().ok_or_else(Problem::not_now)
}
