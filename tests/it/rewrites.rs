//! A branch that others move while results are pushed, and one whose history is rewritten.

use std::fs;

use crate::support::{LIMIT, World, action, wait_for};

/// A formula's text that writes the action's id to the ledger.
fn note(world: &World) -> String {
    format!("echo $CONSIGN_ACTION_ID >> {}\n", world.ledger().display())
}

#[tokio::test]
async fn results_and_the_commits_of_others_all_land() {
    const COMMITS: usize = 30;
    let world = World::new("moved").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/note.sh", Some(&note(&world)))]);
    let mut revisions = Vec::new();
    for number in 0..COMMITS {
        let id = format!("act-{number}");
        let (path, text) = (format!("actions/{id}.toml"), action(&id, "note", ""));
        let other = format!("notes/{number}.txt");
        revisions.push(world.ops.commit("an action", &[(path.as_str(), Some(&text))]));
        revisions.push(world.ops.commit("something else", &[(other.as_str(), Some("text"))]));
    }
    for number in 0..COMMITS {
        let result = world.result(&format!("act-{number}"), LIMIT).await;
        assert_eq!(result["outcome"], "succeeded", "{result}");
    }
    for revision in &revisions {
        world.ops.bare(&["merge-base", "--is-ancestor", revision, "main"]);
    }
    let paths = world.ops.paths();
    assert!((0..COMMITS).all(|number| paths.contains(&format!("notes/{number}.txt"))), "{paths:?}");
    assert_eq!(world.ops.bare(&["rev-list", "--merges", "main"]), "");
    let own = world.ops.bare(&["log", "--format=%H", "--author=consign@", "main"]);
    assert!(own.lines().count() > 1, "results were pushed in between");
    for commit in own.lines() {
        let subject = world.ops.bare(&["log", "-1", "--format=%B", commit]);
        assert!(subject.trim_end().ends_with("[skip ci]"), "{subject}");
        let changed = world.ops.bare(&["show", "--name-status", "--format=", commit]);
        let added = |line: &str| line.starts_with("A\tactions/act-") && line.ends_with(".result.json");
        assert!(changed.lines().all(added), "{changed}");
    }
    assert_eq!(world.ledger_lines().len(), COMMITS);
}

#[tokio::test]
async fn rewritten_history_runs_nothing_again_and_cancels_nothing() {
    let world = World::new("rewritten").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let note = note(&world);
    let wait = format!("{note}while [ ! -e {} ]; do sleep 0.1; done\n", world.path("go").display());
    let base =
        world.ops.commit("formulas", &[("formulas/note.sh", Some(&note)), ("formulas/wait.sh", Some(&wait))]);
    world.commit_action("ran", "note", "");
    world.result("ran", LIMIT).await;
    world.commit_action("running", "wait", "");
    wait_for("the task to work", LIMIT, async || {
        let lines = world.ledger_lines();
        if lines == ["ran", "running"] { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;

    world.ops.force(&base);
    let again = action("ran", "note", "priority = 7\n");
    let fresh = action("fresh", "note", "");
    world
        .ops
        .commit("another line", &[("actions/ran.toml", Some(&again)), ("actions/fresh.toml", Some(&fresh))]);
    agent.degraded("history").await;
    assert_eq!(world.result("fresh", LIMIT).await["outcome"], "succeeded");
    fs::write(world.path("go"), "").unwrap();
    let running = world.result("running", LIMIT).await;
    assert_eq!(running["outcome"], "succeeded", "{running}");

    // Neither a restart nor another edit makes it run again.
    assert_eq!(agent.terminate().await.code(), Some(0));
    let edited = action("ran", "note", "priority = 8\n");
    world.ops.commit("edited again", &[("actions/ran.toml", Some(&edited))]);
    let _agent = world.agent().await;
    world.commit_action("last", "note", "");
    assert_eq!(world.result("last", LIMIT).await["outcome"], "succeeded");
    assert_eq!(world.ledger_lines(), ["ran", "running", "fresh", "last"]);
    assert_eq!(world.children().await.len(), 4);
}
