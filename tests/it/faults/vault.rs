//! A Vault that went back in time, and tokens that are refused while work goes on.

use std::{fs, path::Path, process::Command};

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{
    outages::{agent_with_secret, commit_formulas, each_once, let_end, works},
    support::{LIMIT, OwnServers, World, wait_for},
};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_vault_restored_from_an_old_snapshot_keeps_nobody_of_then_and_work_goes_on() {
    let mut own = OwnServers::start().await;
    let world = World::on(own.servers.clone(), "restored").await;
    let (agent, secret) = agent_with_secret(&world).await;
    let needs = format!("secrets = [\"{secret}\"]\n");
    world.commit_action("then", "wait", &needs);
    works(&world, "then").await;
    let (data, snapshot) = (own.vault.log().with_file_name("data"), world.path("snapshot"));
    own.vault.terminate().await.unwrap();
    copy(&data, &snapshot);
    own.vault.launch().await.unwrap();
    let then = world.group_members(&world.gate()).await;
    assert_eq!(then.len(), 1, "the snapshot has the grant of what worked then");
    let_end(&world, "then");
    each_once(&world, &["then"]).await;
    world.commit_action("now", "wait", &needs);
    works(&world, "now").await;

    own.vault.terminate().await.unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy(&snapshot, &data);
    own.vault.launch().await.unwrap();
    for group in [world.gate(), format!("runner-{secret}")] {
        wait_for(&format!("{group} to have the one who works now"), LIMIT, async || {
            let members = world.group_members(&group).await;
            if members.len() == 1 && members != then {
                Ok(())
            } else {
                Err(format!("{members:?}, then {then:?}"))
            }
        })
        .await;
    }
    world.commit_action("later", "note", &needs);
    let_end(&world, "now");
    each_once(&world, &["then", "now", "later"]).await;
    agent.recovered().await;
}

/// Makes a management token of Nomad's and writes it to a file; gives what it is deleted by.
async fn nomad_token(world: &World, file: &Path) -> String {
    let token = json!({ "Name": "agent", "Type": "management" });
    let token = world.nomad.request(Method::PUT, "/v1/acl/token", Some(token)).await.unwrap();
    fs::write(file, token["SecretID"].as_str().unwrap()).unwrap();
    format!("/v1/acl/token/{}", token["AccessorID"].as_str().unwrap())
}

#[tokio::test]
async fn tokens_refused_while_work_goes_on_lose_nothing_and_start_nothing_ungranted() {
    let own = OwnServers::start_with_acls().await;
    let world = World::on(own.servers.clone(), "refused").await;
    let file = world.path("nomad.token");
    let in_nomad = format!("namespace = \"{}\"\n", world.name);
    let with_file = format!("{in_nomad}token_file = {}\n", Value::from(file.to_str().unwrap()));
    let config = world.config_toml().replacen(&in_nomad, &with_file, 1);
    let first = nomad_token(&world, &file).await;
    world.bootstrap_with(&config);
    let agent = world.agent().await;
    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    works(&world, "working").await;

    let refused = fs::read_to_string(world.path("agent.token")).unwrap();
    let answer = crate::support::http()
        .post(format!("{}/v1/auth/token/revoke", world.servers.vault_address))
        .header("X-Vault-Token", world.servers.vault_token.expose_secret())
        .json(&json!({ "token": refused.trim() }))
        .send();
    assert!(answer.await.unwrap().status().is_success());
    world.commit_action("without-vault", "note", "");
    agent.degraded("vault").await;
    world.nomad.request(Method::DELETE, &first, None).await.unwrap();
    world.commit_action("without-both", "note", "");
    let_end(&world, "working");
    agent.degraded("nomad").await;
    assert_eq!(world.ledger_lines(), ["working"]);

    nomad_token(&world, &file).await;
    agent.degraded("vault").await;
    assert_eq!(world.ledger_lines(), ["working"]);
    world.bootstrap_with(&config);
    each_once(&world, &["working", "without-vault", "without-both"]).await;
    agent.recovered().await;
}
