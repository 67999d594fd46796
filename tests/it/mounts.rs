//! Mounts: host volumes that reach the tasks that ask for them, and no other.

use std::{fs, time::Duration};

use consign::dev::servers::HostVolume;
use serde_json::{Value, json};

use crate::support::{OwnServers, World};

const LIMIT: Duration = Duration::from_mins(2);
const SECRET: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

fn ends(result: &Value, outcome: &str, cause: &str, words: &[&str]) {
    assert_eq!((&result["outcome"], &result["cause"]), (&json!(outcome), &json!(cause)), "{result}");
    let message = result["message"].as_str().unwrap();
    assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
}

/// Refused before anything was dispatched.
fn unlaunched(result: &Value, words: &[&str]) {
    ends(result, "failed", "missing_mount", words);
    assert_eq!((&result["attempts"], &result["exit_code"]), (&json!([]), &json!(125)), "{result}");
}

#[tokio::test]
async fn a_mount_is_where_it_was_asked_for_and_nowhere_else() {
    let volumes = tempfile::tempdir().unwrap();
    let volume = |name: &str, file: &str, content: &str| {
        let path = volumes.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join(file), content).unwrap();
        path
    };
    let ssh = volume("ssh", "id_ed25519", SECRET);
    let sops = volume("sops", "keys.txt", "AGE-SECRET-KEY-1");
    let models = volume("models", "old", "");
    let offered = [("ssh", &ssh, true), ("sops", &sops, true), ("models", &models, false)];
    let own = OwnServers::start_with(|options| {
        let entry = |(name, path, read_only): (&str, &std::path::PathBuf, bool)| {
            (name.to_owned(), HostVolume { path: path.clone(), read_only })
        };
        options.host_volumes = offered.into_iter().map(entry).collect();
    })
    .await;
    let world = World::on(own.servers.clone(), "mounts").await;
    let config = world.config_toml().replace("driver = \"raw_exec\"", "driver = \"exec\"");
    let further = "[mounts.models]\nvolume = \"models\"\ndestination = \"/models\"\nread_only = false\n\
        [mounts.keys]\nvolume = \"ssh\"\ndestination = \"/keys\"\nread_only = false\n\
        [shapes]\ndrivers = [\"raw_exec\"]\n";
    world.bootstrap_with(&format!("{config}{further}"));
    let _agent = world.agent().await;
    let look = "cat /root/.ssh/id_ed25519 2>&1\n(echo x >/root/.ssh/new) 2>/dev/null && echo WRITTEN\n\
        (echo x >/root/.ssh/id_ed25519) 2>/dev/null && echo CHANGED\necho end\n";
    let key = "cat \"$SOPS_AGE_KEY_FILE\"\n";
    let write = "echo weights >/models/new && cat /models/new\n";
    world.ops.commit(
        "formulas",
        &[
            ("formulas/look.sh", Some(look)),
            ("formulas/key.sh", Some(key)),
            ("formulas/write.sh", Some(write)),
        ],
    );
    world.commit_action("with", "look", "mounts = [\"ssh\"]\n");
    world.commit_action("without", "look", "");
    world.commit_action("sops", "key", "mounts = [\"sops\"]\n");
    world.commit_action("writes", "write", "mounts = [\"models\"]\n");
    world.commit_action("misspelt", "look", "mounts = [\"sshh\"]\n");
    world.commit_action("absent", "look", "mounts = [\"gpg\", \"ssh\"]\n");
    world.commit_action("greedy", "look", "mounts = [\"keys\"]\n");
    world.commit_action("raw", "look", "mounts = [\"ssh\"]\ndriver = \"raw_exec\"\n");

    let with = world.result("with", LIMIT).await;
    ends(&with, "succeeded", "success", &[]);
    assert_eq!(with["logs"], format!("{SECRET}end\n"), "{with}");
    assert_eq!(fs::read_to_string(ssh.join("id_ed25519")).unwrap(), SECRET);
    assert_eq!(fs::read_dir(&ssh).unwrap().count(), 1);
    let without = world.result("without", LIMIT).await;
    let logs = without["logs"].as_str().unwrap();
    assert!(!logs.contains(SECRET) && logs.contains("No such file"), "{without}");
    let id = without["attempts"][0]["nomad_job_id"].as_str().unwrap();
    let job = world.nomad.get(&format!("/v1/job/{}", id.replace('/', "%2F"))).await.unwrap();
    let group = &job["TaskGroups"][0];
    assert_eq!((&group["Volumes"], &group["Tasks"][0]["VolumeMounts"]), (&Value::Null, &Value::Null));
    let key = world.result("sops", LIMIT).await;
    assert_eq!(key["logs"], "AGE-SECRET-KEY-1", "{key}");
    let writes = world.result("writes", LIMIT).await;
    assert_eq!(writes["logs"], "weights\n", "{writes}");
    assert_eq!(fs::read_to_string(models.join("new")).unwrap(), "weights\n");

    unlaunched(&world.result("misspelt", LIMIT).await, &["no mount is called sshh", "did you mean `ssh`?"]);
    let absent = world.result("absent", LIMIT).await;
    unlaunched(&absent, &["no node has the host volume gpg; the nodes have models, sops, ssh"]);
    unlaunched(&world.result("greedy", LIMIT).await, &["host volume ssh for writing", "read-only"]);
    unlaunched(&world.result("raw", LIMIT).await, &["raw_exec cannot mount ssh"]);
    let jobs = world.nomad.get("/v1/jobs?prefix=runner").await.unwrap();
    let ids =
        jobs.as_array().unwrap().iter().filter(|job| job["ID"].as_str().unwrap().contains("/dispatch-"));
    assert_eq!(ids.count(), 4, "{jobs}");

    let output = world.operate(&["doctor"], b"");
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "ssh: host volume ssh is offered by",
        "gpg: no node offers the host volume gpg",
        "host_volume \"gpg\" {",
        "keys: host volume ssh can only be read",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn raw_exec_has_no_mounts_and_says_so_before_launch() {
    let world = World::new("rawmounts").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/hello.sh", Some("echo hello\n"))]);
    world.commit_action("mounted", "hello", "mounts = [\"ssh\"]\n");
    world.commit_action("plain", "hello", "");
    unlaunched(&world.result("mounted", LIMIT).await, &["raw_exec cannot mount ssh", "docker or exec"]);
    ends(&world.result("plain", LIMIT).await, "succeeded", "success", &[]);
    assert_eq!(world.children().await.len(), 1);
}
