//! `GET /events` over a crash of the agent.

use serde_json::Value;

use crate::support::{LIMIT, World, wait_for};

/// What was told, until `enough` phases were: their ids with the job and the phase.
async fn listen(world: &World, token: &str, last: &str, enough: usize) -> Vec<(String, String, String)> {
    let request = crate::support::http().get(format!("{}/events", world.agent_address()));
    let request = request.bearer_auth(token).header("Last-Event-ID", last);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut told = String::new();
    let reading = async {
        while told.matches("event: phase").count() < enough || !told.ends_with("\n\n") {
            told.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
    };
    assert!(tokio::time::timeout(LIMIT, reading).await.is_ok(), "{told}");
    let events = told.split("\n\n").filter(|event| event.contains("event: phase"));
    events
        .map(|event| {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let body: Value = serde_json::from_str(field("data: ")).unwrap();
            assert!(body["result"].is_null(), "{body}");
            let text = |name: &str| body[name].as_str().unwrap().to_owned();
            (field("id: ").to_owned(), text("action_id"), text("state"))
        })
        .collect()
}

#[tokio::test]
async fn a_listener_that_comes_back_after_a_crash_has_missed_nothing() {
    let world = World::new("events").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let token = world.token("ann", "read");
    let hold = format!("while [ ! -e {} ]; do sleep 0.1; done\n", world.path("go").display());
    world.ops.commit("formulas", &[("formulas/hold.sh", Some(&hold)), ("formulas/f.sh", Some("exit 3\n"))]);
    world.commit_action("held", "hold", "");
    let before = listen(&world, &token, "0", 3).await;
    agent.kill();
    std::fs::write(world.path("go"), "").unwrap();
    let _agent = world.agent().await;
    world.commit_action("later", "f", "");
    wait_for("both to end", LIMIT, async || {
        let paths = world.ops.paths();
        let ended = |id: &str| paths.contains(&format!("actions/{id}.result.json"));
        if ended("held") && ended("later") { Ok(()) } else { Err(format!("{paths:?}")) }
    })
    .await;
    let after = listen(&world, &token, &before.last().unwrap().0, 5).await;
    let all: Vec<&(String, String, String)> = before.iter().chain(&after).collect();
    for (id, states) in [
        ("held", ["queued", "loading", "working", "done"]),
        ("later", ["queued", "loading", "working", "failed"]),
    ] {
        let told: Vec<&str> =
            all.iter().filter(|(_, of, _)| of == id).map(|(.., state)| state.as_str()).collect();
        assert_eq!(told, states, "{id}");
    }
    let numbers: Vec<u64> = all.iter().map(|(number, ..)| number.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert_eq!(listen(&world, &token, "0", 8).await.len(), 8, "what is kept can be heard again");
}
