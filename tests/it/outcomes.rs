//! Each way to end gives the right result file in the ops repo.

use serde_json::json;

use crate::support::{LIMIT, World, action, ends_with_code, wait_for};

#[tokio::test]
async fn every_ending_has_its_result_file() {
    let world = World::new("endings").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let steps = "description = \"a step that is too slow\"\n\
        [[steps]]\nname = \"quick\"\nrun = \"echo quick\"\n\
        [[steps]]\nname = \"slow\"\ntimeout = \"1s\"\nrun = \"sleep 60\"\n\
        [[steps]]\nname = \"never\"\nrun = \"echo never\"\n";
    // It counts for a while, because a shell tells its processor time in hundredths of a second.
    let order = "n=0\nwhile [ $n -lt 200000 ]; do n=$((n + 1)); done\n\
        echo one\necho two >&2\necho three\nprintf '%s' \"$ARG_GREETING\" >&2\n";
    let actions = [
        ("success", action("success", "order", "[args]\ngreeting = \"hällo ${node.unique.id} {{ env }}\"\n")),
        ("exit-three", action("exit-three", "three", "")),
        ("no-formula", action("no-formula", "tree", "")),
        ("slow-step", action("slow-step", "steps", "")),
        ("slow-job", action("slow-job", "sleep", "timeout = \"2s\"\n")),
        ("bytes", action("bytes", "bytes", "")),
    ];
    let files: Vec<(String, &str)> =
        actions.iter().map(|(id, text)| (format!("actions/{id}.toml"), text.as_str())).collect();
    let mut changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(*text))).collect();
    changes.extend([
        ("formulas/order.sh", Some(order)),
        ("formulas/three.sh", Some("echo no\nexit 3\n")),
        ("formulas/steps.toml", Some(steps)),
        ("formulas/sleep.sh", Some("echo begin\nsleep 60\n")),
        ("formulas/bytes.sh", Some("printf 'a\\377b\\000c\\n'\n")),
    ]);
    world.ops.commit("one of each", &changes);

    let success = world.result("success", LIMIT).await;
    ends_with_code(&success, "succeeded", "success", 0);
    assert_eq!(success["logs"], "one\ntwo\nthree\nhällo ${node.unique.id} {{ env }}");
    assert_eq!(success["log_status"], "complete");
    assert_eq!(success["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(success["approved_by"], "merged (low blast radius)");
    assert!(success["usage"]["cpu_seconds"].as_f64().is_some_and(|cpu| cpu > 0.0), "{success}");
    for time in ["submitted_at", "dispatched_at", "started_at", "finished_at", "timestamp"] {
        success[time].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    let exit_three = world.result("exit-three", LIMIT).await;
    ends_with_code(&exit_three, "failed", "exit_code", 3);
    assert_eq!(exit_three["logs"], "no\n");
    let no_formula = world.result("no-formula", LIMIT).await;
    ends_with_code(&no_formula, "rejected", "unknown_formula", 125);
    assert!(
        no_formula["message"].as_str().unwrap().contains("`three`"),
        "it suggests the nearest: {no_formula}"
    );
    let slow_step = world.result("slow-step", LIMIT).await;
    ends_with_code(&slow_step, "failed", "step_timeout", 124);
    let names: Vec<_> = slow_step["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (&step["name"], &step["exit_code"]))
        .collect();
    assert_eq!(names, [(&json!("quick"), &json!(0)), (&json!("slow"), &json!(124))]);
    let slow_job = world.result("slow-job", LIMIT).await;
    ends_with_code(&slow_job, "timed_out", "timeout", 124);
    assert_eq!(slow_job["logs"], "begin\n");
    let bytes = world.result("bytes", LIMIT).await;
    ends_with_code(&bytes, "succeeded", "success", 0);
    assert_eq!(bytes["logs"], "a\u{fffd}b\u{0}c\n");
}

#[tokio::test]
async fn fifty_megabytes_of_log_end_as_their_last_lines() {
    let world = World::new("log").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    // 50 MiB: 524,288 lines of 100 bytes.
    let formula = "awk 'BEGIN { for (i = 1; i <= 524288; i++) printf \"%098d\\n\", i }'\necho last\n";
    world.ops.commit("a formula", &[("formulas/talk.sh", Some(formula))]);
    world.commit_action("talk", "talk", "");
    let result = world.result("talk", LIMIT).await;
    ends_with_code(&result, "succeeded", "success", 0);
    assert_eq!(result["log_status"], "truncated");
    let logs = result["logs"].as_str().unwrap();
    assert!(logs.len() <= 16 * 1024 && logs.len() > 15 * 1024, "{}", logs.len());
    assert!(logs.ends_with("524288\nlast\n"), "{logs}");
    assert!(logs.lines().all(|line| line.len() == 98 || line == "last"), "cut at a line");
}

#[tokio::test]
async fn deleting_the_file_cancels_the_run_and_moving_it_does_not() {
    let world = World::new("delete").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let formula = format!(
        "echo $CONSIGN_ACTION_ID >> {ledger}\nwhile [ ! -e {go} ]; do sleep 0.1; done\n",
        ledger = world.ledger().display(),
        go = world.path("go").display()
    );
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&formula))]);
    world.commit_action("deleted", "wait", "");
    world.commit_action("moved", "wait", "");
    wait_for("both to run", LIMIT, async || {
        let lines = world.ledger_lines();
        if lines.len() == 2 { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
    let text = action("moved", "wait", "");
    world.ops.commit(
        "delete one, move the other",
        &[
            ("actions/deleted.toml", None),
            ("actions/moved.toml", None),
            ("actions/2026/moved.toml", Some(&text)),
        ],
    );
    let deleted = world.result("deleted", LIMIT).await;
    ends_with_code(&deleted, "cancelled", "cancelled", 130);
    assert!(deleted["message"].as_str().unwrap().contains("actions/deleted.toml was deleted"), "{deleted}");
    std::fs::write(world.path("go"), "").unwrap();
    let moved = world.result("moved", LIMIT).await;
    ends_with_code(&moved, "succeeded", "success", 0);
    assert!(
        world.ops.paths().contains(&"actions/2026/moved.result.json".to_owned()),
        "{:?}",
        world.ops.paths()
    );
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}
