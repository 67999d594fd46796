//! No secret and no token of consign's own is to be found where others look.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{Canaries, LIMIT, World, action, wait_for};

/// Takes webhooks; gives its URL and what it got.
async fn receiver() -> (String, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    let take = move |body: Bytes| {
        kept.lock().unwrap().extend_from_slice(&body);
        std::future::ready(())
    };
    let router = Router::new().route("/", axum::routing::post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, got)
}

#[tokio::test]
async fn secrets_and_tokens_are_nowhere_but_where_they_belong() {
    let world = World::new("canaries").await;
    let webhooks = world.path("webhook.secret");
    let hook_key = "a key that the receiver knows";
    std::fs::write(&webhooks, hook_key).unwrap();
    let further = format!("[webhooks]\nallow_private = true\nsecret_file = \"{}\"\n", webhooks.display());
    world.bootstrap(&further);
    let granted = world.secret("GRANTED");
    let value = format!("{} sings/+?~ \"ä\\ $HOME", world.name);
    world.put_secret(&granted, value.as_bytes());
    let api_token = world.token("operator", "read,submit");
    let vault_token = std::fs::read_to_string(world.path("agent.token")).unwrap();
    let agent = world.agent().await;
    let (url, got) = receiver().await;

    let formula =
        format!("printf 'it is %s\\n' \"${granted}\"; printf 'to stderr %s\\n' \"${granted}\" >&2; exit 3\n");
    let text =
        action("prints-its-secret", "print", &format!("secrets = [\"{granted}\"]\nnotify = [\"{url}\"]\n"));
    world.ops.commit(
        "a formula that prints its secret",
        &[("formulas/print.sh", Some(&formula)), ("actions/prints-its-secret.toml", Some(&text))],
    );
    let result = world.result("prints-its-secret", LIMIT).await;
    assert_eq!((&result["exit_code"], &result["logs"]), (&json!(3), &json!("it is ***\nto stderr ***\n")));
    let submitted = crate::support::http()
        .post(format!("{}/jobs", world.agent_address()))
        .bearer_auth(&api_token)
        .header("content-type", "application/json")
        .body(format!("{{\"formula\": \"print\", \"secrets\": [\"{granted}\"]}}"))
        .send()
        .await
        .unwrap();
    assert_eq!(submitted.status(), 202);
    let submitted: Value = serde_json::from_str(&submitted.text().await.unwrap()).unwrap();
    let job = format!("{}/jobs/{}", world.agent_address(), submitted["job_id"].as_str().unwrap());
    wait_for("what was submitted to end", LIMIT, async || {
        let answer = crate::support::http().get(&job).bearer_auth(&api_token).send().await.unwrap();
        let text = answer.text().await.unwrap();
        if text.contains("\"failed\"") { Ok(()) } else { Err(text) }
    })
    .await;
    wait_for("the last webhook", LIMIT, async || {
        let got = String::from_utf8_lossy(&got.lock().unwrap()).into_owned();
        if got.contains("\"failed\"") { Ok(()) } else { Err(got) }
    })
    .await;

    let look = |canaries: &Canaries| {
        [
            canaries.in_bytes("webhooks", &got.lock().unwrap()),
            canaries.in_bytes("the agent's log", agent.log().as_bytes()),
            canaries.in_path(&world.path("store")),
            canaries.in_repository(&world.ops.bare),
            canaries.in_process(agent.pid()),
        ]
    };
    let canaries = Canaries::new(&[
        ("the secret", &value),
        ("the agent's Vault token", vault_token.trim()),
        ("the operator's Vault token", world.servers.vault_token.expose_secret()),
        ("the token of the API", &api_token),
        ("the key of the webhooks", hook_key),
    ]);
    assert_eq!(look(&canaries).concat(), Vec::<String>::new());
    // What does stand there is found.
    let path = world.path("consign.toml").display().to_string();
    let known = Canaries::new(&[("the action", "prints-its-secret"), ("the configuration", &path)]);
    assert_eq!(look(&known).map(|found| found.is_empty()), [false; 5]);
    for child in world.children().await {
        let job = world.nomad.get(&format!("/v1/job/{}", child.replace('/', "%2F"))).await.unwrap();
        assert_eq!(canaries.in_bytes(&child, job.to_string().as_bytes()), Vec::<String>::new());
    }

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
}
