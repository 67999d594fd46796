//! Ops repos that are reached over the network.

use crate::support::{GitHttp, LIMIT, World, wait_for, write_program};

const HELLO: (&str, Option<&str>) = ("formulas/hello.sh", Some("echo hello\n"));

/// Sets up an agent whose ops repo is at `address`.
fn bootstrap(world: &World, address: &str) {
    let path = format!("repo = \"{}\"", world.ops.bare.display());
    let config = world.config_toml();
    assert!(config.contains(&path));
    world.bootstrap_with(&config.replace(&path, &format!("repo = \"{address}\"")));
}

#[tokio::test]
async fn a_repo_over_http_is_read_and_answered_with_its_credential_kept_secret() {
    let world = World::new("http").await;
    let folder = world.ops.bare.parent().unwrap().to_path_buf();
    let server = GitHttp::serve(folder, "robot", "pass word/1").await;
    bootstrap(&world, &format!("http://robot:pass%20word%2F1@{}/ops.git", server.address));
    world.ops.commit("a formula", &[HELLO]);
    let agent = world.agent().await;
    world.commit_action("over-http", "hello", "");
    assert_eq!(world.result("over-http", LIMIT).await["outcome"], "succeeded");
    assert_eq!(world.ops.bare(&["log", "-1", "--format=%an", "main"]).trim(), "consign");
    let log = agent.log();
    for hidden in ["pass word/1", "pass%20word"] {
        assert!(!log.contains(hidden), "{log}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_explained_at_start_without_showing_it() {
    let world = World::new("password").await;
    let folder = world.ops.bare.parent().unwrap().to_path_buf();
    let server = GitHttp::serve(folder, "robot", "right").await;
    bootstrap(&world, &format!("http://robot:wrong-one@{}/ops.git", server.address));
    let mut agent = world.launch_agent(&[]);
    assert_eq!(agent.ended().await.code(), Some(1), "{}", agent.log());
    let log = agent.log();
    assert!(log.contains("refuses this user") && log.contains("[ops] repo"), "{log}");
    assert!(!log.contains("wrong-one"), "{log}");
}

#[tokio::test]
async fn a_repo_over_ssh_is_read_and_answered() {
    let world = World::new("ssh").await;
    // In place of ssh: it notes how it was called, and runs git here instead of on the host.
    let (ssh, calls) = (world.path("ssh"), world.path("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{}\nfor command; do :; done\nexec sh -c \"$command\"\n",
        calls.display()
    );
    write_program(&ssh, &script);
    bootstrap(&world, &format!("ssh://git@ops.example{}", world.ops.bare.display()));
    world.ops.commit("a formula", &[HELLO]);
    let agent = world.launch_agent_with(&[], &[("GIT_SSH_COMMAND", ssh.to_str().unwrap())]);
    agent.ready().await;
    world.commit_action("over-ssh", "hello", "");
    assert_eq!(world.result("over-ssh", LIMIT).await["outcome"], "succeeded");
    wait_for("reads and writes", LIMIT, async || {
        let calls = std::fs::read_to_string(&calls).unwrap();
        let both = ["git-upload-pack", "git-receive-pack"].iter().all(|command| calls.contains(command));
        if both && calls.lines().all(|call| call.contains("git@ops.example")) { Ok(()) } else { Err(calls) }
    })
    .await;
}
