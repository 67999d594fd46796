//! Three Nomad servers, of which the leader dies while work is under way.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use consign::dev::servers::{Nomad, NomadOptions, Port, Role, VaultForNomad};
use serde_json::Value;

use crate::{
    outages::{commit_formulas, each_once, let_end, works},
    support::{LIMIT, World, servers, wait_for},
};

/// A Nomad server of three; killed with the value.
struct Member {
    process: Child,
    rpc: SocketAddr,
    _ports: [Port; 3],
}

impl Drop for Member {
    fn drop(&mut self) {
        // The test may have killed it.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Three servers of one cluster, which find each other.
fn three(folder: &Path, vault: &VaultForNomad) -> [Member; 3] {
    let reserved = [(); 3].map(|()| [(); 3].map(|()| Port::reserve().unwrap()));
    let serfs = reserved.each_ref().map(|[.., serf]| format!("127.0.0.1:{}", serf.number()));
    reserved.map(|ports| {
        let [http, rpc, serf] = ports.each_ref().map(Port::number);
        let folder = folder.join(http.to_string());
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            r#"bind_addr = "127.0.0.1"
data_dir = "{data}"
name = "server-{http}"
disable_update_check = true
ports {{
  http = {http}
  rpc = {rpc}
  serf = {serf}
}}
advertise {{
  http = "127.0.0.1"
  rpc = "127.0.0.1"
  serf = "127.0.0.1"
}}
server {{
  enabled = true
  bootstrap_expect = 3
  raft_multiplier = 1
  server_join {{
    retry_join = {serfs:?}
    retry_interval = "1s"
  }}
}}
vault {{
  enabled = true
  address = "{address}"
  jwt_auth_backend_path = "{path}"
  default_identity {{
    aud = ["{audience}"]
    ttl = "1h"
  }}
}}
"#,
            data = folder.join("data").display(),
            address = vault.address,
            path = vault.auth_path,
            audience = vault.audience,
        );
        let configuration = folder.join("nomad.hcl");
        fs::write(&configuration, text).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        // The servers end with the test, however that ends.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nomad", "agent"])
            .arg(format!("-config={}", configuration.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Member { process: process.unwrap(), rpc: ([127, 0, 0, 1], rpc).into(), _ports: ports }
    })
}

/// The RPC address of the leader, as a client hears of it.
async fn leader(world: &World) -> Result<SocketAddr, String> {
    let leader = world.nomad.get("/v1/status/leader").await?;
    leader.as_str().unwrap_or_default().parse().map_err(|error| format!("{leader}: {error}"))
}

#[tokio::test]
async fn a_leader_that_dies_while_work_is_under_way_loses_and_doubles_nothing() {
    let folder = tempfile::Builder::new().prefix("consign-leader-").tempdir().unwrap();
    let shared = servers();
    let vault = VaultForNomad {
        address: shared.vault_address.clone(),
        auth_path: format!("jwt-{}", ulid::Ulid::generate().to_string().to_lowercase()),
        role: None,
        audience: "vault.io".to_owned(),
    };
    let mut members = three(folder.path(), &vault);
    let options = NomadOptions {
        folder: folder.path().join("client"),
        role: Role::Client { server: members[0].rpc },
        vault: Some(vault.clone()),
        vault_retry_attempts: Some(0),
        ..NomadOptions::default()
    };
    let client = Nomad::start(&options).await.unwrap();
    let world = World::on(shared.with_nomad(&client, options.folder), "leader").await;
    world.bootstrap_with(
        &world.config_toml().replace("\"jwt-nomad\"", &Value::from(vault.auth_path).to_string()),
    );
    let agent = world.agent().await;
    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    works(&world, "working").await;
    let ids: Vec<String> = (0..12).map(|number| format!("action-{number}")).collect();
    let (before, after) = ids.split_at(8);
    for id in before {
        world.commit_action(id, "note", "");
    }
    // Some have started, some are on their way.
    wait_for("one to start", LIMIT, async || {
        let lines = world.ledger_lines();
        if lines.len() > 1 { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
    let first = leader(&world).await.unwrap();
    let dies = members.iter_mut().find(|member| member.rpc == first).unwrap();
    dies.process.kill().unwrap();
    for id in after {
        world.commit_action(id, "note", "");
    }
    wait_for("another leader", LIMIT, async || match leader(&world).await {
        Ok(second) if second != first => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let_end(&world, "working");
    each_once(&world, &ids.iter().map(String::as_str).chain(["working"]).collect::<Vec<_>>()).await;
    agent.recovered().await;
    client.stop().await.unwrap();
}
