//! The order in which jobs are launched, and the limits that hold them.

use serde_json::{Value, json};

use crate::{
    api::Operator,
    support::{LIMIT, World, action, ends, wait_for},
};

/// Formulas that note their start and end in the ledger: `quick` ends by itself, `held` when the file `go` is there.
fn formulas(world: &World) -> [(&'static str, String); 2] {
    let (ledger, go) = (world.ledger().display().to_string(), world.path("go").display().to_string());
    let noted = |work: &str| {
        format!("echo +$CONSIGN_ACTION_ID >> {ledger}\n{work}\necho -$CONSIGN_ACTION_ID >> {ledger}\n")
    };
    [
        ("formulas/quick.sh", noted("sleep 0.3")),
        ("formulas/held.sh", noted(&format!("while [ ! -e {go} ]; do sleep 0.1; done"))),
    ]
}

/// Commits the formulas and these actions, each an id, its formula and further keys, in one commit.
fn commit(world: &World, actions: &[(&str, &str, &str)]) {
    let mut files: Vec<(String, String)> =
        formulas(world).into_iter().map(|(path, text)| (path.to_owned(), text)).collect();
    files.extend(
        actions
            .iter()
            .map(|(id, formula, further)| (format!("actions/{id}.toml"), action(id, formula, further))),
    );
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    world.ops.commit("work", &changes);
}

async fn started(world: &World, id: &str) {
    wait_for(&format!("{id} to start"), LIMIT, async || {
        let lines = world.ledger_lines();
        if lines.contains(&format!("+{id}")) { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
}

/// The most that worked at a time, of those whose id begins with `prefix`.
fn most_at_a_time(lines: &[String], prefix: &str) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for line in lines.iter().filter(|line| line[1..].starts_with(prefix)) {
        now = if line.starts_with('+') { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[tokio::test]
async fn no_more_run_than_the_limits_allow() {
    let world = World::new("limits").await;
    world.bootstrap("[limits]\nrunning = 3\n[limits.formula]\nquick = 2\n[limits.group]\nsmall = 1\n");
    let agent = world.agent().await;
    let group = "concurrency = { group = \"small\", limit = 5 }\n";
    let mut actions: Vec<(String, &str)> = (0..6).map(|number| (format!("plain-{number}"), "")).collect();
    actions.extend((0..3).map(|number| (format!("group-{number}"), group)));
    let actions: Vec<(&str, &str, &str)> =
        actions.iter().map(|(id, further)| (id.as_str(), "quick", *further)).collect();
    commit(&world, &actions);
    for (id, ..) in &actions {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
    let lines = world.ledger_lines();
    assert_eq!(lines.len(), 2 * actions.len(), "{lines:?}");
    let most = (most_at_a_time(&lines, ""), most_at_a_time(&lines, "group-"));
    assert!(most.0 <= 2 && most.1 == 1, "{most:?}: {lines:?}");
    drop(agent);
}

#[tokio::test]
async fn the_highest_priority_is_launched_first_also_after_a_crash() {
    let world = World::new("priority").await;
    world.bootstrap("[limits]\nrunning = 1\n");
    let first = world.agent().await;
    commit(&world, &[("holder", "held", "")]);
    started(&world, "holder").await;
    let waiting = [("low", "priority = 10\n"), ("high", "priority = 90\n"), ("middle", "")];
    commit(&world, &waiting.map(|(id, further)| (id, "quick", further)));
    wait_for("all three to be queued", LIMIT, async || {
        let log = first.log();
        let queued = waiting.iter().all(|(id, _)| log.contains(&format!("job=\"{id}\" event=\"approved\"")));
        if queued { Ok(()) } else { Err(log) }
    })
    .await;
    let token = world.operate(&["token", "create", "watcher", "--scope", "read"], b"").stdout;
    let token = String::from_utf8(token).unwrap().lines().last().unwrap().to_owned();
    for (id, place) in [("high", 1), ("middle", 2), ("low", 3)] {
        let shown = world.consign(&["show", id, "--json"]).env("CONSIGN_TOKEN", &token).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(
            shown["waits_for"],
            format!("place {place} of 3 in the queue: 1 may run at a time of all jobs, held by holder"),
            "{shown}"
        );
    }
    first.kill();
    let _second = world.agent().await;
    std::fs::write(world.path("go"), "").unwrap();
    for (id, _) in waiting {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
    let starts: Vec<String> = world.ledger_lines().into_iter().filter(|line| line.starts_with('+')).collect();
    assert_eq!(starts, ["+holder", "+high", "+middle", "+low"]);
}

#[tokio::test]
async fn a_full_group_is_skipped_or_loses_its_oldest_as_the_action_says() {
    let world = World::new("group").await;
    world.bootstrap("");
    let first_agent = world.agent().await;
    let group = |when_full: &str| {
        format!("concurrency = {{ group = \"deploy\", limit = 1, when_full = \"{when_full}\" }}\n")
    };
    commit(&world, &[("first", "held", &group("skip"))]);
    started(&world, "first").await;

    commit(&world, &[("second", "quick", &group("skip"))]);
    let second = world.result("second", LIMIT).await;
    ends(&second, "cancelled", "skipped");
    let message = second["message"].as_str().unwrap();
    assert!(message.contains("deploy") && message.contains("first"), "{message}");

    // What an action says holds for one that was waiting when the agent was started.
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3)).to_string();
    commit(&world, &[("waited", "quick", &format!("not_before = \"{soon}\"\n{}", group("skip")))]);
    wait_for("the wait to be on record", LIMIT, async || {
        let log = first_agent.log();
        if log.contains("job=\"waited\" event=\"waiting\"") { Ok(()) } else { Err(log) }
    })
    .await;
    first_agent.kill();
    let _second_agent = world.agent().await;
    ends(&world.result("waited", LIMIT).await, "cancelled", "skipped");

    commit(&world, &[("third", "quick", &group("cancel_older"))]);
    let first = world.result("first", LIMIT).await;
    ends(&first, "cancelled", "superseded");
    assert!(first["message"].as_str().unwrap().contains("third"), "{first}");
    ends(&world.result("third", LIMIT).await, "succeeded", "success");
    assert_eq!(world.ledger_lines(), ["+first", "+third", "-third"]);
}

#[tokio::test]
async fn what_when_full_says_is_decided_in_the_order_of_arrival_after_a_restart() {
    let world = World::new("arrival").await;
    world.bootstrap("[limits]\nrunning = 1\n");
    let first_agent = world.agent().await;
    commit(&world, &[("holder", "held", "")]);
    started(&world, "holder").await;
    let group = "concurrency = { group = \"small\", limit = 9, when_full = \"skip\" }\n";
    let ids = ["one", "two", "three", "four", "five", "six"];
    for id in ids {
        commit(&world, &[(id, "quick", group)]);
        wait_for(&format!("{id} to be queued"), LIMIT, async || {
            let log = first_agent.log();
            if log.contains(&format!("job=\"{id}\" event=\"approved\"")) { Ok(()) } else { Err(log) }
        })
        .await;
    }
    first_agent.kill();
    let config = std::fs::read_to_string(world.path("consign.toml")).unwrap();
    std::fs::write(world.path("consign.toml"), config + "[limits.group]\nsmall = 2\n").unwrap();
    let _second_agent = world.agent().await;
    for id in &ids[2..] {
        let result = world.result(id, LIMIT).await;
        ends(&result, "cancelled", "skipped");
        assert!(result["message"].as_str().unwrap().contains("(2: one, two)"), "{result}");
    }
    std::fs::write(world.path("go"), "").unwrap();
    for id in &ids[..2] {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
}

#[tokio::test]
async fn actions_that_wait_for_each_other_are_refused_together_and_told_apart() {
    let world = World::new("circle").await;
    world.bootstrap("");
    let agent = world.agent().await;
    // In one commit both are known.
    commit(&world, &[("egg", "quick", "after = [\"hen\"]\n"), ("hen", "quick", "after = [\"egg\"]\n")]);
    for (id, other) in [("egg", "hen"), ("hen", "egg")] {
        let result = world.result(id, LIMIT).await;
        ends(&result, "rejected", "invalid");
        let message = result["message"].as_str().unwrap();
        assert!(message.contains(&format!("{id} waits for {other}, which waits for {id}")), "{message}");
        assert!(message.contains(&format!("actions/{id}.toml:")), "{message}");
    }
    // One after the other the first waits already.
    commit(&world, &[("push", "quick", "after = [\"pull\"]\n")]);
    wait_for("push to wait", LIMIT, async || {
        let log = agent.log();
        if log.contains("job=\"push\" event=\"waiting\"") { Ok(()) } else { Err(log) }
    })
    .await;
    commit(&world, &[("pull", "quick", "after = [\"push\"]\n")]);
    let ann = Operator::new(&world, "ann", "read");
    wait_for("the circle to be told", LIMIT, async || {
        let words = ann.look("pull")?["waits_for"].to_string();
        if words.contains("pull waits for push, which waits for pull") { Ok(()) } else { Err(words) }
    })
    .await;
    commit(&world, &[("push", "quick", "")]);
    for id in ["push", "pull"] {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
}

#[tokio::test]
async fn an_action_waits_for_those_before_it_and_for_its_time() {
    let world = World::new("after").await;
    world.bootstrap("");
    let first = world.agent().await;
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4)).to_string();
    commit(
        &world,
        &[
            ("base", "held", ""),
            ("next", "quick", "after = [\"base\"]\n"),
            ("last", "quick", "after = [\"next\", \"timed\"]\n"),
            ("timed", "quick", &format!("not_before = \"{soon}\"\n")),
            ("broken", "nothing", ""),
            ("hopeless", "quick", "after = [\"base\", \"broken\"]\n"),
            ("later", "quick", "after = [\"unseen\"]\n"),
        ],
    );
    let hopeless = world.result("hopeless", LIMIT).await;
    ends(&hopeless, "failed", "dependency_failed");
    assert!(hopeless["message"].as_str().unwrap().contains("broken"), "{hopeless}");
    assert_eq!(hopeless["attempts"], json!([]));
    started(&world, "base").await;
    wait_for("what it waits for, in words", LIMIT, async || {
        let log = first.log();
        if log.contains("later") && log.contains("unseen to succeed") { Ok(()) } else { Err(log) }
    })
    .await;

    first.kill();
    let second = world.agent().await;
    // It waits for nothing any more but for what has ended.
    commit(&world, &[("changed", "quick", "after = [\"unseen\"]\n")]);
    wait_for("the wait to be on record", LIMIT, async || {
        let log = second.log();
        if log.contains("job=\"changed\" event=\"waiting\"") { Ok(()) } else { Err(log) }
    })
    .await;
    commit(&world, &[("early", "quick", "")]);
    ends(&world.result("early", LIMIT).await, "succeeded", "success");
    commit(&world, &[("changed", "quick", "after = [\"early\"]\n")]);
    ends(&world.result("changed", LIMIT).await, "succeeded", "success");

    std::fs::write(world.path("go"), "").unwrap();
    commit(&world, &[("unseen", "quick", "")]);
    for id in ["base", "next", "timed", "last", "unseen", "later"] {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
    let lines = world.ledger_lines();
    let place = |line: &str| lines.iter().position(|other| other == line).unwrap();
    for (before, after) in
        [("-base", "+next"), ("-next", "+last"), ("-timed", "+last"), ("-unseen", "+later")]
    {
        assert!(place(before) < place(after), "{before} {after}: {lines:?}");
    }
    let timed = world.result("timed", LIMIT).await;
    let dispatched: jiff::Timestamp = timed["dispatched_at"].as_str().unwrap().parse().unwrap();
    assert!(dispatched >= soon.parse().unwrap(), "{timed}");
}

#[tokio::test]
async fn an_action_runs_again_after_the_causes_that_it_names_and_no_other() {
    let world = World::new("retry").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    let second = world.path("second").display().to_string();
    let flaky = format!("[ -e {second} ] && exit 0\ntouch {second}\nexit 7\n");
    world
        .ops
        .commit("a formula", &[("formulas/flaky.sh", Some(&flaky)), ("formulas/bad.sh", Some("exit 8\n"))]);
    world.commit_action("named", "flaky", "retry = { attempts = 2, on = [\"exit_code\"] }\n");
    world.commit_action("spent", "bad", "retry = { attempts = 2, on = [\"exit_code\"] }\n");
    world.commit_action("unnamed", "bad", "retry = {}\n");
    let named = world.result("named", LIMIT).await;
    ends(&named, "succeeded", "success");
    let causes = |result: &Value| -> Vec<Value> {
        result["attempts"].as_array().unwrap().iter().map(|attempt| attempt["cause"].clone()).collect()
    };
    assert_eq!(causes(&named), ["exit_code", "success"]);
    let spent = world.result("spent", LIMIT).await;
    ends(&spent, "failed", "exit_code");
    assert_eq!((causes(&spent).len(), &spent["exit_code"]), (2, &json!(8)));
    assert_eq!(causes(&world.result("unnamed", LIMIT).await).len(), 1);
}

#[tokio::test]
async fn a_mixed_list_is_drained_by_model_and_no_model_waits_for_ever() {
    let world = World::new("models").await;
    world.bootstrap(
        "[queue]\nmodels = 1\nmodel_patience = \"25s\"\nmodel_minimum = \"4s\"\n[limits.formula]\nquick = 1\n",
    );
    let agent = world.agent().await;
    let of = |model: &str| format!("model = \"{model}\"\n");
    let (a, b) = (of("a"), of("b"));
    commit(&world, &[("a-0", "held", &a)]);
    started(&world, "a-0").await;
    // In the order of their ids, models would be swapped for each.
    let mixed = [("m-1", &a), ("m-2", &b), ("m-3", &a), ("m-4", &b), ("m-5", &a)];
    commit(&world, &mixed.map(|(id, model)| (id, "quick", model.as_str())));
    for id in ["m-1", "m-3", "m-5"] {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
    // The model is in use all the time, and more comes for it: until the other one has waited for long enough.
    let token = world.operate(&["token", "create", "watcher", "--scope", "read"], b"").stdout;
    let token = String::from_utf8(token).unwrap().lines().last().unwrap().to_owned();
    let mut late = Vec::new();
    wait_for("a job that makes room", LIMIT, async || {
        let id = format!("late-{}", late.len());
        commit(&world, &[(&id, "quick", &a)]);
        late.push(id.clone());
        wait_for("it to be decided", LIMIT, async || {
            let shown =
                world.consign(&["show", &id, "--json"]).env("CONSIGN_TOKEN", &token).output().unwrap();
            let shown: Value = serde_json::from_slice(&shown.stdout).map_err(|error| error.to_string())?;
            let waits_for = shown["waits_for"].as_str().unwrap_or_default();
            if waits_for.contains("makes room for b") {
                return Ok(Ok(()));
            }
            if shown["state"] == "done" { Ok(Err("it ran".to_owned())) } else { Err(shown.to_string()) }
        })
        .await
    })
    .await;
    std::fs::write(world.path("go"), "").unwrap();
    let last = late.pop().unwrap();
    for id in ["m-2", "m-4", &last] {
        ends(&world.result(id, LIMIT).await, "succeeded", "success");
    }
    let lines = world.ledger_lines();
    let place = |line: &str| lines.iter().position(|other| other == line).unwrap();
    assert!(place("-a-0") < place("+m-2") && place("-m-4") < place(&format!("+{last}")), "{lines:?}");
    let dispatched = async |id: &str| -> jiff::Timestamp {
        world.result(id, LIMIT).await["dispatched_at"].as_str().unwrap().parse().unwrap()
    };
    let loaded_for = dispatched(&last).await.duration_since(dispatched("m-2").await);
    assert!(loaded_for >= jiff::SignedDuration::from_millis(3900), "{loaded_for}");
    drop(agent);
}
