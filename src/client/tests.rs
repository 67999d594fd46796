//! The client against an agent that says what a test wants.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response as Answer},
    routing::{get, post},
};
use jiff::Timestamp;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{receiver::Receiver, *};
use crate::{
    artifact::Described,
    lifecycle::{Ending, Event, Job, Origin, Work},
    outcome::Cause,
    webhook::{HEADER, sign},
};

/// An agent with one job.
struct Agent {
    address: String,
    said: Arc<Mutex<Said>>,
    server: JoinHandle<()>,
}

/// What it says, and what it was asked.
#[derive(Default)]
struct Said {
    refuses_receivers: bool,
    /// Whether the job has ended.
    ended: bool,
    /// How often its answer to a submission does not come.
    lost_answers: u32,
    submissions: Vec<(Value, String)>,
    looks: u32,
    cancellations: u32,
}

type Shared = State<Arc<Mutex<Said>>>;

fn details(ended: bool) -> Json<JobDetails> {
    let now = Timestamp::UNIX_EPOCH;
    let mut job = Job::new(Origin::Hand { child: "c".to_owned(), note: None }, Work::default(), now);
    if ended {
        let ending = Ending::without_task(Cause::Success, "done", now);
        for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
            job.apply(event, now).unwrap();
        }
    }
    Json(JobDetails::of(&job, Vec::new()))
}

async fn take(State(said): Shared, headers: header::HeaderMap, Json(action): Json<Value>) -> Answer {
    let mut said = said.lock().unwrap();
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    said.submissions.push((action.clone(), key));
    if said.lost_answers > 0 {
        said.lost_answers -= 1;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if action["formula"] == "unknown" || said.refuses_receivers && action["notify"].is_array() {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    (StatusCode::ACCEPTED, Json(json!({ "job_id": "J" }))).into_response()
}

async fn show(State(said): Shared) -> Json<JobDetails> {
    let mut said = said.lock().unwrap();
    said.looks += 1;
    details(said.ended)
}

async fn cancel(State(said): Shared) -> Json<JobDetails> {
    said.lock().unwrap().cancellations += 1;
    details(false)
}

impl Agent {
    async fn start(said: Said) -> Self {
        let said = Arc::new(Mutex::new(said));
        let router = Router::new()
            .route("/jobs", post(take))
            .route("/jobs/J", get(show))
            .route("/jobs/J/cancel", post(cancel))
            .route("/jobs/J/artifacts/a", get(async || "content"))
            .with_state(Arc::clone(&said));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, said, server }
    }

    fn client(&self) -> Client {
        Client::new(&self.address, None).unwrap()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    /// The URL of the receiver, once it has been given one.
    async fn receiver(&self) -> String {
        loop {
            if let Some((action, _)) = self.said().submissions.last() {
                return action["notify"][0].as_str().unwrap().to_owned();
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn action() -> Value {
    json!({ "formula": "f" })
}

async fn send(url: &str, body: &str, secret: &str) -> u16 {
    let request = reqwest::Client::new().post(url).body(body.to_owned());
    let request = request.header(HEADER, sign(secret.as_bytes(), body.as_bytes()));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_webhook_ends_the_wait_and_only_one_that_is_signed() {
    let agent = Agent::start(Said::default()).await;
    let client = agent.client();
    let wait = Wait { by: By::Webhook { secret: Some("secret".into()) }, ..Wait::default() };
    let submitted = action();
    let waiting = client.submit_and_wait(&submitted, &wait);
    let told = async {
        let url = agent.receiver().await;
        assert_eq!(send(&url, "{}", "wrong").await, 401);
        let elsewhere = reqwest::Url::parse(&url).unwrap().join("/").unwrap();
        assert_eq!(send(elsewhere.as_str(), "{}", "secret").await, 404);
        assert_eq!(reqwest::get(&url).await.unwrap().status().as_u16(), 405);
        let looks = agent.said().looks;
        assert!(looks <= 1, "{looks}");
        agent.said().ended = true;
        assert_eq!(send(&url, "{}", "secret").await, 204);
        url
    };
    let (job, url) = tokio::join!(waiting, told);
    assert_eq!(job.unwrap().summary.exit_code, Some(0));
    assert!(agent.said().looks <= 2);
    wait_for_nobody(&url).await;
}

/// Waits until nobody listens at a URL any more.
async fn wait_for_nobody(url: &str) {
    while reqwest::get(url).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_no_receiver_behind() {
    let agent = Agent::start(Said::default()).await;
    let client = agent.client();
    let submitted = action();
    let default = Wait::default();
    let waiting = client.submit_and_wait(&submitted, &default);
    let url = tokio::select! {
        _ = waiting => unreachable!("it does not end"),
        url = agent.receiver() => url,
    };
    wait_for_nobody(&url).await;
    assert_eq!(agent.said().cancellations, 0);
}

#[tokio::test]
async fn a_refused_receiver_and_one_that_hears_nothing_are_replaced_by_asking() {
    let ended = Agent::start(Said { refuses_receivers: true, ended: true, ..Said::default() }).await;
    ended.client().submit_and_wait(&action(), &Wait::default()).await.unwrap();
    let submissions = ended.said().submissions.clone();
    assert_eq!((submissions.len(), &submissions[1].0), (2, &action()));
    assert_ne!(submissions[0].1, submissions[1].1, "another request has another key");
    let error = ended.client().submit_and_wait(&json!({ "formula": "unknown" }), &Wait::default()).await;
    assert!(matches!(error, Err(Error::Refused { .. })), "{error:?}");

    let silent = Agent::start(Said::default()).await;
    let (client, submitted, wait) = (silent.client(), action(), Wait::default());
    let waiting = client.submit_and_wait(&submitted, &wait);
    let later = async {
        silent.receiver().await;
        silent.said().ended = true;
    };
    let (job, ()) = tokio::join!(waiting, later);
    assert_eq!(job.unwrap().summary.exit_code, Some(0));
}

#[tokio::test]
async fn polling_gives_the_agent_no_url() {
    let agent = Agent::start(Said { ended: true, ..Said::default() }).await;
    let wait = Wait { by: By::Polling, ..Wait::default() };
    agent.client().submit_and_wait(&action(), &wait).await.unwrap();
    assert_eq!(agent.said().submissions[0].0, action());
}

#[tokio::test]
async fn a_deadline_leaves_the_job_or_cancels_it() {
    for at_deadline in [AtDeadline::Leave, AtDeadline::Cancel] {
        let agent = Agent::start(Said::default()).await;
        let wait = Wait { deadline: Some(Duration::from_millis(300)), at_deadline, ..Wait::default() };
        let error = agent.client().submit_and_wait(&action(), &wait).await.unwrap_err();
        let cancels = at_deadline == AtDeadline::Cancel;
        assert!(
            matches!(&error, Error::Deadline { job_id, cancelled } if job_id == "J" && *cancelled == cancels),
            "{error:?}"
        );
        assert_eq!(agent.said().cancellations, u32::from(cancels), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_with_the_same_key() {
    let agent = Agent::start(Said { lost_answers: 2, ..Said::default() }).await;
    agent.client().submit(&action(), "k").await.unwrap();
    let keys: Vec<String> = agent.said().submissions.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(keys, ["k", "k", "k"]);
}

#[tokio::test]
async fn an_artifact_is_compared_with_its_digest() {
    let agent = Agent::start(Said::default()).await;
    let client = agent.client();
    let sha256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    let artifact = |data: Option<&str>, sha256: &str| Described {
        name: "a".to_owned(),
        content_type: "text/plain".to_owned(),
        size: 7,
        sha256: sha256.to_owned(),
        data: data.map(ToOwned::to_owned),
        url: None,
    };
    for (artifact, good) in [
        (artifact(None, sha256), true),
        (artifact(Some("Y29udGVudA=="), sha256), true),
        (artifact(None, "00"), false),
        (artifact(Some("Y29udGVudB=="), sha256), false),
        (artifact(Some("b3RoZXI="), sha256), false),
    ] {
        let mut content = Vec::new();
        let fetched = client.fetch("J", &artifact, |piece| {
            content.extend_from_slice(piece);
            Ok(())
        });
        match fetched.await {
            Ok(()) => assert!(good && content == b"content", "{artifact:?}"),
            Err(error) => assert!(!good && matches!(error, Error::Damaged { .. }), "{artifact:?} {error}"),
        }
    }
}

#[tokio::test]
async fn a_receiver_listens_where_the_agent_is_reached() {
    for agent in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1/below"] {
        let receiver = Receiver::start(&agent.parse().unwrap(), None).await.unwrap();
        let url = reqwest::Url::parse(receiver.url()).unwrap();
        assert!(["127.0.0.1", "[::1]"].contains(&url.host_str().unwrap()), "{url}");
        assert!(!receiver.has_heard());
    }
}

#[test]
fn addresses_are_completed_and_checked() {
    for (given, address) in [
        ("127.0.0.1:8480", "http://127.0.0.1:8480"),
        ("http://agent.example/", "http://agent.example"),
        ("https://agent.example/consign", "https://agent.example/consign"),
    ] {
        assert_eq!(Client::new(given, None).unwrap().address, address);
    }
    for wrong in ["", "ftp://agent", "http://"] {
        assert!(matches!(Client::new(wrong, None), Err(Error::Address { .. })), "{wrong:?}");
    }
}

#[test]
fn an_id_stays_one_segment() {
    assert_eq!(escape("fix-4.2"), "fix-4.2");
    assert_eq!(escape("../x?y"), "..%2Fx%3Fy");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::new(&address, None).unwrap().job("a").await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}
