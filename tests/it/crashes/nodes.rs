//! Nodes that go away, and children that Nomad forgets: on servers of the test's own.

use consign::dev::servers::{Nomad, NomadOptions, Role, VaultForNomad};
use tempfile::TempDir;

use super::*;
use crate::support::servers;

/// A Nomad server without a client, and a world on it; Vault is the shared one, with an auth method of its own.
struct Cluster {
    server: Nomad,
    world: World,
    folder: TempDir,
    vault: VaultForNomad,
}

impl Cluster {
    async fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("consign-{name}-servers-")).tempdir().unwrap();
        let shared = servers();
        let vault = VaultForNomad {
            address: shared.vault_address.clone(),
            auth_path: format!("jwt-{}", ulid::Ulid::generate().to_string().to_lowercase()),
            role: None,
            audience: "vault.io".to_owned(),
        };
        let options = NomadOptions {
            folder: folder.path().join("server"),
            role: Role::Server,
            vault: Some(vault.clone()),
            server_settings: "heartbeat_grace = \"1s\"\nmin_heartbeat_ttl = \"1s\"".to_owned(),
            ..NomadOptions::default()
        };
        let server = Nomad::start(&options).await.unwrap();
        let world = World::on(shared.with_nomad(&server, options.folder), name).await;
        let config = world
            .config_toml()
            .replace("\"jwt-nomad\"", &format!("\"{}\"", vault.auth_path))
            .replace("driver = \"raw_exec\"", "driver = \"raw_exec\"\nlost_after = \"2s\"");
        world.bootstrap_with(&config);
        world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world)))]);
        Self { server, world, folder, vault }
    }

    async fn client(&self, name: &str) -> Nomad {
        let options = NomadOptions {
            folder: self.folder.path().join(name),
            role: Role::Client { server: self.server.rpc_address() },
            vault: Some(self.vault.clone()),
            vault_retry_attempts: Some(0),
            ..NomadOptions::default()
        };
        Nomad::start(&options).await.unwrap()
    }
}

async fn purge(world: &World, child: &str) {
    let path = format!("/v1/job/{}?purge=true", child.replace('/', "%2F"));
    world.nomad.request(Method::DELETE, &path, None).await.unwrap();
}

/// Waits until an allocation of a child asks for the gate.
async fn at_the_gate(world: &World, child: &str) {
    wait_for(&format!("{child} at the gate"), LIMIT, async || {
        let allocations = allocations(world, child).await;
        let events = allocations.first().map(|allocation| &allocation["TaskStates"]["runner"]["Events"]);
        let events = events.map(Value::to_string).unwrap_or_default();
        if events.contains("/consign/go") { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test]
async fn a_lost_nodes_replacement_allocation_never_starts() {
    let cluster = Cluster::new("lost").await;
    let world = &cluster.world;
    let mut clients = [cluster.client("one").await, cluster.client("two").await];
    let agent = world.agent().await;
    // Nomad replaces an allocation that it never heard to be running at once, another one after `lost_after`.
    for (index, (id, reported)) in [("unreported", false), ("reported", true)].into_iter().enumerate() {
        let earlier = world.children().await;
        world.commit_action(id, "wait", "");
        let child = new_child(world, &earlier).await;
        let line = wait_for("the formula to start", LIMIT, async || {
            let lines = world.ledger_lines();
            lines.get(index).cloned().ok_or_else(|| format!("{lines:?}"))
        })
        .await;
        let node = wait_for("the node's name", LIMIT, async || {
            let allocation = allocations(world, &child).await.remove(0);
            let running = allocation["ClientStatus"] == "running";
            let name = allocation["NodeName"].as_str().unwrap_or_default().to_owned();
            if running || !reported { Ok(name) } else { Err(allocation.to_string()) }
        })
        .await;
        // A node is called after the port of its client.
        let port = node.rsplit('-').next().unwrap();
        let lost = clients.iter_mut().find(|client| client.address().ends_with(port)).unwrap();
        lost.kill().await.unwrap();
        let result = world.result(id, LIMIT).await;
        ends(&result, "lost", "lost");
        assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
        never_starts_elsewhere(world, &child, line.rsplit(' ').next().unwrap()).await;
        assert_eq!(world.ledger_lines().len(), index + 1, "{:?}", world.ledger_lines());
        lost.launch().await.unwrap();
    }
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    agent.kill();
    for server in clients.into_iter().chain([cluster.server]) {
        server.stop().await.unwrap();
    }
}

/// Waits until a child is stopped, with all its allocations but the one that ran on a lost node, and asserts
/// that none of those ever started.
async fn never_starts_elsewhere(world: &World, child: &str, lost: &str) {
    let others = wait_for("the child to be stopped", LIMIT, async || {
        let record = job(world, child).await?;
        let others: Vec<Value> = allocations(world, child)
            .await
            .into_iter()
            .filter(|allocation| allocation["ID"] != lost)
            .collect();
        let over = others.iter().all(|allocation| allocation["ClientStatus"] == "complete");
        if record["Status"] == "dead" && over { Ok(others) } else { Err(format!("{record} {others:?}")) }
    })
    .await;
    for allocation in others {
        assert_eq!(allocation["TaskStates"]["runner"]["StartedAt"], Value::Null, "{allocation}");
    }
}

#[tokio::test]
async fn a_child_that_nomad_forgot_and_got_again_starts_once() {
    let cluster = Cluster::new("forgotten").await;
    let world = &cluster.world;
    let agent = world.agent().await;
    world.commit_action("forgotten", "wait", "");
    let first = new_child(world, &[]).await;
    let meta = dispatched_meta(world, &first).await;
    let prefix = first.split('-').nth(1).unwrap();
    purge(world, &first).await;
    let second = new_child(world, std::slice::from_ref(&first)).await;
    assert_eq!(second.split('-').nth(1), Some(prefix), "it is the same attempt");

    agent.kill();
    purge(world, &second).await;
    let script = waiting_formula(world);
    let again =
        [dispatch(world, prefix, &meta, &script).await, dispatch(world, prefix, &meta, &script).await];
    let client = cluster.client("client").await;
    for child in &again {
        at_the_gate(world, child).await;
    }
    let agent = world.agent().await;
    let admitted = started(world).await;
    let mut losers = Vec::new();
    for child in &again {
        if allocations(world, child).await.iter().all(|allocation| allocation["ID"] != *admitted) {
            losers.push(child);
        }
    }
    assert_eq!(losers.len(), 1, "{again:?}");
    ended_at_the_gate(world, losers[0]).await;
    go_on(world);
    let result = world.result("forgotten", LIMIT).await;
    ends(&result, "succeeded", "success");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(world.ledger_lines().len(), 1, "{:?}", world.ledger_lines());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    agent.kill();
    for server in [client, cluster.server] {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_child_purged_at_the_gate_and_dispatched_again_starts_once() {
    let cluster = Cluster::new("purged").await;
    let world = &cluster.world;
    let agent = world.agent().await;
    world.commit_action("purged", "wait", "");
    let first = new_child(world, &[]).await;
    let meta = dispatched_meta(world, &first).await;
    agent.kill();
    let client = cluster.client("client").await;
    at_the_gate(world, &first).await;
    purge(world, &first).await;
    let prefix = first.split('-').nth(1).unwrap();
    let second = dispatch(world, prefix, &meta, &waiting_formula(world)).await;
    at_the_gate(world, &second).await;
    let agent = world.agent().await;
    started(world).await;
    go_on(world);
    let result = world.result("purged", LIMIT).await;
    ends(&result, "succeeded", "success");
    assert_eq!(world.ledger_lines().len(), 1, "{:?}", world.ledger_lines());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    agent.kill();
    for server in [client, cluster.server] {
        server.stop().await.unwrap();
    }
}
