//! What is served of a job's artifacts, and what is not.

use reqwest::header;

use super::{Job, Method, Origin, Response, Scope, SecretString, Server, Timestamp, Value, Work, problem};
use crate::{
    artifact::INLINE_LIMIT,
    lifecycle::{Ending, Event},
    outcome::{Cause, result_file},
};

/// A job that kept these files.
async fn kept(server: &Server, files: &[(&str, &[u8])]) -> String {
    let now = Timestamp::now();
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    let mut job = Job::new(origin, Work::default(), now);
    let folder = server.folder.path().join("artifacts").join(job.job_id.to_string()).join("files");
    let mut ending = Ending::without_task(Cause::Success, "done", now);
    for (name, content) in files {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
        ending.artifacts.push(result_file::Artifact {
            name: (*name).to_owned(),
            size: u64::try_from(content.len()).unwrap(),
            sha256: format!("digest-of-{}", content.len()),
            url: Some(crate::artifact::name::url(&job.job_id.to_string(), name)),
        });
    }
    for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
        job.apply(event, now).unwrap();
    }
    server.store.save(&job, "ended", now).await.unwrap();
    job.job_id.to_string()
}

async fn get(
    server: &Server,
    token: &SecretString,
    path: &str,
    headers: &[(header::HeaderName, &str)],
) -> Response {
    let mut request = server.http.get(format!("{}{path}", server.address));
    request = request.bearer_auth(secrecy::ExposeSecret::expose_secret(token));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request.send().await.unwrap()
}

fn header<'response>(response: &'response Response, name: &header::HeaderName) -> &'response str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_file_comes_as_it_was_kept_and_cannot_act_as_a_page() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let page = b"<script>alert(1)</script>";
    let id = kept(&server, &[("a b/\u{e4}#?%.html", page), ("plain", b"0123456789")]).await;
    let details = get(&server, &token, &format!("/jobs/{id}"), &[]).await;
    let details: Value = serde_json::from_str(&details.text().await.unwrap()).unwrap();
    let url = details["result"]["artifacts"][0]["url"].as_str().unwrap().to_owned();
    for path in [&url, &url.replace("a%20b/", "a%20b%2F")] {
        let response = get(&server, &token, path, &[]).await;
        assert_eq!(response.status().as_u16(), 200, "{path}");
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_LENGTH, "25"),
            (header::ETAG, "\"digest-of-25\""),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
            (header::CONTENT_DISPOSITION, "attachment; filename*=UTF-8''%C3%A4%23%3F%25.html"),
        ] {
            assert_eq!(header(&response, &name), value, "{name}");
        }
        assert_eq!(response.bytes().await.unwrap().as_ref(), page);
    }
    let plain = format!("/jobs/{id}/artifacts/plain");
    let known = get(&server, &token, &plain, &[(header::IF_NONE_MATCH, "\"digest-of-10\"")]).await;
    assert_eq!((known.status().as_u16(), known.bytes().await.unwrap().len()), (304, 0));
    let part = get(&server, &token, &plain, &[(header::RANGE, "bytes=2-4")]).await;
    assert_eq!((part.status().as_u16(), header(&part, &header::CONTENT_RANGE)), (206, "bytes 2-4/10"));
    assert_eq!(part.text().await.unwrap(), "234");
    let beyond = get(&server, &token, &plain, &[(header::RANGE, "bytes=10-")]).await;
    assert_eq!(header(&beyond, &header::CONTENT_RANGE), "bytes */10");
    assert_eq!(problem(beyond).await.0, 416);
    let head = server.ask(Method::HEAD, &plain, Some(&token), "").await;
    assert_eq!((head.status().as_u16(), header(&head, &header::CONTENT_LENGTH)), (200, "10"));
}

#[tokio::test]
async fn nothing_but_what_the_job_kept_is_served() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let id = kept(&server, &[("kept", b"1"), ("changed", b"22")]).await;
    let folder = server.folder.path().join("artifacts").join(&id);
    std::fs::write(folder.join("record.json"), "{}").unwrap();
    std::fs::write(folder.join("files/beside"), "1").unwrap();
    std::fs::write(folder.join("files/changed"), "2").unwrap();
    for name in [
        "beside",
        "changed",
        "../record.json",
        "..%2Frecord.json",
        "%2e%2e/record.json",
        "%2Fetc%2Fpasswd",
        "kept/",
        "./kept",
        "kept%00",
        "KEPT",
        "%252e%252e%2Frecord.json",
    ] {
        // As it is: a client of the usual kind would tidy the path.
        let status = raw(&server, &token, &format!("/jobs/{id}/artifacts/{name}")).await;
        assert_eq!(status, 404, "{name}");
    }
    assert_eq!(raw(&server, &token, &format!("/jobs/{id}/artifacts/kept")).await, 200);
    assert_eq!(raw(&server, &token, &format!("/jobs/{id}/artifacts/%ff")).await, 400);
    std::fs::remove_dir_all(&folder).unwrap();
    let gone = get(&server, &token, &format!("/jobs/{id}/artifacts/kept"), &[]).await;
    let (status, _, detail) = problem(gone).await;
    assert!(status == 404 && detail.contains("gone"), "{status} {detail}");
}

/// The status of a request whose path is sent byte for byte.
async fn raw(server: &Server, token: &SecretString, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = server.address.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let token = secrecy::ExposeSecret::expose_secret(token);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn details_hold_small_files_and_name_the_place_of_large_ones() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let large = vec![0; usize::try_from(INLINE_LIMIT).unwrap() + 1];
    let id = kept(&server, &[("small", b"small"), ("large", &large)]).await;
    let client = crate::client::Client::new(&server.address, Some(token)).unwrap();
    let artifacts = client.job(&id).await.unwrap().artifacts;
    assert_eq!((artifacts[0].data.as_deref(), &artifacts[0].url), (Some("c21hbGw="), &None));
    assert_eq!(artifacts[1].url, Some(format!("/jobs/{id}/artifacts/large")));
    assert_eq!((artifacts[1].data.as_ref(), artifacts[1].sha256.as_str()), (None, "digest-of-262145"));
}
