//! `/pause` and `/resume`: whether anything more is launched.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    App, Rooms,
    access::By,
    jobs::json,
    problem::Problem,
    view::{PauseRequest, PauseState},
};
use crate::{
    controller::driver::{Message, pause::PauseOrder},
    queue::Paused,
};

/// The longest reason, in bytes: it is told of every job that waits.
const REASON_LIMIT: usize = 500;

pub(super) async fn pause(
    State(app): State<App>,
    by: By,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PauseState>, Problem> {
    let PauseRequest { reason } = json(&body?)?;
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > REASON_LIMIT {
        return Err(Problem::invalid(format!("reason is a text of 1 to {REASON_LIMIT} bytes")));
    }
    let paused = Paused { by: by.0.0.to_string(), since: Timestamp::now(), reason: reason.to_owned() };
    order(&app, Some(paused)).await
}

pub(super) async fn resume(State(app): State<App>) -> Result<Json<PauseState>, Problem> {
    order(&app, None).await
}

async fn order(app: &Rooms, paused: Option<Paused>) -> Result<Json<PauseState>, Problem> {
    let driver = app.driver.get().ok_or_else(Problem::not_now)?;
    let (reply, answer) = oneshot::channel();
    let order = PauseOrder { paused: paused.clone(), reply };
    driver.send(Message::Pause(order)).await.map_err(|_| Problem::not_now())?;
    answer.await.map_err(|_| Problem::not_now())??;
    Ok(Json(PauseState { paused }))
}
