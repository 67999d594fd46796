//! Answers of Nomad, Vault and the ops repo that come late, in part, as nonsense or not at all.

use std::{fs, time::Duration};

use crate::{
    outages::{commit_formulas, each_once},
    support::{Fault, GitHttp, Proxy, Random, World},
};

/// How often what goes wrong changes.
const CHANGES: usize = 30;

const FAULTS: [Fault; 9] = [
    Fault::Refused,
    Fault::Late(Duration::from_millis(300)),
    Fault::Cut(0),
    Fault::Cut(15),
    Fault::Cut(400),
    Fault::Says(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ),
    Fault::Says("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"),
    Fault::Says(
        "HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: close\r\n\r\n<html>Nothing here</html>",
    ),
    Fault::Says("\u{0}\u{1}garbage\r\n\r\n"),
];

#[tokio::test]
async fn answers_gone_wrong_lose_and_double_nothing() {
    let world = World::new("faults").await;
    let git = GitHttp::serve(world.ops.bare.parent().unwrap().to_path_buf(), "robot", "word").await;
    let nomad = Proxy::before(&world.servers.nomad_address).await;
    let vault = Proxy::before(&world.servers.vault_address).await;
    let ops = Proxy::before(&git.address.to_string()).await;
    let config = world
        .config_toml()
        .replace(&world.servers.nomad_address, &format!("http://{}", nomad.address))
        .replace(&world.servers.vault_address, &format!("http://{}", vault.address))
        .replace(world.ops.bare.to_str().unwrap(), &format!("http://robot:word@{}/ops.git", ops.address));
    // Vault is told where Nomad itself is: it asks for Nomad's keys when others log in, too.
    world.bootstrap("");
    fs::write(world.path("consign.toml"), config).unwrap();
    let agent = world.agent().await;
    commit_formulas(&world);

    let mut random = Random::new();
    let mut ids = Vec::new();
    for change in 0..CHANGES {
        let proxy = [&nomad, &nomad, &vault, &ops][usize::try_from(random.between(0, 4)).unwrap()];
        let fault = FAULTS[usize::try_from(random.between(0, FAULTS.len() as u64)).unwrap()];
        proxy.set(fault);
        if change % 3 == 0 {
            let id = format!("action-{change}");
            world.commit_action(&id, "note", "");
            ids.push(id);
        }
        tokio::time::sleep(Duration::from_millis(random.between(50, 250))).await;
        // Two of them may misbehave at a time, and each works every other while.
        if change % 2 == 0 {
            proxy.set(Fault::None);
        }
    }
    for proxy in [&nomad, &vault, &ops] {
        proxy.set(Fault::None);
    }
    each_once(&world, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    agent.recovered().await;
}

#[tokio::test]
async fn a_stream_of_events_that_is_always_cut_misses_no_end() {
    let world = World::new("stream").await;
    let nomad = Proxy::before(&world.servers.nomad_address).await;
    let config =
        world.config_toml().replace(&world.servers.nomad_address, &format!("http://{}", nomad.address));
    world.bootstrap("");
    fs::write(world.path("consign.toml"), config).unwrap();
    let agent = world.agent().await;
    commit_formulas(&world);
    let ids: Vec<String> = (0..20).map(|number| format!("action-{number}")).collect();
    let cutting = async {
        let mut random = Random::new();
        loop {
            tokio::time::sleep(Duration::from_millis(random.between(0, 2000))).await;
            nomad.set(Fault::None);
        }
    };
    let working = async {
        for id in &ids {
            world.commit_action(id, "note", "");
        }
        each_once(&world, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    tokio::select! {
        () = cutting => {}
        () = working => {}
    }
    agent.recovered().await;
}
