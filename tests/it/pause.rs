//! Pausing, and what the past lets expect.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    api::Operator,
    support::{LIMIT, World, ends, wait_for},
};

async fn started(world: &World, id: &str) {
    wait_for(&format!("{id} to start"), LIMIT, async || {
        let lines = world.ledger_lines();
        if lines.contains(&id.to_owned()) { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_paused_agent_launches_nothing_until_it_is_resumed_also_after_a_crash() {
    let world = World::new("pause").await;
    world.bootstrap("");
    let (ledger, go) = (world.ledger().display().to_string(), world.path("go").display().to_string());
    let held = format!("echo held >> {ledger}\nwhile [ ! -e {go} ]; do sleep 0.1; done\n");
    let quick = format!("echo ${{CONSIGN_ACTION_ID:-submitted}} >> {ledger}\n");
    world.ops.commit(
        "formulas",
        &[("formulas/held.sh", Some(held.as_str())), ("formulas/quick.sh", Some(quick.as_str()))],
    );
    let agent = world.agent().await;
    let ann = Operator::new(&world, "ann", "admin");
    let ben = Operator::new(&world, "ben", "read,submit");
    let group = "concurrency = { group = \"deploy\", limit = 1, when_full = \"cancel_older\" }\n";
    world.commit_action("before", "held", group);
    started(&world, "held").await;

    let said = ann.done(&["pause", "--reason", "a new disk"]);
    assert!(said.starts_with("paused by ann since ") && said.contains("a new disk"), "{said}");
    assert!(ben.refused(&["resume"]).contains("scope admin"));
    let remark = || String::from_utf8(ben.run(&["jobs", "--phase", "queued"]).stderr).unwrap();
    let told = remark();
    assert!(told.starts_with("no jobs\npaused by ann since ") && told.contains("a new disk"), "{told}");
    assert!(ann.refused(&["pause", "--reason", " "]).contains("reason"));
    // It would take the place of what works, and does not while it could not start.
    world.commit_action("after", "quick", group);
    let queued = ann.until("after", "queued").await;
    let submitted = ben.done(&["submit", "--formula", "quick", "--blast-radius", "low"]).trim().to_owned();
    let waits_for = |job: &Value| job["waits_for"].as_str().unwrap_or_default().to_owned();
    for (job, place) in [(queued, 1), (ann.until(&submitted, "queued").await, 2)] {
        let words = waits_for(&job);
        assert!(words.starts_with(&format!("place {place} of ")), "{words}");
        assert!(words.contains("paused by ann since") && words.ends_with(": a new disk"), "{words}");
    }
    let health = agent.health().await;
    assert_eq!((&health["degraded"], &health["paused"]["by"]), (&false.into(), &"ann".into()), "{health}");
    let metrics = agent.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("consign_paused 1"), "{metrics}");

    agent.kill();
    let agent = world.agent().await;
    assert_eq!(agent.health().await["paused"]["reason"], "a new disk");
    std::fs::write(world.path("go"), "").unwrap();
    ends(&world.result("before", LIMIT).await, "succeeded", "success");
    assert!(waits_for(&ann.show("after")).contains("paused by ann"));
    assert_eq!(world.ledger_lines(), ["held"]);

    assert_eq!(ann.done(&["resume"]), "the queue goes on\n");
    ends(&world.result("after", LIMIT).await, "succeeded", "success");
    ann.until(&submitted, "done").await;
    assert_eq!(agent.health().await["paused"], Value::Null);
    assert_eq!(remark(), "no jobs\n");
}

#[tokio::test]
async fn what_runs_and_what_waits_is_estimated_by_earlier_runs() {
    let world = World::new("estimates").await;
    world.bootstrap("[limits]\nrunning = 1\n");
    let wait = format!("echo $CONSIGN_ACTION_ID >> {}\nsleep $ARG_SECONDS\n", world.ledger().display());
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(wait.as_str()))]);
    let first_agent = world.agent().await;
    let ann = Operator::new(&world, "ann", "read,submit");
    let seconds = |seconds: u32| format!("args = {{ SECONDS = \"{seconds}\" }}\n");
    world.commit_action("first", "wait", &seconds(8));
    started(&world, "first").await;
    assert_eq!(ann.show("first")["estimate"], Value::Null, "nothing is known yet");
    ends(&world.result("first", LIMIT).await, "succeeded", "success");
    // What was learnt is known after a restart too.
    first_agent.kill();
    let _agent = world.agent().await;
    world.commit_action("second", "wait", &seconds(300));
    ann.until("second", "working").await;
    world.commit_action("third", "wait", &seconds(0));
    let third = wait_for("an estimate", LIMIT, async || {
        let job = ann.look("third")?;
        if job["estimate"]["starts_at"].is_string() { Ok(job) } else { Err(job.to_string()) }
    })
    .await;
    let second = ann.show("second");
    let time = |value: &Value| -> Timestamp { value.as_str().unwrap_or_default().parse().unwrap() };
    let apart = |earlier: &Value, later: &Value| time(later).duration_since(time(earlier)).as_secs();
    assert!((8..=9).contains(&apart(&second["started_at"], &second["estimate"]["finishes_at"])), "{second}");
    assert_eq!(second["estimate"]["finishes_at"], third["estimate"]["starts_at"], "{third}");
    assert!((8..=9).contains(&apart(&third["estimate"]["starts_at"], &third["estimate"]["finishes_at"])));
    let listed = ann.done(&["jobs"]);
    assert!(listed.contains("ends in ") && listed.contains("starts in "), "{listed}");
    // No run took longer than this one does now: nothing is said any more.
    wait_for("the estimate to be outlived", LIMIT, async || {
        let (second, third) = (ann.look("second")?, ann.look("third")?);
        let known = [&second, &third].map(|job| job["estimate"].clone());
        if known == [Value::Null, Value::Null] { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
    ann.done(&["cancel", "second"]);
    ends(&world.result("third", LIMIT).await, "succeeded", "success");
}
