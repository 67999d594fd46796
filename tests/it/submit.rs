//! Work without a commit: over HTTP and by `consign submit`.

use std::process::Output;

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{LIMIT, World, wait_for};

/// A caller with a token.
pub(crate) struct Caller<'world> {
    world: &'world World,
    pub(crate) token: String,
}

impl<'world> Caller<'world> {
    pub(crate) fn new(world: &'world World, name: &str, scopes: &str) -> Self {
        Self { world, token: world.token(name, scopes) }
    }

    async fn post(&self, body: &str, key: Option<&str>) -> Response {
        let url = format!("{}/jobs", self.world.agent_address());
        let mut request = crate::support::http().post(url).bearer_auth(&self.token).body(body.to_owned());
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        request.send().await.unwrap()
    }

    /// The job of a submission that is taken.
    pub(crate) async fn taken(&self, body: &Value, key: Option<&str>) -> String {
        let response = self.post(&body.to_string(), key).await;
        assert_eq!(response.status().as_u16(), 202, "{body}");
        let place = response.headers()["location"].to_str().unwrap().to_owned();
        let answer = read(response).await;
        let job_id = answer["job_id"].as_str().unwrap().to_owned();
        assert_eq!(place, format!("/jobs/{job_id}"));
        job_id
    }

    /// Status and detail of a submission that is not taken.
    async fn refused(&self, body: &str, key: Option<&str>) -> (u16, String) {
        let response = self.post(body, key).await;
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{status} {body}");
        (status, read(response).await["detail"].as_str().unwrap().to_owned())
    }

    /// Status and answer of an order about a job.
    pub(crate) async fn order(&self, job_id: &str, verb: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/jobs/{job_id}/{verb}", self.world.agent_address());
        let request = crate::support::http().post(url).bearer_auth(&self.token).body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), read(response).await)
    }

    pub(crate) async fn get(&self, job_id: &str) -> (u16, Value) {
        let url = format!("{}/jobs/{job_id}", self.world.agent_address());
        let response = crate::support::http().get(url).bearer_auth(&self.token).send().await.unwrap();
        (response.status().as_u16(), read(response).await)
    }

    pub(crate) async fn until(&self, job_id: &str, state: &str) -> Value {
        wait_for(&format!("{job_id} to be {state}"), LIMIT, async || {
            let (_, job) = self.get(job_id).await;
            if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
        })
        .await
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.world.consign(arguments).env("CONSIGN_TOKEN", &self.token).output().unwrap()
    }
}

async fn read(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

pub(crate) fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A formula that writes a line to the ledger and takes the argument `who`, and one that exits with 3.
fn formulas(world: &World) {
    let greet = format!(
        "description = \"greets\"\nartifacts = [\"*.txt\"]\n\
         [args.who]\nrequired = true\npattern = \"[a-z]+\"\n\
         [[steps]]\nname = \"greet\"\n\
         run = \"echo hello $ARG_WHO [$CONSIGN_ACTION_ID] $CONSIGN_CONTEXT; echo $ARG_WHO >> {}; touch kept.txt\"\n",
        world.ledger().display()
    );
    let files =
        [("formulas/greet.toml", Some(greet.as_str())), ("formulas/three.sh", Some("echo before\nexit 3\n"))];
    world.ops.commit("formulas", &files);
}

/// An agent that has read the formulas.
pub(crate) async fn agent(world: &World) -> crate::support::Agent {
    formulas(world);
    let agent = world.agent().await;
    let caller = Caller::new(world, "first", "submit");
    wait_for("the ops repo to be read", LIMIT, async || {
        let (status, detail) = caller.refused("{}", None).await;
        if status == 422 { Ok(()) } else { Err(detail) }
    })
    .await;
    agent
}

#[tokio::test]
async fn a_submission_runs_and_its_result_is_read_back() {
    let world = World::new("submit").await;
    world.bootstrap("");
    let _agent = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit");
    let before = world.ops.paths();
    let body = json!({ "formula": "greet", "args": { "who": "ben" }, "blast_radius": "low" });
    let job_id = ann.taken(&body, None).await;
    let job = ann.until(&job_id, "done").await;
    let result = &job["result"];
    assert_eq!(result["logs"], "hello ben [] submitted by ann\n");
    assert_eq!((&result["id"], &result["job_id"]), (&json!(job_id), &json!(job_id)));
    assert_eq!((&result["outcome"], &result["exit_code"]), (&json!("succeeded"), &json!(0)));
    assert_eq!((&job["action_id"], &job["submitted_by"]), (&Value::Null, &json!("ann")));
    assert_eq!(job["artifacts"][0]["name"], "kept.txt");
    assert!(job["approved_by"].as_str().unwrap().contains("submitted by ann"), "{job}");
    assert_eq!(job["revision"].as_str().unwrap().len(), 40);
    assert_eq!(world.ledger_lines(), ["ben"]);
    // An action may wait for it by its job id.
    let after =
        json!({ "formula": "greet", "args": { "who": "cat" }, "blast_radius": "low", "after": [job_id] });
    ann.until(&ann.taken(&after, None).await, "done").await;

    let low = |formula: &str, args: Value| {
        json!({ "formula": formula, "args": args, "blast_radius": "low" }).to_string()
    };
    for (body, status, words) in [
        ("{".to_owned(), 400, "not JSON"),
        (low("gret", json!({})), 404, "`greet`"),
        (low("greet", json!({ "who": "BEN" })), 422, "`who`"),
        (low("greet", json!({})), 422, "`who`"),
        (low("greet", json!({ "who": "a", "when": "b" })), 422, "`when`"),
        (json!({ "formula": "three", "priority": 101 }).to_string(), 422, "`priority`"),
        (json!({ "formula": "three", "id": "mine" }).to_string(), 422, "`id`"),
        (json!({ "formula": "three", "mounts": ["nowhere"] }).to_string(), 422, "`mounts`"),
        (json!({ "formula": "three", "context": "a".repeat(70_000) }).to_string(), 413, ""),
    ] {
        let (refused, detail) = ann.refused(&body, None).await;
        assert_eq!(refused, status, "{body}: {detail}");
        assert!(detail.contains(words), "{body}: {detail}");
    }
    let reader = Caller::new(&world, "reader", "read");
    assert_eq!(reader.refused(&body.to_string(), None).await.0, 403);
    assert_eq!(world.ledger_lines(), ["ben", "cat"], "nothing else ran");
    assert_eq!(world.ops.paths(), before, "nothing is written to the ops repo");
}

#[tokio::test]
async fn a_key_makes_one_job_also_over_a_crash() {
    let world = World::new("idempotency").await;
    world.bootstrap("");
    let first = agent(&world).await;
    let (ann, ben) = (Caller::new(&world, "ann", "read,submit"), Caller::new(&world, "ben", "submit"));
    let body = |who: &str| json!({ "formula": "greet", "args": { "who": who }, "blast_radius": "low" });
    let (same, key) = (body("a"), Some("k-1"));
    let (one, two, three) = tokio::join!(ann.taken(&same, key), ann.taken(&same, key), ann.taken(&same, key));
    assert!(one == two && two == three, "one job for three requests at once");
    let (status, detail) = ann.refused(&body("b").to_string(), key).await;
    assert!(status == 409 && detail.contains("Idempotency-Key"), "{status} {detail}");
    assert_ne!(ben.taken(&body("b"), key).await, one, "another submitter's key is another key");
    first.kill();
    let _second = world.agent().await;
    assert_eq!(ann.taken(&body("a"), key).await, one);
    assert_eq!(ann.refused(&body("b").to_string(), key).await.0, 409);
    ann.until(&one, "done").await;
    assert_eq!(ann.taken(&body("a"), key).await, one, "also once it has ended");
    let mut ran = wait_for("both to have run", LIMIT, async || {
        let lines = world.ledger_lines();
        if lines.len() < 2 { Err(format!("{lines:?}")) } else { Ok(lines) }
    })
    .await;
    ran.sort_unstable();
    assert_eq!(ran, ["a", "b"]);
}

#[tokio::test]
async fn the_command_waits_and_ends_as_the_job_does() {
    let world = World::new("submits").await;
    world.bootstrap("");
    let _agent = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit");
    let submit = |further: &[&str]| ann.run(&[&["submit"], further].concat());
    let three = ["--formula", "three", "--blast-radius", "low"];

    let waited = submit(&[&three[..], &["--wait"]].concat());
    let (out, err) = said(&waited);
    assert_eq!(waited.status.code(), Some(3), "{err}");
    assert_eq!(out.trim().len(), 26, "{out}");
    assert!(err.contains(out.trim()), "{err}");
    let followed = submit(&[&three[..], &["--follow"]].concat());
    assert_eq!((followed.status.code(), said(&followed).0.as_str()), (Some(3), "before\n"));
    let json = submit(&[&three[..], &["--wait", "--json"]].concat());
    let job: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &job["exit_code"]), (Some(3), &json!(3)));

    let file = world.path("greet.toml");
    let text = "id = \"greet\"\nformula = \"greet\"\ncontext = \"why\"\nsecrets = []\nblast_radius = \"low\"\n\
                [args]\nwho = \"file\"\n";
    std::fs::write(&file, text).unwrap();
    let (out, err) = said(&submit(&[file.to_str().unwrap()]));
    assert!(err.contains("consign logs -f"), "{err}");
    let job = ann.until(out.trim(), "done").await;
    assert_eq!(job["result"]["logs"], "hello file [] why\n");

    let unknown = submit(&["--formula", "gret", "--wait"]);
    assert_eq!(unknown.status.code(), Some(125), "no exit code of a job's");
    assert!(said(&unknown).1.contains("`greet`"));
    assert_eq!(submit(&["--formula", "gret"]).status.code(), Some(1));
}

#[tokio::test]
async fn what_needs_more_than_a_merged_formula_waits_and_says_so() {
    let world = World::new("stricter").await;
    world.bootstrap_with(
        &world.config_toml().replace("high = \"merged\"", "high = \"merged\"\napi = \"review\""),
    );
    let agent = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit");
    let job_id = ann.taken(&json!({ "formula": "three", "blast_radius": "low" }), None).await;
    let job = ann.until(&job_id, "waiting").await;
    assert!(job["waits_for"].as_str().unwrap().contains("somebody other than ann"), "{job}");
    agent.kill();
    let _second = world.agent().await;
    assert_eq!(ann.until(&job_id, "waiting").await["attempts"], json!([]));
    assert!(ann.run(&["cancel", &job_id]).status.success());
    let ended = ann.until(&job_id, "failed").await;
    assert_eq!((&ended["cause"], &ended["exit_code"]), (&json!("cancelled"), &json!(130)));
}

#[tokio::test]
async fn ended_submissions_are_forgotten_with_their_artifacts_and_git_work_is_not() {
    let world = World::new("prune").await;
    let config = world.config_toml();
    world.bootstrap_with(&config.replace("[results]", "keep = \"4s\"\n\n[results]"));
    let agent = agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit");
    world.commit_action("from-git", "greet", "args = { who = \"git\" }\n");
    let body = json!({ "formula": "greet", "args": { "who": "a" }, "blast_radius": "low" });
    let job_id = ann.taken(&body, Some("k")).await;
    let git = ann.until("from-git", "done").await["job_id"].as_str().unwrap().to_owned();
    wait_for("the submission to be forgotten", LIMIT, async || {
        let (status, job) = ann.get(&job_id).await;
        if status == 404 { Ok(()) } else { Err(job.to_string()) }
    })
    .await;
    let artifacts = |id: &str| world.path("store/artifacts").join(id).exists();
    assert!(!artifacts(&job_id) && artifacts(&git));
    assert_eq!(ann.get(&git).await.0, 200);
    let again = ann.taken(&body, Some("k")).await;
    assert_ne!(again, job_id, "its key is forgotten with it");
    ann.until(&again, "done").await;
    // What it left in Nomad is still known: nothing is adopted and nothing runs anew.
    let runs = world.children().await.len();
    drop(agent);
    let _second = world.agent().await;
    wait_for("the later one to be forgotten too", LIMIT, async || {
        let (status, job) = ann.get(&again).await;
        if status == 404 { Ok(()) } else { Err(job.to_string()) }
    })
    .await;
    let listed: Value = serde_json::from_slice(&ann.run(&["jobs", "--json"]).stdout).unwrap();
    let ids: Vec<&str> =
        listed.as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [git]);
    assert_eq!(world.children().await.len(), runs);
    let mut ran = world.ledger_lines();
    ran.sort_unstable();
    assert_eq!(ran, ["a", "a", "git"]);
}

#[tokio::test]
async fn a_submission_outlives_the_store_that_took_it() {
    let world = World::new("lost").await;
    world.bootstrap("");
    let first = agent(&world).await;
    let hold = format!(
        "echo begun >> {}\nwhile [ ! -e {} ]; do sleep 0.1; done\n",
        world.ledger().display(),
        world.path("go").display()
    );
    world.ops.commit("a formula", &[("formulas/hold.sh", Some(&hold))]);
    let ann = Caller::new(&world, "ann", "read,submit");
    let body = json!({ "formula": "hold", "blast_radius": "low" });
    let job_id = wait_for("the formula to be known", LIMIT, async || {
        let answer = read(ann.post(&body.to_string(), Some("k")).await).await;
        answer["job_id"].as_str().map(str::to_owned).ok_or_else(|| answer.to_string())
    })
    .await;
    wait_for("the task to run", LIMIT, async || {
        if world.ledger_lines().is_empty() { Err("nothing ran".to_owned()) } else { Ok(()) }
    })
    .await;
    first.kill();
    std::fs::remove_dir_all(world.path("store")).unwrap();
    let second = world.launch_agent(&["--take-over"]);
    second.ready().await;
    let zoe = Caller::new(&world, "zoe", "read");
    assert_eq!(zoe.until(&job_id, "working").await["submitted_by"], "somebody");
    std::fs::write(world.path("go"), "").unwrap();
    let job = zoe.until(&job_id, "done").await;
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job}");
    assert_eq!(world.ledger_lines(), ["begun"]);
    assert_eq!(world.children().await.len(), 1);
}
