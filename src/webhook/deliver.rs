//! Sends what is in the outbox, beside everything else: no job waits for it, and nothing that a receiver does
//! changes one.
//!
//! A request is counted in the store before it is made, so that a crash cannot make more of them than there
//! may be. Each receiver (scheme, host and port) has few requests at a time, each with a limit, so a slow one
//! keeps the others from nothing.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use reqwest::{Client, StatusCode, Url, header::CONTENT_TYPE, redirect};
use secrecy::ExposeSecret as _;
use tokio::{
    task::{Id, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Body, HEADER, Policy, REQUESTS, Refused, origin, pause_after, resolve::Checked, sign};
use crate::{
    credential::Credential,
    fail_point,
    metrics::{Delivery, Metrics},
    store::{self, Store, Webhook},
    telemetry::chain,
    track::artifact::Archive,
};

/// How long a receiver may take for one request, connecting included. Receivers put what they get in a queue of
/// their own: GitHub allows 10 s too.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How many requests one receiver has at a time.
const PER_RECEIVER: usize = 4;
/// How many requests there are at a time.
const AT_ONCE: usize = 256;
/// How often the outbox is looked at without a reason.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long requests under way may go on when the agent ends.
const GRACE: Duration = Duration::from_secs(3);

/// Sends webhooks.
#[derive(Debug, Clone)]
pub struct Deliverer {
    store: Store,
    archive: Archive,
    secret: Credential,
    policy: Policy,
    metrics: Metrics,
    /// Connects to what the policy allows.
    client: Client,
    /// The same for work whose submitter is on loopback.
    near: Client,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the URL is refused")]
    Refused(#[from] Refused),
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    #[error("the receiver answered {0}")]
    Status(StatusCode),
}

/// What a receiver said that is no failure.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It has it.
    Taken,
    /// It wants no more of this job.
    Gone,
}

/// A request that is being made.
#[derive(Debug)]
struct UnderWay {
    receiver: String,
    job_id: String,
    url: String,
}

impl Deliverer {
    /// Sends what `store` has, with artifacts from `archive`, signed with the secret where there is one: what it
    /// is when a webhook is sent.
    pub fn new(
        store: Store,
        archive: Archive,
        secret: Credential,
        policy: Policy,
        metrics: Metrics,
    ) -> Result<Self, reqwest::Error> {
        let (client, near) = (client(policy)?, client(policy.for_submitter(true))?);
        Ok(Self { store, archive, secret, policy, metrics, client, near })
    }

    /// Sends until `ending`.
    pub async fn run(self, ending: CancellationToken) {
        let mut requests = JoinSet::new();
        let mut under_way: HashMap<Id, UnderWay> = HashMap::new();
        loop {
            let pause = match self.begin(&mut requests, &mut under_way).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot read the outbox of webhooks");
                    INTERVAL
                }
            };
            tokio::select! {
                () = ending.cancelled() => break,
                () = self.store.outbox_filled() => {}
                Some(ended) = requests.join_next_with_id() => {
                    forget(&mut under_way, ended);
                    while let Some(ended) = requests.try_join_next_with_id() {
                        forget(&mut under_way, ended);
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        let finish = async { while requests.join_next().await.is_some() {} };
        if timeout(GRACE, finish).await.is_err() {
            tracing::info!("webhooks under way are sent again at the next start");
        }
    }

    /// Begins what is due and has a place, and gives how long there is nothing more to begin.
    async fn begin(
        &self,
        requests: &mut JoinSet<()>,
        under_way: &mut HashMap<Id, UnderWay>,
    ) -> Result<Duration, store::Error> {
        let now = Timestamp::now();
        let mut pause = INTERVAL;
        for receiver in self.store.due_receivers(now).await? {
            let busy = under_way.values().filter(|request| request.receiver == receiver).count();
            let free = PER_RECEIVER.saturating_sub(busy).min(AT_ONCE.saturating_sub(under_way.len()));
            if free == 0 {
                continue;
            }
            let mut due = self.store.due_webhooks(&receiver, now, free + busy).await?;
            due.retain(|webhook| !under_way.values().any(|request| request.is_for(webhook)));
            due.truncate(free);
            // The agent ended during the last request: whether it arrived, nobody knows.
            let (spent, mut due): (Vec<_>, Vec<_>) =
                due.into_iter().partition(|webhook| webhook.requests >= REQUESTS);
            for webhook in spent {
                self.give_up(&webhook, "the agent ended during the last request").await?;
                pause = Duration::ZERO;
            }
            fail_point::before("webhook counted");
            self.store.request_webhooks(&mut due, now).await?;
            fail_point::after("webhook counted");
            for webhook in due {
                let request = UnderWay {
                    receiver: receiver.clone(),
                    job_id: webhook.job_id.clone(),
                    url: webhook.receiver.url.clone(),
                };
                let deliverer = self.clone();
                let task = requests.spawn(async move { deliverer.deliver(webhook).await });
                under_way.insert(task.id(), request);
            }
        }
        if let Some(next) = self.store.next_webhook(now).await? {
            pause = pause.min(next.duration_since(now).try_into().unwrap_or_default());
        }
        Ok(pause)
    }

    /// Makes one request, and puts what came of it on record.
    async fn deliver(&self, webhook: Webhook) {
        let receiver = origin(&webhook.receiver.url);
        let (job, sequence, request) = (&webhook.job_id, webhook.sequence, webhook.requests);
        let recorded = match self.send(&webhook).await {
            Ok(Answer::Taken) => {
                tracing::debug!(job, sequence, receiver, request, "webhook delivered");
                self.metrics.webhook(Delivery::Delivered);
                self.store.webhook_delivered(&webhook).await
            }
            Ok(Answer::Gone) => {
                tracing::info!(job, sequence, receiver, "the receiver wants no more webhooks of this job");
                self.store.end_webhooks(&webhook).await
            }
            Err(failure) => {
                let failure = chain(&failure);
                self.metrics.webhook(Delivery::Failed);
                if pause_after(webhook.requests).is_some() {
                    tracing::debug!(job, sequence, receiver, request, failure, "webhook failed");
                    self.store.postpone_webhook(&webhook, Timestamp::now()).await
                } else {
                    self.give_up(&webhook, &failure).await
                }
            }
        };
        if let Err(error) = recorded {
            tracing::warn!(job, sequence, error = chain(&error), "cannot record what became of a webhook");
        }
    }

    async fn give_up(&self, webhook: &Webhook, failure: &str) -> Result<(), store::Error> {
        let given_up = self.store.webhook_given_up(webhook).await?;
        self.metrics.webhook(Delivery::GivenUp);
        let (job, sequence) = (&webhook.job_id, webhook.sequence);
        let receiver = origin(&webhook.receiver.url);
        tracing::warn!(job, sequence, receiver, failure, given_up, "webhook given up");
        Ok(())
    }

    async fn send(&self, webhook: &Webhook) -> Result<Answer, Failure> {
        // An address in the URL itself passes by the client's resolver.
        self.policy.for_submitter(webhook.receiver.loopback).check(&webhook.receiver.url)?;
        let url = Url::parse(&webhook.receiver.url).map_err(|_| Refused::NoUrl)?;
        let client = if webhook.receiver.loopback { &self.near } else { &self.client };
        let body = self.body(webhook).await;
        let mut request = client.post(url).header(CONTENT_TYPE, "application/json");
        if let Some(secret) = self.secret.token() {
            request = request.header(HEADER, sign(secret.expose_secret().as_bytes(), &body));
        }
        // The URL may hold a token.
        fail_point::before("webhook sent");
        let sent = request.body(body).send().await;
        fail_point::after("webhook sent");
        let response = sent.map_err(|error| Failure::Request(error.without_url()))?;
        match response.status() {
            status if status.is_success() => Ok(Answer::Taken),
            StatusCode::GONE => Ok(Answer::Gone),
            status => Err(Failure::Status(status)),
        }
    }

    /// The body with the content of small artifacts.
    async fn body(&self, webhook: &Webhook) -> Vec<u8> {
        let parsed = serde_json::from_str::<Body>(&webhook.body).ok();
        let Some(mut body) = parsed.filter(|body| !body.artifacts.is_empty()) else {
            return webhook.body.clone().into_bytes();
        };
        let Ok(job_id) = body.job_id.parse() else { return webhook.body.clone().into_bytes() };
        self.archive.inline(job_id, &mut body.artifacts).await;
        serde_json::to_vec(&body).unwrap_or_else(|_| webhook.body.clone().into_bytes())
    }
}

impl UnderWay {
    fn is_for(&self, webhook: &Webhook) -> bool {
        (&self.job_id, &self.url) == (&webhook.job_id, &webhook.receiver.url)
    }
}

fn forget(under_way: &mut HashMap<Id, UnderWay>, ended: Result<(Id, ()), tokio::task::JoinError>) {
    let id = match ended {
        Ok((id, ())) => id,
        Err(error) => error.id(),
    };
    under_way.remove(&id);
}

/// A client that follows no redirect, uses no proxy of the environment (which would resolve names itself), keeps
/// no connection and never repeats a request by itself.
fn client(policy: Policy) -> Result<Client, reqwest::Error> {
    Client::builder()
        .user_agent(concat!("consign/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .timeout(REQUEST_LIMIT)
        .dns_resolver(Checked(policy))
        .build()
}
