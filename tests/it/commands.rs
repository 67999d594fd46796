//! The operator's and the author's commands, as processes.

use std::{os::unix::fs::PermissionsExt as _, process::Output};

use serde_json::Value;

use crate::support::{World, action};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command that succeeds, and gives what it printed on standard output.
fn done(world: &World, arguments: &[&str], input: &[u8]) -> String {
    let output = world.operate(arguments, input);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that fails, and gives what it said.
fn refused(world: &World, arguments: &[&str]) -> String {
    let output = world.operate(arguments, b"");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}

async fn with_config(name: &str) -> World {
    let world = World::new(name).await;
    std::fs::write(world.path("consign.toml"), world.config_toml()).unwrap();
    world
}

#[tokio::test]
async fn a_new_ops_repo_validates_and_a_broken_action_is_shown() {
    let world = with_config("init").await;
    let folder = world.path("new-ops");
    let folder = folder.to_str().unwrap();
    done(&world, &["init", folder], b"");
    let valid = done(&world, &["validate", folder], b"");
    assert!(valid.contains("files are valid"), "{valid}");
    assert!(refused(&world, &["init", folder]).contains("is not empty"));

    let broken = action("broken", "hello", "timeuot = \"5m\"\n");
    std::fs::write(world.path("new-ops/actions/broken.toml"), broken).unwrap();
    let shown = refused(&world, &["validate", folder]);
    for words in ["actions/broken.toml:6:1", "timeuot", "^^^^^^^", "did you mean `timeout`?", "1 of "] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let output = world.operate(&["validate", folder, "--json"], b"");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], false);
    let bad: Vec<&Value> =
        report["files"].as_array().unwrap().iter().filter(|file| file["valid"] == false).collect();
    assert_eq!(bad.len(), 1, "{report}");
    assert!(bad[0]["file"].as_str().unwrap().ends_with("actions/broken.toml"), "{report}");
    let problem = &bad[0]["problems"][0];
    assert_eq!((problem["line"].as_u64(), problem["column"].as_u64()), (Some(6), Some(1)), "{report}");
}

#[tokio::test]
async fn what_the_agent_would_refuse_beyond_the_files_is_told_too() {
    let world = with_config("validate").await;
    let folder = world.path("ops");
    for (name, text) in [
        ("actions/large.toml", action("large", "quick", "resources = { memory = \"64GiB\" }\n")),
        ("actions/mounted.toml", action("mounted", "quick", "mounts = [\"nowhere\"]\n")),
        ("actions/bot.toml", action("bot", "quick", "job = \"sidecar\"\nargs = { bot = \"../x\" }\n")),
        ("actions/egg.toml", action("egg", "quick", "after = [\"hen\"]\n")),
        ("actions/hen.toml", action("hen", "quick", "after = [\"EGG\"]\n")),
        ("actions/good.toml", action("good", "quick", "resources = { memory = \"1GiB\" }\n")),
        (
            "actions/secret.toml",
            action("secret", "quick", "dispatch_mode = \"direct\"\n").replace("[]", "[\"PROD_KEY\"]"),
        ),
        ("formulas/quick.sh", "true\n".to_owned()),
    ] {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    }
    let rule = "[[approval.rule]]\nsecret = \"PROD_*\"\nblast_radius = \"high\"\nrequire = \"review\"\n";
    let config = format!("{}[shapes]\nmemory = \"4GiB\"\n{rule}", world.config_toml());
    std::fs::write(world.path("consign.toml"), config).unwrap();
    let folder_name = folder.to_str().unwrap();
    let shown = refused(&world, &["validate", folder_name]);
    for words in [
        "actions/large.toml:6:",
        "4",
        "actions/mounted.toml:6:",
        "nowhere",
        "actions/bot.toml:7:",
        "the argument `bot` names it",
        "egg waits for hen, which waits for EGG",
        "actions/good.toml will need: merged (low blast radius)\n",
        "actions/secret.toml will need: review (high blast radius, by the rule for secret PROD_*",
        "dispatch_mode = \"direct\", which no rule allows here",
        "5 of 8 files are not valid",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("large.toml will need"), "{shown}");
    let output = world.operate(&["validate", folder_name, "--json"], b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let approval = |name: &str| {
        let mut files = report["files"].as_array().unwrap().iter();
        files.find(|file| file["file"].as_str().unwrap().ends_with(name)).unwrap()["approval"].clone()
    };
    let secret = approval("secret.toml");
    assert_eq!(
        (&secret["blast_radius"], &secret["require"], &secret["direct_refused"]),
        (&"high".into(), &"review".into(), &true.into())
    );
    assert!(approval("large.toml").is_null() && approval("quick.sh").is_null(), "{report}");
    // Without a configuration nobody knows what the agent allows.
    let alone = std::process::Command::new(env!("CARGO_BIN_EXE_consign"))
        .args(["validate", "."])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(said(&alone).contains("3 of 8 files are not valid"), "{}", said(&alone));
    assert!(!said(&alone).contains("will need"), "{}", said(&alone));
}

#[tokio::test]
async fn bootstrap_says_what_it_changes_and_changes_it_once() {
    // What all tests share in Vault is there before this one looks.
    with_config("before").await.bootstrap("");
    let world = with_config("bootstrap").await;
    let token = world.path("agent.token");
    let arguments = ["bootstrap", "--token-out", token.to_str().unwrap()];
    let dry = [&arguments[..], &["--dry-run"]].concat();
    let planned = done(&world, &dry, b"");
    assert!(planned.contains("would ") && planned.contains(&world.gate()), "{planned}");
    assert!(planned.contains("register the base job runner"), "{planned}");
    assert!(!planned.contains("done:"), "{planned}");
    assert_eq!(done(&world, &dry, b""), planned, "a dry run changes nothing");
    assert!(!token.exists());
    assert!(world.nomad.get("/v1/job/runner").await.is_err());

    world.bootstrap("");
    assert!(token.exists());
    world.nomad.get("/v1/job/runner").await.unwrap();
    let again = done(&world, &arguments, b"");
    assert!(again.contains("nothing to change") && !again.contains("done:"), "{again}");
    assert!(done(&world, &dry, b"").contains("nothing to change"));
}

#[tokio::test]
async fn secrets_are_put_listed_and_removed() {
    let world = with_config("secrets").await;
    world.bootstrap("");
    let name = world.secret("KEY");
    let made = done(&world, &["secret", "put", &name], b"a very secret value\n");
    assert!(made.contains(&name) && !made.contains("very secret"), "{made}");
    let listed = done(&world, &["secret", "list"], b"");
    assert!(listed.contains(&name) && listed.contains("complete"), "{listed}");
    // Other tests' groups stand in the same Vault, and are not this installation's.
    let own =
        || -> Value { serde_json::from_str(&done(&world, &["secret", "list", "--json"], b"")).unwrap() };
    assert_eq!(own(), serde_json::json!([{ "name": name, "complete": true }]));
    done(&world, &["secret", "rm", &name], b"");
    assert!(done(&world, &["secret", "rm", &name], b"").contains("nothing to change"));
    assert_eq!(own(), serde_json::json!([]));
}

#[tokio::test]
async fn a_token_is_made_before_the_agent_was_ever_started() {
    let world = with_config("token").await;
    let store = world.path("store");
    assert!(done(&world, &["token", "list"], b"").is_empty() && !store.exists(), "looking makes nothing");
    assert!(refused(&world, &["token", "revoke", "ann"]).contains("no token is called ann"));
    done(&world, &["token", "create", "ann", "--scope", "read"], b"");
    assert_eq!(std::fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(done(&world, &["token", "list"], b"").contains("ann"));
}

#[tokio::test]
async fn what_is_missing_or_misspelt_is_named() {
    let world = with_config("misspelt").await;
    for command in [&["bootstrap"][..], &["secret", "list"]] {
        let output = world.consign(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("VAULT_TOKEN is not set"), "{}", said(&output));
    }
    let config = world.config_toml().replace("[results]\n", "[results]\npush_intervall = \"1s\"\n");
    let line = config.lines().position(|line| line.starts_with("push_intervall")).unwrap() + 1;
    std::fs::write(world.path("consign.toml"), config).unwrap();
    let shown = refused(&world, &["bootstrap"]);
    let place = format!("consign.toml:{line}:1");
    for words in [place.as_str(), "push_intervall", "did you mean `push_interval`?"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.starts_with("error: unknown field"), "{shown}");
}

#[tokio::test]
async fn schemas_are_json_and_completions_are_there() {
    let world = with_config("schema").await;
    for kind in ["action", "formula", "result", "config"] {
        let schema: Value = serde_json::from_str(&done(&world, &["schema", kind], b"")).unwrap();
        assert!(schema["properties"].is_object(), "{kind}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(done(&world, &["completions", shell], b"").contains("_CONSIGN_COMPLETE"), "{shell}");
    }
}
