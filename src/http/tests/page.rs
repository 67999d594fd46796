//! The page's routes: who gets in, what they may do, and what every answer says to a browser.

use super::*;
use crate::{
    lifecycle::{Ending, Event},
    outcome::Cause,
};

/// What a browser sends with a form of the page.
async fn send(server: &Server, path: &str, session: &str, form: &str) -> Response {
    let request = server.http.post(format!("{}{path}", server.address));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
    request
        .header("origin", &server.address)
        .header("cookie", format!("consign_session={session}"))
        .send()
        .await
        .unwrap()
}

/// What a browser gets at a path with a session.
async fn get(server: &Server, path: &str, session: &str) -> (u16, String) {
    let request = server.http.get(format!("{}{path}", server.address));
    let answer = request.header("cookie", format!("consign_session={session}")).send().await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"), "{path}");
    assert_eq!(
        (header("x-content-type-options"), header("cache-control")),
        ("nosniff".into(), "no-store".into())
    );
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The session that a login with `token` gives.
async fn log_in(server: &Server, token: &SecretString) -> String {
    let form = format!("token={}&to=/ui/jobs/a", token.expose_secret());
    let answer = send(server, "/ui/login", "", &form).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()),
        (303, "/ui/jobs/a")
    );
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(
        cookie.ends_with("; HttpOnly; SameSite=Lax") && !cookie.contains(token.expose_secret()),
        "{cookie}"
    );
    let (session, _) = cookie.strip_prefix("consign_session=").unwrap().split_once(';').unwrap();
    session.to_owned()
}

#[tokio::test]
async fn the_page_shows_and_does_what_the_token_of_the_login_may() {
    let mut server = Server::start().await;
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    let job = Job::new(origin, Work::default(), Timestamp::now());
    server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    // Nobody answers orders.
    server.orders.close();
    let place = format!("/ui/jobs/{}", job.job_id);
    let (cancel, retry) = (format!("{place}/cancel"), format!("{place}/retry"));
    let reader = log_in(&server, &server.token("reader", &[Scope::Read], None)).await;
    let operator = log_in(&server, &server.token("operator", &[Scope::Read, Scope::Submit], None)).await;
    let approver = log_in(&server, &server.token("approver", &[Scope::Read, Scope::Approve], None)).await;
    let nobody = log_in(&server, &server.token("nobody", &[], None)).await;
    for path in ["/", &place] {
        let (status, document) = get(&server, path, "").await;
        assert!(status == 401 && document.contains(&format!("name=\"to\" value=\"{path}\"")), "{document}");
        assert_eq!(get(&server, path, &nobody).await.0, 403);
        for session in [&reader, &operator] {
            let (status, document) = get(&server, path, session).await;
            assert!(status == 200 && document.contains(&job.job_id.to_string()), "{document}");
            assert_eq!(document.contains("/cancel"), path == place && session == &operator);
        }
    }
    let log = format!("{place}/log");
    assert_eq!((get(&server, &log, "").await.0, get(&server, &log, &nobody).await.0), (401, 403));
    // No trigger has been read yet.
    for path in ["/ui/triggers", "/ui/triggers/train"] {
        for (session, expected) in [("", 401), (&nobody, 403), (&reader, 503)] {
            assert_eq!(get(&server, path, session).await.0, expected, "{path}");
        }
    }
    for path in [&cancel, &retry, "/ui/triggers/train/fire"] {
        for (session, expected) in [("", 401), (&nobody, 403), (&reader, 403), (&operator, 503)] {
            let answer = send(&server, path, session, "").await;
            assert_eq!(answer.status().as_u16(), expected, "{path}");
            assert!(answer.text().await.unwrap().starts_with("<!DOCTYPE html>"));
        }
    }
    for form in ["force=perhaps", "content=a"] {
        let answer = send(&server, "/ui/triggers/train/fire", &operator, form).await;
        assert_eq!(answer.status().as_u16(), 422, "{form}");
    }
    for (verb, form, wrong) in
        [("approve", "digest=5d41", "digest=5d41&more=1"), ("reject", "reason=no", "reason=+")]
    {
        let path = format!("{place}/{verb}");
        for (session, form, expected) in [
            ("", form, 401),
            (&reader, form, 403),
            (&operator, form, 403),
            (&approver, form, 503),
            (&approver, wrong, 422),
        ] {
            assert_eq!(
                send(&server, &path, session, form).await.status().as_u16(),
                expected,
                "{path} {form}"
            );
        }
    }
    for (path, expected) in [("/ui/jobs/unknown", 404), ("/?before=x", 422), ("/ui/jobs/%ff", 400)] {
        let (status, document) = get(&server, path, &reader).await;
        assert!(status == expected && document.contains("All jobs"), "{path}: {status}: {document}");
    }
    // A cookie opens nothing of the API.
    let request = server.http.get(format!("{}/jobs", server.address));
    let answer = request.header("cookie", format!("consign_session={reader}")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    tokens(server.folder.path()).revoke(&"reader".parse().unwrap()).unwrap();
    assert_eq!(get(&server, "/", &reader).await.0, 401, "its token was revoked");
}

#[tokio::test]
async fn the_pages_of_ended_jobs_have_each_once_the_newest_first() {
    let server = Server::start().await;
    let session = log_in(&server, &server.token("ann", &[Scope::Read], None)).await;
    let now = Timestamp::now();
    let mut expected = Vec::new();
    for index in 0..120 {
        let mut job = Job::new(Origin::Hand { child: "c".to_owned(), note: None }, Work::default(), now);
        let cause = if index % 3 == 0 { Cause::Success } else { Cause::Invalid };
        for event in [Event::Concluded(Ending::without_task(cause, "", now)), Event::Withdrawn, Event::Ended]
        {
            job.apply(event, now).unwrap();
        }
        server.store.save(&job, "seen", now).await.unwrap();
        expected.push(job.job_id.to_string());
    }
    expected.sort_unstable_by(|one, two| two.cmp(one));
    let (mut found, mut path) = (Vec::new(), "/".to_owned());
    for pages in 1.. {
        let (_, document) = get(&server, &path, &session).await;
        let ids = document.split("id=\"job-").skip(1).map(|rest| rest[..26].to_owned());
        found.extend(ids);
        assert_eq!(found, expected[..found.len()]);
        let Some((_, rest)) = document.split_once("href=\"/?before=") else {
            assert_eq!(pages, 3);
            break;
        };
        path = format!("/?before={}", &rest[..26]);
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn nobody_gets_in_without_a_token_or_from_another_site() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Admin], None);
    let expired = server.token("ben", &[Scope::Admin], Some(Timestamp::UNIX_EPOCH));
    for (wrong, words) in
        [("consign_0", "not known"), (expired.expose_secret(), "expired"), ("", "not known")]
    {
        let answer = send(&server, "/ui/login", "", &format!("token={wrong}&to=//evil.example")).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("set-cookie")), (401, None));
        let document = answer.text().await.unwrap();
        assert!(document.contains(words) && !document.contains("evil"), "{document}");
    }
    let form = format!("token={}&to=/", token.expose_secret());
    let bare = server.http.post(format!("{}/ui/login", server.address)).body(form.clone());
    let bare = bare.header("content-type", "application/x-www-form-urlencoded");
    for (name, value) in
        [("accept", "*/*"), ("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")]
    {
        let answer = bare.try_clone().unwrap().header(name, value).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("set-cookie")), (403, None), "{name}");
    }
    for form in ["", "token=a", "a=b", &format!("{form}&more=1")] {
        assert_eq!(send(&server, "/ui/login", "", form).await.status().as_u16(), 422, "{form}");
    }
    let answer = send(&server, "/ui/logout", "", "").await;
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn a_followed_log_ends_with_the_agent_on_the_page_too() {
    let server = Server::start().await;
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    let job = Job::new(origin, Work::default(), Timestamp::now());
    server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    let session = log_in(&server, &server.token("ann", &[Scope::Read], None)).await;
    let request = server.http.get(format!("{}/ui/jobs/{}/log", server.address, job.job_id));
    let answer = request.header("cookie", format!("consign_session={session}")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    server.ending.cancel();
    assert_eq!(answer.text().await.unwrap(), "");
}
