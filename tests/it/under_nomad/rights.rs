//! What the agent's identity is enough for: variants, mounts, and ending what is no longer used.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
};

use consign::dev::servers::HostVolume;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AgentJob, BOUND, PATIENCE};
use crate::support::{OwnServers, World, wait_for};

/// Whom Nomad runs tasks under exec as: nobody.
const NOBODY: u32 = 65534;

/// A folder with a file that only tasks under exec can read.
fn folder(file: &str, content: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(file);
    fs::write(&file, content).unwrap();
    for (path, mode) in [(file.as_path(), 0o600), (folder.path(), 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    folder
}

/// The job that the last attempt of an action which succeeded was dispatched from.
async fn parent(world: &World, id: &str, logs: &str) -> String {
    let result = world.result(id, PATIENCE).await;
    assert_eq!((&result["outcome"], &result["logs"]), (&json!("succeeded"), &json!(logs)), "{result}");
    let child = result["attempts"].as_array().unwrap().last().unwrap()["nomad_job_id"].as_str().unwrap();
    child.split_once("/dispatch-").unwrap().0.to_owned()
}

/// Waits until a variant is stopped.
async fn stopped(world: &World, variant: &str) {
    wait_for("the unused variant to be stopped", PATIENCE, async || {
        let job = world.nomad.get(&format!("/v1/job/{variant}")).await?;
        if job["Stop"] == true { Ok(()) } else { Err(job["Status"].to_string()) }
    })
    .await;
}

/// Collects garbage until Nomad has forgotten a job.
async fn collected(world: &World, id: &str) {
    wait_for("the stopped variant to be collected", PATIENCE, async || {
        world.nomad.request(Method::PUT, "/v1/system/gc", None).await?;
        let jobs = world.nomad.get(&format!("/v1/jobs?prefix={id}")).await?;
        let there = jobs.as_array().into_iter().flatten().any(|job| job["ID"] == id);
        if there { Err(jobs.to_string()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_under_nomad_mounts_what_is_configured_and_ends_unused_variants() {
    let (keys, models, training) = (folder("key", "the key\n"), folder("old", ""), folder("old", ""));
    let own = OwnServers::start_with_acls_and(|options| {
        let offered =
            [("deploy-keys", &keys, true), ("models", &models, false), ("training", &training, false)];
        options.host_volumes = offered
            .map(|(name, folder, read_only)| {
                (name.to_owned(), HostVolume { path: folder.path().to_owned(), read_only })
            })
            .into();
    })
    .await;
    let world = World::on(own.servers.clone(), "rights").await;
    let config =
        world.config_toml().replace("driver = \"raw_exec\"\n", "driver = \"exec\"\nvariant_keep = \"2s\"\n");
    let mounts = "[mounts.ssh]\nvolume = \"deploy-keys\"\ndestination = \"/keys\"\n\
        [mounts.models]\nvolume = \"models\"\ndestination = \"/models\"\nread_only = false\n";
    let agent = AgentJob::set_up_with(&world, format!("{config}{mounts}"), BOUND).await;
    agent.run(&world, &[]);
    agent.ready().await;

    let write = "cat /keys/key\necho weights >/models/new && cat /models/new\n";
    world.ops.commit(
        "formulas",
        &[("formulas/hello.sh", Some("echo hello\n")), ("formulas/write.sh", Some(write))],
    );
    world.commit_action("mounted", "write", "mounts = [\"ssh\", \"models\"]\n");
    let shape = "resources = { memory = \"65MiB\" }\n";
    world.commit_action("shaped", "hello", shape);
    let mounted = parent(&world, "mounted", "the key\nweights\n").await;
    assert_eq!(fs::read_to_string(models.path().join("new")).unwrap(), "weights\n");
    let shaped = parent(&world, "shaped", "hello\n").await;
    assert!(mounted != "runner" && shaped != "runner" && mounted != shaped, "{mounted} {shaped}");

    // A stopped variant is made anew when it is needed, and so is one that Nomad has forgotten.
    stopped(&world, &shaped).await;
    stopped(&world, &mounted).await;
    world.commit_action("again", "hello", shape);
    assert_eq!(parent(&world, "again", "hello\n").await, shaped);
    stopped(&world, &shaped).await;
    collected(&world, &shaped).await;
    world.commit_action("once-more", "hello", shape);
    assert_eq!(parent(&world, "once-more", "hello\n").await, shaped);

    // What the configuration does not name stays refused: the policy has no pattern.
    let policies: Value = world.nomad.get("/v1/acl/policies").await.unwrap();
    let name = policies.as_array().unwrap()[0]["Name"].as_str().unwrap();
    let policy = world.nomad.get(&format!("/v1/acl/policy/{name}")).await.unwrap();
    let rules: Value = hcl::from_str(policy["Rules"].as_str().unwrap()).unwrap();
    let volumes: BTreeSet<&str> =
        rules["host_volume"].as_object().unwrap().keys().map(String::as_str).collect();
    let of_base_jobs = ["agent-data", "ops-repo", "project-repos", "training"];
    let expected: BTreeSet<&str> =
        of_base_jobs.into_iter().chain(["deploy-keys", "gpg", "models", "sops"]).collect();
    assert_eq!(volumes, expected);
    own.nomad.stop().await.unwrap();
}
