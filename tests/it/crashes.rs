//! Whatever crashes, and whatever Nomad creates besides, a formula starts once for each attempt.

mod nodes;

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use consign::outcome::Outcome;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Accepted, Canaries, Ends, LIMIT, Random, World, action, ends, wait_for};

const KILLS: u64 = 20;
const ACTIONS: u64 = 50;
const COMMITS: u64 = 5;
/// What no log and no record may hold.
const CANARY: &str = "a value that nobody may print";

/// Appends one line for each start to the ledger, in one write, and works until the file `go` is there.
fn waiting_formula(world: &World) -> String {
    format!(
        "{ledger}while [ ! -e {go} ]; do sleep 0.1; done\n",
        ledger = world.ledger_command(),
        go = world.path("go").display()
    )
}

fn go_on(world: &World) {
    std::fs::write(world.path("go"), "").unwrap();
}

/// Waits until a formula has started, and gives the id of the allocation that it says it runs in.
async fn started(world: &World) -> String {
    wait_for("the formula to start", LIMIT, async || {
        let lines = world.ledger_lines();
        let allocation = lines.first().and_then(|line| line.split(' ').nth(2));
        allocation.map(str::to_owned).ok_or_else(|| "the ledger is empty".to_owned())
    })
    .await
}

/// Waits for a child of the base job that is none of `known`.
async fn new_child(world: &World, known: &[String]) -> String {
    wait_for("a child", LIMIT, async || {
        let children = world.children().await;
        children.iter().find(|id| !known.contains(id)).cloned().ok_or_else(|| format!("{children:?}"))
    })
    .await
}

async fn job(world: &World, child: &str) -> Result<Value, String> {
    world.nomad.get(&format!("/v1/job/{}", child.replace('/', "%2F"))).await
}

async fn allocations(world: &World, child: &str) -> Vec<Value> {
    let path = format!("/v1/job/{}/allocations?all=true", child.replace('/', "%2F"));
    world.nomad.get(&path).await.unwrap().as_array().cloned().unwrap_or_default()
}

/// The meta that a child was dispatched with: its own without the parent's.
async fn dispatched_meta(world: &World, child: &str) -> Value {
    let mut meta = job(world, child).await.unwrap()["Meta"].clone();
    meta.as_object_mut().unwrap().retain(|key, _| ["secrets", "args", "consign"].contains(&key.as_str()));
    meta
}

/// Dispatches the runner under an id prefix, without an idempotency token, and gives the child.
async fn dispatch(world: &World, prefix: &str, meta: &Value, script: &str) -> String {
    let body = json!({"Meta": meta, "Payload": BASE64_STANDARD.encode(script), "IdPrefixTemplate": prefix});
    let answer = world.nomad.request(Method::PUT, "/v1/job/runner/dispatch", Some(body)).await.unwrap();
    answer["DispatchedJobID"].as_str().unwrap().to_owned()
}

/// Waits until nothing of a child can start any more, and asserts that nothing of it ever did.
async fn ended_at_the_gate(world: &World, child: &str) {
    wait_for(&format!("{child} to be stopped"), LIMIT, async || {
        let record = job(world, child).await?;
        let allocations = allocations(world, child).await;
        // One that is stopped while its task is set up counts as failed.
        let is_over = |status: &Value| status == "complete" || status == "failed";
        let over = allocations.iter().all(|allocation| is_over(&allocation["ClientStatus"]));
        if record["Stop"] == true && over { Ok(()) } else { Err(format!("{allocations:?}")) }
    })
    .await;
    for allocation in allocations(world, child).await {
        let task = &allocation["TaskStates"]["runner"];
        assert_eq!(task["StartedAt"], Value::Null, "{allocation}");
    }
}

/// Commits one share of the actions; every third names `secret`.
fn commit_share(world: &World, random: &mut Random, share: u64, secret: &str) {
    let size = ACTIONS / COMMITS;
    let files: Vec<(String, String)> = (share * size..(share + 1) * size)
        .map(|number| {
            let named = if number % 3 == 0 { format!("secrets = [\"{secret}\"]\n") } else { String::new() };
            let milliseconds = random.between(0, 2000);
            let further =
                format!("{named}[args]\nseconds = \"{}.{:03}\"\n", milliseconds / 1000, milliseconds % 1000);
            let id = format!("kill-{number:02}");
            (format!("actions/{share}/{id}.toml"), action(&id, "note", &further))
        })
        .collect();
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    world.ops.commit(&format!("share {share}"), &changes);
}

#[tokio::test]
async fn an_agent_killed_twenty_times_starts_every_action_once_and_answers_each() {
    let world = World::new("kills").await;
    world.bootstrap("");
    let secret = world.secret("KILLS");
    world.put_secret(&secret, CANARY.as_bytes());
    let audit = world.audit().await;
    let formula = format!("{}sleep $ARG_SECONDS\n", world.ledger_command());
    world.ops.commit("a formula", &[("formulas/note.sh", Some(&formula))]);
    let mut random = Random::new();
    for kill in 0..KILLS {
        let lives = KILLS / COMMITS;
        if kill % lives == 0 {
            commit_share(&world, &mut random, kill / lives, &secret);
        }
        let agent = world.launch_agent(&[]);
        // Every other one may die while it starts; the rest have begun to work.
        if kill % 2 == 1 {
            agent.ready().await;
        }
        tokio::time::sleep(Duration::from_millis(random.between(100, 1500))).await;
        agent.kill();
    }
    let agent = world.agent().await;
    let ends = Ends::once(Outcome::Succeeded);
    let work: BTreeMap<String, Ends> =
        (0..ACTIONS).map(|number| (format!("kill-{number:02}"), ends)).collect();
    wait_for("all results", Duration::from_secs(90), async || {
        let paths = world.ops.paths();
        let results = paths.iter().filter(|path| path.ends_with(".result.json")).count();
        if results == work.len() { Ok(()) } else { Err(format!("{paths:?}")) }
    })
    .await;
    agent.kill();
    let canaries = Canaries::new(&[("the secret", CANARY)]);
    let accepted = Accepted { work, secret, canaries, webhooks: Vec::new() };
    let violations = world.violations(&accepted, &audit).await;
    audit.stop().await;
    assert!(violations.is_empty(), "{violations:?}");
}

#[tokio::test]
async fn a_task_restarted_by_hand_does_not_run_its_formula_again() {
    let world = World::new("restarted").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world)))]);
    world.commit_action("again", "wait", "");
    let allocation = started(&world).await;
    world.restart_task(&allocation, "runner").await;
    let result = world.result("again", LIMIT).await;
    ends(&result, "failed", "restarted");
    assert_eq!(result["exit_code"], 121, "{result}");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(world.ledger_lines().len(), 1, "{:?}", world.ledger_lines());
}

#[tokio::test]
async fn a_second_child_of_a_live_attempt_never_starts() {
    let world = World::new("duplicate").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world)))]);
    world.commit_action("once", "wait", "");
    let first = started(&world).await;
    let children = world.children().await;
    let meta = dispatched_meta(&world, &children[0]).await;
    let prefix = children[0].split('-').nth(1).unwrap();
    let duplicate = dispatch(&world, prefix, &meta, &waiting_formula(&world)).await;
    ended_at_the_gate(&world, &duplicate).await;
    assert_eq!(world.group_members(&world.gate()).await.len(), 1, "the first one's");
    go_on(&world);
    let result = world.result("once", LIMIT).await;
    ends(&result, "succeeded", "success");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
    let lines = world.ledger_lines();
    assert!(lines.len() == 1 && lines[0].ends_with(&first), "{lines:?}");
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_child_with_a_foreign_ulid_is_stopped_and_never_starts() {
    let world = World::new("foreign").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let prefix = ulid::Ulid::generate().to_string();
    let child = dispatch(&world, &prefix, &json!({}), &waiting_formula(&world)).await;
    ended_at_the_gate(&world, &child).await;
    assert_eq!(world.ledger_lines(), Vec::<String>::new());
    assert!(!world.ops.paths().iter().any(|path| path.contains(".result.")), "{:?}", world.ops.paths());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_told_to_end_leaves_its_task_to_the_next_one() {
    let world = World::new("terminated").await;
    world.bootstrap("");
    let agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world)))]);
    world.commit_action("lasting", "wait", "");
    started(&world).await;
    let status = tokio::time::timeout(Duration::from_secs(15), agent.terminate()).await.unwrap();
    assert!(status.success(), "{status}");
    go_on(&world);
    let _agent = world.agent().await;
    let result = world.result("lasting", LIMIT).await;
    ends(&result, "succeeded", "success");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(world.ledger_lines().len(), 1);
}
