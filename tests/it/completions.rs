//! Completions, asked for by a real bash.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    api::Operator,
    support::{LIMIT, World, ends},
};

/// What bash offers after the words of a command line, the last of them begun.
fn offered(world: &World, token: &str, words: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_consign");
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "set -e\nsource <('{program}' completions bash)\n\
         COMP_WORDS=({}) COMP_CWORD={} COMP_TYPE=9\n\
         _clap_complete_consign consign '{}' ''\n\
         for word in \"${{COMPREPLY[@]}}\"; do echo \"$word\"; done",
        line.join(" "),
        words.len() - 1,
        words.last().unwrap(),
    );
    Command::new("bash")
        .args(["--norc", "-c", &script])
        .current_dir(world.path("."))
        .env("CONSIGN_ADDR", world.agent_address())
        .env("CONSIGN_TOKEN", token)
        .output()
        .unwrap()
}

fn words(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .filter(|word| !word.is_empty())
        .collect()
}

#[tokio::test]
async fn bash_is_offered_ids_and_formulas_and_nothing_where_no_agent_is() {
    let world = World::new("completions").await;
    world.bootstrap("");
    let greet = "description = \"greets\"\nargs = { who = { required = true, help = \"whom\" } }\n\
                 [[steps]]\nname = \"greet\"\nrun = \"true\"\n";
    world.ops.commit(
        "formulas",
        &[
            ("formulas/quick.sh", Some("# Is quick.\ntrue\n")),
            ("formulas/greet.toml", Some(greet)),
            ("formulas/broken.toml", Some("description = 7\n")),
        ],
    );
    let agent = world.agent().await;
    let ann = Operator::new(&world, "ann", "read");
    for id in ["build-1", "build-2", "deploy"] {
        world.commit_action(id, "quick", "");
    }
    for id in ["build-1", "build-2", "deploy"] {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
    let token = ann.token.as_str();
    assert_eq!(words(&offered(&world, token, &["consign", "show", "build-"])), ["build-2", "build-1"]);
    assert_eq!(words(&offered(&world, token, &["consign", "cancel", "d"])), ["deploy"]);
    let formulas = words(&offered(&world, token, &["consign", "submit", "--formula", ""]));
    assert_eq!(formulas, ["greet", "quick"], "the broken one is left out");
    assert!(words(&offered(&world, token, &["consign", "re"])).contains(&"resume".to_owned()));

    let url = format!("{}/formulas", agent.address);
    let answer = crate::support::http().get(url).bearer_auth(token).send().await.unwrap();
    let list: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let formulas = list["formulas"].as_array().unwrap();
    let of = |name: &str| formulas.iter().find(|formula| formula["name"] == name).unwrap();
    assert_eq!(formulas.len(), 3, "{list}");
    assert_eq!(of("greet")["args"][0]["help"], "whom");
    assert_eq!(of("quick")["description"], "Is quick.");
    let problem = of("broken")["problem"].as_str().unwrap();
    assert!(problem.contains("formulas/broken.toml:1:15"), "{problem}");

    drop(agent);
    assert_eq!(words(&offered(&world, token, &["consign", "show", "build-"])), Vec::<String>::new());
}
