//! What actions ask of a node, as variants of the base job: placed where it fits, refused with reasons where
//! it does not, registered once, and swept when nothing uses them.

mod proxy;
mod round_trip;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LIMIT, OwnServers, World, ends_saying, wait_for};

/// The variants of the base job `runner` that are registered and not stopped.
async fn variants(world: &World) -> Vec<String> {
    let jobs = world.nomad.get("/v1/jobs?prefix=runner-").await.unwrap();
    let standing = jobs.as_array().unwrap().iter().filter(|job| job["Stop"] != true);
    let ids = standing.map(|job| job["ID"].as_str().unwrap().to_owned());
    ids.filter(|id| !id.contains("/dispatch-")).collect()
}

/// Every child of `runner` and of its variants.
async fn children(world: &World) -> Vec<String> {
    let jobs = world.nomad.get("/v1/jobs?prefix=runner").await.unwrap();
    let ids = jobs.as_array().unwrap().iter().map(|job| job["ID"].as_str().unwrap().to_owned());
    ids.filter(|id| id.contains("/dispatch-")).collect()
}

/// The child's job in Nomad, of a result's last attempt.
async fn nomad_job(world: &World, result: &Value) -> Value {
    let id = result["attempts"].as_array().unwrap().last().unwrap()["nomad_job_id"].as_str().unwrap();
    world.nomad.get(&format!("/v1/job/{}", id.replace('/', "%2F"))).await.unwrap()
}

/// The configuration with further lines in the section `[nomad]`.
fn config(world: &World, nomad: &str, further: &str) -> String {
    let config =
        world.config_toml().replace("driver = \"raw_exec\"\n", &format!("driver = \"raw_exec\"\n{nomad}"));
    format!("{config}{further}")
}

#[tokio::test]
async fn two_actions_with_different_memory_run_with_that_memory() {
    let world = World::new("memory").await;
    world.bootstrap("[[shapes.rule]]\nformula = \"hell*\"\nmemory = \"1GiB\"\ncores = 0\n");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/hello.sh", Some("echo hello\n"))]);
    world.commit_action("small", "hello", "resources = { memory = \"65MiB\" }\n");
    world.commit_action("large", "hello", "resources = { memory = \"129MiB\", cpu = 33 }\n");
    world.commit_action("small-again", "hello", "resources = { memory = \"66560KiB\" }\n");
    world.commit_action("plain", "hello", "");
    world.commit_action("huge", "hello", "resources = { memory = \"2GiB\" }\n");
    world.commit_action("cored", "hello", "resources = { cores = 1 }\n");
    let mut parents = Vec::new();
    for (id, memory, cpu) in
        [("small", 65, 100), ("large", 129, 33), ("small-again", 65, 100), ("plain", 256, 100)]
    {
        let result = world.result(id, LIMIT).await;
        ends_saying(&result, "succeeded", "success", &[]);
        let job = nomad_job(&world, &result).await;
        let resources = &job["TaskGroups"][0]["Tasks"][0]["Resources"];
        assert_eq!((&resources["MemoryMB"], &resources["CPU"]), (&json!(memory), &json!(cpu)), "{id}");
        parents.push(job["ParentID"].as_str().unwrap().to_owned());
    }
    assert_eq!(parents[0], parents[2]);
    assert_eq!(parents[3], "runner");
    assert_eq!(variants(&world).await.len(), 2);
    let huge = world.result("huge", LIMIT).await;
    ends_saying(
        &huge,
        "rejected",
        "invalid",
        &["actions/huge.toml:6:13: ", "memory: 2.0 GiB", "may have 1.0 GiB", "[[shapes.rule]]", "hell*"],
    );
    let cored = world.result("cored", LIMIT).await;
    ends_saying(&cored, "rejected", "invalid", &["cores: 1 cores", "may have 0"]);
    assert_eq!(children(&world).await.len(), 4);
}

#[tokio::test]
async fn three_actions_take_turns_at_one_device() {
    let devices = tempfile::tempdir().unwrap();
    std::fs::write(devices.path().join("gpu-0"), "").unwrap();
    let own = OwnServers::start_with(|options| {
        options.settings = format!(
            "plugin_dir = {:?}\nplugin \"nomad-device-example\" {{\n  config {{\n    dir = {:?}\n    \
             list_period = \"1s\"\n  }}\n}}",
            plugin_folder(),
            devices.path(),
        );
    })
    .await;
    let world = World::on(own.servers.clone(), "device").await;
    world.bootstrap("[shapes]\ndevices = [\"nomad/file\", \"nomad/file/*\"]\n");
    let _agent = world.agent().await;
    let ledger = world.ledger().display().to_string();
    let held = world.path("held").display().to_string();
    let formula = format!(
        "if mkdir {held}; then echo $CONSIGN_ACTION_ID >> {ledger}; else echo shared >> {ledger}; fi\nsleep 1\nrmdir {held}\n"
    );
    let ids = ["first", "second", "third"];
    let text = "resources = { gpus = 1, device = \"nomad/file/mock\" }\n";
    let actions = ids.map(|id| (format!("actions/{id}.toml"), crate::support::action(id, "use", text)));
    let mut files = vec![("formulas/use.sh", Some(formula.as_str()))];
    files.extend(actions.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))));
    // Nomad's client tells of its devices some time after it is ready.
    wait_for("the device", LIMIT, async || {
        let nodes = world.nomad.get("/v1/nodes?resources=true").await?;
        let devices = &nodes[0]["NodeResources"]["Devices"];
        if devices[0]["Name"] == "mock" { Ok(()) } else { Err(devices.to_string()) }
    })
    .await;
    world.ops.commit("three that need the device", &files);
    for id in ids {
        let result = world.result(id, LIMIT).await;
        ends_saying(&result, "succeeded", "success", &[]);
        let job = nomad_job(&world, &result).await;
        let device = &job["TaskGroups"][0]["Tasks"][0]["Resources"]["Devices"][0];
        assert_eq!((&device["Name"], &device["Count"]), (&json!("nomad/file/mock"), &json!(1)), "{device}");
    }
    let mut lines = world.ledger_lines();
    lines.sort_unstable();
    assert_eq!(lines, ids);

    world.commit_action("two", "use", "resources = { gpus = 2, device = \"nomad/file\" }\n");
    world.commit_action("other", "use", "resources = { gpus = 1, device = \"nomad/file/other\" }\n");
    for (id, asked) in [("two", "no node has 2 nomad/file;"), ("other", "no node has 1 nomad/file/other;")] {
        let result = world.result(id, LIMIT).await;
        ends_saying(&result, "failed", "no_capacity", &[asked, "1 nomad/file/mock"]);
        assert_eq!(result["attempts"], json!([]));
    }
}

/// The folder of Nomad's sample device plugin, which `scripts/servers` puts on PATH.
fn plugin_folder() -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("nomad-device-example").is_file())
        .expect("nomad-device-example is on PATH: PATH=\"$(scripts/servers):$PATH\"")
}

#[tokio::test]
async fn what_no_node_meets_fails_with_nomads_reasons() {
    let world = World::new("nowhere").await;
    world.bootstrap("[limits]\nplacement = \"3s\"\n");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/hello.sh", Some("echo hello\n"))]);
    let nowhere = "[[constraints]]\nattribute = \"${meta.rack}\"\nvalue = \"nowhere\"\n";
    world.commit_action("nowhere", "hello", nowhere);
    let unknown = "[[constraints]]\nattribute = \"${node.colour}\"\nvalue = \"blue\"\n";
    world.commit_action("unknown", "hello", unknown);
    world.commit_action("no-device", "hello", "resources = { gpus = 1 }\n");
    let here = "[[constraints]]\nattribute = \"${attr.kernel.name}\"\noperator = \"set_contains\"\nvalue = \"linux\"\n";
    world.commit_action("here", "hello", here);
    ends_saying(&world.result("here", LIMIT).await, "succeeded", "success", &[]);
    let nowhere = world.result("nowhere", LIMIT).await;
    ends_saying(
        &nowhere,
        "failed",
        "no_capacity",
        &["within 3 s", "${meta.rack} = nowhere", "ruled out 1 node"],
    );
    assert_eq!(nowhere["attempts"].as_array().unwrap().len(), 1);
    let unknown = world.result("unknown", LIMIT).await;
    ends_saying(&unknown, "rejected", "invalid", &["unsupported attribute", "${node.colour}"]);
    // What no node has at all is told before anything is dispatched.
    let no_device = world.result("no-device", LIMIT).await;
    ends_saying(&no_device, "failed", "no_capacity", &["no node has 1 nvidia/gpu", "the nodes have none"]);
    assert_eq!(no_device["attempts"], json!([]));
    assert_eq!(children(&world).await.len(), 2);
}

#[tokio::test]
async fn unused_variants_are_swept_and_used_ones_stay() {
    let world = World::new("swept").await;
    world.bootstrap_with(&config(&world, "variant_keep = \"2s\"\n", ""));
    let foreign = "runner-0123456789ab";
    world.nomad.run_script(foreign, "true").await;
    let _agent = world.agent().await;
    let end = world.path("end").display().to_string();
    let wait = format!("while [ ! -e {end} ]; do sleep 0.1; done\n");
    let formulas = [("formulas/hello.sh", Some("echo hello\n")), ("formulas/wait.sh", Some(wait.as_str()))];
    world.ops.commit("two formulas", &formulas);
    world.commit_action("long", "wait", "resources = { memory = \"64MiB\" }\n");
    let of_long = wait_for("the first variant", LIMIT, async || {
        let found: Vec<String> = variants(&world).await.into_iter().filter(|id| id != foreign).collect();
        found.first().cloned().ok_or_else(|| "none".to_owned())
    })
    .await;
    let shape = "resources = { memory = \"65MiB\" }\n";
    world.commit_action("short", "hello", shape);
    let short = world.result("short", LIMIT).await;
    let of_short = nomad_job(&world, &short).await["ParentID"].as_str().unwrap().to_owned();
    wait_for("the unused variant to go", LIMIT, async || {
        let found = variants(&world).await;
        if found.contains(&of_short) { Err(format!("{found:?}")) } else { Ok(()) }
    })
    .await;
    let mut left = variants(&world).await;
    left.sort_unstable();
    let mut expected = vec![foreign.to_owned(), of_long];
    expected.sort_unstable();
    assert_eq!(left, expected);

    // The same shape is the same variant again.
    world.commit_action("short-again", "hello", shape);
    let again = world.result("short-again", LIMIT).await;
    ends_saying(&again, "succeeded", "success", &[]);
    assert_eq!(nomad_job(&world, &again).await["ParentID"], json!(of_short));
    std::fs::write(world.path("end"), "").unwrap();
    ends_saying(&world.result("long", LIMIT).await, "succeeded", "success", &[]);
    wait_for("all variants to go", LIMIT, async || {
        let found = variants(&world).await;
        if found == [foreign] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Commits an action and kills the agent when its attempt is on record and cannot be dispatched; gives the
/// variant that is on record.
async fn killed_before_dispatch(world: &World) -> String {
    let proxy = proxy::Proxy::start(&world.servers.nomad_address).await;
    let direct = world.config_toml();
    world.bootstrap_with(&direct);
    let held = direct.replace(&world.servers.nomad_address, &proxy.address);
    std::fs::write(world.path("consign.toml"), held).unwrap();
    let agent = world.agent().await;
    let formula = format!("echo $CONSIGN_ACTION_ID >> {}\n", world.ledger().display());
    world.ops.commit("a formula", &[("formulas/note.sh", Some(&formula))]);
    world.commit_action("once", "note", "resources = { memory = \"64MiB\" }\n");
    let refused = wait_for("a dispatch to be held up", LIMIT, async || {
        proxy.refused().first().cloned().ok_or_else(|| agent.log())
    })
    .await;
    agent.kill();
    assert_eq!(children(world).await, Vec::<String>::new());
    let variant = variants(world).await.pop().unwrap();
    assert!(refused.contains(&variant), "{refused}");
    std::fs::write(world.path("consign.toml"), direct).unwrap();
    variant
}

async fn purge(world: &World, job: &str) {
    world.nomad.request(Method::DELETE, &format!("/v1/job/{job}?purge=true"), None).await.unwrap();
}

/// The action's result after it ran once, of as many attempts, and the job that its last one came from.
async fn ran_once(world: &World, attempts: usize) -> (Value, String) {
    let result = world.result("once", LIMIT).await;
    ends_saying(&result, "succeeded", "success", &[]);
    assert_eq!(result["attempts"].as_array().unwrap().len(), attempts, "{result}");
    assert_eq!(world.ledger_lines(), ["once"]);
    assert_eq!(children(world).await.len(), 1);
    let parent = nomad_job(world, &result).await["ParentID"].as_str().unwrap().to_owned();
    (result, parent)
}

#[tokio::test]
async fn an_agent_killed_before_it_dispatched_a_variant_dispatches_that_one_once() {
    let world = World::new("before").await;
    let variant = killed_before_dispatch(&world).await;
    // Nomad lost the variant as well: it is made anew from what is on record.
    purge(&world, &variant).await;
    let _agent = world.agent().await;
    assert_eq!(ran_once(&world, 1).await.1, variant);
}

#[tokio::test]
async fn an_attempt_on_record_keeps_its_variant_over_an_upgrade() {
    let world = World::new("upgraded").await;
    let variant = killed_before_dispatch(&world).await;
    // Another rendering of the base job, as another version of consign would make.
    std::fs::write(world.path("consign.toml"), config(&world, "lost_after = \"11m\"\n", "")).unwrap();
    let _agent = world.agent().await;
    assert_eq!(ran_once(&world, 1).await.1, variant);
    world.commit_action("later", "note", "resources = { memory = \"64MiB\" }\n");
    let later = world.result("later", LIMIT).await;
    assert_ne!(nomad_job(&world, &later).await["ParentID"], json!(variant));
}

/// The attempt on record ends when its variant is gone in this way, and the next one runs.
async fn followed_by_another(world: &World, deletion: &str) {
    let variant = killed_before_dispatch(world).await;
    let path = format!("/v1/job/{variant}{deletion}");
    world.nomad.request(Method::DELETE, &path, None).await.unwrap();
    std::fs::write(world.path("consign.toml"), config(world, "lost_after = \"11m\"\n", "")).unwrap();
    let _agent = world.agent().await;
    let (result, parent) = ran_once(world, 2).await;
    assert_ne!(parent, variant);
    assert_eq!(result["attempts"][0]["cause"], "dispatch_failed", "{result}");
}

#[tokio::test]
async fn an_attempt_whose_variant_is_gone_for_good_is_followed_by_another() {
    followed_by_another(&World::new("gone").await, "?purge=true").await;
}

#[tokio::test]
async fn an_attempt_whose_variant_is_stopped_for_good_is_followed_by_another() {
    followed_by_another(&World::new("stopped").await, "").await;
}

#[tokio::test]
async fn a_take_over_recovers_what_a_variant_runs() {
    let world = World::new("taken").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let (ledger, end) = (world.ledger().display().to_string(), world.path("end").display().to_string());
    let wait = format!("echo $CONSIGN_ACTION_ID >> {ledger}\nwhile [ ! -e {end} ]; do sleep 0.1; done\n");
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&wait))]);
    world.commit_action("kept", "wait", "resources = { memory = \"64MiB\" }\n");
    wait_for("the task to work", LIMIT, async || {
        if world.ledger_lines() == ["kept"] { Ok(()) } else { Err(agent.log()) }
    })
    .await;
    agent.kill();
    let other = world.launch_another("store-two", &["--take-over"]);
    other.ready().await;
    std::fs::write(world.path("end"), "").unwrap();
    ends_saying(&world.result("kept", LIMIT).await, "succeeded", "success", &[]);
    assert_eq!(world.ledger_lines(), ["kept"]);
}

#[tokio::test]
async fn a_variant_dispatched_by_hand_is_stopped_and_says_why() {
    let world = World::new("by-hand").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/hello.sh", Some("echo hello\n"))]);
    world.commit_action("shaped", "hello", "resources = { memory = \"64MiB\" }\n");
    ends_saying(&world.result("shaped", LIMIT).await, "succeeded", "success", &[]);
    let variant = variants(&world).await.pop().unwrap();
    let script = format!("echo started >> {}\n", world.ledger().display());
    let payload = BASE64_STANDARD.encode(script);
    let path = format!("/v1/job/{variant}/dispatch");
    world.nomad.request(Method::PUT, &path, Some(json!({ "Payload": payload }))).await.unwrap();
    let result = wait_for("its result", LIMIT, async || {
        let paths = world.ops.paths();
        let path = paths.iter().find(|path| path.starts_with("actions/by-hand/")).ok_or("none")?;
        serde_json::from_str::<Value>(&world.ops.read(path).unwrap()).map_err(|error| error.to_string())
    })
    .await;
    ends_saying(&result, "rejected", "not_adopted", &["commit an action, or dispatch runner itself"]);
    assert_eq!(world.ledger_lines(), Vec::<String>::new());
}
