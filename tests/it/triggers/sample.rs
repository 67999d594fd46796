//! The sample of `docs/training.md`: its configuration, and what its workflow runs.

use std::process::Command;

use super::*;
use crate::documents::{blocks, page};

/// The scripts of a workflow's steps, which stand ten spaces in.
fn scripts(workflow: &str) -> Vec<String> {
    let script = |rest: &str| {
        rest.lines().map_while(|line| line.strip_prefix("          ")).collect::<Vec<_>>().join("\n")
    };
    workflow.split("run: |\n").skip(1).map(script).collect()
}

#[tokio::test]
async fn the_training_sample_starts_one_run_and_then_says_why_there_is_no_other() {
    let page = page("docs/training.md");
    let (configuration, workflow) = (blocks(&page, "toml").concat(), blocks(&page, "yaml").concat());
    let triggers = configuration
        .replace("/run/credentials/consign.service/consign_training-token", "{folder}/token")
        .replace("/srv/docs", "{folder}/docs")
        // There is no GPU here.
        .replace("job = \"training\"\n", "");
    let stage = Stage::new("sample", &triggers).await;
    let output = stage.world.operate(&["token", "create", "ci", "--scope", "read"], b"");
    let reader = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
    let runner = tempfile::tempdir().unwrap();
    let outputs = runner.path().join("outputs");
    let consign = Path::new(env!("CARGO_BIN_EXE_consign")).parent().unwrap().to_str().unwrap().to_owned();
    let run = |script: &str| {
        let output = Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(runner.path())
            .env("PATH", format!("{consign}:{}", std::env::var("PATH").unwrap()))
            .env("NO_PROXY", "*")
            .env("CONSIGN_ADDR", stage.world.agent_address())
            .env("CONSIGN_TOKEN", &reader)
            .env("TRAINING_TOKEN", TOKEN)
            .env("GITHUB_OUTPUT", &outputs)
            .env("GITHUB_SHA", "0123abcd")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let scripts = scripts(&workflow);
    let [ask, start, _] = &scripts[..] else { panic!("the workflow has other steps: {scripts:?}") };

    run(ask);
    let said = fs::read_to_string(&outputs).unwrap();
    assert!(said.starts_with("should_train=true\nreason=no_previous_training\n"), "{said}");
    for name in workflow.split("steps.check.outputs.").skip(1) {
        let name = name.split(' ').next().unwrap();
        assert!(said.lines().any(|line| line.starts_with(&format!("{name}="))), "no {name}: {said}");
    }
    let answer: Value = serde_json::from_str(&run(start)).unwrap();
    assert_eq!(answer["status"], "triggered", "{answer}");
    assert_eq!(stage.ledger("training").await[0]["content"], "{\"commit\":\"0123abcd\"}");
    for trigger in ["training", "documents"] {
        stage.until_standing(trigger, "cooldown_active_6h").await;
    }
    fs::remove_file(&outputs).unwrap();
    run(ask);
    let said = fs::read_to_string(&outputs).unwrap();
    assert!(said.starts_with("should_train=false\nreason=cooldown_active_6h\n"), "{said}");
    let answer: Value = serde_json::from_str(&run(start)).unwrap();
    assert_eq!((&answer["status"], stage.runs()), (&json!("skipped"), 1), "{answer}");
}
