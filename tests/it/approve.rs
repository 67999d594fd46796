//! Submitted work that takes somebody else's word, and what becomes of it in the ops repo.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    submit::{Caller, agent, said},
    support::{LIMIT, World, ends, ends_saying, wait_for},
};

/// A configuration under which whatever is submitted waits, and so does what git brings with the formula `three`.
fn strict(world: &World, further: &str) -> String {
    let config = world.config_toml().replace("[approval]", "[approval]\napi = \"review\"");
    format!("{config}{further}\n[[approval.rule]]\nformula = \"three\"\nrequire = \"review\"\n")
}

fn greet(who: &str) -> Value {
    json!({ "formula": "greet", "args": { "who": who }, "blast_radius": "low" })
}

#[tokio::test]
async fn somebody_else_approves_and_a_crash_right_after_loses_nothing() {
    let world = World::new("approve").await;
    world.bootstrap_with(&strict(&world, ""));
    let first = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit,approve");
    let ben = Caller::new(&world, "ben", "read,approve");
    let cat = Caller::new(&world, "cat", "read,submit");
    let job_id = ann.taken(&greet("dan"), None).await;
    let waiting = ben.until(&job_id, "waiting").await;
    let what = waiting["waits_for"].as_str().unwrap();
    for words in ["somebody other than ann", &format!("consign approve {job_id}"), "it ends at"] {
        assert!(what.contains(words), "{what}");
    }
    let listed = said(&ben.run(&["jobs", "--phase", "waiting"])).0;
    assert!(listed.contains("consign approve"), "{listed}");
    let shown = said(&ben.run(&["show", &job_id])).0;
    assert!(shown.contains("who = \"dan\""), "what would run is there to be judged: {shown}");

    let nothing = json!({});
    let reason = json!({ "reason": "no" });
    for (caller, verb, body, status, words) in [
        (&ann, "approve", &nothing, 403, "somebody else: cancel"),
        (&ann, "reject", &reason, 403, "somebody else: cancel"),
        (&cat, "approve", &nothing, 403, "scope approve"),
        (&cat, "reject", &reason, 403, "scope approve"),
        (&ben, "approve", &json!({ "digest": "0" }), 409, "digest"),
    ] {
        let (refused, answer) = caller.order(&job_id, verb, body).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(refused == status && detail.contains(words), "{verb}: {refused} {detail}");
    }
    let own = ann.run(&["approve", &job_id]);
    assert_eq!(own.status.code(), Some(1));
    assert!(!said(&own).1.contains("token create"), "another scope would not help: {}", said(&own).1);

    let digest = waiting["digest"].as_str().unwrap();
    let approved = ben.run(&["approve", &job_id, "--digest", digest]);
    first.kill();
    assert!(approved.status.success(), "{}", said(&approved).1);
    let _second = world.agent().await;
    let job = ben.until(&job_id, "done").await;
    assert!(job["approved_by"].as_str().unwrap().starts_with("ben: somebody other than ann"), "{job}");
    let approval = &job["result"]["approval"];
    assert_eq!((&approval["by"], &approval["digest"]), (&json!(["ben"]), &json!(digest)));
    assert_eq!(approval["evidence"][0]["name"], "ben");
    assert_eq!(ben.order(&job_id, "approve", &nothing).await.0, 200, "the same person said so before");
    let dora = Caller::new(&world, "dora", "approve");
    assert_eq!(dora.order(&job_id, "approve", &nothing).await.0, 409);
    assert_eq!(dora.order(&job_id, "reject", &reason).await.0, 409);
    assert_eq!(world.ledger_lines(), ["dan"]);

    world.commit_action("from-git", "three", "");
    ben.until("from-git", "waiting").await;
    for (verb, body) in [("approve", &nothing), ("reject", &reason)] {
        let (status, answer) = ben.order("from-git", verb, body).await;
        assert!(status == 409 && answer["detail"].as_str().unwrap().contains("by git"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_rejected_or_not_approved_in_time_ends_so_over_a_crash() {
    let world = World::new("reject").await;
    world.bootstrap_with(&strict(&world, ""));
    let first = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit");
    let ben = Caller::new(&world, "ben", "read,approve");
    let (rejected, late) = (ann.taken(&greet("a"), None).await, ann.taken(&greet("b"), None).await);
    world.commit_action("from-git", "three", "");
    for id in [&rejected, &late, "from-git"] {
        ben.until(id, "waiting").await;
    }
    let said_so = ben.run(&["reject", &rejected, "--reason", "not on\na Friday"]);
    first.kill();
    assert!(said_so.status.success(), "{}", said(&said_so).1);
    let config = strict(&world, "").replace("[approval]", "[approval]\nexpires = \"3s\"");
    std::fs::write(world.path("consign.toml"), config).unwrap();
    let _second = world.agent().await;

    let job = ann.until(&rejected, "failed").await;
    ends_saying(&job["result"], "rejected", "not_approved", &["rejected by ben: not on a Friday"]);
    assert_eq!(job["result"]["exit_code"], 125);
    assert_eq!(ben.order(&rejected, "reject", &json!({ "reason": "no" })).await.0, 200);
    assert_eq!(ben.order(&rejected, "approve", &json!({})).await.0, 409);
    let job = ann.until(&late, "failed").await;
    ends_saying(&job["result"], "rejected", "approval_expired", &["within 3s", "other than ann"]);
    let result = world.result("from-git", LIMIT).await;
    ends_saying(&result, "rejected", "approval_expired", &["within 3s", "review"]);
    assert_eq!(ben.order("nothing", "approve", &json!({})).await.0, 404);
    assert_eq!(world.ledger_lines(), Vec::<String>::new());
}

/// The record of a job in the ops repo: the paths of its action and its result.
async fn recorded(world: &World, job_id: &str) -> (String, String) {
    world.result(job_id, LIMIT).await;
    let paths = world.ops.paths();
    let found = |ending: &str| {
        let name = format!("/{job_id}{ending}");
        paths.iter().find(|path| path.starts_with("actions/api/") && path.ends_with(&name)).unwrap().clone()
    };
    (found(".toml"), found(".result.json"))
}

/// Has an agent look at the branch as it is now.
async fn look(world: &World, id: &str) {
    world.commit_action(id, "greet", &format!("args = {{ who = \"{id}\" }}\n"));
    ends(&world.result(id, LIMIT).await, "succeeded", "success");
}

#[tokio::test]
async fn submitted_work_is_recorded_in_the_repo_and_never_run_from_there() {
    let world = World::new("record").await;
    let keep = |config: &str| config.replace("[results]", "keep = \"1s\"\n\n[results]\nrecord = \"repo\"");
    world.bootstrap_with(&keep(&strict(&world, "")));
    let first = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit");
    let ben = Caller::new(&world, "ben", "read,approve");
    let (ran, rejected) = (ann.taken(&greet("ran"), None).await, ann.taken(&greet("rejected"), None).await);
    assert_eq!(ben.order(&ran, "approve", &json!({})).await.0, 202);
    assert_eq!(ben.order(&rejected, "reject", &json!({ "reason": "no" })).await.0, 202);

    for (id, outcome, cause) in [(&ran, "succeeded", "success"), (&rejected, "rejected", "not_approved")] {
        let (action, result) = recorded(&world, id).await;
        ends(&serde_json::from_str(&world.ops.read(&result).unwrap()).unwrap(), outcome, cause);
        let text = world.ops.read(&action).unwrap();
        let read = consign::validation::check_action(&action, text.as_bytes()).unwrap();
        assert_eq!((read.id.as_str(), read.formula.as_str()), (id.as_str(), "greet"));
        let commit = world.ops.bare(&["log", "-1", "--format=%H", "main", "--", &action]);
        let message = world.ops.bare(&["log", "-1", "--format=%B", commit.trim()]);
        assert!(message.trim_end().ends_with("[skip ci]"), "{message}");
        let touched = world.ops.bare(&["show", "--format=", "--name-only", commit.trim()]);
        assert!(touched.lines().all(|path| path.starts_with("actions/api/")), "{touched}");
        assert!(touched.contains(&result), "both in one commit: {touched}");
    }
    for id in [&ran, &rejected] {
        wait_for("it to be forgotten", LIMIT, async || {
            let (status, job) = ann.get(id).await;
            if status == 404 { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
    }
    look(&world, "first").await;

    // What cannot be pushed is kept.
    let away = world.path("away.git");
    let unpushed = ann.taken(&greet("unpushed"), None).await;
    std::fs::rename(&world.ops.bare, &away).unwrap();
    assert_eq!(ben.order(&unpushed, "approve", &json!({})).await.0, 202);
    let job = ann.until(&unpushed, "done").await;
    let finished_at: Timestamp = job["finished_at"].as_str().unwrap().parse().unwrap();
    wait_for("the time for which it is kept to be over", LIMIT, async || {
        let since = Timestamp::now().duration_since(finished_at);
        if since > SignedDuration::from_secs(4) { Ok(()) } else { Err(since.to_string()) }
    })
    .await;
    assert_eq!(ann.get(&unpushed).await.0, 200);
    std::fs::rename(&away, &world.ops.bare).unwrap();
    let (_, result) = recorded(&world, &unpushed).await;
    let written = world.ops.read(&result).unwrap();

    let children: BTreeSet<String> = world.children().await.into_iter().collect();
    first.kill();
    std::fs::remove_dir_all(world.path("store")).unwrap();
    let second = world.launch_agent(&["--take-over"]);
    second.ready().await;
    look(&world, "second").await;
    let zoe = Caller::new(&world, "zoe", "read");
    assert_eq!(zoe.get(&unpushed).await.0, 404, "its record is in the repo");
    assert_eq!(world.ops.read(&result).unwrap(), written);
    assert_eq!(world.ledger_lines(), ["ran", "first", "unpushed", "second"]);
    let more: Vec<String> = world.children().await.into_iter().filter(|id| !children.contains(id)).collect();
    assert_eq!(more.len(), 1, "{more:?}");
}
