//! `/jobs` and what is below it: looking, approving, cancelling, retrying.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{
    App, Rooms,
    access::By,
    problem::Problem,
    view::{ApproveRequest, JobDetails, JobList, JobSummary, REASON_LIMIT, RejectRequest, RetryRequest},
};
use crate::{
    controller::driver::{
        Explained, Explanation, Message,
        operate::{Order, Refused, Wish},
    },
    ids::{ActionId, JobId},
    lifecycle::{Job, Phase},
    store::Page,
};

/// How many jobs a page has, where nothing else is asked for.
const PAGE: u32 = 50;
/// How many jobs a page has at most.
pub(super) const PAGE_LIMIT: u32 = 200;

/// How long the driver's explanation is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which page of jobs is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    phase: Option<Phase>,
    limit: Option<u32>,
    cursor: Option<JobId>,
}

pub(super) type PathId = Result<Path<String>, PathRejection>;

pub(super) async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<JobList>, Problem> {
    let Query(ListQuery { phase, limit, cursor }) = query?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE_LIMIT).contains(&limit) {
        return Err(Problem::invalid(format!("limit is {limit}, and goes from 1 to {PAGE_LIMIT}")));
    }
    Ok(Json(page(&app, Page { phase, before: cursor, limit }).await?))
}

/// A page of jobs, with what they wait for.
pub(super) async fn page(app: &Rooms, page: Page) -> Result<JobList, Problem> {
    let (jobs, more) = app.store.page(page).await?;
    let next = jobs.last().filter(|_| more).map(|job| job.job_id.to_string());
    let explanation = explanation(app, jobs.iter()).await;
    let jobs = jobs.iter().map(|job| {
        let mut summary = JobSummary::of(job);
        explain(&mut summary, explanation.get(&job.job_id));
        summary
    });
    Ok(JobList { jobs: jobs.collect(), next })
}

pub(super) async fn show(State(app): State<App>, id: PathId) -> Result<Json<JobDetails>, Problem> {
    let Path(id) = id?;
    let job = find(&app, &id).await?;
    let mut details = details(&app, &job).await?;
    app.archive.inline(job.job_id, &mut details.artifacts).await;
    Ok(Json(details))
}

/// All that is known of a job, now.
pub(super) async fn details(app: &Rooms, job: &Job) -> Result<JobDetails, Problem> {
    let live = app.live.steps(job).await;
    let mut details = JobDetails::of(job, live);
    details.action = app.store.submitted_action(job.job_id).await?;
    explain(&mut details.summary, explanation(app, [job].into_iter()).await.get(&job.job_id));
    Ok(details)
}

/// Adds to a job's record what the driver knows of it.
fn explain(summary: &mut JobSummary, explained: Option<&Explained>) {
    let Some(Explained { waits_for, estimate }) = explained else { return };
    if waits_for.is_some() {
        summary.waits_for.clone_from(waits_for);
    }
    summary.estimate = *estimate;
}

/// What jobs wait for and when they may start and end, where any of `jobs` has not ended. A driver that is
/// starting, ending or busy tells nothing.
async fn explanation(app: &Rooms, mut jobs: impl Iterator<Item = &Job>) -> Explanation {
    let Some(driver) = app.driver.get() else { return Explanation::default() };
    if !jobs.any(|job| job.outcome().is_none()) {
        return Explanation::default();
    }
    let asked = async {
        let (reply, answer) = oneshot::channel();
        driver.send(Message::Explain(reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default()
}

pub(super) async fn cancel(State(app): State<App>, by: By, id: PathId) -> Result<Response, Problem> {
    let Path(id) = id?;
    Ok(answer(&order(&app, &id, &by, Wish::Cancel).await?))
}

pub(super) async fn approve(
    State(app): State<App>,
    by: By,
    id: PathId,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let (Path(id), body) = (id?, body?);
    let ApproveRequest { digest } = json_or_default(&body)?;
    Ok(answer(&order(&app, &id, &by, Wish::Approve { digest }).await?))
}

pub(super) async fn reject(
    State(app): State<App>,
    by: By,
    id: PathId,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let (Path(id), body) = (id?, body?);
    let wish = rejection(json(&body)?)?;
    Ok(answer(&order(&app, &id, &by, wish).await?))
}

/// The wish to reject, where its reason says something and is not too long: as one line.
pub(super) fn rejection(RejectRequest { reason }: RejectRequest) -> Result<Wish, Problem> {
    let line = reason.replace(char::is_control, " ").split_whitespace().collect::<Vec<_>>().join(" ");
    if !(1..=REASON_LIMIT).contains(&line.chars().count()) {
        return Err(Problem::invalid(format!("`reason` has 1 to {REASON_LIMIT} characters")));
    }
    Ok(Wish::Reject { reason: line })
}

pub(super) async fn retry(
    State(app): State<App>,
    by: By,
    id: PathId,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let (Path(id), body) = (id?, body?);
    let RetryRequest { from_step } = json_or_default(&body)?;
    Ok(answer(&order(&app, &id, &by, Wish::Retry { from_step }).await?))
}

/// A body's JSON: 400 where it is none, 422 where it says something else than it should.
pub(super) fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))?;
    // Serde would take a list for the fields in their order.
    if !value.is_object() {
        return Err(Problem::invalid("the body is not a JSON object"));
    }
    serde_json::from_value(value).map_err(|error| Problem::invalid(format!("the body: {error}")))
}

/// The JSON of a body that may be left out.
fn json_or_default<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { json(body) }
}

/// The job that an id names: a job id, or an action id.
pub(super) async fn find(app: &Rooms, id: &str) -> Result<Job, Problem> {
    let mut found = None;
    if let Ok(job_id) = id.parse::<JobId>() {
        found = app.store.job(job_id).await?;
    }
    if let (None, Ok(action_id)) = (&found, ActionId::parse(id)) {
        found = app.store.job_of_action(&action_id).await?;
    }
    found.ok_or_else(|| Problem::no_such_job(id))
}

/// Gives the driver an order; gives the job once the order is on record.
pub(super) async fn order(app: &Rooms, id: &str, by: &By, wish: Wish) -> Result<Job, Problem> {
    let job_id = find(app, id).await?.job_id;
    let driver = app.driver.get().ok_or_else(Problem::not_now)?;
    let (reply, answer) = oneshot::channel();
    let order = Order { job_id, by: by.0.0.to_string(), wish, reply };
    driver.send(Message::Operate(order)).await.map_err(|_| Problem::not_now())?;
    answer.await.map_err(|_| Problem::not_now())?.map_err(|refused| match refused {
        Refused::Unknown => Problem::no_such_job(id),
        other => other.into(),
    })
}

/// Shows a job that an order was given for.
fn answer(job: &Job) -> Response {
    let status = if job.outcome().is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, Json(JobDetails::of(job, Vec::new()))).into_response()
}
