//! Mounts: host volumes that reach the tasks that ask for them, and no other.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
};

use consign::dev::servers::{HostVolume, NomadOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Agent, LIMIT, OwnServers, Servers, World, docker, ends_saying, images};

const SECRET: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

/// Refused before anything was dispatched.
fn unlaunched(result: &Value, words: &[&str]) {
    ends_saying(result, "failed", "missing_mount", words);
    assert_eq!((&result["attempts"], &result["exit_code"]), (&json!([]), &json!(125)), "{result}");
}

/// Host volumes with a file each, closed to all but the user that tasks run as.
struct Volumes {
    folder: TempDir,
    owner: u32,
}

impl Volumes {
    /// Makes `ssh`, `sops` and the writable `models`.
    fn new(owner: u32) -> Self {
        let volumes = Self { folder: tempfile::tempdir().unwrap(), owner };
        fs::set_permissions(volumes.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, file, content) in
            [("ssh", "id_ed25519", SECRET), ("sops", "keys.txt", "AGE-SECRET-KEY-1"), ("models", "old", "")]
        {
            let path = volumes.path(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(file), content).unwrap();
            for (path, mode) in [(path.join(file), 0o600), (path, 0o700)] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                chown(&path, Some(volumes.owner), Some(volumes.owner)).unwrap();
            }
        }
        volumes
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn offer(&self, options: &mut NomadOptions) {
        let offered = [("ssh", true), ("sops", true), ("models", false)];
        let volume = |(name, read_only): (&str, bool)| {
            (name.to_owned(), HostVolume { path: self.path(name), read_only })
        };
        options.host_volumes = offered.into_iter().map(volume).collect();
    }
}

/// An agent for one driver, with the formulas of these tests.
async fn started(name: &str, servers: Servers, driver: &str) -> (World, Agent) {
    let world = World::on(servers, name).await;
    let config = world.config_toml().replace("driver = \"raw_exec\"\n", driver);
    let further = "[mounts.models]\nvolume = \"models\"\ndestination = \"/models\"\nread_only = false\n\
        [mounts.keys]\nvolume = \"ssh\"\ndestination = \"/keys\"\nread_only = false\n\
        [shapes]\ndrivers = [\"raw_exec\"]\n";
    world.bootstrap_with(&format!("{config}{further}"));
    let agent = world.agent().await;
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
    (world, agent)
}

/// Each mount is there for whoever asks for it, as it was asked for, and absent for the others.
async fn mounts_are_where_they_were_asked_for(world: &World, volumes: &Volumes) {
    world.commit_action("with", "look", "mounts = [\"ssh\"]\n");
    world.commit_action("without", "look", "");
    world.commit_action("sops", "key", "mounts = [\"sops\"]\n");
    world.commit_action("writes", "write", "mounts = [\"models\"]\n");

    let with = world.result("with", LIMIT).await;
    ends_saying(&with, "succeeded", "success", &[]);
    assert_eq!(with["logs"], format!("{SECRET}end\n"), "{with}");
    let ssh = volumes.path("ssh");
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
    assert_eq!(fs::read_to_string(volumes.path("models").join("new")).unwrap(), "weights\n");
}

#[tokio::test]
async fn a_mount_under_exec_is_where_it_was_asked_for_and_nowhere_else() {
    // Nomad runs tasks under exec as nobody.
    let volumes = Volumes::new(65534);
    let own = OwnServers::start_with(|options| volumes.offer(options)).await;
    let (world, _agent) = started("mounts", own.servers.clone(), "driver = \"exec\"\n").await;
    world.commit_action("misspelt", "look", "mounts = [\"sshh\"]\n");
    world.commit_action("absent", "look", "mounts = [\"gpg\", \"ssh\"]\n");
    world.commit_action("greedy", "look", "mounts = [\"keys\"]\n");
    world.commit_action("raw", "look", "mounts = [\"ssh\"]\ndriver = \"raw_exec\"\n");
    mounts_are_where_they_were_asked_for(&world, &volumes).await;

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
async fn a_mount_under_docker_is_where_it_was_asked_for_and_nowhere_else() {
    // The image's user is root, without root's power over the files of others.
    let volumes = Volumes::new(0);
    let docker = docker().await;
    let own = OwnServers::start_with(|options| {
        volumes.offer(options);
        options.docker = Some(docker.socket().to_owned());
    })
    .await;
    let driver = format!("driver = \"docker\"\nimage = \"{}\"\n", images::BUSYBOX);
    let (world, _agent) = started("docker-mounts", own.servers.clone(), &driver).await;
    mounts_are_where_they_were_asked_for(&world, &volumes).await;
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
    ends_saying(&world.result("plain", LIMIT).await, "succeeded", "success", &[]);
    assert_eq!(world.children().await.len(), 1);
}
