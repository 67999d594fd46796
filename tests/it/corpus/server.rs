//! What Nomad and Vault should never answer, or might: read by the real clients from a listener that says just that.

use std::fs;

use consign::{credential::Credential, nomad, vault};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Parts, bytes, cases, is_expected, joined, path};
use crate::support::LIMIT;

/// What an error says, with all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Why a client does not take `reply` to a request; `None` where it does.
async fn problem(call: &str, reply: &[u8]) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answering = async {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            // A request of a few hundred bytes comes in one piece.
            let _ = connection.read(&mut [0; 4096]).await.unwrap();
            // A client may go away as soon as it has read enough.
            let _ = connection.write_all(reply).await.is_ok() && connection.shutdown().await.is_ok();
        }
    };
    tokio::select! {
        problem = tokio::time::timeout(LIMIT, asked(call, address)) => problem.unwrap(),
        () = answering => unreachable!("it answers for ever"),
    }
}

async fn asked(call: &str, address: String) -> Option<String> {
    let nomad = nomad::Client::new(nomad::Settings {
        addr: address.clone(),
        token: Credential::default(),
        namespace: "default".to_owned(),
        region: None,
        ca_cert: None,
    })
    .unwrap();
    let vault = vault::Vault::new(&vault::Settings {
        address,
        ca_certificate: None,
        namespace: None,
        token: Credential::default(),
    })
    .unwrap();
    let of_nomad = |error: nomad::Error| chain(&error);
    let of_vault = |error: vault::Error| chain(&error);
    match call {
        "allocation" => nomad.allocation("a").await.err().map(of_nomad),
        "jobs" => nomad.children("runner/").await.err().map(of_nomad),
        "nodes" => nomad.nodes().await.err().map(of_nomad),
        "evaluations" => nomad.evaluations("a").await.err().map(of_nomad),
        "dispatch" => nomad.dispatch("runner", "t", &[].into(), b"exit 0").await.err().map(of_nomad),
        "group" => vault.group("runner-A").await.err().map(of_vault),
        "token" => vault.lookup_self().await.err().map(of_vault),
        "entity" => vault.entity_by_alias("a", "b").await.err().map(of_vault),
        "alias" => vault.create_alias("a", "b").await.err().map(of_vault),
        unknown => panic!("{unknown:?} is no call"),
    }
}

#[tokio::test]
async fn every_body_has_its_verdict() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for call in fs::read_dir(path("replies")).unwrap() {
        let call = call.unwrap();
        for verdict in ["taken", "refused"] {
            for file in fs::read_dir(call.path().join(verdict)).unwrap() {
                let file = file.unwrap().path();
                let body = fs::read(&file).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let problem =
                    problem(call.file_name().to_str().unwrap(), &[head.as_bytes(), &body].concat()).await;
                if problem.is_some() != (verdict == "refused") {
                    wrong.push(format!("{}: {problem:?}", file.display()));
                }
                count += 1;
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count >= 90, "{count}");
}

#[tokio::test]
async fn every_reply_has_its_verdict() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        call: String,
        reply: Parts,
        #[serde(default)]
        hex: Parts,
        refused: Option<String>,
    }
    for case in cases::<Case>("server.toml") {
        let reply = [joined(&case.reply).into_bytes(), bytes(&joined(&case.hex))].concat();
        let problem = problem(&case.call, &reply).await;
        let said = String::from_utf8_lossy(&reply[..reply.len().min(100)]);
        assert!(is_expected(problem.as_deref(), case.refused.as_deref()), "{said:?}: {problem:?}");
        assert!(problem.is_none_or(|problem| problem.len() < 2000), "{said:?}");
    }
}
