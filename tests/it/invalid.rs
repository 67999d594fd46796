//! One bad file never holds up the others, and whoever committed it sees why.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use consign::ids::ActionId;
use serde_json::{Value, json};

use crate::support::{LIMIT, World, action, wait_for};

/// One action of every invalid kind: id, content, and what its message must say.
fn corpus() -> Vec<(String, Vec<u8>, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/actions");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ActionId::parse(&stem).is_err() {
            continue;
        }
        let content = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&content).into_owned();
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap().to_owned();
        files.push((stem, content, expected));
    }
    assert!(files.len() > 90, "{}", files.len());
    files
}

fn rejected(result: &Value, cause: &str, words: &str) {
    assert_eq!((&result["outcome"], &result["cause"]), (&json!("rejected"), &json!(cause)), "{result}");
    assert_eq!((&result["exit_code"], &result["attempts"]), (&json!(125), &json!([])), "{result}");
    assert!(result["message"].as_str().unwrap().contains(words), "{words}: {result}");
}

fn hello(world: &World) -> String {
    format!("echo $CONSIGN_ACTION_ID >> {}\n", world.ledger().display())
}

#[tokio::test]
async fn every_invalid_action_has_its_result_and_the_good_one_runs() {
    let world = World::new("invalid").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let corpus = corpus();
    world.ops.commit_work("one of every kind", |folder| {
        let bad = folder.join("actions/bad");
        fs::create_dir_all(&bad).unwrap();
        fs::create_dir_all(folder.join("formulas")).unwrap();
        for (id, content, _) in &corpus {
            fs::write(bad.join(format!("{id}.toml")), content).unwrap();
        }
        fs::write(bad.join("not-there.toml"), action("not-there", "helo", "")).unwrap();
        fs::write(bad.join("large.toml"), "#".repeat(64 * 1024 + 1)).unwrap();
        if fs::symlink_metadata(bad.join("linked.toml")).is_err() {
            std::os::unix::fs::symlink("../good.toml", bad.join("linked.toml")).unwrap();
        }
        fs::create_dir_all(folder.join("actions/zz")).unwrap();
        fs::write(folder.join("actions/zz/good.toml"), action("good", "hello", "")).unwrap();
        fs::write(folder.join("actions/zz/GOOD.toml"), action("GOOD", "hello", "")).unwrap();
        fs::write(folder.join("actions/good.toml"), action("good", "hello", "")).unwrap();
        fs::write(folder.join("formulas/hello.sh"), hello(&world)).unwrap();
    });
    wait_for("every result", LIMIT, async || {
        let results = world.ops.paths().iter().filter(|path| path.ends_with(".result.json")).count();
        if results == corpus.len() + 6 { Ok(()) } else { Err(format!("{results} of {}", corpus.len() + 6)) }
    })
    .await;
    let read = |path: &str| -> Value { serde_json::from_str(&world.ops.read(path).unwrap()).unwrap() };
    let mut wrong = Vec::new();
    for (id, _, expected) in &corpus {
        let result = read(&format!("actions/bad/{id}.result.json"));
        let sound = result["outcome"] == "rejected"
            && result["cause"] == "invalid"
            && result["message"].as_str().unwrap().contains(expected.as_str());
        if !sound {
            wrong.push(format!("{id}: {expected}: {result}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    rejected(&read("actions/bad/not-there.result.json"), "unknown_formula", "did you mean `hello`");
    rejected(&read("actions/bad/large.result.json"), "invalid", "65537 bytes");
    rejected(&read("actions/bad/linked.result.json"), "invalid", "not a regular file");
    for path in ["actions/zz/good.result.json", "actions/zz/GOOD.result.json"] {
        rejected(&read(path), "invalid", "is taken by actions/good.toml");
    }
    assert_eq!(read("actions/good.result.json")["outcome"], "succeeded");
    assert_eq!(world.ledger_lines(), ["good"]);
    assert_eq!(world.children().await.len(), 1);
}

#[tokio::test]
async fn a_fixed_action_runs_and_one_that_ran_never_runs_again() {
    let world = World::new("fixed").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let formula = hello(&world);
    let bad = action("fixed", "hello", "colour = \"red\"\n");
    let other = action("other", "hello", "secrts = []\n");
    world.ops.commit(
        "two bad, one good",
        &[
            ("formulas/hello.sh", Some(&formula)),
            ("actions/fixed.toml", Some(&bad)),
            ("actions/other.toml", Some(&other)),
            ("actions/ran.toml", Some(&action("ran", "hello", ""))),
        ],
    );
    rejected(&world.result("fixed", LIMIT).await, "invalid", "colour");
    let refused = world.result("other", LIMIT).await;
    rejected(&refused, "invalid", "did you mean `secrets`");
    let ran = world.result("ran", LIMIT).await;
    assert_eq!(ran["outcome"], "succeeded", "{ran}");

    world.ops.commit_work("fix one, touch one, edit one", |folder| {
        fs::write(folder.join("actions/fixed.toml"), action("fixed", "hello", "")).unwrap();
        let touched = folder.join("actions/other.toml");
        fs::set_permissions(&touched, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("actions/ran.toml"), action("ran", "hello", "timeout = \"5m\"\n")).unwrap();
    });
    let fixed = wait_for("the fixed one's result", LIMIT, async || {
        let result = world.result("fixed", LIMIT).await;
        if result["outcome"] == "succeeded" { Ok(result) } else { Err(result.to_string()) }
    })
    .await;
    assert_eq!(fixed["attempts"].as_array().unwrap().len(), 1, "{fixed}");
    // What comes later is answered later: by then the touched and the edited one have been looked at.
    world.commit_action("last", "hello", "");
    world.result("last", LIMIT).await;
    assert_eq!(world.result("other", LIMIT).await, refused);
    assert_eq!(world.result("ran", LIMIT).await, ran);
    assert_eq!(world.ledger_lines(), ["ran", "fixed", "last"]);
    assert_eq!(world.children().await.len(), 3);
}

#[tokio::test]
async fn what_needs_a_review_waits() {
    let world = World::new("review").await;
    world.bootstrap_with(&world.config_toml().replace("high = \"merged\"", "high = \"review\""));
    let agent = world.agent().await;
    let high = action("dangerous", "hello", "").replace("\"low\"", "\"high\"");
    let formula = hello(&world);
    world.ops.commit(
        "one that waits, one that does not",
        &[
            ("formulas/hello.sh", Some(&formula)),
            ("actions/dangerous.toml", Some(&high)),
            ("actions/harmless.toml", Some(&action("harmless", "hello", ""))),
        ],
    );
    assert_eq!(world.result("harmless", LIMIT).await["outcome"], "succeeded");
    world.commit_action("later", "hello", "");
    assert_eq!(world.result("later", LIMIT).await["outcome"], "succeeded");
    assert!(!world.ops.paths().contains(&"actions/dangerous.result.json".to_owned()));
    assert_eq!(world.children().await.len(), 2);
    assert_eq!(world.ledger_lines(), ["harmless", "later"]);
    let log = agent.log();
    assert!(log.lines().any(|line| line.contains("dangerous") && line.contains("review")), "{log}");
}
