//! The server over a real connection, with a store and no driver.

mod page;

use std::{
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use jiff::Timestamp;
use reqwest::{Method, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{Audience, HookSecret, Limits, Live, Rooms, Scrape, access::Access, routes, serve};
use crate::{
    config::Auth,
    controller::{driver::Message, health::Health},
    credential::Credential,
    lifecycle::{Job, Origin, Work},
    metrics::Metrics,
    nomad,
    store::Store,
    tokens::{Scope, Sessions, TokensFile},
    track::artifact::Archive,
    trigger::settings::TAKEN,
};

mod artifacts;
mod events;
mod open;

struct Server {
    folder: tempfile::TempDir,
    address: String,
    store: Store,
    ending: CancellationToken,
    http: reqwest::Client,
    /// What the driver would hear; an answer that is never given is a driver that has ended.
    orders: mpsc::Receiver<Message>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

fn tokens(folder: &Path) -> TokensFile {
    TokensFile::new(folder.join("tokens.toml"))
}

impl Server {
    async fn start() -> Self {
        Self::start_with(Audience::default(), 0).await
    }

    async fn start_with(audience: Audience, rate: u32) -> Self {
        Self::start_for(Auth::Token, audience, rate).await
    }

    async fn start_for(auth: Auth, audience: Audience, rate: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let nomad = nomad::Client::new(nomad::Settings {
            // Nobody listens on the discard port.
            addr: "http://127.0.0.1:9".to_owned(),
            token: Credential::default(),
            namespace: "default".to_owned(),
            region: None,
            ca_cert: None,
        });
        let nomad = Arc::new(nomad.unwrap());
        let ending = CancellationToken::new();
        let (sender, orders) = mpsc::channel(1);
        let driver = OnceLock::new();
        driver.set(sender).unwrap();
        let rooms = Rooms {
            health: Health::default(),
            wake: Arc::new(Notify::new()),
            ready: Arc::new(AtomicBool::new(true)),
            secret: HookSecret::LoopbackOnly,
            tokens: (auth == Auth::Token).then(|| tokens(folder.path())),
            limits: Limits::new(rate),
            sessions: Sessions::new().unwrap(),
            store: store.clone(),
            archive: Archive::open(&folder.path().join("artifacts")).unwrap(),
            audience,
            live: Live::new(Arc::clone(&nomad)),
            nomad,
            driver: Arc::new(driver),
            scrape: Scrape::new(Metrics::new(Timestamp::now())),
            desk: Arc::default(),
            triggers: Arc::default(),
            ending: ending.clone(),
        };
        tokio::spawn(serve(listener, Arc::new(rooms)));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { folder, address, store, ending, http, orders }
    }

    fn token(&self, name: &str, scopes: &[Scope], expires_at: Option<Timestamp>) -> SecretString {
        let file = tokens(self.folder.path());
        file.create(name.parse().unwrap(), scopes, Timestamp::now(), expires_at).unwrap()
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&SecretString>, body: &str) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.address)).body(body.to_owned());
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        request.send().await.unwrap()
    }
}

/// A problem's status, challenge and detail; anything else is a fault.
async fn problem(response: Response) -> (u16, Option<String>, String) {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (kind, challenge) = (header("content-type"), header("www-authenticate"));
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{status}");
    let document: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        (document["status"].as_u64(), document["type"].as_str()),
        (Some(u64::from(status)), Some("about:blank"))
    );
    (status, challenge, document["detail"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_no_other_opens_it() {
    let mut server = Server::start().await;
    let expired = server.token("expired", &Scope::ALL, Some(Timestamp::UNIX_EPOCH));
    let holders = Scope::ALL.map(|scope| (scope, server.token(scope.as_str(), &[scope], None)));
    let nobody = server.token("nobody", &[], None);
    let unknown = SecretString::from("consign_0000000000000000000000000000000000000000000");
    // Nobody answers orders.
    server.orders.close();
    let mut guarded = 0;
    for route in routes::table() {
        let path =
            route.path.replace("{id}", "nothing").replace("{*name}", "a/b").replace("{trigger}", "nothing");
        let ask =
            async |token: Option<&SecretString>| server.ask(route.method.clone(), &path, token, "").await;
        let name = format!("{} {path}", route.method);
        // Those of triggers have tests of their own, with an agent.
        if route.access == Access::Trigger || route.path == "/hooks/forge" {
            continue;
        }
        let Access::Scope(scope) = route.access else {
            assert!(ask(None).await.status().is_success(), "{name}");
            assert!(
                ["/livez", "/readyz", "/health", "/healthz", "/metrics", "/hooks/git", "/openapi.json"]
                    .contains(&route.path)
            );
            continue;
        };
        guarded += 1;
        let (status, challenge, _) = problem(ask(None).await).await;
        assert_eq!((status, challenge.as_deref()), (401, Some("Bearer realm=\"consign\"")), "{name}");
        for (token, words) in [(&unknown, "not known"), (&expired, "expired")] {
            let (status, challenge, detail) = problem(ask(Some(token)).await).await;
            assert!(status == 401 && challenge.unwrap().contains("invalid_token"), "{name}");
            assert!(detail.contains(words), "{name}: {detail}");
        }
        let (status, challenge, _) = problem(ask(Some(&nobody)).await).await;
        assert!(status == 403 && challenge.unwrap().contains(&format!("scope=\"{scope}\"")), "{name}");
        for (held, token) in &holders {
            let status = ask(Some(token)).await.status().as_u16();
            let opens = *held == scope || *held == Scope::Admin;
            assert_eq!(status != 403, opens, "{name} with {held}: {status}");
            assert_ne!(status, 401, "{name} with {held}");
        }
    }
    assert_eq!(guarded, 15, "a route that is added is tested by this very list");
}

#[tokio::test]
async fn whoever_asks_too_often_waits_and_nobody_else_does() {
    let server = Server::start_with(Audience::default(), 1).await;
    let (ann, ben) = (server.token("ann", &[Scope::Read], None), server.token("ben", &[Scope::Read], None));
    let status = async |path: &str, token: Option<&SecretString>| {
        server.ask(Method::GET, path, token, "").await.status().as_u16()
    };
    // At a rate of one a second a burst is ten; a second may pass meanwhile.
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(status("/jobs", Some(&ann)).await);
    }
    assert_eq!((answers[9], answers.last()), (200, Some(&429)), "{answers:?}");
    let late = server.ask(Method::GET, "/jobs", Some(&ann), "").await;
    let wait: u64 = late.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    let (status_of, _, detail) = problem(late).await;
    assert!(status_of == 429 && detail.contains("more than 1 requests a second"), "{detail}");
    assert_eq!(status("/jobs", Some(&ben)).await, 200);
    for _ in 0..20 {
        assert!([401, 429].contains(&status("/jobs", None).await));
    }
    assert_eq!([status("/jobs", None).await, status("/openapi.json", None).await], [429, 429]);
    for path in ["/livez", "/readyz", "/health", "/healthz", "/metrics"] {
        assert_eq!(status(path, None).await, 200, "{path}");
    }
    assert_eq!(status("/jobs", Some(&ben)).await, 200, "a good token does not suffer for its address");

    let client = crate::client::Client::new(&server.address, Some(ann)).unwrap();
    assert!(client.jobs(None, 1).await.unwrap().is_empty(), "the client waits as long as it was told");
}

#[tokio::test]
async fn where_no_token_was_made_nobody_gets_in() {
    let server = Server::start().await;
    let guessed = SecretString::from("consign_");
    for route in routes::table() {
        let path =
            route.path.replace("{id}", "nothing").replace("{*name}", "a/b").replace("{trigger}", "nothing");
        for token in [None, Some(&guessed)] {
            let status = server.ask(route.method.clone(), &path, token, "").await.status().as_u16();
            assert_eq!(status == 401, matches!(route.access, Access::Scope(_)), "{} {path}", route.method);
        }
    }
}

#[test]
fn no_trigger_takes_a_path_of_the_servers_own() {
    for route in routes::table() {
        let first = route.path.split('/').nth(1).unwrap();
        assert!(first.is_empty() || TAKEN.contains(&first), "add {first:?} to TAKEN");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_a_problem_document() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Admin], None);
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    let job = Job::new(origin, Work::default(), Timestamp::now());
    server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    let [retry, approve, reject] =
        ["retry", "approve", "reject"].map(|verb| format!("/jobs/{}/{verb}", job.job_id));
    let long = format!("{{\"reason\": \"{}\"}}", "a".repeat(1001));
    let large = " ".repeat(70_000);
    let deep = "[".repeat(10_000);
    for (method, path, body, expected) in [
        (Method::GET, "/jobs?phase=sleeping", "", 422),
        (Method::GET, "/jobs?phase=", "", 422),
        (Method::GET, "/jobs?limit=0", "", 422),
        (Method::GET, "/jobs?limit=201", "", 422),
        (Method::GET, "/jobs?limit=-1", "", 422),
        (Method::GET, "/jobs?cursor=x", "", 422),
        (Method::GET, "/jobs?unknown=1", "", 422),
        (Method::GET, "/jobs?phase=done&phase=failed", "", 422),
        (Method::GET, "/jobs/nothing", "", 404),
        (Method::GET, "/jobs/..%2F..%2Fetc", "", 404),
        (Method::GET, "/jobs/%ff", "", 400),
        (Method::GET, "/jobs/nothing/logs", "", 404),
        (Method::GET, "/jobs/nothing/logs?follow=perhaps", "", 422),
        (Method::POST, "/jobs/nothing/cancel", "", 404),
        (Method::POST, "/jobs", "", 400),
        (Method::POST, "/jobs", "formula = \"a\"", 400),
        (Method::POST, "/jobs", &deep, 400),
        (Method::POST, "/jobs", "[]", 422),
        (Method::POST, "/jobs", "null", 422),
        (Method::POST, "/jobs", &large, 413),
        // Nobody takes work yet.
        (Method::POST, "/jobs", "{}", 503),
        (Method::DELETE, "/jobs", "", 405),
        (Method::GET, "/nothing", "", 404),
        (Method::POST, &retry, "{", 400),
        (Method::POST, &retry, &deep, 400),
        (Method::POST, &retry, "[]", 422),
        (Method::POST, &retry, "{\"from_step\": 1}", 422),
        (Method::POST, &retry, "{\"from\": \"a\"}", 422),
        (Method::POST, &retry, &large, 413),
        (Method::POST, &approve, "[]", 422),
        (Method::POST, &approve, "{\"digest\": 1}", 422),
        (Method::POST, &reject, "", 400),
        (Method::POST, &reject, "{}", 422),
        (Method::POST, &reject, "{\"reason\": \" \\u0000\\n\"}", 422),
        (Method::POST, &reject, &long, 422),
        (Method::POST, "/jobs/nothing/approve", "", 404),
    ] {
        let (status, ..) = problem(server.ask(method.clone(), path, Some(&token), body).await).await;
        assert_eq!(status, expected, "{method} {path}");
    }
    let twice = server.http.get(format!("{}/jobs", server.address)).bearer_auth("a").bearer_auth("b");
    assert_eq!(problem(twice.send().await.unwrap()).await.0, 400);
}

#[tokio::test]
async fn jobs_are_shown_as_they_stand_on_record() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    for _ in 0..3 {
        let origin = Origin::Hand { child: "c".to_owned(), note: None };
        let job = Job::new(origin, Work::default(), Timestamp::now());
        server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    }
    let client = crate::client::Client::new(&server.address, Some(token)).unwrap();
    let all = client.jobs(None, 10).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(client.jobs(None, 2).await.unwrap(), all[..2], "a page ends where it should");
    assert!(client.jobs(Some(crate::lifecycle::Phase::Done), 10).await.unwrap().is_empty());
    let job = client.job(&all[1].job_id).await.unwrap();
    assert_eq!((job.summary, job.result), (all[1].clone(), None));
    assert_eq!(client.logs(&all[1].job_id).await.unwrap(), b"");
    let error = client.cancel(&all[1].job_id).await.unwrap_err();
    assert!(matches!(&error, crate::client::Error::Scope { .. }), "{error:?}");
    let keyless = crate::client::Client::new(&server.address, None).unwrap();
    let error = keyless.jobs(None, 1).await.unwrap_err().to_string();
    assert!(error.contains("CONSIGN_TOKEN"), "{error}");
}

#[tokio::test]
async fn a_log_that_is_followed_ends_with_the_agent() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    let job = Job::new(origin, Work::default(), Timestamp::now());
    server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    let client = crate::client::Client::new(&server.address, Some(token)).unwrap();
    let mut log = client.follow(&job.job_id.to_string()).await.unwrap();
    server.ending.cancel();
    assert_eq!(log.next().await.unwrap(), None);
}
