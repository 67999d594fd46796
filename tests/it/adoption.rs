//! Children that somebody dispatched by hand, as `nomad job dispatch runner` does.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LIMIT, World, ends_with_code, wait_for};

/// Dispatches the runner by hand; gives the child's id.
async fn dispatch(world: &World, meta: Value, script: &str) -> String {
    let body = json!({"Meta": meta, "Payload": STANDARD.encode(script)});
    let answer = world.nomad.request(Method::PUT, "/v1/job/runner/dispatch", Some(body)).await.unwrap();
    answer["DispatchedJobID"].as_str().unwrap().to_owned()
}

/// Waits for the result file of a child.
async fn result(world: &World, child: &str) -> Value {
    let found = wait_for(&format!("the result of {child}"), LIMIT, async || {
        let paths = world.ops.paths();
        for path in paths.iter().filter(|path| path.starts_with("actions/by-hand/")) {
            let result: Value = serde_json::from_str(&world.ops.read(path).unwrap_or_default())
                .map_err(|error| format!("{path}: {error}"))?;
            if result["attempts"][0]["nomad_job_id"] == child {
                return Ok((path.clone(), result));
            }
        }
        Err(format!("{paths:?}"))
    })
    .await;
    let (path, result) = found;
    assert_eq!(path, format!("actions/by-hand/{}.result.json", result["job_id"].as_str().unwrap()));
    result["job_id"].as_str().unwrap().parse::<ulid::Ulid>().unwrap();
    result
}

fn says(result: &Value, text: &str) {
    assert!(result["message"].as_str().unwrap().contains(text), "{text}: {result}");
}

/// A script that leaves a line in the ledger when it starts.
fn script(world: &World, line: &str, rest: &str) -> String {
    format!("echo {line} >> {}\n{rest}", world.ledger().display())
}

async fn is_stopped(world: &World, child: &str) {
    wait_for(&format!("{child} to be dead"), LIMIT, async || {
        let job = world.nomad.get(&format!("/v1/job/{}", child.replace('/', "%2F"))).await?;
        if job["Status"] == "dead" { Ok(()) } else { Err(job["Status"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_script_dispatched_by_hand_runs_and_has_its_result() {
    let world = World::new("hand").await;
    let (allowed, missing) = (world.secret("ALLOWED"), world.secret("MISSING"));
    world.bootstrap(&format!("\n[adopt]\nsecrets = [\"{allowed}\", \"{missing}\"]\n"));
    world.put_secret(&allowed, b"for those who are allowed\n");
    let agent = world.agent().await;

    let hello = script(&world, "hello", "echo \"hello $ARG_WHO\"\n");
    let meta = json!({"args": "{\"WHO\": \"wörld\"}", "context": "a try", "action_id": "mine"});
    let hello = dispatch(&world, meta, &hello).await;
    let three = dispatch(&world, json!({}), "echo three\nexit 3\n").await;
    let secret = format!("printf '%s' \"${allowed}\" > {}\n", world.path("value").display());
    let secret = dispatch(&world, json!({"secrets": allowed}), &secret).await;
    let unknown = dispatch(&world, json!({"secrets": missing}), &script(&world, "unknown", "")).await;

    let hello = result(&world, &hello).await;
    ends_with_code(&hello, "succeeded", "success", 0);
    assert_eq!((&hello["logs"], &hello["log_status"]), (&json!("hello wörld\n"), &json!("complete")));
    assert_eq!(hello["approved_by"], "dispatched by hand, as [adopt] allows");
    let three = result(&world, &three).await;
    ends_with_code(&three, "failed", "exit_code", 3);
    assert_eq!(three["logs"], "three\n");
    let secret = result(&world, &secret).await;
    ends_with_code(&secret, "succeeded", "success", 0);
    assert_eq!(secret["secrets"], json!([allowed]));
    assert_eq!(std::fs::read_to_string(world.path("value")).unwrap(), "for those who are allowed\n");
    let unknown = result(&world, &unknown).await;
    ends_with_code(&unknown, "failed", "secret_denied", 125);
    says(&unknown, &missing);

    agent.kill();
    let meanwhile = dispatch(&world, json!({}), &script(&world, "meanwhile", "echo later\n")).await;
    let _agent = world.agent().await;
    let meanwhile = result(&world, &meanwhile).await;
    ends_with_code(&meanwhile, "succeeded", "success", 0);
    assert_eq!(world.ledger_lines(), ["hello", "meanwhile"]);
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_asks_for_too_much_is_stopped_before_it_starts_and_told_what_to_do() {
    let world = World::new("refused").await;
    world.bootstrap("");
    let secret = world.secret("WANTED");
    world.put_secret(&secret, b"not for hand dispatches");
    let _agent = world.agent().await;
    let greedy = dispatch(&world, json!({"secrets": secret}), &script(&world, "greedy", "")).await;
    let empty = dispatch(&world, json!({}), "").await;
    for (child, words) in [(&greedy, "[adopt] secrets"), (&empty, "nomad job dispatch runner script.sh")] {
        let result = result(&world, child).await;
        ends_with_code(&result, "rejected", "not_adopted", 125);
        says(&result, words);
        assert_eq!(result["started_at"], Value::Null);
        is_stopped(&world, child).await;
    }
    assert_eq!(world.ledger_lines(), Vec::<String>::new());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_adopted_where_the_configuration_says_so() {
    let world = World::new("no-hand").await;
    world.bootstrap("\n[adopt]\nenabled = false\n");
    let _agent = world.agent().await;
    let child = dispatch(&world, json!({}), &script(&world, "never", "")).await;
    let result = result(&world, &child).await;
    ends_with_code(&result, "rejected", "not_adopted", 125);
    says(&result, "[adopt] enabled = false");
    is_stopped(&world, &child).await;
    assert_eq!(world.ledger_lines(), Vec::<String>::new());
}
