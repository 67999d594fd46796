//! Requests that make no sense or mean harm: each gets a problem document, and work goes on.

use std::fs;

use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Agent, LIMIT, World, wait_for};

const GIGABYTE: usize = 1 << 30;
/// How much memory the agent may take for bodies that it refuses: far more than it reads of them, far less than
/// they have.
const ROOM: u64 = 32 << 20;

/// The most memory that the agent ever had resident, in bytes.
fn peak(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Sends a request whose body has a gigabyte, until the server no longer takes it; gives the whole answer.
async fn pour(agent: &Agent, path: &str, headers: &str, chunked: bool) -> String {
    let host = agent.address.strip_prefix("http://").unwrap();
    let (mut reader, mut writer) = TcpStream::connect(host).await.unwrap().into_split();
    let length =
        if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {GIGABYTE}") };
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n\r\n");
    writer.write_all(head.as_bytes()).await.unwrap();
    let sending = async {
        let block = vec![b' '; 1 << 16];
        for _ in 0..GIGABYTE / block.len() {
            let frame = format!("{:x}\r\n", block.len());
            let parts: [&[u8]; 3] =
                if chunked { [frame.as_bytes(), &block, b"\r\n"] } else { [b"", &block, b""] };
            if writer.write_all(&parts.concat()).await.is_err() {
                return;
            }
        }
    };
    let mut answer = Vec::new();
    let reading = async {
        // The connection ends as soon as the answer is out, and perhaps not in good order.
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(sending, reading) }).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A problem's status and detail; anything else fails the test.
async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    assert_eq!(kind, "application/problem+json", "{status}: {text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["status"], status, "{document}");
    (status, document["detail"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_makes_no_sense_is_a_problem_and_nothing_is_lost() {
    let world = World::new("bad-input").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let formula = format!(
        "echo begun >> {}\nwhile [ ! -e {} ]; do sleep 0.1; done\n",
        world.ledger().display(),
        world.path("go").display()
    );
    world.ops.commit("a formula", &[("formulas/hold.sh", Some(&formula))]);
    let token = world.token("ann", "read,submit");
    let http = crate::support::http();
    let post = async |body: &Value| {
        let request = http.post(format!("{}/jobs", agent.address)).bearer_auth(&token);
        request.body(body.to_string()).send().await.unwrap()
    };
    let get = async |path: &str, token: &str| {
        http.get(format!("{}{path}", agent.address)).bearer_auth(token).send().await.unwrap()
    };
    let good = json!({ "formula": "hold", "blast_radius": "low" });
    let job_id = wait_for("the formula to be known", LIMIT, async || {
        let text = post(&good).await.text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["job_id"].as_str().map(str::to_owned).ok_or(text)
    })
    .await;

    let before = peak(&agent);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let retry = format!("/jobs/{job_id}/retry");
    for (path, headers, status) in
        [("/jobs", bearer.as_str(), 413), (&retry, &bearer, 413), ("/hooks/git", "", 413), ("/jobs", "", 401)]
    {
        for chunked in [false, true] {
            let answer = pour(&agent, path, headers, chunked).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {chunked}: {answer:?}");
            assert!(answer.contains("application/problem+json"), "{path} {chunked}: {answer:?}");
        }
    }
    let grown = peak(&agent).saturating_sub(before);
    assert!(grown < ROOM, "the agent's memory grew by {grown} bytes");

    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://10.0.0.1/",
        "file:///etc/passwd",
    ] {
        let mut body = good.clone();
        body["notify"] = json!([url]);
        let (status, detail) = problem(post(&body).await).await;
        assert!(status == 422 && detail.contains("notify"), "{url}: {status} {detail}");
    }
    for (path, status) in [
        ("/jobs?phase=sleeping", 422),
        ("/jobs?cursor=1", 422),
        ("/jobs/no-such-job", 404),
        ("/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", 404),
        ("/jobs/..%2F..%2Fetc%2Fpasswd", 404),
        ("/jobs/no-such-job/logs?follow=true", 404),
    ] {
        assert_eq!(problem(get(path, &token).await).await.0, status, "{path}");
    }
    let created = world.operate(&["token", "create", "old", "--scope", "admin", "--expires", "1s"], b"");
    let old = String::from_utf8(created.stdout).unwrap().lines().last().unwrap().to_owned();
    wait_for("the token to expire", LIMIT, async || {
        let response = get("/jobs", &old).await;
        if response.status() == 401 { Ok(()) } else { Err(response.status().to_string()) }
    })
    .await;
    let (status, detail) = problem(get("/jobs", &old).await).await;
    assert!(status == 401 && detail.contains("expired"), "{detail}");

    // The one job that was taken is all that there is, and it runs to its end.
    fs::write(world.path("go"), "").unwrap();
    wait_for("the job to end", LIMIT, async || {
        let text = get("/jobs", &token).await.text().await.unwrap();
        let page: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["jobs"].as_array().unwrap().len(), 1, "{page}");
        if page["jobs"][0]["state"] == "done" { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(world.ledger_lines(), ["begun"]);
    assert_eq!(agent.health().await["degraded"], false);
}
