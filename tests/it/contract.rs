//! The contract that the simulator's stand-ins keep as well, on real servers.

mod suite;

use std::time::Duration;

use consign::{credential::Credential, nomad, vault};
use serde_json::json;

use crate::support::World;

struct Real;

impl suite::Setting for Real {
    async fn wait(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Nothing holds up the job of these tests.
    async fn open(&self, _: &str) {}
}

#[tokio::test]
async fn nomad_keeps_the_contract() {
    let world = World::new("contract").await;
    let settings = nomad::Settings {
        addr: world.nomad.address.clone(),
        token: Credential::from(world.servers.nomad_token.clone()),
        namespace: world.nomad.namespace.clone(),
        region: None,
        ca_cert: None,
    };
    let client = nomad::Client::new(settings).unwrap();
    let task = json!({
        "Name": "runner", "Driver": "raw_exec", "KillTimeout": 0,
        "Config": { "command": "/bin/sh", "args": ["${NOMAD_TASK_DIR}/script"] },
        "DispatchPayload": { "File": "script" },
        "Resources": { "CPU": 20, "MemoryMB": 20 },
    });
    let group = json!({
        "Name": "runner", "Count": 1, "Tasks": [task],
        "RestartPolicy": { "Attempts": 0, "Mode": "fail" }, "ReschedulePolicy": { "Attempts": 0 },
    });
    let job = json!({
        "ID": "runner", "Name": "runner", "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group],
        "Namespace": world.nomad.namespace,
        "ParameterizedJob": { "Payload": "required", "MetaOptional": ["secrets"] },
    });
    client.register(&job, 0).await.unwrap();
    suite::nomad(&client, "runner", &Real).await;
}

#[tokio::test]
async fn vault_keeps_the_contract() {
    let world = World::new("contract-vault").await;
    let root = vault::Vault::new(&vault::Settings {
        address: world.servers.vault_address.clone(),
        ca_certificate: None,
        namespace: None,
        token: world.servers.vault_token.clone().into(),
    })
    .unwrap();
    let methods = root.read("sys/auth").await.unwrap().unwrap();
    let accessor = methods["token/"]["accessor"].as_str().unwrap();
    let group = format!("{}-contract", world.prefix());
    root.write_group(&group, &[], &std::collections::BTreeMap::new()).await.unwrap();
    suite::vault(&root, accessor, &group).await;
    root.delete_group(&group).await.unwrap();
}
