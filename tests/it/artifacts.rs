//! What an action asks to keep of its files is kept, and nothing else of the node's is.

use std::{collections::BTreeMap, fs, path::PathBuf};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{LIMIT, World, action, wait_for};

/// A world whose agent has these keys in its section `[store]`.
async fn world(name: &str, store: &str) -> World {
    let world = World::new(name).await;
    world.bootstrap_with(&world.config_toml().replace("[store]\n", &format!("[store]\n{store}")));
    world
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Where the agent keeps an artifact of the job that a result is about.
fn kept(world: &World, result: &Value, name: &str) -> PathBuf {
    let job_id = result["job_id"].as_str().unwrap();
    world.path("store").join("artifacts").join(job_id).join("files").join(name)
}

/// Asserts that exactly these artifacts are listed, in this order, and kept byte for byte.
fn keeps(world: &World, result: &Value, expected: &[(&str, &[u8])]) {
    let listed: Vec<&str> =
        result["artifacts"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, names, "{result}");
    for (file, (name, content)) in result["artifacts"].as_array().unwrap().iter().zip(expected) {
        assert_eq!(file["size"], content.len(), "{file}");
        assert_eq!(file["sha256"], sha256(content), "{file}");
        assert!(fs::read(kept(world, result, name)).unwrap() == *content, "{name} differs");
    }
}

fn says(result: &Value, words: &[&str]) {
    let message = result["message"].as_str().unwrap();
    for words in words {
        assert!(message.contains(words), "{words:?}: {message}");
    }
}

/// Every file below a folder, with its content.
fn contents(folder: PathBuf) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut folders, mut found) = (vec![folder], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn files_are_kept_byte_for_byte_whatever_the_outcome() {
    let world = world("artifacts", "").await;
    let bytes: Vec<u8> =
        (0..300_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(world.path("source.bin"), &bytes).unwrap();
    let page = "<html><script>alert(1)</script></html>";
    let files = format!(
        "mkdir -p report/deep 'a b' other\n\
         printf '%s' '{page}' > report/index.html\ncp {} report/deep/data.bin\n\
         printf x > 'a b/ä#?%.txt'\n: > empty\nprintf no > other/left.out\n",
        world.path("source.bin").display()
    );
    let steps = "description = \"keeps what its first step made\"\nartifacts = [\"*.log\"]\n\
        [[steps]]\nname = \"make\"\nrun = \"echo made > first.log; echo more > further\"\n\
        [[steps]]\nname = \"fail\"\nrun = \"exit 3\"\n";
    let globs = "artifacts = [\"report/**\", \"**/*.txt\", \"empty\", \"missing/*\"]\n";
    world.ops.commit(
        "formulas and actions",
        &[
            ("formulas/files.sh", Some(&files)),
            ("formulas/steps.toml", Some(steps)),
            ("actions/kept.toml", Some(&action("kept", "files", globs))),
            (
                "actions/failed.toml",
                Some(&action("failed", "steps", "artifacts = [\"further\", \"*.log\"]\n")),
            ),
        ],
    );
    let _agent = world.agent().await;

    let result = world.result("kept", LIMIT).await;
    assert_eq!((&result["outcome"], &result["exit_code"]), (&json!("succeeded"), &json!(0)), "{result}");
    let expected: [(&str, &[u8]); 4] = [
        ("a b/ä#?%.txt", b"x"),
        ("empty", b""),
        ("report/deep/data.bin", &bytes),
        ("report/index.html", page.as_bytes()),
    ];
    keeps(&world, &result, &expected);
    let url = format!("/jobs/{}/artifacts/a%20b/%C3%A4%23%3F%25.txt", result["job_id"].as_str().unwrap());
    assert_eq!(result["artifacts"][0]["url"], url);
    assert_eq!(
        result["message"],
        "the task ended with exit code 0; artifacts: no file matched \"missing/*\""
    );

    let result = world.result("failed", LIMIT).await;
    assert_eq!((&result["outcome"], &result["cause"]), (&json!("failed"), &json!("exit_code")), "{result}");
    assert_eq!(result["exit_code"], 3, "{result}");
    assert_eq!(result["message"], "the task ended with exit code 3 in the step \"fail\"");
    assert_eq!(result["steps"].as_array().unwrap().len(), 2, "{result}");
    keeps(&world, &result, &[("first.log", b"made\n"), ("further", b"more\n")]);
}

#[tokio::test]
async fn what_may_not_be_kept_is_refused_by_name_and_never_read() {
    let store = "artifact_size = \"1MiB\"\nartifact_total = \"1100KiB\"\nartifact_count = 5\n";
    let world = world("refused", store).await;
    let marker = "the-hosts-own-file";
    fs::create_dir(world.path("host")).unwrap();
    fs::write(world.path("host/secret"), marker).unwrap();
    let host = world.path("host").display().to_string();
    let files = format!(
        "printf fine > fine\nhead -c 1048577 /dev/zero > huge.bin\n\
         ln -s {host}/secret link\nln -s {host} folder\nln -s fine inside\nln -s /etc/passwd passwd\n\
         ln -s ../../runner/secrets secrets\nln -s link chain\nmkfifo pipe\n\
         printf x > \"$(printf 'bad\\377')\"\nprintf x > \"$(printf 'two\\nlines')\"\n\
         mkdir kept\nprintf k > kept/k\nln -s {host} kept/out\n"
    );
    let many = "for number in 1 2 3 4 5 6 7; do printf $number > $number; done\n\
         head -c 900000 /dev/zero > a; head -c 900000 /dev/zero > b\n";
    world.ops.commit(
        "formulas and actions",
        &[
            ("formulas/traps.sh", Some(&files)),
            ("formulas/many.sh", Some(many)),
            ("actions/traps.toml", Some(&action("traps", "traps", "artifacts = [\"**\", \"kept\"]\n"))),
            ("actions/links.toml", Some(&action("links", "traps", "artifacts = [\"folder/*\", \"link\"]\n"))),
            ("actions/many.toml", Some(&action("many", "many", "artifacts = [\"*\"]\n"))),
        ],
    );
    let _agent = world.agent().await;

    let result = world.result("traps", LIMIT).await;
    assert_eq!((&result["outcome"], &result["exit_code"]), (&json!("succeeded"), &json!(0)), "{result}");
    keeps(&world, &result, &[("fine", b"fine"), ("kept/k", b"k")]);
    says(
        &result,
        &[
            "refused, larger than the 1.0 MiB of one artifact: \"huge.bin\" (1.0 MiB)",
            "symbolic links: \"chain\", \"folder\", \"inside\", \"link\", \"passwd\" and 2 more",
            "devices, pipes or sockets: \"pipe\"",
            "\"bad\u{fffd}\", \"two\\nlines\"",
            "by adding `/**`: \"kept\"",
        ],
    );
    let result = world.result("links", LIMIT).await;
    keeps(&world, &result, &[]);
    says(&result, &["exit code 0", "no file matched \"folder/*\"", "symbolic links: \"link\""]);

    let result = world.result("many", LIMIT).await;
    assert_eq!(result["outcome"], "succeeded", "{result}");
    let zeros = vec![0; 900_000];
    keeps(&world, &result, &[("1", b"1"), ("2", b"2"), ("3", b"3"), ("4", b"4"), ("5", b"5")]);
    says(&result, &["over the 5 files of one job: \"6\", \"7\", \"a\", \"b\""]);
    world.commit_action("large", "many", "artifacts = [\"[ab]\"]\n");
    let result = world.result("large", LIMIT).await;
    keeps(&world, &result, &[("a", &zeros)]);
    says(&result, &["over the 1.1 MiB of one job: \"b\" (878.9 KiB)"]);

    let everything = contents(world.path("store").join("artifacts"));
    assert!(everything.len() > 8, "{:?}", everything.keys());
    for (path, content) in everything {
        let text = String::from_utf8_lossy(&content).into_owned();
        assert!(!text.contains(marker) && !text.contains("root:"), "{}", path.display());
    }
}

/// A formula that makes a file and then works until the file `go` is there.
fn waiting_formula(world: &World, bytes: usize) -> String {
    format!(
        "head -c {bytes} /dev/zero | tr '\\0' z > large.bin\necho $NOMAD_ALLOC_ID >> {}\n\
         while [ ! -e {} ]; do sleep 0.1; done\n",
        world.ledger().display(),
        world.path("go").display()
    )
}

/// Lets a waiting formula end while no agent runs, and gives its allocation.
async fn end_unseen(world: &World) -> String {
    fs::write(world.path("go"), "").unwrap();
    let allocation = world.ledger_lines().remove(0);
    wait_for("the task to end", LIMIT, async || {
        let found = world.nomad.get(&format!("/v1/allocation/{allocation}")).await?;
        if found["ClientStatus"] == "complete" { Ok(()) } else { Err(found["ClientStatus"].to_string()) }
    })
    .await;
    allocation
}

async fn started(world: &World) {
    wait_for("the formula to start", LIMIT, async || {
        if world.ledger_lines().is_empty() { Err("the ledger is empty".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_killed_before_and_while_it_takes_them_takes_them_again() {
    const SIZE: usize = 64 << 20;
    let world = world("taken-again", "").await;
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world, SIZE)))]);
    let agent = world.agent().await;
    world.commit_action("large", "wait", "artifacts = [\"large.bin\"]\n");
    started(&world).await;
    agent.kill();
    end_unseen(&world).await;

    let agent = world.launch_agent(&[]);
    let taking = world.path("store").join("artifacts/.taking");
    wait_for("a file to be half taken", LIMIT, async || {
        let size: usize =
            if taking.exists() { contents(taking.clone()).values().map(Vec::len).sum() } else { 0 };
        if (1..SIZE).contains(&size) { Ok(()) } else { Err(format!("{size} bytes; {}", agent.log())) }
    })
    .await;
    agent.kill();
    assert!(!world.ops.paths().iter().any(|path| path.contains(".result.")), "{:?}", world.ops.paths());
    assert!(!contents(taking.clone()).is_empty());

    let _agent = world.agent().await;
    let result = world.result("large", LIMIT).await;
    assert_eq!(result["outcome"], "succeeded", "{result}");
    keeps(&world, &result, &[("large.bin", &vec![b'z'; SIZE])]);
    assert!(contents(taking).is_empty());
    let records = fs::read_dir(world.path("store").join("artifacts")).unwrap().count();
    assert_eq!(records, 2, "one job's folder beside .taking");
}

#[tokio::test]
async fn artifacts_that_nomad_collected_are_said_to_be_lost() {
    let world = world("collected", "").await;
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world, 10)))]);
    let agent = world.agent().await;
    world.commit_action("late", "wait", "artifacts = [\"*.bin\", \"other\"]\n");
    started(&world).await;
    agent.kill();
    let allocation = end_unseen(&world).await;
    let path = format!("/v1/client/allocation/{allocation}/gc");
    world.nomad.request(Method::GET, &path, None).await.unwrap();
    wait_for("the allocation's files to be gone", LIMIT, async || {
        match world.nomad.get(&format!("/v1/client/fs/ls/{allocation}?path=alloc/data")).await {
            Err(error) if error.contains("no such file") || error.contains("nknown alloc") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let _agent = world.agent().await;
    let result = world.result("late", LIMIT).await;
    assert_eq!(
        (&result["outcome"], &result["log_status"]),
        (&json!("succeeded"), &json!("lost")),
        "{result}"
    );
    keeps(&world, &result, &[]);
    assert_eq!(
        result["message"],
        "the task ended with exit code 0; artifacts: lost: Nomad no longer had the allocation's files"
    );
}

#[tokio::test]
async fn a_job_taken_over_keeps_its_artifacts() {
    let world = world("took-over", "").await;
    world.ops.commit("a formula", &[("formulas/wait.sh", Some(&waiting_formula(&world, 10)))]);
    let agent = world.agent().await;
    world.commit_action("found", "wait", "artifacts = [\"*.bin\"]\n");
    started(&world).await;
    agent.kill();
    let successor = world.launch_another("other", &["--take-over"]);
    successor.ready().await;
    fs::write(world.path("go"), "").unwrap();
    let result = world.result("found", LIMIT).await;
    assert_eq!(result["artifacts"][0]["name"], "large.bin", "{result}");
    let job_id = result["job_id"].as_str().unwrap();
    let place = world.path("other").join("artifacts").join(job_id).join("files/large.bin");
    assert_eq!(fs::read(place).unwrap(), b"zzzzzzzzzz");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told_at_start() {
    let world = World::new("unusable").await;
    let folder = world.ledger().join("artifacts").display().to_string();
    let store = format!("[store]\nartifacts = {}\n", Value::from(folder.clone()));
    world.bootstrap_with(&world.config_toml().replace("[store]\n", &store));
    let mut agent = world.launch_agent(&[]);
    assert_eq!(agent.ended().await.code(), Some(1), "{}", agent.log());
    let said = agent.log();
    assert!(said.contains("[store] artifacts") && said.contains(&folder), "{said}");
    assert_eq!(world.ops.bare(&["for-each-ref", "refs/consign"]), "", "nothing was claimed");
}
