//! Exactly the secrets that an action names, for its own allocation, until it ends.

use serde_json::json;

use crate::support::{LIMIT, World, action, wait_for};

/// Several lines, quotes, backslashes, a dollar, a template's braces, unicode, a newline at the end.
const AWKWARD: &str = "first 'line'\n\"second\" \\n \\\\ $HOME ${X:-1} {{ . }}\n\tdrei: äöü 🔑\n\n";

#[tokio::test]
async fn granted_secrets_arrive_byte_for_byte_and_others_do_not() {
    let world = World::new("bytes").await;
    world.bootstrap("");
    let (granted, other) = (world.secret("GRANTED"), world.secret("OTHER"));
    world.put_secret(&granted, AWKWARD.as_bytes());
    world.put_secret(&other, b"not for everybody");
    let _agent = world.agent().await;
    let folder = world.path("");
    let formula = format!(
        "printf '%s' \"${granted}\" > {folder}/granted\nprintf '%s' \"${{{other}-unset}}\" > {folder}/other\n",
        folder = folder.display()
    );
    world.ops.commit(
        "one secret of two",
        &[
            ("formulas/keep.sh", Some(&formula)),
            ("actions/one.toml", Some(&action("one", "keep", &format!("secrets = [\"{granted}\"]\n")))),
        ],
    );
    let result = world.result("one", LIMIT).await;
    assert_eq!(result["outcome"], "succeeded", "{result}");
    assert_eq!(result["secrets"], json!([granted]));
    assert_eq!(std::fs::read_to_string(world.path("granted")).unwrap(), AWKWARD);
    assert_eq!(std::fs::read_to_string(world.path("other")).unwrap(), "unset");
    assert!(!result.to_string().contains("not for everybody"));
}

#[tokio::test]
async fn an_action_without_secrets_runs() {
    let world = World::new("none").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/hello.sh", Some("echo hello\n"))]);
    world.commit_action("plain", "hello", "");
    let result = world.result("plain", LIMIT).await;
    assert_eq!((&result["outcome"], &result["logs"]), (&json!("succeeded"), &json!("hello\n")), "{result}");
}

/// A base job like the runner whose tasks can read their own Vault token, so that a test can try it.
fn revealing_base_job(world: &World) {
    let text = include_str!("../../jobs/runner.nomad.hcl");
    let revealing = text
        .replace("job \"runner\"", "job \"revealing\"")
        .replace("disable_file = true", "disable_file = false");
    assert_ne!(
        revealing,
        text.replace("job \"runner\"", "job \"revealing\""),
        "the runner hides its token otherwise"
    );
    let folder = world.path("jobs");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("revealing.nomad.hcl"), revealing).unwrap();
}

#[tokio::test]
async fn an_allocations_own_token_reads_what_was_granted_while_it_runs_and_nothing_afterwards() {
    let world = World::new("token").await;
    revealing_base_job(&world);
    let jobs = format!("driver = \"raw_exec\"\njobs = \"{}\"", world.path("jobs").display());
    world.bootstrap_with(&world.config_toml().replace("driver = \"raw_exec\"", &jobs));
    let names = [world.secret("MINE"), world.secret("YOURS")];
    for name in &names {
        world.put_secret(name, format!("value of {name}").as_bytes());
    }
    let _agent = world.agent().await;
    let gate = world.path("go-on");
    let formula = format!(
        "cat \"$NOMAD_SECRETS_DIR/vault_token\" > {folder}/token-$CONSIGN_ACTION_ID.part\n\
         mv {folder}/token-$CONSIGN_ACTION_ID.part {folder}/token-$CONSIGN_ACTION_ID\n\
         while [ ! -e {gate} ]; do sleep 0.1; done\n",
        folder = world.path("").display(),
        gate = gate.display(),
    );
    let files: Vec<(String, String)> = ["mine", "yours"]
        .iter()
        .zip(&names)
        .map(|(id, name)| {
            let text = action(id, "reveal", &format!("job = \"revealing\"\nsecrets = [\"{name}\"]\n"));
            (format!("actions/{id}.toml"), text)
        })
        .collect();
    let mut changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    changes.push(("formulas/reveal.sh", Some(&formula)));
    world.ops.commit("two runs at once", &changes);
    let mut tokens = Vec::new();
    for id in ["mine", "yours"] {
        let path = world.path(&format!("token-{id}"));
        let token = wait_for("the allocation's token", LIMIT, async || {
            std::fs::read_to_string(&path).map_err(|error| error.to_string())
        })
        .await;
        tokens.push(token);
    }
    let read = async |token: &str, name: &str| {
        let url = format!("{}/v1/secret/data/{}/{name}", world.servers.vault_address, world.prefix());
        crate::support::http().get(url).header("X-Vault-Token", token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(read(&tokens[0], &names[0]).await, 200);
    assert_eq!(read(&tokens[0], &names[1]).await, 403);
    assert_eq!(read(&tokens[1], &names[0]).await, 403);
    assert_eq!(read(&tokens[1], &names[1]).await, 200);
    std::fs::write(&gate, "").unwrap();
    for id in ["mine", "yours"] {
        let result = world.result(id, LIMIT).await;
        assert_eq!(result["outcome"], "succeeded", "{result}");
    }
    for token in &tokens {
        for name in &names {
            assert_eq!(read(token, name).await, 403, "after the end");
        }
    }
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_unknown_or_unlisted_secret_fails_before_any_child_exists() {
    let world = World::new("unknown").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let missing = world.secret("MISSING");
    let needs = format!(
        "description = \"needs a secret\"\nsecrets = [\"{missing}\"]\n[[steps]]\nname = \"run\"\nrun = \"true\"\n"
    );
    world.ops.commit(
        "two that cannot run",
        &[
            ("formulas/needs.toml", Some(&needs)),
            (
                "actions/unknown.toml",
                Some(&action("unknown", "needs", &format!("secrets = [\"{missing}\"]\n"))),
            ),
            ("actions/unlisted.toml", Some(&action("unlisted", "needs", ""))),
        ],
    );
    let unknown = world.result("unknown", LIMIT).await;
    assert_eq!(
        (&unknown["outcome"], &unknown["cause"]),
        (&json!("rejected"), &json!("unknown_secret")),
        "{unknown}"
    );
    assert!(
        unknown["message"].as_str().unwrap().contains(&format!("consign secret put {missing}")),
        "{unknown}"
    );
    let unlisted = world.result("unlisted", LIMIT).await;
    assert_eq!(
        (&unlisted["outcome"], &unlisted["cause"]),
        (&json!("rejected"), &json!("invalid")),
        "{unlisted}"
    );
    assert!(unlisted["message"].as_str().unwrap().contains(&missing), "{unlisted}");
    for result in [&unknown, &unlisted] {
        assert_eq!((&result["exit_code"], &result["attempts"]), (&json!(125), &json!([])));
    }
    assert_eq!(world.children().await, Vec::<String>::new());
}
