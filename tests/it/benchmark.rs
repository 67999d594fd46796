//! What consign costs, beside what Nomad, Vault and git take without it: `scripts/benchmark` runs and prints it.
//!
//! Times move with the machine, so each test measures both sides and prints their ratio. What it asserts is far
//! from what is claimed: it fails where something costs more than it ever should.

pub(crate) mod floor;
mod idle;
mod triggers;

use std::{
    fmt::Display,
    io::Write as _,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{World, action, ends, wait_for};

const LIMIT: Duration = Duration::from_mins(10);
/// How many pushes are timed.
const PUSHES: usize = 40;
/// How many actions one commit brings.
const ACTIONS: usize = 1000;

pub(crate) fn say(line: impl Display) {
    writeln!(std::io::stderr().lock(), "benchmark: {line}").unwrap();
}

pub(crate) fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// A world whose agent is told of commits, and looks by itself only once in a while.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    world.bootstrap_with(&world.config_toml().replace("poll = \"200ms\"", "poll = \"1m\""));
    let formula = format!("echo $CONSIGN_DISPATCH_ID >> {}\n", world.ledger().display());
    world.ops.commit("a formula", &[("formulas/note.sh", Some(&formula))]);
    world
}

/// Tells the agent that something was pushed, as a forge does.
async fn tell(world: &World) {
    let url = format!("{}/hooks/git", world.agent_address());
    let answer = reqwest::Client::new().post(url).body("{}").send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

/// The job of Nomad's that an action's only attempt became.
async fn child(world: &World, result: &Value) -> Value {
    let child = result["attempts"][0]["nomad_job_id"].as_str().unwrap().replace('/', "%2F");
    world.nomad.get(&format!("/v1/job/{child}")).await.unwrap()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn from_a_push_to_nomads_acceptance() {
    let world = world("push").await;
    let _agent = world.agent().await;
    let mut times = Vec::new();
    for number in 0..PUSHES {
        let id = format!("push-{number:02}");
        world.commit_action(&id, "note", "");
        let told = jiff::Timestamp::now();
        tell(&world).await;
        let result = world.result(&id, LIMIT).await;
        ends(&result, "succeeded", "success");
        let accepted = child(&world, &result).await["SubmitTime"].as_i64().unwrap();
        let accepted = jiff::Timestamp::from_nanosecond(accepted.into()).unwrap();
        times.push(Duration::try_from(accepted.duration_since(told)).unwrap());
    }
    times.sort_unstable();
    let (median, most) = (times[PUSHES / 2], times[PUSHES * 9 / 10]);
    say(format_args!(
        "from a push to Nomad's acceptance: {median:.1?} in the middle, {most:.1?} for nine of ten"
    ));
    assert!(median < Duration::from_secs(1));
}

#[tokio::test]
#[ignore = "a measurement"]
async fn a_thousand_actions_in_one_commit() {
    let world = world("thousand").await;
    let first = world.agent().await;
    world.commit_action("model", "note", "");
    tell(&world).await;
    let model = child(&world, &world.result("model", LIMIT).await).await;
    assert!(first.terminate().await.success());
    let before = floor::time(&world, "runner", &model, ACTIONS).await;
    let agent = world.agent().await;
    let files: Vec<(String, String)> = (0..ACTIONS)
        .map(|number| {
            let id = format!("thousand-{number:03}");
            (format!("actions/2026/11/{id}.toml"), action(&id, "note", ""))
        })
        .collect();
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    world.ops.commit("a thousand", &changes);
    let begun = Instant::now();
    tell(&world).await;
    wait_for("all results", LIMIT, async || {
        let paths = world.ops.paths();
        let results = paths.iter().filter(|path| path.ends_with(".result.json")).count();
        if results == ACTIONS + 1 { Ok(()) } else { Err(format!("{results} results")) }
    })
    .await;
    let took = begun.elapsed();
    drop(agent);
    let after = floor::time(&world, "runner", &model, ACTIONS).await;
    let floor = (before + after) / 2;
    let lines = world.ledger_lines().len();
    assert_eq!(lines, 3 * ACTIONS + 1);
    say(format_args!(
        "{ACTIONS} actions in one commit: {took:.1?}; the same jobs through the raw API: {before:.1?} before, \
         {after:.1?} after; ratio {:.2}",
        ratio(took, floor)
    ));
    assert!(took < floor * 4);
}
