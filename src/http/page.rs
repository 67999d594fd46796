//! The page at `/`: what jobs there are, one job, its live log, and what a person may do with it.

mod triggers;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Form, Router,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{FormRejection, QueryRejection},
    },
    http::{HeaderValue, header},
    middleware::map_response,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use futures_util::{
    StreamExt as _,
    future::{join_all, ready},
};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    App, Rooms, access, artifacts,
    jobs::{self, PathId, find},
    logs::{self, LogQuery},
    problem::Problem,
    session::{self, By, guarded},
    view::{ApproveRequest, JobDetails, JobSummary, RejectRequest},
};
use crate::{
    approval,
    controller::driver::operate::Wish,
    formula::Body as Formula,
    ids::JobId,
    lifecycle::{Job, Phase},
    page::{self, Home, Offer, Printable, Section},
    store::Page,
    tokens::Scope,
    track::log,
};

/// How many jobs a section of the page shows.
const SHOWN: u32 = 50;
/// How long Nomad's answer is waited for; the page stands without it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of a running job's log stands in the document itself, in bytes.
const LOG_SHOWN: usize = 64 * 1024;
/// How long a browser keeps scripts and styles, so that another version's are not shown for long.
const KEPT: HeaderValue = HeaderValue::from_static("max-age=300");

/// What the page may load, send and be shown in: itself.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// A problem as the page shows it.
#[derive(Debug)]
pub(super) struct Fault(Problem);

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let title = status.canonical_reason().unwrap_or_default();
        (status, Html(page::fault(title, self.0.detail()))).into_response()
    }
}

/// What browsers can ask for.
pub(super) fn router(rooms: &Arc<Rooms>) -> Router<App> {
    let (read, submit, may_approve) = (Scope::Read, Scope::Submit, Scope::Approve);
    Router::new()
        .route("/", guarded(get(home), read, rooms))
        .route("/ui/jobs/{id}", guarded(get(show), read, rooms))
        .route("/ui/jobs/{id}/log", guarded(get(printed), read, rooms))
        .route("/ui/jobs/{id}/artifacts/{*name}", guarded(get(artifacts::artifact), read, rooms))
        .route("/ui/jobs/{id}/cancel", guarded(post(cancel), submit, rooms))
        .route("/ui/jobs/{id}/retry", guarded(post(retry), submit, rooms))
        .route("/ui/jobs/{id}/approve", guarded(post(approve), may_approve, rooms))
        .route("/ui/jobs/{id}/reject", guarded(post(reject), may_approve, rooms))
        .route("/ui/triggers", guarded(get(triggers::list), read, rooms))
        .route("/ui/triggers/{trigger}", guarded(get(triggers::show), read, rooms))
        .route("/ui/triggers/{trigger}/fire", guarded(post(triggers::fire), submit, rooms))
        .route("/ui/login", get(session::form).post(session::login))
        .route("/ui/logout", post(session::logout))
        .route("/ui/style.css", get(async || asset("text/css; charset=utf-8", page::STYLE)))
        .route("/ui/script.js", get(async || asset("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/ui/icon.svg", get(async || asset("image/svg+xml", page::ICON)))
        .layer(map_response(closed))
}

fn asset(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    let media_type = HeaderValue::from_static(media_type);
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, KEPT)], text)
}

/// Closes an answer to everything but the page itself.
async fn closed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // An artifact has a stricter one.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(CONTENT_SECURITY_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // With none, a browser would not say either where a form comes from.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Which ended jobs are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HomeQuery {
    /// Those older than this one; then nothing else is shown.
    before: Option<JobId>,
}

async fn home(
    State(app): State<App>,
    viewer: By,
    query: Result<Query<HomeQuery>, QueryRejection>,
) -> Result<Html<String>, Fault> {
    let Query(HomeQuery { before }) = query.map_err(Problem::from)?;
    let mut waiting = section(&app, &[Phase::Waiting, Phase::Queued], None).await?;
    // Who came first is next, as a rule.
    waiting.jobs.reverse();
    let working = section(&app, &[Phase::Loading, Phase::Working], None).await?;
    let home = Home {
        troubles: app.health.reasons(),
        paused: app.health.paused().map(|paused| paused.to_string()),
        waiting,
        steps: running_steps(&app, &working).await,
        working,
        ended: section(&app, &[Phase::Done, Phase::Failed], before).await?,
        older: before.is_some(),
    };
    Ok(Html(page::home(&home, &viewer, Timestamp::now())))
}

/// The newest jobs in any of these phases, the newest first.
async fn section(app: &Rooms, phases: &[Phase], before: Option<JobId>) -> Result<Section, Problem> {
    let (mut jobs, mut more) = (Vec::<JobSummary>::new(), false);
    for phase in phases {
        let list = jobs::page(app, Page { phase: Some(*phase), before, limit: SHOWN }).await?;
        more |= list.next.is_some();
        jobs.extend(list.jobs);
    }
    jobs.sort_unstable_by(|one, two| two.job_id.cmp(&one.job_id));
    let shown = usize::try_from(SHOWN).unwrap_or(usize::MAX);
    more |= jobs.len() > shown;
    jobs.truncate(shown);
    Ok(Section { jobs, more })
}

/// The step that runs now, by job; jobs of which it is not known soon are left out.
async fn running_steps(app: &Rooms, working: &Section) -> BTreeMap<String, String> {
    let running = working.jobs.iter().map(async |summary| {
        let job = find(app, &summary.job_id).await.ok()?;
        let live = timeout(PATIENCE, app.live.steps(&job)).await.ok()?;
        Some((summary.job_id.clone(), JobDetails::of(&job, live).running_step?))
    });
    join_all(running).await.into_iter().flatten().collect()
}

/// How a job is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    /// Whether its log is not asked for, because it is followed.
    #[serde(default)]
    live: bool,
}

async fn show(
    State(app): State<App>,
    viewer: By,
    id: PathId,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Html<String>, Fault> {
    let Path(id) = id.map_err(Problem::from)?;
    let Query(ShowQuery { live }) = query.map_err(Problem::from)?;
    let job = find(&app, &id).await?;
    let details = jobs::details(&app, &job).await?;
    let log = match &details.result {
        Some(result) => result.logs.clone(),
        None if live => String::new(),
        None => tail(timeout(PATIENCE, logs::printed(&app, &job)).await.ok().flatten().unwrap_or_default()),
    };
    let offer = offer(&job, viewer.name.as_deref().unwrap_or_default());
    Ok(Html(page::job(&details, &log, &offer, &viewer, Timestamp::now())))
}

/// The end of a log.
fn tail(log: String) -> String {
    match log.len().checked_sub(LOG_SHOWN) {
        None | Some(0) => log,
        Some(from) => log::excerpt(&log.as_bytes()[from..], true).text,
    }
}

/// What `by` may ask of a job as it stands.
fn offer(job: &Job, by: &str) -> Offer {
    let steps = match job.may_run_again() {
        Ok(Formula::Steps(steps)) => steps.iter().map(|step| step.name.clone()).collect(),
        Ok(_) | Err(_) => Vec::new(),
    };
    let passed = |step: &String| job.retry(Some(step), "", job.submitted_at).is_ok();
    Offer {
        cancel: job.outcome().is_none() && job.cancelled.is_none(),
        retry: job.may_run_again().is_ok(),
        from_steps: steps.into_iter().skip(1).filter(passed).collect(),
        approval: approval::may_decide(job, by),
    }
}

/// The log as it comes, ready to be shown.
async fn printed(State(app): State<App>, id: PathId) -> Result<Response, Fault> {
    let query = Ok(Query(LogQuery { follow: true }));
    let log = logs::logs(State(app), id, query).await?;
    let (parts, body) = log.into_parts();
    let printed = body.into_data_stream().scan(Printable::default(), |printable, piece| {
        ready(Some(piece.map(|piece| printable.push(&piece))))
    });
    Ok(Response::from_parts(parts, Body::from_stream(printed)))
}

async fn cancel(State(app): State<App>, by: access::By, id: PathId) -> Result<Redirect, Fault> {
    order(&app, &by, id, Wish::Cancel).await
}

async fn approve(
    State(app): State<App>,
    by: access::By,
    id: PathId,
    form: Result<Form<ApproveRequest>, FormRejection>,
) -> Result<Redirect, Fault> {
    let Form(ApproveRequest { digest }) = form.map_err(Problem::from)?;
    order(&app, &by, id, Wish::Approve { digest }).await
}

async fn reject(
    State(app): State<App>,
    by: access::By,
    id: PathId,
    form: Result<Form<RejectRequest>, FormRejection>,
) -> Result<Redirect, Fault> {
    let Form(request) = form.map_err(Problem::from)?;
    order(&app, &by, id, jobs::rejection(request)?).await
}

/// From which step a job shall run again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    /// The step's name; none, or an empty one, is the first.
    #[serde(default)]
    from_step: String,
}

async fn retry(
    State(app): State<App>,
    by: access::By,
    id: PathId,
    form: Result<Form<Retry>, FormRejection>,
) -> Result<Redirect, Fault> {
    let Form(Retry { from_step }) = form.map_err(Problem::from)?;
    let from_step = Some(from_step).filter(|step| !step.is_empty());
    order(&app, &by, id, Wish::Retry { from_step }).await
}

/// Gives an order, and shows the job.
async fn order(app: &Rooms, by: &access::By, id: PathId, wish: Wish) -> Result<Redirect, Fault> {
    let Path(id) = id.map_err(Problem::from)?;
    let job = jobs::order(app, &id, by, wish).await?;
    Ok(Redirect::to(&page::place(&job.job_id.to_string())))
}
