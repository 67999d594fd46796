//! Helper agents under the base job `sidecar`: their bots' tokens, their folders, and the formulas that it takes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    LIMIT, OwnServers, World, action, ends_with_code, images, servers_with_docker, wait_for,
};

/// Several lines, quotes, backslashes, a dollar, a template's braces, unicode, a newline at the end.
const AWKWARD: &str = "first 'line'\n\"second\" \\n \\\\ $HOME ${X:-1} {{ . }}\n\tdrei: äöü 🔑\n\n";

/// A project as an action describes it, with what Nomad would interpolate.
const PROJECT: &str = "name = \"PROJECT\"\nforge = \"${node.unique.id}\"\ntest = \"test.sh\"\n";

impl World {
    /// Sets up consign with the driver exec, which has volumes.
    fn bootstrap_with_volumes(&self, further: &str) {
        let config = self.config_toml().replace("driver = \"raw_exec\"", "driver = \"exec\"");
        self.bootstrap_with(&format!("{config}{further}"));
    }

    /// A bot's name that no other test uses: groups of all tests stand in one Vault.
    fn bot(&self, name: &str) -> String {
        format!("{name}-{}", self.name.rsplit('-').next().unwrap())
    }

    fn put_bot(&self, name: &str, token: &[u8]) {
        let output = self.operate(&["secret", "put", "--bot", name], token);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The test's own folder in the volume `agent-data`, as the host sees it, where every task may write.
    fn data(&self) -> PathBuf {
        let folder = self.servers.volume("agent-data").join(&self.name);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        folder
    }

    /// The ids of all children of a base job.
    async fn children_of(&self, base_job: &str) -> Vec<String> {
        let jobs = self.nomad.get(&format!("/v1/jobs?prefix={base_job}/dispatch-")).await.unwrap();
        jobs.as_array().unwrap().iter().map(|job| job["ID"].as_str().unwrap().to_owned()).collect()
    }
}

/// An action for the sidecar; `args` are lines of its table.
fn helper(id: &str, formula: &str, args: &str) -> String {
    action(id, formula, &format!("job = \"sidecar\"\n[args]\n{args}"))
}

fn says(result: &Value, text: &str) {
    assert!(result["message"].as_str().unwrap().contains(text), "{text}: {result}");
}

/// What a sample formula does, and then what this test wants to know of its surroundings.
fn watched(sample: &str, world: &World) -> String {
    let folder = format!("/srv/agent-data/{}", world.name);
    format!(
        "{sample}\nset +e\nprintf '%s' \"$BOT_TOKEN\" >{folder}/token-$CONSIGN_FORMULA\n\
         printf '%s' \"$BOT_NAME\" >{folder}/name-$CONSIGN_FORMULA\n\
         printf '%s' \"$ARG_PROJECT_TOML\" >{folder}/toml-$CONSIGN_FORMULA\n\
         cat /srv/ops-repo/{name} >{folder}/ops-$CONSIGN_FORMULA\n\
         echo x 2>/dev/null >>/srv/ops-repo/{name} && echo written >{folder}/ops-$CONSIGN_FORMULA\n\
         echo x >/srv/project-repos/{name}/from-$CONSIGN_FORMULA\n",
        name = world.name,
    )
}

#[tokio::test]
async fn reproduce_triage_and_verify_run_as_their_bots_with_their_folders() {
    let world = World::new("helpers").await;
    world.bootstrap_with_volumes("");
    // This is the one test that uses the names of the formulas, which are the default.
    let tokens = [("triage", AWKWARD), ("reproduce", "of reproduce"), ("verify", "of verify\n")];
    for (bot, token) in tokens {
        world.put_bot(bot, token.as_bytes());
    }
    let data = world.data();
    let repos = world.servers.volume("project-repos").join(&world.name);
    fs::create_dir_all(&repos).unwrap();
    fs::set_permissions(&repos, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(repos.join("test.sh"), "echo testing $1; exit 0\n").unwrap();
    let ops = world.servers.volume("ops-repo").join(&world.name);
    fs::write(&ops, "an action\n").unwrap();
    fs::set_permissions(&ops, fs::Permissions::from_mode(0o666)).unwrap();
    let _agent = world.agent().await;

    let samples = [
        ("triage", include_str!("../../actions/formulas/triage.sh"), "reproduce it in /srv/project-repos/"),
        ("reproduce", include_str!("../../actions/formulas/reproduce.sh"), "does not show: test.sh succeeds"),
        ("verify", include_str!("../../actions/formulas/verify.sh"), "is gone"),
    ];
    let project = PROJECT.replace("PROJECT", &world.name);
    for ((name, sample, said), (_, token)) in samples.into_iter().zip(tokens) {
        let args = format!("issue_number = \"42\"\nproject_toml = {}", Value::from(project.as_str()));
        world.ops.commit(
            name,
            &[
                (&format!("formulas/{name}.sh"), Some(&watched(sample, &world))),
                (&format!("actions/{name}-42.toml"), Some(&helper(&format!("{name}-42"), name, &args))),
            ],
        );
        let result = world.result(&format!("{name}-42"), LIMIT).await;
        ends_with_code(&result, "succeeded", "success", 0);
        assert!(result["logs"].as_str().unwrap().contains(said), "{result}");
        assert_eq!(result["secrets"], json!([format!("bot-{name}")]));
        assert_eq!(result["approved_by"], "merged (medium blast radius)", "a bot's token is a secret");
        let kept = |what: &str| fs::read_to_string(data.join(format!("{what}-{name}"))).unwrap();
        assert_eq!((kept("token").as_str(), kept("name").as_str()), (token, name));
        assert_eq!((kept("toml"), kept("ops").as_str()), (project.clone(), "an action\n"));
        assert!(repos.join(format!("from-{name}")).exists());
        assert!(!result.to_string().contains("of reproduce"), "{result}");
        assert_eq!(world.group_members(&format!("bot-{name}")).await, Vec::<String>::new());

        let child = result["attempts"][0]["nomad_job_id"].as_str().unwrap().replace('/', "%2F");
        let meta = world.nomad.get(&format!("/v1/job/{child}")).await.unwrap()["Meta"].clone();
        for (key, value) in [("formula", name), ("bot", name), ("issue_number", "42")] {
            assert_eq!(meta[key], value, "{meta}");
        }
        assert_eq!(
            (&meta["action_id"], &meta["project_toml"]),
            (&json!(format!("{name}-42")), &json!(project))
        );
    }
    assert_eq!(fs::read_to_string(&ops).unwrap(), "an action\n");
}

/// A base job like the sidecar whose tasks can read their own Vault token, so that a test can try it.
fn revealing_base_job(world: &World) -> String {
    let text = include_str!("../../jobs/sidecar.nomad.hcl").replace("job \"sidecar\"", "job \"revealing\"");
    let revealing = text.replace("disable_file = true", "disable_file = false");
    assert_ne!(revealing, text, "the sidecar hides its token otherwise");
    let folder = world.path("jobs");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("revealing.nomad.hcl"), revealing).unwrap();
    format!("driver = \"exec\"\njobs = \"{}\"", folder.display())
}

#[tokio::test]
async fn a_bots_token_is_out_of_reach_of_other_bots_and_after_the_end() {
    let world = World::new("bots").await;
    let jobs = revealing_base_job(&world);
    world.bootstrap_with(&world.config_toml().replace("driver = \"raw_exec\"", &jobs));
    let bots = [world.bot("mine"), world.bot("yours")];
    for bot in &bots {
        world.put_bot(bot, format!("token of {bot}").as_bytes());
    }
    let data = world.data();
    let _agent = world.agent().await;
    let folder = format!("/srv/agent-data/{}", world.name);
    let formula = format!(
        "cat \"$NOMAD_SECRETS_DIR/vault_token\" >{folder}/$BOT_NAME.part\n\
         mv {folder}/$BOT_NAME.part {folder}/$BOT_NAME\nwhile ! [ -e {folder}/go-on ]; do sleep 0.1; done\n"
    );
    let files: Vec<(String, String)> = bots
        .iter()
        .map(|bot| {
            let text = action(bot, "triage", &format!("job = \"revealing\"\nargs = {{ bot = \"{bot}\" }}\n"));
            (format!("actions/{bot}.toml"), text)
        })
        .collect();
    let mut changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    changes.push(("formulas/triage.sh", Some(&formula)));
    world.ops.commit("two bots at once", &changes);
    let mut tokens = Vec::new();
    for bot in &bots {
        let token = wait_for("the allocation's token", LIMIT, async || {
            fs::read_to_string(data.join(bot)).map_err(|error| error.to_string())
        });
        tokens.push(token.await);
    }
    let read = async |token: &str, bot: &str| {
        let url = format!("{}/v1/secret/data/{}-bots/{bot}", world.servers.vault_address, world.name);
        crate::support::http().get(url).header("X-Vault-Token", token).send().await.unwrap().status().as_u16()
    };
    for (token, own) in tokens.iter().zip(&bots) {
        for bot in &bots {
            assert_eq!(read(token, bot).await, if bot == own { 200 } else { 403 }, "{own} reads {bot}");
        }
    }
    fs::write(data.join("go-on"), "").unwrap();
    for bot in &bots {
        ends_with_code(&world.result(bot, LIMIT).await, "succeeded", "success", 0);
    }
    for bot in &bots {
        for token in &tokens {
            assert_eq!(read(token, bot).await, 403, "after the end");
        }
        assert_eq!(world.group_members(&format!("bot-{bot}")).await, Vec::<String>::new());
    }
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_sidecar_cannot_run_ends_as_documented() {
    let world = World::new("others").await;
    world.bootstrap_with_volumes("");
    let bot = world.bot("known");
    world.put_bot(&bot, b"a token");
    let _agent = world.agent().await;
    let nobody = world.bot("nobody");
    let helpers = [
        ("other", helper("other", "greet", &format!("bot = \"{bot}\""))),
        ("missing", helper("missing", "gret", &format!("bot = \"{bot}\""))),
        ("stranger", helper("stranger", "triage", &format!("bot = \"{nobody}\""))),
        ("illegal", helper("illegal", "triage", "bot = \"../runner/KEY\"")),
    ];
    let paths = helpers.each_ref().map(|(id, _)| format!("actions/{id}.toml"));
    let mut files: Vec<(&str, Option<&str>)> =
        paths.iter().zip(&helpers).map(|(path, (_, text))| (path.as_str(), Some(text.as_str()))).collect();
    files.push(("formulas/greet.sh", Some("echo hello\n")));
    files.push(("formulas/triage.sh", Some("echo hello\n")));
    world.ops.commit("four that cannot run", &files);

    let other = world.result("other", LIMIT).await;
    ends_with_code(&other, "failed", "exit_code", 123);
    says(&other, "runs the formulas reproduce, triage, verify alone");
    assert_eq!(other["logs"], "", "the formula did not run");
    let missing = world.result("missing", LIMIT).await;
    ends_with_code(&missing, "rejected", "unknown_formula", 125);
    let stranger = world.result("stranger", LIMIT).await;
    ends_with_code(&stranger, "rejected", "unknown_secret", 125);
    says(&stranger, &format!("consign secret put --bot {nobody}"));
    let illegal = world.result("illegal", LIMIT).await;
    ends_with_code(&illegal, "rejected", "invalid", 125);
    says(&illegal, "not a legal bot name");
    for result in [&missing, &stranger, &illegal] {
        assert_eq!(result["attempts"], json!([]));
    }
    assert_eq!(world.children_of("sidecar").await.len(), 1);
}

#[tokio::test]
async fn under_raw_exec_a_sidecar_is_refused_before_launch() {
    let world = World::new("no-volumes").await;
    world.bootstrap("");
    let bot = world.bot("known");
    world.put_bot(&bot, b"a token");
    let agent = world.agent().await;
    world.ops.commit(
        "it cannot mount",
        &[
            ("formulas/triage.sh", Some("echo hello\n")),
            ("actions/helper.toml", Some(&helper("helper", "triage", &format!("bot = \"{bot}\"")))),
        ],
    );
    let result = world.result("helper", LIMIT).await;
    ends_with_code(&result, "failed", "missing_mount", 125);
    says(&result, "the driver raw_exec has no volumes: use docker or exec");
    assert_eq!((&result["attempts"], agent.health().await["degraded"].as_bool()), (&json!([]), Some(false)));
    assert_eq!(world.children_of("sidecar").await, Vec::<String>::new());
}

#[tokio::test]
async fn under_docker_a_sidecar_has_its_volumes_and_no_more_than_it_needs() {
    let world = World::on(servers_with_docker(), "hardened").await;
    let docker = format!("driver = \"docker\"\nimage = \"{}\"\n", images::BUSYBOX);
    world.bootstrap_with(&world.config_toml().replace("driver = \"raw_exec\"\n", &docker));
    let bot = world.bot("hardened");
    world.put_bot(&bot, AWKWARD.as_bytes());
    let data = world.data();
    let _agent = world.agent().await;
    let formula = format!(
        "printf '%s' \"$BOT_TOKEN\" >/srv/agent-data/{}/token\n\
         touch /x /srv/ops-repo/x 2>/dev/null && echo writable\n\
         ls /var/run/docker.sock /run/docker.sock 2>/dev/null\n\
         grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t'\n\
         cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max 2>/dev/null || \
         cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes\n",
        world.name
    );
    world.ops.commit(
        "look around",
        &[
            ("formulas/triage.sh", Some(&formula)),
            ("actions/look.toml", Some(&helper("look", "triage", &format!("bot = \"{bot}\"")))),
        ],
    );
    let result = world.result("look", LIMIT).await;
    ends_with_code(&result, "succeeded", "success", 0);
    let expected = "CapBnd:0000000000000000\nCapEff:0000000000000000\nNoNewPrivs:1\n512\n536870912\n";
    let mut lines: Vec<&str> = result["logs"].as_str().unwrap().lines().collect();
    lines.sort_by_key(|line| !line.contains(':'));
    lines[..3].sort_unstable();
    assert_eq!(lines, expected.lines().collect::<Vec<_>>(), "{result}");
    assert_eq!(fs::read_to_string(data.join("token")).unwrap(), AWKWARD);
}

#[tokio::test]
async fn without_its_volumes_on_any_node_a_sidecar_is_refused_at_once() {
    let own = OwnServers::start().await;
    let world = World::on(own.servers.clone(), "bare").await;
    world.bootstrap_with_volumes("");
    world.put_bot("triage", b"a token");
    let agent = world.agent().await;
    world.ops.commit(
        "no node has them",
        &[
            ("formulas/triage.sh", Some("echo hello\n")),
            ("actions/helper.toml", Some(&helper("helper", "triage", "issue_number = \"1\""))),
        ],
    );
    let result = world.result("helper", Duration::from_secs(30)).await;
    ends_with_code(&result, "failed", "missing_mount", 125);
    says(&result, "project-repos");
    assert_eq!(world.children_of("sidecar").await, Vec::<String>::new());
    drop(agent);
    own.nomad.stop().await.unwrap();
    own.vault.stop().await.unwrap();
}

/// Dispatches the sidecar by hand; gives the result of the child.
async fn by_hand(world: &World, meta: Value, script: &str) -> Value {
    let body = json!({"Meta": meta, "Payload": STANDARD.encode(script)});
    let answer = world.nomad.request(Method::PUT, "/v1/job/sidecar/dispatch", Some(body)).await.unwrap();
    let child = answer["DispatchedJobID"].as_str().unwrap().to_owned();
    let allocations = format!("/v1/job/{}/allocations?all=true", child.replace('/', "%2F"));
    wait_for(&format!("the result of {child}"), LIMIT, async || {
        let paths = world.ops.paths();
        let results = paths.iter().filter(|path| path.starts_with("actions/by-hand/"));
        let mut read = results.filter_map(|path| serde_json::from_str::<Value>(&world.ops.read(path)?).ok());
        if let Some(result) = read.find(|result| result["attempts"][0]["nomad_job_id"] == child.as_str()) {
            return Ok(result);
        }
        let nomad = world.nomad.get(&allocations).await;
        Err(format!("{paths:?}; {}; Nomad: {nomad:?}", world.end_of_log()))
    })
    .await
}

#[tokio::test]
async fn by_hand_a_sidecar_runs_as_no_bot_or_as_a_listed_one() {
    let world = World::new("hand-bots").await;
    let (listed, other) = (world.bot("listed"), world.bot("other"));
    world.bootstrap_with_volumes(&format!("\n[adopt]\nbots = [\"{listed}\"]\n"));
    for bot in [&listed, &other] {
        world.put_bot(bot, format!("token of {bot}").as_bytes());
    }
    let data = world.data();
    let _agent = world.agent().await;
    let script = format!(
        "echo \"${{BOT_NAME-nobody}} $ARG_ISSUE_NUMBER\"\nprintf '%s' \"${{BOT_TOKEN-none}}\" >/srv/agent-data/{}/$CONSIGN_ACTION_ID\n",
        world.name
    );
    let meta = |id: &str| json!({"formula": "triage", "issue_number": "7", "action_id": id});
    let nobody = by_hand(&world, meta("nobody"), &script).await;
    ends_with_code(&nobody, "succeeded", "success", 0);
    assert_eq!(nobody["logs"], "nobody 7\n");
    assert_eq!(fs::read_to_string(data.join("nobody")).unwrap(), "none");
    let with_bot = |id: &str, bot: &str| {
        let mut meta = meta(id);
        meta["bot"] = bot.into();
        meta
    };
    let allowed = by_hand(&world, with_bot("allowed", &listed), &script).await;
    ends_with_code(&allowed, "succeeded", "success", 0);
    assert_eq!(fs::read_to_string(data.join("allowed")).unwrap(), format!("token of {listed}"));
    let refused = by_hand(&world, with_bot("refused", &other), &script).await;
    ends_with_code(&refused, "rejected", "not_adopted", 125);
    says(&refused, "[adopt] bots");
    assert!(!data.join("refused").exists());
    let unnamed = by_hand(&world, json!({}), &script).await;
    ends_with_code(&unnamed, "failed", "exit_code", 123);
    assert_eq!(world.group_members(&format!("bot-{listed}")).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_shipped_sidecar_is_valid_as_it_stands() {
    let world = World::new("valid").await;
    let output = Command::new(std::env::var_os("CONSIGN_NOMAD").unwrap_or_else(|| "nomad".into()))
        .args(["job", "validate", "jobs/sidecar.nomad.hcl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("NOMAD_ADDR", &world.servers.nomad_address)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
