//! The API and the commands that talk to a running agent: looking, following, cancelling, retrying.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{LIMIT, World, wait_for};

/// The agent's address and tokens, as the commands of a test use them.
pub(crate) struct Operator<'world> {
    world: &'world World,
    pub(crate) token: String,
}

impl<'world> Operator<'world> {
    /// Somebody with a token of these scopes, made as an operator makes it.
    pub(crate) fn new(world: &'world World, name: &str, scopes: &str) -> Self {
        Self { world, token: world.token(name, scopes) }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.world.consign(arguments).env("CONSIGN_TOKEN", &self.token).output().unwrap()
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A job, once the agent knows it.
    pub(crate) fn look(&self, id: &str) -> Result<Value, String> {
        let output = self.run(&["show", id, "--json"]);
        let said = |_| String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).map_err(said)
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        self.look(id).unwrap()
    }

    pub(crate) async fn until(&self, id: &str, state: &str) -> Value {
        wait_for(&format!("{id} to be {state}"), LIMIT, async || {
            let job = self.look(id)?;
            if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
        })
        .await
    }
}

fn steps_of(job: &Value) -> Vec<(String, i64)> {
    let steps = job["steps"].as_array().unwrap().iter();
    steps
        .map(|step| (step["name"].as_str().unwrap().to_owned(), step["exit_code"].as_i64().unwrap()))
        .collect()
}

fn named(steps: &[(&str, i64)]) -> Vec<(String, i64)> {
    steps.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect()
}

/// A formula of three steps, each of which writes to the ledger; the second fails unless `mended` is there.
fn three_steps(world: &World) -> String {
    let (ledger, mended) = (world.ledger(), world.path("mended"));
    let write = |name: &str| format!("echo {name} $CONSIGN_ATTEMPT >> {}", ledger.display());
    format!(
        "description = \"three steps\"\n\
         [[steps]]\nname = \"one\"\nrun = \"{}\"\n\
         [[steps]]\nname = \"two\"\nrun = \"{}; test -e {}\"\n\
         [[steps]]\nname = \"three\"\nrun = \"{}\"\n",
        write("one"),
        write("two"),
        mended.display(),
        write("three"),
    )
}

#[tokio::test]
async fn a_retry_goes_on_from_the_step_that_failed_and_repeats_none_before_it() {
    let world = World::new("retry").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let ann = Operator::new(&world, "ann", "read,submit");
    world.ops.commit("a formula", &[("formulas/three.toml", Some(&three_steps(&world)))]);
    world.commit_action("job", "three", "");
    let failed = world.result("job", LIMIT).await;
    assert_eq!((&failed["cause"], &failed["exit_code"]), (&json!("exit_code"), &json!(1)));
    assert_eq!(world.ledger_lines(), ["one 1", "two 1"]);
    assert_eq!(steps_of(&failed), named(&[("one", 0), ("two", 1)]));

    assert!(ann.refused(&["retry", "job", "--from-step", "four"]).contains("it has one, two, three"));
    let too_far = ann.refused(&["retry", "job", "--from-step", "three"]);
    assert!(too_far.contains("step \"two\" before it did not pass"), "{too_far}");

    std::fs::write(world.path("mended"), "").unwrap();
    // The formula is taken as it was approved, whatever the branch has now.
    world.ops.commit("another formula", &[("formulas/three.toml", Some("description = \"none\"\n"))]);
    ann.done(&["retry", "job", "--from-step", "two"]);
    let job = ann.until("job", "done").await;
    assert_eq!(world.ledger_lines(), ["one 1", "two 1", "two 2", "three 2"]);
    assert_eq!(steps_of(&job), named(&[("one", 0), ("two", 0), ("three", 0)]));
    assert_eq!(job["retried_by"], "ann");
    let result = wait_for("the second result to be committed", LIMIT, async || {
        let result = world.result("job", LIMIT).await;
        if result["outcome"] == "succeeded" { Ok(result) } else { Err(result.to_string()) }
    })
    .await;
    assert_eq!(result, job["result"]);
    let attempts = result["attempts"].as_array().unwrap();
    let causes: Vec<&Value> = attempts.iter().map(|attempt| &attempt["cause"]).collect();
    assert_eq!(causes, [&json!("exit_code"), &json!("success")]);
    assert_ne!(attempts[0]["dispatch_id"], attempts[1]["dispatch_id"]);
    assert_ne!(attempts[0]["allocation_id"], attempts[1]["allocation_id"]);
    assert_eq!(world.children().await.len(), 2);
    assert!(ann.refused(&["retry", "job"]).contains("it succeeded"));
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    drop(agent);
}

#[tokio::test]
async fn a_retry_outlives_the_agent_and_runs_everything_once() {
    let world = World::new("again").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let ann = Operator::new(&world, "ann", "read,submit");
    let formula = format!("echo $CONSIGN_ATTEMPT >> {}\nsleep 1\nexit 3\n", world.ledger().display());
    world.ops.commit("a formula", &[("formulas/three.sh", Some(&formula))]);
    world.commit_action("job", "three", "");
    assert_eq!(world.result("job", LIMIT).await["exit_code"], 3);
    ann.until("job", "failed").await;
    assert!(ann.refused(&["retry", "job", "--from-step", "one"]).contains("no steps"));
    let mut agent = agent;
    for (retries, state) in ["queued", "loading", "working", "queued"].into_iter().enumerate() {
        ann.done(&["retry", "job"]);
        wait_for(state, LIMIT, async || {
            let job = ann.look("job")?;
            let reached = job["state"] == state || job["attempts"].as_array().unwrap().len() > retries + 1;
            if reached { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
        // Whatever it had begun is taken up again.
        agent.kill();
        agent = world.agent().await;
        let attempts = retries + 2;
        let job = wait_for("the next attempt to have ended", LIMIT, async || {
            let job = ann.look("job")?;
            let ended = job["state"] == "failed" && job["attempts"].as_array().unwrap().len() == attempts;
            if ended { Ok(job) } else { Err(job.to_string()) }
        })
        .await;
        assert_eq!((&job["cause"], &job["exit_code"]), (&json!("exit_code"), &json!(3)));
        let ran: Vec<String> = (1..=attempts).map(|attempt| attempt.to_string()).collect();
        assert_eq!(world.ledger_lines(), ran, "each attempt ran once");
        assert_eq!(world.children().await.len(), attempts);
    }
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_running_job_is_watched_followed_and_cancelled() {
    let world = World::new("watch").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let ann = Operator::new(&world, "ann", "read,submit");
    let formula = format!(
        "description = \"waits\"\n[[steps]]\nname = \"early\"\nrun = \"echo early; true >> {ledger}\"\n\
         [[steps]]\nname = \"late\"\nrun = \"\"\"\necho begun\nwhile [ ! -e {go} ]; do sleep 0.1; done\necho ended\n\"\"\"\n",
        ledger = world.ledger().display(),
        go = world.path("go").display(),
    );
    world.ops.commit("a formula", &[("formulas/wait.toml", Some(&formula))]);
    world.commit_action("followed", "wait", "");
    world.commit_action("stopped", "wait", "");
    for id in ["followed", "stopped"] {
        let job = wait_for("the first step to be shown while the second runs", LIMIT, async || {
            let job = ann.look(id)?;
            if job["running_step"] == "late" { Ok(job) } else { Err(job.to_string()) }
        })
        .await;
        assert_eq!((steps_of(&job), &job["state"]), (named(&[("early", 0)]), &json!("working")));
        assert_eq!((&job["outcome"], &job["result"]), (&Value::Null, &Value::Null));
    }
    let listed: Value = serde_json::from_str(&ann.done(&["jobs", "--phase", "working", "--json"])).unwrap();
    let mut ids: Vec<&str> =
        listed.as_array().unwrap().iter().map(|job| job["action_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["followed", "stopped"]);
    assert!(ann.refused(&["retry", "followed"]).contains("has not ended"));

    let ended = ann.show("followed")["job_id"].as_str().unwrap().to_owned();
    let mut follower = ann
        .world
        .consign(&["logs", "-f", &ended])
        .env("CONSIGN_TOKEN", &ann.token)
        .stdout(std::fs::File::create(world.path("followed")).unwrap())
        .spawn()
        .unwrap();
    let read_so_far = || std::fs::read_to_string(world.path("followed")).unwrap();
    wait_for("what is printed to be followed", LIMIT, async || {
        if read_so_far() == "early\nbegun\n" { Ok(()) } else { Err(read_so_far()) }
    })
    .await;

    let said = ann.done(&["cancel", "stopped"]);
    assert!(said.contains("is being cancelled"), "{said}");
    let cancelled = ann.until("stopped", "failed").await;
    assert_eq!((&cancelled["cause"], &cancelled["exit_code"]), (&json!("cancelled"), &json!(130)));
    assert!(cancelled["error"].as_str().unwrap().contains("cancelled by ann"), "{cancelled}");
    let allocation = cancelled["attempts"][0]["allocation_id"].as_str().unwrap();
    let allocation = world.nomad.get(&format!("/v1/allocation/{allocation}")).await.unwrap();
    assert_eq!(allocation["ClientStatus"], "complete", "it is dead when the job has ended");
    assert!(ann.done(&["cancel", "stopped"]).contains("had ended already: cancelled"));

    std::fs::write(world.path("go"), "").unwrap();
    ann.until("followed", "done").await;
    let status =
        wait_for("the follower to end", LIMIT, async || follower.try_wait().unwrap().ok_or_else(read_so_far))
            .await;
    assert!(status.success());
    assert_eq!(read_so_far(), "early\nbegun\nended\n");
    assert_eq!(ann.done(&["logs", "followed"]), "early\nbegun\nended\n");
    let table = ann.done(&["jobs"]);
    assert!(table.contains("followed  done") && !table.contains('\u{1b}'), "{table}");
    // What was cancelled may be wanted after all.
    ann.done(&["retry", "stopped", "--from-step", "late"]);
    assert_eq!(steps_of(&ann.until("stopped", "done").await), named(&[("early", 0), ("late", 0)]));
}

#[tokio::test]
async fn tokens_are_made_shown_once_and_revoked_while_the_agent_runs() {
    let world = World::new("tokens").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let reader = Operator::new(&world, "reader", "read");
    assert_eq!(reader.done(&["jobs"]), "");
    let scope = reader.refused(&["cancel", "anything"]);
    assert!(scope.contains("scope submit"), "{scope}");
    assert!(reader.refused(&["show", "nothing"]).contains("there is no job"));
    let keyless = world.consign(&["jobs"]).output().unwrap();
    assert!(String::from_utf8_lossy(&keyless.stderr).contains("CONSIGN_TOKEN"));
    let listed: Value =
        serde_json::from_slice(&world.operate(&["token", "list", "--json"], b"").stdout).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["scopes"]), (&json!("reader"), &json!(["read"])));
    let file = std::fs::read_to_string(world.path("store/tokens.toml")).unwrap();
    assert!(!file.contains(&reader.token) && !agent.log().contains(&reader.token));
    assert!(world.operate(&["token", "revoke", "reader"], b"").status.success());
    assert!(reader.refused(&["jobs"]).contains("not known"));
    let gone = world.consign(&["jobs", "--addr", "127.0.0.1:1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&gone.stderr).contains("is it running there"));
    assert_eq!(agent.terminate().await.code(), Some(0));
}
