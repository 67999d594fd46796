//! The page of the triggers: whether each may run, what became of what arrived, and a button that fires one.

use std::net::SocketAddr;

use axum::{
    Form,
    extract::{ConnectInfo, Path, State, rejection::FormRejection},
    response::{Html, Redirect},
};
use jiff::Timestamp;
use serde::Deserialize;

use super::Fault;
use crate::{
    http::{
        App,
        access::{self, Holder},
        jobs::PathId,
        problem::Problem,
        session::By,
        triggers::{self, EVENTS},
    },
    page,
};

pub(super) async fn list(State(app): State<App>, viewer: By) -> Result<Html<String>, Fault> {
    let triggers = triggers::summaries(&app).await?;
    Ok(Html(page::triggers(&triggers, &viewer, Timestamp::now())))
}

pub(super) async fn show(State(app): State<App>, viewer: By, name: PathId) -> Result<Html<String>, Fault> {
    let Path(name) = name.map_err(Problem::from)?;
    let details = triggers::details(&app, &name, EVENTS).await?;
    Ok(Html(page::trigger(&details, &viewer, Timestamp::now())))
}

/// How a trigger is fired.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fire {
    /// Whether its cooldown is passed over.
    #[serde(default)]
    force: bool,
}

/// Fires a trigger, and shows what became of it.
pub(super) async fn fire(
    State(app): State<App>,
    by: access::By,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    name: PathId,
    form: Result<Form<Fire>, FormRejection>,
) -> Result<Redirect, Fault> {
    let Path(name) = name.map_err(Problem::from)?;
    let Form(Fire { force }) = form.map_err(Problem::from)?;
    let Holder(holder) = &*by;
    triggers::fire(&app, &name, holder, peer, force).await?;
    Ok(Redirect::to(&page::trigger_place(&name)))
}
