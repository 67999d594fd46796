//! Nomad, Vault or the ops repo out of reach: clear words, nothing lost, nothing twice.

use std::{
    fs,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{Agent, LIMIT, OwnServers, World, wait_for};

/// How long something stays out of reach.
const OUTAGE: Duration = Duration::from_mins(1);

/// A formula that writes the action's id to the ledger, and one that then waits until the test lets it end.
pub(crate) fn commit_formulas(world: &World) {
    let ledger = world.ledger();
    let note = format!("echo $CONSIGN_ACTION_ID >> {}\n", ledger.display());
    let gate = world.path("end-");
    let wait = format!("{note}while [ ! -e {}$CONSIGN_ACTION_ID ]; do sleep 0.1; done\n", gate.display());
    world.ops.commit("two formulas", &[("formulas/note.sh", Some(&note)), ("formulas/wait.sh", Some(&wait))]);
}

pub(crate) fn let_end(world: &World, id: &str) {
    fs::write(world.path(&format!("end-{id}")), "").unwrap();
}

/// An agent of a new world that has the formulas, and the name of a secret.
pub(crate) async fn agent_with_secret(world: &World) -> (Agent, String) {
    world.bootstrap("");
    let secret = world.secret("KEY");
    world.put_secret(&secret, b"a value");
    let agent = world.agent().await;
    commit_formulas(world);
    (agent, secret)
}

pub(crate) async fn works(world: &World, id: &str) {
    wait_for(&format!("{id} to work"), LIMIT, async || {
        let lines = world.ledger_lines();
        if !lines.iter().any(|line| line == id) {
            return Err(format!("{lines:?}"));
        }
        // A client that is killed before it has told its server may have forgotten that the task started.
        let allocations = world.nomad.get("/v1/allocations").await?;
        let mut statuses = allocations.as_array().into_iter().flatten().map(|found| &found["ClientStatus"]);
        if statuses.any(|status| status == "pending") { Err(allocations.to_string()) } else { Ok(()) }
    })
    .await;
}

/// Waits until each has succeeded, and shows that each started once, has one result and no grant left.
pub(crate) async fn each_once(world: &World, ids: &[&str]) {
    for id in ids {
        // Whoever waited long at the gate looks only once in a minute whether it is open.
        let result = world.result(id, LIMIT * 2).await;
        assert_eq!(result["outcome"], "succeeded", "{result}");
    }
    let mut started = world.ledger_lines();
    started.sort_unstable();
    let mut expected: Vec<&str> = ids.to_vec();
    expected.sort_unstable();
    assert_eq!(started, expected);
    for id in ids {
        let path = format!("actions/{id}.result.json");
        let commits = world.ops.bare(&["log", "--format=%H", "main", "--", &path]);
        assert_eq!(commits.lines().count(), 1, "{path} was written by {commits}");
    }
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

async fn status(agent: &Agent, path: &str) -> u16 {
    agent.get(path).await.status().as_u16()
}

async fn answers(agent: &Agent) {
    wait_for("the agent to answer", LIMIT, async || {
        let answer = crate::support::http().get(format!("{}/livez", agent.address)).send().await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// Lets an outage that began at `begun` last its time.
async fn outlast(begun: Instant) {
    tokio::time::sleep_until((begun + OUTAGE).into()).await;
}

/// Starts an agent that cannot start, and gives what it says and how long that took.
async fn refused(world: &World) -> (String, Duration) {
    let before = fs::read_to_string(world.path("agent.log")).unwrap_or_default().len();
    let begun = Instant::now();
    let mut agent = world.launch_agent(&[]);
    let ended = agent.ended().await;
    let said = agent.log()[before..].to_owned();
    assert_eq!(ended.code(), Some(1), "{said}");
    (said, begun.elapsed())
}

fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

#[tokio::test]
async fn nomad_absent_at_start_is_explained_and_waited_for() {
    let mut own = OwnServers::start().await;
    let world = World::on(own.servers.clone(), "absent").await;
    world.bootstrap("");
    commit_formulas(&world);
    own.nomad.kill().await.unwrap();
    let (said, took) = refused(&world).await;
    says(&said, &["Nomad", &own.servers.nomad_address, "[nomad] addr"]);
    assert!(took > Duration::from_secs(28) && took < Duration::from_secs(45), "{took:?}");

    let agent = world.launch_agent(&[]);
    answers(&agent).await;
    agent.degraded("nomad").await;
    assert_eq!((status(&agent, "/readyz").await, status(&agent, "/livez").await), (503, 200));
    own.nomad.launch().await.unwrap();
    agent.ready().await;
    world.commit_action("first", "note", "");
    each_once(&world, &["first"]).await;

    // With work on record it waits for longer than at its first start.
    world.commit_action("second", "wait", "");
    works(&world, "second").await;
    own.nomad.kill().await.unwrap();
    agent.kill();
    let_end(&world, "second");
    let begun = Instant::now();
    let agent = world.launch_agent(&[]);
    agent_stays(&agent, "nomad", begun).await;
    own.nomad.launch().await.unwrap();
    agent.ready().await;
    each_once(&world, &["first", "second"]).await;
    agent.recovered().await;
}

/// An agent that was started in an outage lives and is degraded, for longer than a fresh one would try.
async fn agent_stays(agent: &Agent, subject: &str, begun: Instant) {
    answers(agent).await;
    agent.degraded(subject).await;
    tokio::time::sleep_until((begun + Duration::from_secs(36)).into()).await;
    assert_eq!((status(agent, "/readyz").await, status(agent, "/livez").await), (503, 200));
    assert_eq!(agent.health().await["degraded"], true);
}

#[tokio::test]
async fn nomad_gone_for_a_minute_loses_and_doubles_nothing() {
    let mut own = OwnServers::start().await;
    let world = World::on(own.servers.clone(), "gone").await;
    world.bootstrap("");
    let agent = world.agent().await;
    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    world.commit_action("lasting", "wait", "");
    works(&world, "working").await;
    works(&world, "lasting").await;
    own.nomad.kill().await.unwrap();
    let begun = Instant::now();
    for id in ["one", "two", "three"] {
        world.commit_action(id, "note", "");
    }
    agent.degraded("nomad").await;
    let_end(&world, "working");
    assert_eq!(status(&agent, "/livez").await, 200);
    outlast(begun).await;
    own.nomad.launch().await.unwrap();
    let_end(&world, "lasting");
    each_once(&world, &["working", "lasting", "one", "two", "three"]).await;
    agent.recovered().await;
    assert_eq!(world.children().await.len(), 5);
}

#[tokio::test]
async fn vault_sealed_for_a_minute_loses_and_doubles_nothing() {
    let mut own = OwnServers::start().await;
    let world = World::on(own.servers.clone(), "sealed").await;
    let (agent, secret) = agent_with_secret(&world).await;
    let needs = format!("secrets = [\"{secret}\"]\n");
    world.commit_action("running", "wait", &needs);
    works(&world, "running").await;
    own.vault.seal().await.unwrap();
    let begun = Instant::now();
    world.commit_action("asking", "note", &needs);
    world.commit_action("dropped", "note", &needs);
    let_end(&world, "running");
    agent.degraded("vault").await;
    let allocations = world.nomad.get("/v1/allocations").await.unwrap();
    let child = allocations[0]["JobID"].as_str().unwrap().to_owned();
    world.nomad.allocation(&child, "complete").await;
    // What needs no secret waits for the launch gate and says nothing about Vault.
    world.commit_action("bare", "note", "");
    world.ops.commit("never mind", &[("actions/dropped.toml", None)]);
    let dropped = world.result("dropped", LIMIT).await;
    assert_eq!(dropped["outcome"], "cancelled", "{dropped}");
    outlast(begun).await;
    assert!(agent.health().await["reasons"].to_string().contains("vault"));
    assert_eq!(world.ledger_lines(), ["running"]);
    let results = world.ops.paths().into_iter().filter(|path| path.ends_with(".result.json"));
    assert_eq!(results.collect::<Vec<_>>(), ["actions/dropped.result.json"]);
    own.vault.unseal().await.unwrap();
    each_once(&world, &["running", "asking", "bare"]).await;
    let log = agent.log();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text:?} is missing in {log}"));
    let withdrawn = place("job=\"running\" event=\"grant withdrawn\"");
    assert!(withdrawn < place("result committed job=\"running\""), "{log}");
    let log_status: Value = world.result("running", LIMIT).await["log_status"].clone();
    assert_eq!(log_status, "complete");
    agent.recovered().await;
}

#[tokio::test]
async fn vault_troubles_at_start_are_explained_and_waited_for() {
    let mut own = OwnServers::start().await;
    let world = World::on(own.servers.clone(), "tokens").await;
    world.bootstrap("");
    commit_formulas(&world);
    let token_file = world.path("agent.token");
    let token = fs::read_to_string(&token_file).unwrap();
    for refusable in ["hvs.nobodys".to_owned(), expired_token(&world).await] {
        fs::write(&token_file, refusable).unwrap();
        let (said, took) = refused(&world).await;
        says(&said, &["Vault", "[vault] token_file", "consign bootstrap"]);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    fs::write(&token_file, token).unwrap();
    own.vault.seal().await.unwrap();
    let (said, took) = refused(&world).await;
    says(&said, &["sealed", &own.servers.vault_address, "vault operator unseal"]);
    assert!(took > Duration::from_secs(28) && took < Duration::from_secs(45), "{took:?}");

    own.vault.unseal().await.unwrap();
    let agent = world.agent().await;
    world.commit_action("lasting", "wait", "");
    works(&world, "lasting").await;
    own.vault.seal().await.unwrap();
    agent.kill();
    let_end(&world, "lasting");
    let begun = Instant::now();
    let agent = world.launch_agent(&[]);
    agent_stays(&agent, "vault", begun).await;
    own.vault.unseal().await.unwrap();
    agent.ready().await;
    each_once(&world, &["lasting"]).await;
    agent.recovered().await;
}

/// A token whose time is over.
async fn expired_token(world: &World) -> String {
    let (http, vault) = (crate::support::http(), &world.servers.vault_address);
    let answer = http
        .post(format!("{vault}/v1/auth/token/create"))
        .header("X-Vault-Token", world.servers.vault_token.expose_secret())
        .json(&json!({"ttl": "1s", "renewable": false}))
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let token = answer["auth"]["client_token"].as_str().unwrap().to_owned();
    wait_for("the token to expire", LIMIT, async || {
        let request = http.get(format!("{vault}/v1/auth/token/lookup-self")).header("X-Vault-Token", &token);
        match request.send().await.unwrap().status().as_u16() {
            403 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    token
}

#[tokio::test]
async fn an_ops_repo_gone_for_a_minute_loses_and_doubles_nothing() {
    let world = World::new("remote").await;
    world.bootstrap("");
    let agent = world.agent().await;
    commit_formulas(&world);
    for id in ["one", "two", "three"] {
        world.commit_action(id, "wait", "");
    }
    for id in ["one", "two", "three"] {
        works(&world, id).await;
    }
    let away = world.path("away.git");
    fs::rename(&world.ops.bare, &away).unwrap();
    let begun = Instant::now();
    agent.degraded("ops repo").await;
    let_end(&world, "one");
    let_end(&world, "two");
    agent.degraded("results").await;
    assert_eq!(status(&agent, "/livez").await, 200);
    outlast(begun).await;
    fs::rename(&away, &world.ops.bare).unwrap();
    for id in ["one", "two"] {
        let result = world.result(id, LIMIT).await;
        assert_eq!(result["outcome"], "succeeded", "{result}");
    }
    agent.recovered().await;
    let_end(&world, "three");
    each_once(&world, &["one", "two", "three"]).await;
    // What ended meanwhile went out together.
    let commit = |id: &str| {
        world.ops.bare(&["log", "--format=%H", "main", "--", &format!("actions/{id}.result.json")])
    };
    assert_eq!(commit("one"), commit("two"));
}
