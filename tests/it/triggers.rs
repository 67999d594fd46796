//! Triggers: what starts work by itself, on real servers.

mod sample;
mod sources;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Agent, LIMIT, World, wait_for};

pub(crate) const TOKEN: &str = "a-token-of-its-own";

/// A world with an agent that has triggers, and a token that may do everything.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) agent: Option<Agent>,
    pub(crate) admin: String,
    http: reqwest::Client,
}

/// The formula that triggers start here: it writes a line to the ledger, and waits for `go` where `hold` is there.
fn formula(world: &World) -> String {
    format!(
        "echo ran >> {ledger}\nwhile [ -e {hold} ]; do sleep 0.1; done\n[ ! -e {fail} ]\n",
        ledger = world.ledger().display(),
        hold = world.path("hold").display(),
        fail = world.path("fail").display(),
    )
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Stage {
    /// Triggers as `triggers` writes them; `{folder}` stands for the test's folder.
    pub(crate) async fn new(name: &str, triggers: &str) -> Self {
        let world = World::new(name).await;
        let folder = world.path("");
        private(&world.path("token"), &format!("{TOKEN}\n"));
        private(&world.path("key"), "a key\n");
        let triggers = triggers.replace("{folder}", folder.to_str().unwrap().trim_end_matches('/'));
        world.bootstrap(&format!("\n{triggers}"));
        world.ops.commit("formulas", &[("formulas/train.sh", Some(&formula(&world)))]);
        let agent = world.agent().await;
        let output = world.operate(&["token", "create", "ann", "--scope", "admin"], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let admin = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        let http = crate::support::http();
        let stage = Self { world, agent: Some(agent), admin, http };
        stage.reads_the_ops_repo().await;
        stage
    }

    async fn reads_the_ops_repo(&self) {
        wait_for("the ops repo to be read", LIMIT, async || {
            let body = r#"{"formula": "nothing"}"#;
            let url = format!("{}/jobs", self.world.agent_address());
            let answer = self.http.post(url).bearer_auth(&self.admin).body(body).send().await.unwrap();
            if answer.status() == 404 { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    async fn start(&mut self) {
        self.agent = Some(self.world.agent().await);
        self.reads_the_ops_repo().await;
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.world.agent_address());
        let mut request = self.http.post(url).body(body.to_owned());
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        read(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.world.agent_address());
        read(self.http.get(url).bearer_auth(&self.admin).send().await.unwrap()).await.1
    }

    /// The ledger of a trigger, the earliest event first.
    pub(crate) async fn ledger(&self, trigger: &str) -> Vec<Value> {
        let details = self.get(&format!("/triggers/{trigger}?events=1000")).await;
        let mut events = details["events"].as_array().cloned().unwrap_or_default();
        events.reverse();
        events
    }

    async fn fates(&self, trigger: &str) -> Vec<String> {
        let fate = |event: &Value| {
            let reason = event["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{}{reason}", event["fate"].as_str().unwrap())
        };
        self.ledger(trigger).await.iter().map(fate).collect()
    }

    async fn until_fates(&self, trigger: &str, fates: &[&str]) {
        wait_for(&format!("{trigger} to have {fates:?}"), LIMIT, async || {
            let present = self.fates(trigger).await;
            if present == fates { Ok(()) } else { Err(format!("{present:?}")) }
        })
        .await;
    }

    /// Waits until the trigger's standing begins with `reason`.
    pub(crate) async fn until_standing(&self, trigger: &str, reason: &str) -> Value {
        wait_for(&format!("{trigger} to be {reason}"), LIMIT, async || {
            let details = self.get(&format!("/triggers/{trigger}")).await;
            let stands = details["reason"].as_str().is_some_and(|present| present.starts_with(reason));
            if stands { Ok(details) } else { Err(details.to_string()) }
        })
        .await
    }

    fn runs(&self) -> usize {
        self.world.ledger_lines().len()
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.world.consign(arguments).env("CONSIGN_TOKEN", &self.admin).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

/// Prints what was measured, for whoever runs the test with `--nocapture`.
#[expect(clippy::print_stderr, reason = "a figure is for whoever looks")]
fn figure(text: &str) {
    eprintln!("{text}");
}

/// A trigger of a kind with these further keys.
pub(crate) fn trigger(name: &str, kind: &str, keys: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nkind = \"{kind}\"\n{keys}\n\
         [trigger.action]\nformula = \"train\"\nblast_radius = \"low\"\n"
    )
}

/// A webhook with these further keys.
pub(crate) fn webhook(name: &str, keys: &str) -> String {
    trigger(name, "webhook", &format!("token_file = \"{{folder}}/token\"\n{keys}"))
}

#[tokio::test]
async fn a_webhook_triggers_cools_down_and_can_be_forced() {
    let keys = "path = \"/trigger-training\"\ncooldown = \"6h\"\nallow_force = true\nmarker_file = \"{folder}/marker\"";
    let mut stage = Stage::new("trigger", &webhook("train", keys)).await;
    let check = |stage: &Stage| stage.command(&["trigger", "check", "train"]).1;
    assert!(check(&stage).starts_with("should_train=true\nreason=no_previous_training\nlast_trained=\n"));
    fs::write(stage.world.path("hold"), "").unwrap();

    let (status, first) = stage.post("/trigger-training", TOKEN, "{\"commit\": \"abc\"}").await;
    assert_eq!((status, &first["status"]), (200, &json!("triggered")), "{first}");
    let job = stage.get(&format!("/jobs/{}", first["job_id"].as_str().unwrap())).await;
    assert_eq!((&job["submitted_by"], &job["context"]), (&json!("trigger train"), &json!("train")));
    assert!(check(&stage).contains("should_train=false\nreason=already_running\n"));
    // Neither a second call nor a forced one runs beside it.
    for path in ["/triggers/train", "/triggers/train?force=true"] {
        let (status, answer) = stage.post(path, TOKEN, "").await;
        assert_eq!((status, &answer["status"]), (200, &json!("skipped")));
        assert_eq!(answer["reason"], "already_running");
    }
    assert!(stage.world.path("marker.running").exists());
    // The agent dies while it runs, and the run ends badly meanwhile: that starts the cooldown too.
    stage.agent.take().unwrap().kill();
    assert!(check(&stage).contains("reason=already_running"), "told by the marker file");
    fs::write(stage.world.path("fail"), "").unwrap();
    fs::remove_file(stage.world.path("hold")).unwrap();
    stage.start().await;
    stage.until_standing("train", "cooldown_active_6h").await;
    assert_eq!(stage.get(&format!("/jobs/{}", first["job_id"].as_str().unwrap())).await["state"], "failed");
    let (_, answer) = stage.post("/trigger-training", TOKEN, "").await;
    assert_eq!((&answer["status"], &answer["reason"]), (&json!("skipped"), &json!("cooldown_active")));
    let left = answer["seconds_left"].as_i64().unwrap();
    assert!((21_000..=21_600).contains(&left), "{answer}");
    let (code, out, _) = stage.command(&["trigger", "check", "train"]);
    assert_eq!(code, Some(0));
    let keys: Vec<&str> = out.lines().map(|line| line.split('=').next().unwrap()).collect();
    let expected =
        ["should_train", "reason", "last_trained", "elapsed_seconds", "cooldown_seconds", "next_allowed"];
    assert_eq!(keys, expected);
    assert!(out.contains("\ncooldown_seconds=21600\n"), "{out}");
    let marker = fs::read_to_string(stage.world.path("marker")).unwrap();
    assert!(marker.trim().parse::<jiff::Timestamp>().is_ok(), "{marker}");
    assert!(!stage.world.path("marker.running").exists());

    fs::remove_file(stage.world.path("fail")).unwrap();
    let first_event = first["event_id"].as_str().unwrap();
    let (code, out, said) = stage.command(&["trigger", "fire", "train", "--force", "--event", first_event]);
    assert_eq!((code, out.trim().len()), (Some(0), 26), "{said}");
    let job = stage.get(&format!("/jobs/{}", out.trim())).await;
    assert_eq!(job["submitted_by"], "ann", "a person who fires it is the submitter");
    stage.until_standing("train", "cooldown_active").await;
    let ledger = stage.ledger("train").await;
    assert_eq!(
        ledger.last().unwrap()["content"],
        "{\"commit\":\"abc\"}",
        "what came with the event came again"
    );
    assert_eq!(ledger.last().unwrap()["origin"], "fired");
    let expected = [
        "ran",
        "suppressed: already_running",
        "suppressed: already_running",
        "suppressed: cooldown_active",
        "ran",
    ];
    assert_eq!(stage.fates("train").await, expected);
    assert_eq!(stage.runs(), 2);
    let (_, table, _) = stage.command(&["trigger", "show", "train"]);
    assert!(table.contains("127.0.0.1") && table.contains("cooldown_active"), "{table}");
    let (_, table, _) = stage.command(&["trigger", "list"]);
    assert!(table.contains("train") && table.contains("webhook"), "{table}");
}

#[tokio::test]
async fn who_is_refused_is_on_record_without_what_they_showed() {
    let triggers = [
        webhook("train", "path = \"/trigger-training\"\ncooldown = \"6h\""),
        webhook("signed", "").replace("token_file = \"{folder}/token\"", "hmac_file = \"{folder}/key\""),
    ];
    let stage = Stage::new("refused", &triggers.concat()).await;
    let huge = format!("{{\"a\": \"{}\"}}", "x".repeat(100_000));
    let query = format!("/trigger-training?token={TOKEN}");
    for (path, token, body, expected) in [
        ("/trigger-training", "wrong-token", "", 401),
        ("/trigger-training", "", "", 401),
        (&query, "", "", 401),
        (&query, TOKEN, "", 401),
        ("/trigger-training", TOKEN, huge.as_str(), 413),
        ("/trigger-training", "wrong-token", huge.as_str(), 401),
        ("/trigger-training", TOKEN, "{", 400),
        ("/trigger-training", TOKEN, "[]", 422),
        ("/trigger-training?force=true", TOKEN, "", 403),
        ("/trigger-training?forced=yes", TOKEN, "", 422),
    ] {
        let (status, problem) = stage.post(path, token, body).await;
        assert_eq!(status, expected, "{path} {problem}");
        assert!(!problem.to_string().contains(TOKEN));
    }
    assert_eq!(stage.post("/triggers/nothing", TOKEN, "").await.0, 401, "it is not for others to know");
    assert_eq!(stage.post("/triggers/nothing", &stage.admin, "").await.0, 404);
    assert_eq!(stage.post("/trigger", TOKEN, "").await.0, 404);
    let ledger = stage.ledger("train").await;
    assert_eq!(ledger.len(), 10);
    for event in &ledger {
        assert_eq!((&event["fate"], &event["caller"]), (&json!("refused"), &json!("127.0.0.1")), "{event}");
    }
    let everything = [serde_json::to_string(&ledger).unwrap(), stage.agent.as_ref().unwrap().log()].concat();
    assert!(!everything.contains(TOKEN) && !everything.contains("wrong-token"));

    // A signature is good for its body, its time, and once.
    let send = async |timestamp: i64, key: &[u8], body: &str| {
        let signature = consign::webhook::sign(key, format!("{timestamp}.{body}").as_bytes());
        let url = format!("{}/triggers/signed", stage.world.agent_address());
        let request = stage.http.post(url).body(body.to_owned());
        let request =
            request.header("X-Consign-Timestamp", timestamp).header("X-Consign-Signature", signature);
        read(request.send().await.unwrap()).await.0
    };
    let now = jiff::Timestamp::now().as_second();
    assert_eq!(send(now, b"another key", "{}").await, 401);
    assert_eq!(send(now - 400, b"a key", "{}").await, 401);
    assert_eq!(send(now + 400, b"a key", "{}").await, 401);
    assert_eq!(send(now, b"a key", "{}").await, 200);
    assert_eq!(send(now, b"a key", "{}").await, 401, "a replay");
    assert_eq!(stage.post("/triggers/signed", TOKEN, "").await.0, 401, "it has no token");
    wait_for(
        "the run",
        LIMIT,
        async || if stage.runs() == 1 { Ok(()) } else { Err(stage.runs().to_string()) },
    )
    .await;

    // A file that others may read keeps the agent from starting, and `validate` says so.
    let mode =
        |mode| fs::set_permissions(stage.world.path("token"), fs::Permissions::from_mode(mode)).unwrap();
    let config = stage.world.path("consign.toml");
    let validate = || stage.command(&["validate", config.to_str().unwrap()]);
    assert_eq!(validate().0, Some(0), "{:?}", validate());
    mode(0o644);
    let (code, said, _) = validate();
    assert!(code == Some(1) && said.contains("0600"), "{said}");
    drop(stage.agent);
    let mut agent = stage.world.launch_agent(&[]);
    assert!(!agent.ended().await.success() && agent.log().contains("0600"));
}

#[tokio::test]
async fn a_thousand_posts_at_once_give_one_run_and_reasons() {
    let stage = Stage::new("thousand", &webhook("train", "cooldown = \"6h\"")).await;
    let url = format!("{}/triggers/train", stage.world.agent_address());
    let clients = (0..50).map(|_| {
        let url = url.clone();
        tokio::spawn(async move {
            let client = crate::support::http();
            let mut answers = Vec::new();
            for _ in 0..20 {
                let begun = std::time::Instant::now();
                let answer = read(client.post(&url).bearer_auth(TOKEN).send().await.unwrap()).await;
                assert_eq!(answer.0, 200, "{}", answer.1);
                answers.push((
                    answer.1["status"].as_str().unwrap().to_owned(),
                    answer.1["reason"].clone(),
                    begun.elapsed(),
                ));
            }
            answers
        })
    });
    let mut answers = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        answers.extend(client.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|(status, ..)| status == "triggered").count(), 1);
    let explained = |reason: &Value| *reason == "already_running" || *reason == "cooldown_active";
    let skipped = answers.iter().filter(|(status, reason, _)| status == "skipped" && explained(reason));
    assert_eq!(skipped.count(), 999);
    let mut times: Vec<Duration> = answers.iter().map(|(.., time)| *time).collect();
    times.sort_unstable();
    figure(&format!(
        "50 clients at once: answers after {:?} (median), {:?} (slowest)",
        times[500], times[999]
    ));
    let ledger = stage.ledger("train").await;
    assert_eq!(ledger.len(), 1000);
    assert_eq!(ledger.iter().filter(|event| event["fate"] == "ran").count(), 1);
    stage.until_standing("train", "cooldown_active").await;
    assert_eq!(stage.runs(), 1);
    assert_eq!(stage.world.children().await.len(), 1);
}

#[tokio::test]
async fn a_group_shares_its_cooldown_and_what_is_queued_runs_later() {
    let triggers = [
        webhook("ci", "cooldown = \"6h\"\ncooldown_group = \"training\""),
        webhook("hand", "cooldown = \"6h\"\ncooldown_group = \"training\""),
        webhook("queued", "overlap = \"queue\"")
            .replace("[trigger.action]", "event_argument = \"event\"\n[trigger.action]"),
        webhook("broken", "").replace("\"train\"\nblast", "\"nothing\"\nblast"),
    ];
    let mut stage = Stage::new("group", &triggers.concat()).await;
    let event = "description = \"shows its event\"\n[args.event]\nrequired = true\n[[steps]]\nname = \"a\"\nrun = \"echo \\\"$ARG_EVENT\\\"\"\n";
    fs::write(stage.world.path("hold"), "").unwrap();
    assert_eq!(stage.post("/triggers/ci", TOKEN, "").await.1["status"], "triggered");
    assert_eq!(stage.post("/triggers/hand", TOKEN, "").await.1["reason"], "already_running");
    fs::remove_file(stage.world.path("hold")).unwrap();
    stage.until_standing("hand", "cooldown_active_6h").await;
    assert_eq!(stage.post("/triggers/hand", TOKEN, "").await.1["reason"], "cooldown_active");

    let (status, problem) = stage.post("/triggers/broken", TOKEN, "").await;
    assert_eq!(status, 404, "{problem}");
    assert!(stage.fates("broken").await[0].starts_with("failed: "), "{problem}");
    assert_eq!(stage.get("/triggers/broken").await["reason"], "no_previous_training");

    // Three calls while it runs wait together, over a crash too, and run once.
    stage.world.ops.commit("event", &[("formulas/train.sh", None), ("formulas/train.toml", Some(event))]);
    let (_, first) = wait_for("the formula to be read", LIMIT, async || {
        let (status, answer) = stage.post("/triggers/queued", TOKEN, "{\"n\": 1}").await;
        if status == 200 { Ok((status, answer)) } else { Err(answer.to_string()) }
    })
    .await;
    let _ = &first;
    let mut waiting = Vec::new();
    for n in 2..5 {
        waiting.push(stage.post("/triggers/queued", TOKEN, &format!("{{\"n\": {n}}}")).await.1);
    }
    stage.agent.take().unwrap().kill();
    stage.start().await;
    let last = wait_for("what waited to have run", LIMIT, async || {
        let ledger = stage.ledger("queued").await;
        let open = ledger.iter().any(|event| event["fate"] == "pending");
        let ran = ledger.iter().rev().find(|event| event["fate"] == "ran").cloned();
        ran.filter(|_| !open).ok_or_else(|| format!("{ledger:?}"))
    })
    .await;
    let job_id = last["job_id"].as_str().unwrap().to_owned();
    let job = wait_for("its end", LIMIT, async || {
        let job = stage.get(&format!("/jobs/{job_id}")).await;
        if job["state"] == "done" { Ok(job) } else { Err(job.to_string()) }
    })
    .await;
    assert_eq!(job["result"]["logs"], "{\"n\":4}\n", "the content of the last one: {waiting:?}");
}
