//! The runner under each driver: the same formulas end the same, and each driver isolates what it says.

mod isolation;

use std::{io::Write as _, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::json;

use crate::support::{LIMIT, World, action, ends_with_code, images, servers_with_docker, wait_for};

/// Several lines, quotes, backslashes, a dollar, a template's braces, unicode, a newline at the end.
const AWKWARD: &str = "first 'line'\n\"second\" \\n \\\\ $HOME ${X:-1} {{ . }}\n\tdrei: äöü 🔑\n\n";

const EXEC: &str = "driver = \"exec\"\n";

fn docker(image: &str) -> String {
    format!("driver = \"docker\"\nimage = \"{image}\"\n")
}

/// A world whose base jobs run under another driver.
async fn world(name: &str, driver: &str) -> World {
    let world = World::on(servers_with_docker(), name).await;
    world.bootstrap_with(&world.config_toml().replace("driver = \"raw_exec\"\n", driver));
    world
}

/// Commits one action for each formula, `name.sh` or `name.toml` with its content; `further` is appended to the action.
fn commit(world: &World, files: &[(&str, &str, &str)]) {
    let texts: Vec<(String, String, &str)> = files
        .iter()
        .map(|(file, content, further)| {
            let id = file.split('.').next().unwrap();
            let path = format!("actions/{id}.toml");
            (path, action(id, id, further), *content)
        })
        .collect();
    let formulas: Vec<String> = files.iter().map(|(file, ..)| format!("formulas/{file}")).collect();
    let mut changes: Vec<(&str, Option<&str>)> =
        texts.iter().map(|(path, text, _)| (path.as_str(), Some(text.as_str()))).collect();
    changes.extend(formulas.iter().zip(&texts).map(|(path, text)| (path.as_str(), Some(text.2))));
    world.ops.commit("one of each", &changes);
}

/// Waits until a runner's log begins with `text`, and gives the allocation's id.
async fn printed(world: &World, text: &str) -> String {
    wait_for(&format!("a task to print {text:?}"), LIMIT, async || {
        let allocations = world.nomad.get("/v1/allocations").await?;
        for allocation in allocations.as_array().unwrap() {
            let id = allocation["ID"].as_str().unwrap();
            let path = format!("/v1/client/fs/logs/{id}?task=runner&type=stdout&plain=true");
            let log = world.nomad.get(&path).await.unwrap_or_default();
            if log.as_str().is_some_and(|log| log.starts_with(text)) {
                return Ok(id.to_owned());
            }
        }
        Err(allocations.to_string())
    })
    .await
}

/// What `md5sum` prints for `text`.
fn checksum(text: &str) -> String {
    let mut child =
        std::process::Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Everything that the wrapper promises about a run, under one driver.
async fn formulas_end_as_they_should(name: &str, driver: &str) {
    let world = world(name, driver).await;
    let (granted, other) = (world.secret("GRANTED"), world.secret("OTHER"));
    world.put_secret(&granted, AWKWARD.as_bytes());
    world.put_secret(&other, b"not for everybody");
    let _agent = world.agent().await;
    let steps = "description = \"a step that is too slow\"\n\
        [[steps]]\nname = \"quick\"\nrun = \"echo quick >$HOME/one; cat $HOME/one\"\n\
        [[steps]]\nname = \"slow\"\ntimeout = \"1s\"\nrun = \"sleep 60\"\n\
        [[steps]]\nname = \"never\"\nrun = \"echo never\"\n";
    let secret = format!(
        "printf '%s' \"${granted}\" | md5sum\necho \"${{{other}-unset}}\"\nprintf '%s' \"<${granted}>\"\necho\n"
    );
    commit(
        &world,
        &[
            (
                "order.sh",
                "echo one\necho two >&2\necho three\nprintf '%s\\n' \"$ARG_GREETING\" >&2\n\
                 echo $CONSIGN_ACTION_ID $CONSIGN_FORMULA; test \"$PWD\" = \"$NOMAD_ALLOC_DIR/data\" && echo here\n\
                 echo kept >kept.txt\n",
                "artifacts = [\"*.txt\"]\n[args]\ngreeting = \"hällo ${node.unique.id} {{ env }}\"\n",
            ),
            (
                "flood.sh",
                "i=0\nwhile [ $i -lt 10 ]; do seq 1 100000; i=$((i + 1)); done\necho last\nexit 3\n",
                "",
            ),
            ("secret.sh", &secret, &format!("secrets = [\"{granted}\"]\n")),
            ("plain.sh", &secret, &format!("secrets = [\"{granted}\"]\nmask = false\n")),
            ("steps.toml", steps, ""),
            ("slow.sh", "echo begin\nsleep 60\n", "timeout = \"2s\"\n"),
            ("program.sh", "#!/usr/bin/env cat\n\u{81}Ł\u{1f980}\n", ""),
            ("line.sh", "echo a line\nprintf 'and no end'\n", ""),
        ],
    );
    let order = world.result("order", LIMIT).await;
    ends_with_code(&order, "succeeded", "success", 0);
    let expected = "one\ntwo\nthree\nhällo ${node.unique.id} {{ env }}\norder order\nhere\n";
    assert_eq!((&order["logs"], &order["log_status"]), (&json!(expected), &json!("complete")));
    assert_eq!(
        (&order["artifacts"][0]["name"], &order["artifacts"][0]["size"]),
        (&json!("kept.txt"), &json!(5))
    );
    let flood = world.result("flood", LIMIT).await;
    ends_with_code(&flood, "failed", "exit_code", 3);
    assert_eq!(flood["message"], "the task ended with exit code 3", "all of it reached the log");
    assert!(flood["logs"].as_str().unwrap().ends_with("\n99999\n100000\nlast\n"), "{flood}");
    let secret = world.result("secret", LIMIT).await;
    ends_with_code(&secret, "succeeded", "success", 0);
    assert_eq!(secret["logs"], format!("{}unset\n<***\n***\n***\n\n>\n", checksum(AWKWARD)));
    let plain = world.result("plain", LIMIT).await;
    assert_eq!(plain["logs"], format!("{}unset\n<{AWKWARD}>\n", checksum(AWKWARD)));
    let steps = world.result("steps", LIMIT).await;
    ends_with_code(&steps, "failed", "step_timeout", 124);
    assert_eq!(steps["logs"], "quick\n");
    let codes: Vec<_> = steps["steps"].as_array().unwrap().iter().map(|step| &step["exit_code"]).collect();
    assert_eq!(codes, [&json!(0), &json!(124)]);
    let slow = world.result("slow", LIMIT).await;
    ends_with_code(&slow, "timed_out", "timeout", 124);
    assert_eq!(slow["logs"], "begin\n");
    let program = world.result("program", LIMIT).await;
    assert_eq!(program["logs"], "#!/usr/bin/env cat\n\u{81}Ł\u{1f980}\n", "{program}");
    let line = world.result("line", LIMIT).await;
    let end = if driver == docker(images::UNPRIVILEGED) { "\n" } else { "" };
    assert_eq!(line["logs"], format!("a line\nand no end{end}"), "{line}");
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn formulas_end_as_they_should_under_docker_with_busybox() {
    formulas_end_as_they_should("docker-busybox", &docker(images::BUSYBOX)).await;
}

#[tokio::test]
async fn formulas_end_as_they_should_under_docker_with_the_systems_shell() {
    formulas_end_as_they_should("docker-system", &docker(images::SYSTEM)).await;
}

#[tokio::test]
async fn formulas_end_as_they_should_under_docker_for_a_user_that_is_not_root() {
    formulas_end_as_they_should("docker-user", &docker(images::UNPRIVILEGED)).await;
}

#[tokio::test]
async fn formulas_end_as_they_should_under_exec() {
    formulas_end_as_they_should("exec", EXEC).await;
}

/// The launch gate holds while there is no agent, a restart by hand runs nothing again, and a cancelled
/// formula hears of it.
async fn a_formula_starts_once_and_ends_when_told(name: &str, driver: &str) {
    let world = world(name, driver).await;
    let body = json!({"Meta": {}, "Payload": STANDARD.encode("echo by hand\n")});
    let answer = world.nomad.request(Method::PUT, "/v1/job/runner/dispatch", Some(body)).await.unwrap();
    let child = answer["DispatchedJobID"].as_str().unwrap().to_owned();
    wait_for("the child to wait at the gate", LIMIT, async || {
        let path = format!("/v1/job/{}/allocations", child.replace('/', "%2F"));
        let found = world.nomad.get(&path).await?[0].clone();
        let waits = found["TaskStates"].to_string().contains("/data/consign/go)");
        if waits && found["ClientStatus"] == "pending" {
            Ok(())
        } else {
            Err(found["TaskStates"].to_string())
        }
    })
    .await;
    let _agent = world.agent().await;
    printed(&world, "by hand").await;

    // The trap comes after the fork: what was forked and is not yet another program would say goodbye too.
    let wait = "sleep 300 &\ntrap 'echo bye; exit 7' TERM\necho $CONSIGN_ACTION_ID\nwait\n";
    commit(&world, &[("again.sh", wait, ""), ("cancelled.sh", wait, "")]);
    let allocation = printed(&world, "again").await;
    world.restart_task(&allocation, "runner").await;
    let again = world.result("again", LIMIT).await;
    ends_with_code(&again, "failed", "restarted", 121);
    assert_eq!(again["logs"], "again\nbye\n");

    printed(&world, "cancelled").await;
    world.ops.commit("no more", &[("actions/cancelled.toml", None)]);
    let cancelled = world.result("cancelled", LIMIT).await;
    ends_with_code(&cancelled, "cancelled", "cancelled", 7);
    assert_eq!(cancelled["logs"], "cancelled\nbye\n");
}

#[tokio::test]
async fn a_formula_starts_once_and_ends_when_told_under_docker() {
    a_formula_starts_once_and_ends_when_told("docker-once", &docker(images::BUSYBOX)).await;
}

#[tokio::test]
async fn a_formula_starts_once_and_ends_when_told_under_exec() {
    a_formula_starts_once_and_ends_when_told("exec-once", EXEC).await;
}

#[tokio::test]
async fn an_image_that_cannot_be_had_fails_by_its_name() {
    // Nobody listens there, so the refusal comes at once.
    let world = world("no-image", &docker("127.0.0.1:1/nothing:1")).await;
    let _agent = world.agent().await;
    commit(&world, &[("hello.sh", "echo hello\n", "")]);
    let result = world.result("hello", LIMIT).await;
    ends_with_code(&result, "failed", "driver", 125);
    assert!(result["message"].as_str().unwrap().contains("127.0.0.1:1/nothing:1"), "{result}");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "{result}");
}

#[tokio::test]
async fn doctor_counts_the_nodes_of_the_driver_and_misses_an_image() {
    let world = world("doctor-docker", &docker(images::BUSYBOX)).await;
    world.ops.commit("Begin", &[("formulas/a.sh", Some("true\n"))]);
    let output = world.operate(&["doctor"], b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 of 1 nodes can run driver docker"), "{text}");

    // A base job without an image, and none configured.
    let runner = include_str!("../../jobs/runner.nomad.hcl").replace("job \"runner\"", "job \"imageless\"");
    let lines: Vec<&str> = runner.lines().filter(|line| !line.trim_start().starts_with("image ")).collect();
    std::fs::create_dir(world.path("jobs")).unwrap();
    std::fs::write(world.path("jobs/imageless.nomad.hcl"), lines.join("\n")).unwrap();
    let config = world.config_toml().replace(
        "driver = \"raw_exec\"\n",
        &format!(
            "driver = \"docker\"\nimage = \"\"\njobs = {:?}\n",
            world.path("jobs").display().to_string()
        ),
    );
    std::fs::write(world.path("consign.toml"), config).unwrap();
    let output = world.operate(&["doctor"], b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("imageless") && text.contains("[nomad] image"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}

#[tokio::test]
async fn formulas_end_as_they_should_under_raw_exec() {
    formulas_end_as_they_should("raw-exec", "driver = \"raw_exec\"\n").await;
}
