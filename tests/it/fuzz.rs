//! Input that others make up. The API as its committed document describes it, tried by schemathesis: no request
//! fails on the server's side, and every answer is one that the document promises. And what `tests/fuzz` tries.

use std::{fs, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Agent, LIMIT, World, wait_for};

/// How long one run may take before it counts as stuck.
const RUN_LIMIT: Duration = Duration::from_mins(5);
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
/// What is looked at. What the document cannot promise is left out: that any submission that fits its schema is
/// taken, for the formula may be unknown.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,negative_data_rejection,\
                      unsupported_method,ignored_auth";

/// The paths that answer a stream without an end.
fn endless() -> Vec<String> {
    let document: Value = serde_json::from_str(&fs::read_to_string(DOCUMENT).unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let streams = |operations: &Value| operations.to_string().contains("text/event-stream");
    paths.iter().filter(|(_, operations)| streams(operations)).map(|(path, _)| path.clone()).collect()
}

/// Runs schemathesis with further `settings`, and fails with what it says where it finds something.
async fn find_nothing(world: &World, agent: &Agent, examples: u32, settings: &str) {
    let config = world.path("schemathesis.toml");
    fs::write(&config, settings).unwrap();
    let mut command = Command::new("schemathesis");
    command
        .arg("--config-file")
        .arg(&config)
        .args(["run", DOCUMENT, "--url", &agent.address, "--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "20"])
        .args(["--max-examples", &examples.to_string(), "--workers", "1", "--warnings", "off"])
        .args(["--generation-deterministic", "--no-color"])
        .current_dir(world.path(""))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for path in endless() {
        command.args(["--exclude-path", &path]);
    }
    let output = tokio::time::timeout(RUN_LIMIT, command.output()).await.expect("schemathesis ends");
    let output = output.expect("schemathesis is on the PATH (scripts/schemathesis)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn input_that_is_made_up_breaks_no_promise() {
    let fuzz = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/fuzz");
    let output = Command::new(fuzz).args(["--seconds", "60"]).output().await.unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    assert!(said.matches("nothing found").count() >= 8, "{said}");
}

#[tokio::test]
async fn every_request_gets_an_answer_that_the_document_promises() {
    let world = World::new("fuzz").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let steps = "description = \"greets\"\nartifacts = [\"*.txt\"]\n[args.who]\ndefault = \"ann\"\n\
                 [[steps]]\nname = \"greet\"\nrun = \"echo hello $ARG_WHO; echo kept > kept.txt\"\n\
                 [[steps]]\nname = \"fail\"\nrun = \"exit 3\"\n";
    world.ops.commit("a formula", &[("formulas/greet.toml", Some(steps))]);
    world.commit_action("greeting", "greet", "");
    world.result("greeting", LIMIT).await;
    let token = world.token("fuzz", "admin");

    find_nothing(&world, &agent, 5, "").await;
    let authorized = format!("headers = {{ Authorization = \"Bearer {token}\" }}\n");
    find_nothing(&world, &agent, 40, &authorized).await;
    let known = format!("{authorized}[parameters]\nid = \"greeting\"\nname = \"kept.txt\"\n");
    find_nothing(&world, &agent, 20, &known).await;

    // Whatever was taken comes to its end, and the agent is well.
    let http = crate::support::http();
    wait_for("the agent to be idle", LIMIT, async || {
        for phase in ["waiting", "queued", "loading", "working"] {
            let url = format!("{}/jobs?phase={phase}", agent.address);
            let page = http.get(url).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
            let page: Value = serde_json::from_str(&page).unwrap();
            if page["jobs"] != json!([]) {
                return Err(page.to_string());
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(agent.health().await["degraded"], false);
}
