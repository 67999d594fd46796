//! What listeners are told.

use std::time::Duration;

use reqwest::{Response, header};
use secrecy::ExposeSecret as _;

use super::{Job, Origin, Scope, SecretString, Server, Timestamp, Work, problem, tokens};
use crate::{
    http::Audience,
    lifecycle::{Ending, Event},
    outcome::Cause,
    webhook::Body,
};

const LIMIT: Duration = Duration::from_secs(20);

async fn listen(server: &Server, token: &SecretString, query: &str, last: Option<&str>) -> Response {
    let request = server.http.get(format!("{}/events{query}", server.address));
    let request = request.bearer_auth(token.expose_secret());
    let request = match last {
        Some(last) => request.header("Last-Event-ID", last),
        None => request,
    };
    request.send().await.unwrap()
}

/// Reads until `enough`, or the end, and gives all that came.
async fn read(response: &mut Response, enough: impl Fn(&str) -> bool) -> String {
    let mut told = String::new();
    let reading = async {
        while !enough(&told) {
            let Ok(Some(piece)) = response.chunk().await else { return };
            told.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    assert!(tokio::time::timeout(LIMIT, reading).await.is_ok(), "{told}");
    told
}

/// The ids of the phases that were told, with their bodies.
fn phases(told: &str) -> Vec<(i64, Body)> {
    let whole = told.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let events = whole.split("\n\n").filter(|event| event.contains("event: phase"));
    events
        .map(|event| {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            (field("id: ").parse().unwrap(), serde_json::from_str(field("data: ")).unwrap())
        })
        .collect()
}

fn job() -> Job {
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    Job::new(origin, Work::default(), Timestamp::now())
}

async fn seen(server: &Server) -> Job {
    let job = job();
    server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    job
}

async fn ended(server: &Server, job: &mut Job) {
    let now = Timestamp::now();
    let ending = Ending::without_task(Cause::ExitCode, "exit code 7", now);
    for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
        job.apply(event, now).unwrap();
    }
    server.store.finish(job, None, now).await.unwrap();
}

#[tokio::test]
async fn each_change_is_told_and_whoever_comes_back_goes_on_where_it_was() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let mut before = seen(&server).await;
    let mut listener = listen(&server, &token, "", None).await;
    assert_eq!(listener.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut job = seen(&server).await;
    ended(&server, &mut job).await;
    let told = phases(&read(&mut listener, |told| phases(told).len() == 2).await);
    let bodies: Vec<(&str, &str, u32)> =
        told.iter().map(|(_, body)| (body.job_id.as_str(), body.state.as_str(), body.sequence)).collect();
    let id = job.job_id.to_string();
    assert_eq!(bodies, [(id.as_str(), "queued", 1), (id.as_str(), "failed", 2)], "from now on");
    assert_eq!((told[1].1.error.as_deref(), &told[1].1.result), (Some("exit code 7"), &None));
    drop(listener);

    ended(&server, &mut before).await;
    let last = told[0].0.to_string();
    let mut again = listen(&server, &token, "", Some(&last)).await;
    let rest = phases(&read(&mut again, |told| phases(told).len() == 2).await);
    assert_eq!((rest[0].0, &rest[0].1), (told[1].0, &told[1].1));
    assert_eq!((rest[1].0, &rest[1].1.job_id), (told[1].0 + 1, &before.job_id.to_string()));
    let mut of_one = listen(&server, &token, &format!("?job={id}"), None).await;
    let all = phases(&read(&mut of_one, |told| phases(told).len() == 2).await);
    assert_eq!(all, told, "of one job from its beginning");
}

#[tokio::test]
async fn a_listener_that_knows_of_another_store_hears_of_the_gap() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    seen(&server).await;
    let mut listener = listen(&server, &token, "", Some("77")).await;
    let told = read(&mut listener, |told| told.contains("event: gap")).await;
    assert!(told.contains("id: 1\nevent: gap\ndata: {}\n\n"), "{told}");
    seen(&server).await;
    assert_eq!(phases(&read(&mut listener, |told| phases(told).len() == 1).await)[0].0, 2);
    for (query, last, status) in [
        ("", Some("-1"), 400),
        ("", Some("x"), 400),
        ("?job=nothing", None, 404),
        ("?jobs=a", None, 422),
        ("?job=a&job=b", None, 422),
    ] {
        assert_eq!(problem(listen(&server, &token, query, last).await).await.0, status, "{query} {last:?}");
    }
}

#[tokio::test]
async fn silence_is_broken_and_a_revoked_token_listens_no_more() {
    let audience = Audience { silence: Duration::from_millis(50), ..Audience::default() };
    let server = Server::start_with(audience, 0).await;
    let token = server.token("ann", &[Scope::Read], None);
    let mut listener = listen(&server, &token, "", None).await;
    read(&mut listener, |told| told.contains(": nothing new")).await;
    tokens(server.folder.path()).revoke(&"ann".parse().unwrap()).unwrap();
    read(&mut listener, |_| false).await;
}

#[tokio::test]
async fn a_listener_that_takes_nothing_is_left_and_its_place_is_free_again() {
    let audience = Audience { patience: Duration::from_millis(200), ..Audience::default() };
    let places = audience.free();
    let server = Server::start_with(audience.clone(), 0).await;
    let token = server.token("ann", &[Scope::Read], None);
    let _deaf = listen(&server, &token, "", None).await;
    assert_eq!(audience.free(), places - 1);
    // More than connection and pieces hold.
    let now = Timestamp::now();
    let mut changes = 0;
    tokio::time::timeout(LIMIT, async {
        while audience.free() < places {
            let mut job = job();
            let ending = Ending::without_task(Cause::ExitCode, "x".repeat(500_000), now);
            for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
                job.apply(event, now).unwrap();
            }
            server.store.finish(&job, None, now).await.unwrap();
            changes += 1;
        }
    })
    .await
    .unwrap();
    assert!(changes > 1, "{changes}");
    let mut other = listen(&server, &token, "", Some("0")).await;
    read(&mut other, |told| told.matches("event: phase").count() == changes).await;
}

#[tokio::test]
async fn there_are_so_many_places_and_no_more() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let mut listeners = Vec::new();
    for _ in 0..Audience::default().free() {
        listeners.push(listen(&server, &token, "", None).await);
    }
    let refused = listen(&server, &token, "", None).await;
    assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
    assert_eq!(problem(refused).await.0, 503);
}
