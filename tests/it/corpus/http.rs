//! Requests as no client of ours makes them: each has its answer, and no work comes of any.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Parts, cases, joined};
use crate::support::{LIMIT, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    request: Parts,
    status: u16,
}

/// Sends a request as it is, and gives the beginning of the answer.
async fn answer(address: &str, request: &[u8]) -> String {
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    // The answer may come, and the connection end, before all is sent.
    let sending = async { writer.write_all(request).await.is_ok() };
    let reading = async {
        let mut answer = vec![0; 64];
        let mut length = 0;
        while let Ok(read @ 1..) = reader.read(&mut answer[length..]).await {
            length += read;
        }
        answer.truncate(length);
        answer
    };
    let both = async { tokio::join!(sending, reading) };
    let (_, answer) = tokio::time::timeout(LIMIT, both).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn every_request_has_its_answer() {
    let world = World::new("corpus").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let token = world.token("ann", "admin");
    let address = agent.address.strip_prefix("http://").unwrap();
    let mut wrong = Vec::new();
    for case in cases::<Case>("http.toml") {
        let request = joined(&case.request).replace("TOKEN", &token);
        let answer = answer(address, request.as_bytes()).await;
        if !answer.starts_with(&format!("HTTP/1.1 {} ", case.status)) {
            wrong.push(format!("{:?}: {answer:?}", request.chars().take(300).collect::<String>()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let page = crate::support::http()
        .get(format!("{}/jobs", agent.address))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(page.json::<Value>().await.unwrap()["jobs"], json!([]));
    assert_eq!(agent.health().await["degraded"], false);
}
