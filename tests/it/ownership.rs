//! One agent for each ops repo, and what becomes of runs whose store was lost.

use std::collections::BTreeSet;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{LIMIT, World, action, wait_for};

fn formulas(world: &World) -> [(&'static str, String); 2] {
    let (ledger, go) = (world.ledger().display().to_string(), world.path("go").display().to_string());
    [
        ("formulas/short.sh", format!("echo $CONSIGN_ACTION_ID >> {ledger}\n")),
        (
            "formulas/long.sh",
            format!("echo $CONSIGN_ACTION_ID >> {ledger}\nwhile [ ! -e {go} ]; do sleep 0.1; done\n"),
        ),
    ]
}

/// Commits the formulas and these actions, each an id and its formula.
fn commit(world: &World, actions: &[(&str, &str)]) {
    let mut files: Vec<(String, String)> =
        formulas(world).into_iter().map(|(path, text)| (path.to_owned(), text)).collect();
    files.extend(actions.iter().map(|(id, formula)| (format!("actions/{id}.toml"), action(id, formula, ""))));
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    world.ops.commit("work", &changes);
}

fn owner(world: &World) -> String {
    world.ops.bare(&["log", "-1", "--format=%H%n%B", "refs/consign/owner"])
}

/// Takes from the agent's Vault policy the right to open the launch gate.
async fn close_gate(world: &World) {
    let name = format!("{}-agent", world.gate());
    let url = format!("{}/v1/sys/policies/acl/{name}", world.servers.vault_address);
    let token = world.servers.vault_token.expose_secret();
    let client = crate::support::http();
    let answer = client.get(&url).header("X-Vault-Token", token).send().await.unwrap();
    let found: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let text = found["data"]["policy"].as_str().unwrap();
    let (before, after) = text.split_once(&format!("identity/group/name/{}\"", world.gate())).unwrap();
    let closed = after.replacen("[\"read\", \"update\"]", "[\"read\"]", 1);
    assert_ne!(after, closed);
    let policy = format!("{before}identity/group/name/{}\"{closed}", world.gate());
    let answer = client.put(&url).header("X-Vault-Token", token).json(&json!({"policy": policy}));
    let answer = answer.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

#[tokio::test]
async fn a_second_agent_refuses_to_start_and_the_first_goes_on() {
    let world = World::new("second").await;
    world.bootstrap("");
    let mut first = world.agent().await;
    let claimed = owner(&world);

    let mut other_store = world.launch_another("other", &[]);
    assert_eq!(other_store.ended().await.code(), Some(1), "{}", other_store.log());
    let said = other_store.log();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for words in ["is owned by the store", &host, "--take-over"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let store_id = said.split("the store ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(first.log().contains(store_id), "it names the owner {store_id}");

    let mut same_store = world.launch_another("store", &[]);
    assert_eq!(same_store.ended().await.code(), Some(1), "{}", same_store.log());
    assert!(same_store.log().contains("another agent is using the store"), "{}", same_store.log());

    assert_eq!(owner(&world), claimed);
    commit(&world, &[("after", "short")]);
    assert_eq!(world.result("after", LIMIT).await["outcome"], "succeeded");

    let successor = world.launch_another("other", &["--take-over"]);
    assert_eq!(first.ended().await.code(), Some(1), "{}", first.log());
    assert!(first.log().contains("was claimed by the store"), "{}", first.log());
    successor.ready().await;
    commit(&world, &[("succeeded", "short")]);
    assert_eq!(world.result("succeeded", LIMIT).await["outcome"], "succeeded");
    assert_eq!(world.ledger_lines(), ["after", "succeeded"]);
}

#[tokio::test]
async fn a_take_over_after_a_lost_store_doubles_none_and_answers_all() {
    let world = World::new("takeover").await;
    // Results stay in the store, so that those of ended runs are lost with it.
    let config = world.config_toml().replace("\"100ms\"", "\"1h\"");
    world.bootstrap_with(&config);
    let first = world.agent().await;
    commit(&world, &[("ended-1", "short"), ("ended-2", "short"), ("long-1", "long"), ("long-2", "long")]);
    wait_for("four runs, two of them over", LIMIT, async || {
        let log = first.log();
        let ended = ["ended-1", "ended-2"].iter().all(|id| {
            log.lines()
                .any(|line| line.contains(&format!("job=\"{id}\"")) && line.contains("event=\"ended\""))
        });
        let lines = world.ledger_lines();
        if lines.len() == 4 && ended { Ok(()) } else { Err(format!("{lines:?}\n{log}")) }
    })
    .await;
    // The agent opens no gate any more: the last two wait there when it is killed.
    close_gate(&world).await;
    commit(&world, &[("gate-1", "long"), ("gate-2", "long")]);
    wait_for("two at the gate", LIMIT, async || {
        let log = first.log();
        let at_gate = ["gate-1", "gate-2"].iter().all(|id| {
            log.lines()
                .any(|line| line.contains(&format!("job=\"{id}\"")) && line.contains("event=\"admitted\""))
        });
        if at_gate { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(world.children().await.len(), 6);
    assert_eq!(world.ledger_lines().len(), 4);
    first.kill();
    std::fs::remove_dir_all(world.path("store")).unwrap();
    let ids = ["ended-1", "ended-2", "gate-1", "gate-2", "long-1", "long-2"];
    assert!(world.ops.paths().iter().all(|path| !path.ends_with(".result.json")));

    // Another token, in the same file.
    world.bootstrap_with(&config);
    let mut refused = world.launch_another("fresh", &[]);
    assert_eq!(refused.ended().await.code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("--take-over"), "{}", refused.log());
    assert!(world.ops.paths().iter().all(|path| !path.ends_with(".result.json")));

    let _successor = world.launch_another("fresh", &["--take-over"]);
    std::fs::write(world.path("go"), "").unwrap();
    for id in ids {
        let result = world.result(id, LIMIT).await;
        assert_eq!(result["outcome"], "succeeded", "{result}");
        assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
    }
    let results = world.ops.paths().iter().filter(|path| path.ends_with(".result.json")).count();
    assert_eq!(results, ids.len());
    let lines = world.ledger_lines();
    assert_eq!(lines.len(), ids.len(), "{lines:?}");
    assert_eq!(lines.iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(ids));
    assert_eq!(world.children().await.len(), ids.len());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_from_an_older_backup_runs_nothing_that_has_its_result() {
    let world = World::new("backup").await;
    world.bootstrap("");
    let first = world.agent().await;
    commit(&world, &[("before", "short")]);
    assert_eq!(world.result("before", LIMIT).await["outcome"], "succeeded");
    assert!(first.terminate().await.success());
    let (store, backup) = (world.path("store"), world.path("backup"));
    std::fs::create_dir(&backup).unwrap();
    std::fs::copy(store.join("consign.db"), backup.join("consign.db")).unwrap();

    let second = world.agent().await;
    commit(&world, &[("meanwhile", "short")]);
    assert_eq!(world.result("meanwhile", LIMIT).await["outcome"], "succeeded");
    assert!(second.terminate().await.success());

    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&backup, &store).unwrap();
    let _third = world.agent().await;
    commit(&world, &[("later", "short")]);
    assert_eq!(world.result("later", LIMIT).await["outcome"], "succeeded");
    assert_eq!(world.ledger_lines(), ["before", "meanwhile", "later"]);
}
