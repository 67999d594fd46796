//! Nodes that go away, and children that Nomad forgets: on servers of the test's own.

use consign::dev::servers::{Nomad, NomadOptions, Role, VaultForNomad};
use tempfile::TempDir;

use super::*;
use crate::support::{Servers, servers};

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
        let servers = Servers {
            nomad_address: server.address(),
            nomad_pid: server.pid().unwrap_or_default(),
            nomad_folder: options.folder,
            ..shared
        };
        let world = World::on(servers, name).await;
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

#[tokio::test]
async fn a_lost_nodes_replacement_allocation_never_starts() {
    let cluster = Cluster::new("lost").await;
    let world = &cluster.world;
    let mut lost = cluster.client("lost").await;
    let agent = world.agent().await;
    world.commit_action("lost", "wait", "");
    let first = started(world).await;
    let child = world.children().await.remove(0);
    let other = cluster.client("other").await;
    lost.kill().await.unwrap();
    let result = world.result("lost", LIMIT).await;
    ends(&result, "lost", "lost");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
    wait_for("the child to be stopped", LIMIT, async || match job(world, &child).await? {
        record if record["Stop"] == true || record["Status"] == "dead" => Ok(()),
        record => Err(record["Status"].to_string()),
    })
    .await;
    for allocation in allocations(world, &child).await {
        let started = &allocation["TaskStates"]["runner"]["StartedAt"];
        assert!(allocation["ID"] == *first || started.is_null(), "{allocation}");
    }
    assert_eq!(world.ledger_lines().len(), 1, "{:?}", world.ledger_lines());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    agent.kill();
    for server in [lost, other, cluster.server] {
        server.stop().await.unwrap();
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
    let second = new_child(world, &[first.clone()]).await;
    assert_eq!(second.split('-').nth(1), Some(prefix), "it is the same attempt");

    agent.kill();
    purge(world, &second).await;
    let script = waiting_formula(world);
    let again =
        [dispatch(world, prefix, &meta, &script).await, dispatch(world, prefix, &meta, &script).await];
    let client = cluster.client("client").await;
    for child in &again {
        wait_for("an allocation at the gate", LIMIT, async || {
            let allocations = allocations(world, child).await;
            if allocations.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await;
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
