//! A client of an agent's HTTP API, for programs that have work done.
//!
//! [`Client::submit_and_wait`] hands the agent work and returns when it has ended: it is told so by a webhook on a
//! free port of this machine, and asks every now and then where none can reach it.
//!
//! ```no_run
#![doc = include_str!("../../tests/it/client/example.rs")]
//! ```
//!
//! # Guarantees
//!
//! - A submission whose answer was lost is repeated with its idempotency key: it makes one job.
//! - A webhook only wakes: how a job ended is what the agent answers then. A forged one changes nothing.
//! - An agent that is away for less than ten minutes is waited for.
//! - Dropping a future of this client asks for nothing more and leaves no receiver behind. A job that was
//!   submitted goes on; the webhooks that it still has are given up by the agent.

mod artifacts;
mod error;
mod receiver;
#[cfg(test)]
mod tests;
mod wait;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::{
    error::Error,
    wait::{AtDeadline, By, Wait},
};
use crate::{
    hexadecimal::percent,
    http::{
        submit::IDEMPOTENCY_KEY,
        triggers::{Called, TriggerDetails, TriggerList},
        view::{
            ApproveRequest, FormulaList, JobDetails, JobList, JobSummary, PauseRequest, PauseState,
            ProblemDocument, RejectRequest, RetryRequest, Submitted,
        },
    },
    lifecycle::Phase,
};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a request may take that does not follow something. The agent answers an order once it is on
/// record, and a step in hand may take up to Nomad's own limit of 30 s.
const TIME_LIMIT: Duration = Duration::from_mins(1);
/// How often a submission is sent whose answer did not come. Its idempotency key keeps it one job.
const TRIES: u32 = 3;
/// How long is waited before something is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How many jobs are asked for at a time.
const PAGE: usize = 200;

/// Speaks to one agent.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    address: String,
    token: Option<SecretString>,
}

/// A log that is followed.
#[derive(Debug)]
pub struct LogStream {
    address: String,
    response: Response,
}

impl Client {
    /// A client of the agent at `address`, such as `http://127.0.0.1:8480`; nothing is asked yet.
    pub fn new(address: &str, token: Option<SecretString>) -> Result<Self, Error> {
        let invalid = || Error::Address { address: address.to_owned() };
        let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let url = reqwest::Url::parse(&full).map_err(|_| invalid())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(invalid());
        }
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT);
        if url.scheme() == "http" {
            builder = builder.no_proxy().tls_certs_only(Vec::new());
        }
        let http = builder.build().map_err(|source| Error::Unreachable { address: full.clone(), source })?;
        Ok(Self { http, address: full.trim_end_matches('/').to_owned(), token })
    }

    /// At most `limit` jobs, the newest first; those in `phase` alone where one is given.
    pub async fn jobs(&self, phase: Option<Phase>, limit: usize) -> Result<Vec<JobSummary>, Error> {
        let mut jobs = Vec::new();
        let mut cursor: Option<String> = None;
        while jobs.len() < limit {
            let mut request = self.request(Method::GET, "/jobs");
            request = request.query(&[("limit", (limit - jobs.len()).min(PAGE))]);
            if let Some(phase) = phase {
                request = request.query(&[("phase", phase.as_str())]);
            }
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: JobList = self.read(request).await?;
            jobs.extend(page.jobs);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(jobs)
    }

    /// One job by its job id or action id.
    pub async fn job(&self, id: &str) -> Result<JobDetails, Error> {
        self.read(self.request(Method::GET, &format!("/jobs/{}", escape(id)))).await
    }

    /// What a job printed, as far as it is there now.
    pub async fn logs(&self, id: &str) -> Result<Vec<u8>, Error> {
        let response = self.send(self.logs_of(id).timeout(TIME_LIMIT)).await?;
        Ok(response.bytes().await.map_err(|source| self.broken(source))?.to_vec())
    }

    /// What a job prints, until it has ended.
    pub async fn follow(&self, id: &str) -> Result<LogStream, Error> {
        let response = self.send(self.logs_of(id).query(&[("follow", true)])).await?;
        Ok(LogStream { address: self.address.clone(), response })
    }

    /// Has it take an action without an id, and gives its job's id. With the same `key` and action it makes one
    /// job, however often it is asked; it is asked again where the answer does not come.
    pub async fn submit(&self, action: &Value, key: &str) -> Result<Submitted, Error> {
        let mut tries = 1;
        loop {
            let request = self.request(Method::POST, "/jobs").header(IDEMPOTENCY_KEY, key).json(action);
            match self.read(request).await {
                Err(error)
                    if tries < TRIES && error.may_pass() && !matches!(error, Error::Unreachable { .. }) =>
                {
                    tries += 1;
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// Has it put on record that a job shall end. It is over when its state says so.
    pub async fn cancel(&self, id: &str) -> Result<JobDetails, Error> {
        self.read(self.request(Method::POST, &format!("/jobs/{}/cancel", escape(id)))).await
    }

    /// Has submitted work run that waits for an approval; with a digest, what has that one alone.
    pub async fn approve(&self, id: &str, digest: Option<String>) -> Result<JobDetails, Error> {
        let request = self.request(Method::POST, &format!("/jobs/{}/approve", escape(id)));
        self.read(request.json(&ApproveRequest { digest })).await
    }

    /// Has it put on record that submitted work may not run, and why.
    pub async fn reject(&self, id: &str, reason: &str) -> Result<JobDetails, Error> {
        let request = self.request(Method::POST, &format!("/jobs/{}/reject", escape(id)));
        self.read(request.json(&RejectRequest { reason: reason.to_owned() })).await
    }

    /// Has a job run again, from a step on where one is named.
    pub async fn retry(&self, id: &str, from_step: Option<String>) -> Result<JobDetails, Error> {
        let request = self.request(Method::POST, &format!("/jobs/{}/retry", escape(id)));
        self.read(request.json(&RetryRequest { from_step })).await
    }

    /// The formulas of the ops repo.
    pub async fn formulas(&self) -> Result<FormulaList, Error> {
        self.read(self.request(Method::GET, "/formulas")).await
    }

    /// Whether it launches nothing more, and why; this needs no token.
    pub async fn paused(&self) -> Result<PauseState, Error> {
        self.read(self.request(Method::GET, "/health")).await
    }

    /// Has it launch nothing more.
    pub async fn pause(&self, reason: &str) -> Result<PauseState, Error> {
        let reason = reason.to_owned();
        self.read(self.request(Method::POST, "/pause").json(&PauseRequest { reason })).await
    }

    /// Has it go on.
    pub async fn resume(&self) -> Result<PauseState, Error> {
        self.read(self.request(Method::POST, "/resume")).await
    }

    /// All triggers.
    pub async fn triggers(&self) -> Result<TriggerList, Error> {
        self.read(self.request(Method::GET, "/triggers")).await
    }

    /// One trigger with its latest events.
    pub async fn trigger(&self, name: &str, events: u32) -> Result<TriggerDetails, Error> {
        let request = self.request(Method::GET, &format!("/triggers/{}", escape(name)));
        self.read(request.query(&[("events", events)])).await
    }

    /// Fires a trigger with this content, a JSON object, or with none.
    pub async fn fire(&self, name: &str, force: bool, content: Option<String>) -> Result<Called, Error> {
        let mut request = self.request(Method::POST, &format!("/triggers/{}", escape(name)));
        if force {
            request = request.query(&[("force", true)]);
        }
        self.read(request.body(content.unwrap_or_default())).await
    }

    fn logs_of(&self, id: &str) -> RequestBuilder {
        self.request(Method::GET, &format!("/jobs/{}/logs", escape(id)))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let builder = self.http.request(method, format!("{}{path}", self.address));
        match &self.token {
            Some(token) => builder.bearer_auth(token.expose_secret()),
            None => builder,
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request.timeout(TIME_LIMIT)).await?;
        let bytes = response.bytes().await.map_err(|source| self.broken(source))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| Error::Reply { address: self.address.clone(), source })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let address = || self.address.clone();
        let response = self.answer(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let is_problem = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
        let lacks_scope = response.headers().contains_key(header::WWW_AUTHENTICATE);
        let bytes = response.bytes().await.map_err(|source| self.broken(source))?;
        let problem: Result<ProblemDocument, _> = serde_json::from_slice(&bytes);
        let detail = match problem {
            Ok(problem) => problem.detail,
            Err(source) if is_problem => return Err(Error::Reply { address: address(), source }),
            Err(_) => format!("{} answers {status}", self.address),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED if self.token.is_none() => Error::NoToken { address: address() },
            StatusCode::UNAUTHORIZED => Error::Unauthorized { address: address(), detail },
            StatusCode::FORBIDDEN if lacks_scope => Error::Scope { detail },
            status => Error::Refused { status, detail },
        })
    }

    /// What the agent answers, asked again after the time that it names where that was too often.
    async fn answer(&self, mut request: RequestBuilder) -> Result<Response, Error> {
        let began = Instant::now();
        loop {
            let again = request.try_clone();
            let response = request.send().await.map_err(|source| {
                let (address, source) = (self.address.clone(), source.without_url());
                if source.is_connect() {
                    Error::Unreachable { address, source }
                } else {
                    Error::Broken { address, source }
                }
            })?;
            let wait = retry_after(&response).filter(|wait| began.elapsed() + *wait < TIME_LIMIT);
            let (Some(wait), Some(next)) = (wait, again) else { return Ok(response) };
            sleep(wait).await;
            request = next;
        }
    }

    fn broken(&self, source: reqwest::Error) -> Error {
        Error::Broken { address: self.address.clone(), source: source.without_url() }
    }
}

impl LogStream {
    /// The next piece; `None` once the job has ended and all has come.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let broken = |source: reqwest::Error| Error::Broken {
            address: self.address.clone(),
            source: source.without_url(),
        };
        Ok(self.response.chunk().await.map_err(broken)?.map(|piece| piece.to_vec()))
    }
}

/// How long to wait where an agent says that it was asked too often.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    (response.status() == StatusCode::TOO_MANY_REQUESTS).then(|| Duration::from_secs(seconds))
}

/// Makes whatever was given as an id one segment of a path.
fn escape(id: &str) -> String {
    percent(id, b"")
}
