//! The agent on a Nomad with ACLs: as a job of it that has no token at all, and beside it with an ordinary one.

mod forbidden;
mod job;
mod needed;
mod rights;

use std::{
    fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration,
};

use consign::{
    bootstrap::acl,
    config,
    doctor::{Level, Tokens, examine},
};
use reqwest::Method;
use serde_json::{Value, json};

use self::job::AgentJob;
use crate::support::{OwnServers, World, wait_for};

const PATIENCE: Duration = Duration::from_mins(1);
/// What bootstrap says of the ACL policy.
const BOUND: &str = "-go-agent, bound to the job consign in Nomad namespace ";

/// A formula that ends when the file `release` in the test's folder is there, and says so in the ledger.
fn held(world: &World) -> String {
    format!(
        "#!/bin/sh\necho \"begun $CONSIGN_ACTION_ID\" >>{ledger}\nuntil [ -e {release} ]; do sleep 0.1; done\n\
         echo \"ended $CONSIGN_ACTION_ID\" >>{ledger}\n",
        ledger = world.ledger().display(),
        release = world.path("release").display(),
    )
}

/// Serves the program in an archive, and gives the server's address.
async fn serve_program(world: &World) -> SocketAddr {
    let archive = world.path("consign.tar");
    let program = Path::new(env!("CARGO_BIN_EXE_consign"));
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .args([program.parent().unwrap().as_os_str(), program.file_name().unwrap()])
        .status();
    assert!(tar.unwrap().success());
    let serve = move || std::future::ready(fs::read(archive.clone()).unwrap());
    let router = axum::Router::new().route("/consign.tar", axum::routing::get(serve));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Waits until the ledger has a line.
async fn told(world: &World, line: &str) {
    wait_for(line, PATIENCE, async || {
        let lines = world.ledger_lines();
        if lines.iter().any(|told| told == line) { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_under_nomad_works_without_a_token_and_may_do_nothing_else() {
    let own = OwnServers::start_with_acls().await;
    let world = World::on(own.servers.clone(), "under").await;
    let agent = AgentJob::set_up(&world, BOUND).await;
    let secret = world.secret("DATA");
    world.put_secret(&secret, b"the value");
    for further in [
        &["-var", "image=registry.example/consign:1", "-var", "volume=store", "-var", "node=one"][..],
        &[
            "-var",
            "artifact=https://example.org/consign.tar.gz",
            "-var",
            "driver=exec",
            "-var",
            "volume=store",
        ],
        &["-var", "from_variable=[\"deploy_key\", \"known_hosts\"]", "-var", "user=nobody"],
    ] {
        agent.job(&world, "validate", further);
    }
    // A file that is no token of Nomad's or Vault's comes from the job's own Nomad variable.
    let items = json!({ "Path": "nomad/jobs/consign", "Items": { "hook_secret": "known to the forge" } });
    agent.nomad.request(Method::PUT, "/v1/var/nomad/jobs/consign", Some(items)).await.unwrap();
    let environment = "environment={ CONSIGN_OPS_HOOK_SECRET_FILE = \"$${NOMAD_SECRETS_DIR}/hook_secret\" }";
    agent.run(&world, &["-var", "from_variable=[\"hook_secret\"]", "-var", environment]);
    agent.ready().await;
    let hook = format!("{}/hooks/git", world.agent_address());
    let unsigned = crate::support::http().post(hook).body("{}").send().await.unwrap();
    assert_eq!(unsigned.status(), 401, "the secret is there, so loopback alone does not do");

    let script = format!("#!/bin/sh\necho \"read ${secret}\"\n");
    world.ops.commit("formula", &[("formulas/read.sh", Some(&script))]);
    world.commit_action("reads", "read", &format!("secrets = [\"{secret}\"]"));
    let result = world.result("reads", PATIENCE).await;
    assert_eq!(result["outcome"], "succeeded", "{result}");
    assert_eq!(result["logs"], "read ***\n");

    agent.has_no_token(&world).await;
    forbidden::everything_else_is_refused(&world, &agent).await;
    forbidden::nobody_else_logs_in_as_the_agent(&world, &agent).await;
    own.nomad.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_under_a_nomad_without_acls_works_as_well() {
    let world = World::new("open").await;
    let agent = AgentJob::set_up(&world, "Nomad's ACLs are off").await;
    agent.run(&world, &[]);
    agent.ready().await;
    world.ops.commit("formula", &[("formulas/a.sh", Some("echo out\n"))]);
    world.commit_action("one", "a", "");
    assert_eq!(world.result("one", PATIENCE).await["logs"], "out\n");
    let allocation = agent.allocation().await;
    agent.nomad.request(Method::DELETE, "/v1/job/consign?purge=true", None).await.unwrap();
    agent.gone(&allocation).await;
}

#[tokio::test]
async fn an_update_and_a_drain_of_the_agent_lose_and_double_nothing() {
    let own = OwnServers::start_with_acls().await;
    let world = World::on(own.servers.clone(), "moved").await;
    let agent = AgentJob::set_up(&world, BOUND).await;
    agent.run(&world, &[]);
    agent.ready().await;
    let first = agent.allocation().await;
    world.ops.commit("formula", &[("formulas/held.sh", Some(&held(&world)))]);
    world.commit_action("over-update", "held", "");
    told(&world, "begun over-update").await;

    // The next version comes by download. What is committed while nobody looks is found by it.
    let served = serve_program(&world).await;
    agent.run(&world, &["-var", &format!("artifact=http://{served}/consign.tar")]);
    world.commit_action("between", "held", "");
    let second = agent.replaced(&first).await;
    agent.ready().await;
    agent.deployed().await;
    told(&world, "begun between").await;
    fs::write(world.path("release"), "").unwrap();
    for id in ["over-update", "between"] {
        assert_eq!(world.result(id, PATIENCE).await["outcome"], "succeeded", "{id}");
    }
    fs::remove_file(world.path("release")).unwrap();

    // A drained node lets batch tasks end; the agent goes at once and comes back with the node.
    world.commit_action("over-drain", "held", "");
    told(&world, "begun over-drain").await;
    let node = agent.node().await;
    let drain = json!({ "DrainSpec": { "Deadline": 3_600_000_000_000_i64, "IgnoreSystemJobs": true } });
    world.nomad.request(Method::PUT, &format!("/v1/node/{node}/drain"), Some(drain)).await.unwrap();
    agent.gone(&second).await;
    fs::write(world.path("release"), "").unwrap();
    told(&world, "ended over-drain").await;
    let eligible = json!({ "DrainSpec": null, "MarkEligible": true });
    world.nomad.request(Method::PUT, &format!("/v1/node/{node}/drain"), Some(eligible)).await.unwrap();
    agent.ready().await;
    let result = world.result("over-drain", PATIENCE).await;
    assert_eq!((&result["outcome"], result["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1));

    let mut lines = world.ledger_lines();
    lines.sort();
    let ids = ["between", "over-drain", "over-update"];
    let expected: Vec<String> =
        ["begun", "ended"].iter().flat_map(|word| ids.map(|id| format!("{word} {id}"))).collect();
    assert_eq!(lines, expected);
    own.nomad.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_beside_nomad_needs_the_shipped_policy_and_takes_a_new_token_without_a_restart() {
    let own = OwnServers::start_with_acls().await;
    let world = World::on(own.servers.clone(), "beside").await;
    let file = world.path("nomad.token");
    let in_nomad = format!("namespace = \"{}\"\n", world.name);
    let with_file = format!("{in_nomad}token_file = {}\n", Value::from(file.to_str().unwrap()));
    world.bootstrap_with(&world.config_toml().replacen(&in_nomad, &with_file, 1));
    let text = fs::read_to_string(world.path("consign.toml")).unwrap();
    let config = config::read("consign.toml", &text, &config::Environment::new()).unwrap();
    world.ops.commit("formula", &[("actions/README", Some("")), ("formulas/a.sh", Some("echo out\n"))]);

    // Too few rights: each missing one is named.
    let little = token(&world, "little", "node { policy = \"read\" }").await;
    write_token(&file, &little);
    let findings = examine(&config, &Tokens::default()).await;
    for right in ["list-jobs", "parse-job", "read-job"] {
        let named = findings.iter().any(|finding| {
            finding.level == Level::Failure
                && finding.remedy.as_ref().is_some_and(|remedy| remedy.contains(&format!("{right:?}")))
        });
        assert!(named, "{right}: {findings:#?}");
    }

    let rules = acl::POLICY.replace("namespace \"default\"", &format!("namespace {:?}", world.name));
    let first = token(&world, "consign", &rules).await;
    write_token(&file, &first);
    let findings = examine(&config, &Tokens::default()).await;
    assert!(findings.iter().all(|finding| finding.level != Level::Failure), "{findings:#?}");

    let agent = world.agent().await;
    world.commit_action("one", "a", "");
    let result = world.result("one", PATIENCE).await;
    assert_eq!((&result["outcome"], &result["logs"]), (&json!("succeeded"), &json!("out\n")), "{result}");

    // The token is replaced, and the one before ends.
    write_token(&file, &token(&world, "consign", &rules).await);
    let accessor = first["AccessorID"].as_str().unwrap();
    world.nomad.request(Method::DELETE, &format!("/v1/acl/token/{accessor}"), None).await.unwrap();
    world.commit_action("two", "a", "");
    assert_eq!(world.result("two", PATIENCE).await["outcome"], "succeeded");
    assert_eq!(agent.health().await["degraded"], false);
    own.nomad.stop().await.unwrap();
}

/// A client token with one ACL policy.
async fn token(world: &World, name: &str, rules: &str) -> Value {
    let policy = json!({ "Name": name, "Rules": rules });
    world.nomad.request(Method::PUT, &format!("/v1/acl/policy/{name}"), Some(policy)).await.unwrap();
    let token = json!({ "Name": name, "Type": "client", "Policies": [name] });
    world.nomad.request(Method::PUT, "/v1/acl/token", Some(token)).await.unwrap()
}

fn write_token(file: &std::path::Path, token: &Value) {
    fs::write(file, token["SecretID"].as_str().unwrap()).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}
