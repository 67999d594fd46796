//! The requests that consign makes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    error::Error,
    events::EventStream,
    model::{Allocation, Child, Evaluation, client_status},
    node::{Node, NodeDetail},
};
use crate::{credential::Credential, hexadecimal::percent};

/// How long a request may take, but for the event stream.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How much of an error reply is kept, in characters.
const ERROR_TEXT: usize = 600;
/// How many objects are listed in one reply.
const PAGE: usize = 500;

/// How Nomad is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address, such as `http://127.0.0.1:4646`, or a socket, such as `unix:///secrets/api.sock`.
    pub addr: String,
    /// The ACL token, or the identity of a workload.
    pub token: Credential,
    /// The namespace of every request.
    pub namespace: String,
    /// The region; `None` is the server's own.
    pub region: Option<String>,
    /// A PEM file with the certificate authority.
    pub ca_cert: Option<PathBuf>,
}

/// A client for one namespace of one Nomad region.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    addr: String,
    token: Credential,
    scope: Vec<(&'static str, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dispatched {
    #[serde(rename = "DispatchedJobID")]
    dispatched_job_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Validated {
    validation_errors: Option<Vec<String>>,
}

impl Client {
    /// A client; nothing is asked yet.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let setup = |what: String| Error::Setup { what };
        let mut addr = settings.addr.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&addr).map_err(|error| setup(format!("address {addr:?}: {error}")))?;
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).no_proxy();
        match url.scheme() {
            "https" => {}
            "http" => builder = builder.tls_certs_only(Vec::new()),
            "unix" if url.path().len() > 1 => {
                builder = builder.unix_socket(url.path()).tls_certs_only(Vec::new());
                // The host of a request that goes over a socket is a matter of form.
                "http://localhost".clone_into(&mut addr);
            }
            _ => return Err(setup(format!("address {addr:?} is neither http nor https nor unix"))),
        }
        if let Some(path) = &settings.ca_cert {
            let pem = std::fs::read(path).map_err(|error| setup(format!("{}: {error}", path.display())))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| setup(format!("{}: {error}", path.display())))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().map_err(|error| setup(error.to_string()))?;
        let mut scope = vec![("namespace", settings.namespace)];
        scope.extend(settings.region.map(|region| ("region", region)));
        Ok(Self { http, addr, token: settings.token, scope })
    }

    /// The namespace of every request.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.scope.first().map_or("default", |(_, namespace)| namespace)
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.addr)).query(&self.scope)
    }

    pub(super) async fn send(&self, name: &str, builder: RequestBuilder) -> Result<Response, Error> {
        self.deliver(name, builder.timeout(TIME_LIMIT)).await
    }

    /// Sends with the present token, and once more where Nomad refuses that one and its file holds another
    /// by now: a refused request has done nothing.
    pub(super) async fn deliver(&self, name: &str, builder: RequestBuilder) -> Result<Response, Error> {
        let again = builder.try_clone();
        let token = self.token.token();
        let refusal = match attempt(name, builder, token.as_ref()).await {
            Err(error) if error.may_be_the_token() => error,
            other => return other,
        };
        match again {
            Some(builder) if self.token.read_again(token.as_ref()).is_ok_and(|is_new| is_new) => {
                attempt(name, builder, self.token.token().as_ref()).await
            }
            _ => Err(refusal),
        }
    }

    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        name: &str,
        builder: RequestBuilder,
    ) -> Result<T, Error> {
        let response = self.send(name, builder).await?;
        let bytes = response
            .bytes()
            .await
            .map_err(|source| Error::Request { request: name.to_owned(), source: source.without_url() })?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Reply { request: name.to_owned(), source })
    }

    /// Reads every page of a list.
    async fn list<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<T>, Error> {
        let name = format!("GET {path}");
        let mut items = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut builder =
                self.request(Method::GET, path).query(query).query(&[("per_page", PAGE.to_string())]);
            if let Some(token) = &next {
                builder = builder.query(&[("next_token", token)]);
            }
            let response = self.send(&name, builder).await?;
            next = response
                .headers()
                .get("X-Nomad-NextToken")
                .and_then(|value| value.to_str().ok())
                .filter(|value| !value.is_empty())
                .map(ToOwned::to_owned);
            let bytes = response
                .bytes()
                .await
                .map_err(|source| Error::Request { request: name.clone(), source: source.without_url() })?;
            let page: Option<Vec<T>> = serde_json::from_slice(&bytes)
                .map_err(|source| Error::Reply { request: name.clone(), source })?;
            items.extend(page.unwrap_or_default());
            if next.is_none() {
                return Ok(items);
            }
        }
    }

    /// Turns "there is no such thing" into `None`.
    fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The address of the cluster's leader.
    pub async fn leader(&self) -> Result<String, Error> {
        self.read("GET /v1/status/leader", self.request(Method::GET, "/v1/status/leader")).await
    }

    /// The server's clock, to the second; `None` where a reply does not carry it.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, Error> {
        let path = "/v1/status/leader";
        let response = self.send(&format!("GET {path}"), self.request(Method::GET, path)).await?;
        let date = response.headers().get("Date").and_then(|value| value.to_str().ok());
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        Ok(date.and_then(|date| parser.parse_timestamp(date).ok()))
    }

    /// Every node, with its drivers.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.list("/v1/nodes", &[]).await
    }

    /// One node with its volumes and devices.
    pub async fn node(&self, id: &str) -> Result<Option<NodeDetail>, Error> {
        let path = format!("/v1/node/{}", escape(id));
        Self::optional(self.read(&format!("GET {path}"), self.request(Method::GET, &path)).await)
    }

    /// What Nomad finds wrong with a job in its JSON form; empty where it would take it.
    pub async fn validate(&self, job: &Value) -> Result<Vec<String>, Error> {
        let path = "/v1/validate/job";
        // Here alone the right to it is looked for in the job's own namespace, not in the request's.
        let mut job = job.clone();
        job["Namespace"] = self.namespace().into();
        let request = self.request(Method::PUT, path).json(&json!({ "Job": job }));
        let reply: Validated = self.read(&format!("PUT {path}"), request).await?;
        Ok(reply.validation_errors.unwrap_or_default())
    }

    /// Lets Nomad parse a job file into its JSON form.
    pub async fn parse(&self, hcl: &str) -> Result<Value, Error> {
        let body = json!({ "JobHCL": hcl, "Canonicalize": false });
        self.read("PUT /v1/jobs/parse", self.request(Method::PUT, "/v1/jobs/parse").json(&body)).await
    }

    /// Registers a job in its JSON form. `index` is the modify index that the present one must have,
    /// 0 for none: Nomad refuses otherwise, so that nobody's change is overwritten.
    pub async fn register(&self, job: &Value, index: u64) -> Result<(), Error> {
        let body = json!({ "Job": job, "EnforceIndex": true, "JobModifyIndex": index });
        self.send("PUT /v1/jobs", self.request(Method::PUT, "/v1/jobs").json(&body)).await.map(drop)
    }

    /// A whole job in its JSON form.
    pub async fn job(&self, id: &str) -> Result<Option<Value>, Error> {
        let path = format!("/v1/job/{}", escape(id));
        Self::optional(self.read(&format!("GET {path}"), self.request(Method::GET, &path)).await)
    }

    /// One child with payload and token.
    pub async fn child(&self, id: &str) -> Result<Option<Child>, Error> {
        let path = format!("/v1/job/{}", escape(id));
        Self::optional(self.read(&format!("GET {path}"), self.request(Method::GET, &path)).await)
    }

    /// The children whose id begins with `prefix`, with their meta.
    pub async fn children(&self, prefix: &str) -> Result<Vec<Child>, Error> {
        self.list("/v1/jobs", &[("prefix", prefix), ("meta", "true")]).await
    }

    /// The jobs whose id begins with `prefix` and matches the regular expression `pattern`, with their meta.
    pub async fn jobs_like(&self, prefix: &str, pattern: &str) -> Result<Vec<Child>, Error> {
        let filter = format!("ID matches \"{pattern}\"");
        self.list("/v1/jobs", &[("prefix", prefix), ("filter", &filter), ("meta", "true")]).await
    }

    /// The jobs that are not dead, of which the id begins with `prefix` and matches the regular expression
    /// `pattern`.
    pub async fn live_children(&self, prefix: &str, pattern: &str) -> Result<Vec<Child>, Error> {
        let filter = format!("Status != \"dead\" and ID matches \"{pattern}\"");
        self.list("/v1/jobs", &[("prefix", prefix), ("filter", &filter)]).await
    }

    /// Dispatches a parameterized job and gives the child's id.
    ///
    /// The id is a hint: of several calls with one token some may be told of a child that was never
    /// made. It is confirmed by reading it, or by its allocation.
    pub async fn dispatch(
        &self,
        parent: &str,
        token: &str,
        meta: &BTreeMap<String, String>,
        payload: &[u8],
    ) -> Result<String, Error> {
        let path = format!("/v1/job/{}/dispatch", escape(parent));
        let body = json!({ "Meta": meta, "Payload": STANDARD.encode(payload), "IdPrefixTemplate": token });
        let builder = self.request(Method::PUT, &path).query(&[("idempotency_token", token)]).json(&body);
        let reply: Dispatched = self.read(&format!("PUT {path}"), builder).await?;
        Ok(reply.dispatched_job_id)
    }

    /// Ends a job. Nomad forgets it with its next garbage collection.
    pub async fn deregister(&self, id: &str) -> Result<(), Error> {
        let path = format!("/v1/job/{}", escape(id));
        let request = self.request(Method::DELETE, &path);
        let sent = self.send(&format!("DELETE {path}"), request).await.map(drop);
        Self::optional(sent).map(|_| ())
    }

    /// The allocations of one job.
    pub async fn job_allocations(&self, id: &str) -> Result<Vec<Allocation>, Error> {
        let path = format!("/v1/job/{}/allocations", escape(id));
        let all = [("all", "true")];
        Ok(Self::optional(
            self.read(&format!("GET {path}"), self.request(Method::GET, &path).query(&all)).await,
        )?
        .unwrap_or_default())
    }

    /// The allocations that may still change, of jobs whose id matches the regular expression `pattern`.
    pub async fn live_allocations(&self, pattern: &str) -> Result<Vec<Allocation>, Error> {
        let ended = [client_status::COMPLETE, client_status::FAILED, client_status::LOST];
        let live = ended.map(|status| format!("ClientStatus != \"{status}\"")).join(" and ");
        let filter = format!("{live} and JobID matches \"{pattern}\"");
        self.list("/v1/allocations", &[("filter", &filter), ("task_states", "true")]).await
    }

    /// One allocation.
    pub async fn allocation(&self, id: &str) -> Result<Option<Allocation>, Error> {
        let path = format!("/v1/allocation/{}", escape(id));
        Self::optional(self.read(&format!("GET {path}"), self.request(Method::GET, &path)).await)
    }

    /// The evaluations of one job.
    pub async fn evaluations(&self, id: &str) -> Result<Vec<Evaluation>, Error> {
        let path = format!("/v1/job/{}/evaluations", escape(id));
        Ok(Self::optional(self.read(&format!("GET {path}"), self.request(Method::GET, &path)).await)?
            .unwrap_or_default())
    }

    /// Follows the allocations and jobs of the namespace from now on.
    pub async fn events(&self) -> Result<EventStream, Error> {
        let path = "/v1/event/stream";
        let topics = [("topic", "Allocation:*"), ("topic", "Job:*")];
        let builder = self.request(Method::GET, path).query(&topics);
        let name = format!("GET {path}");
        match tokio::time::timeout(CONNECT_LIMIT * 2, self.deliver(&name, builder)).await {
            Ok(response) => Ok(EventStream::new(response?)),
            Err(_) => Err(Error::Status {
                request: name,
                status: StatusCode::GATEWAY_TIMEOUT,
                text: "the event stream did not begin".to_owned(),
            }),
        }
    }
}

async fn attempt(
    name: &str,
    builder: RequestBuilder,
    token: Option<&SecretString>,
) -> Result<Response, Error> {
    let builder = match token {
        Some(token) => builder.header("X-Nomad-Token", token.expose_secret()),
        None => builder,
    };
    let failed =
        |source: reqwest::Error| Error::Request { request: name.to_owned(), source: source.without_url() };
    checked(name, sent(builder).await.map_err(failed)?).await
}

async fn sent(builder: RequestBuilder) -> reqwest::Result<Response> {
    #[cfg(test)]
    if let Some(request) = builder.try_clone().and_then(|builder| builder.build().ok()) {
        use crate::ambient::simulated::{Server, answer};
        let body = request.body().and_then(reqwest::Body::as_bytes);
        if let Some((status, body)) =
            answer(Server::Nomad, request.method().as_str(), request.url().as_str(), body).await
        {
            let mut response = axum::http::Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            return Ok(response.into());
        }
    }
    builder.send().await
}

async fn checked(name: &str, response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let text = text.trim().chars().take(ERROR_TEXT).collect();
    Err(Error::Status { request: name.to_owned(), status, text })
}

/// Makes an id safe as one segment of a path: a child's id holds a slash.
pub(super) fn escape(id: &str) -> String {
    percent(id, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_as_one_segment() {
        assert_eq!(escape("runner/dispatch-1"), "runner%2Fdispatch-1");
        assert_eq!(escape("../x?y"), "..%2Fx%3Fy");
    }

    #[test]
    fn a_bad_address_is_an_error_with_the_address() {
        for addr in ["nomad", "ftp://nomad", "unix://nomad", ""] {
            let settings = Settings {
                addr: addr.to_owned(),
                token: Credential::default(),
                namespace: "default".to_owned(),
                region: None,
                ca_cert: None,
            };
            assert!(Client::new(settings).unwrap_err().to_string().contains(addr), "{addr}");
        }
    }
}
