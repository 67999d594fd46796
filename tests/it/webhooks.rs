//! Webhooks out, on receivers that take them, fail, are slow, or send elsewhere.

pub(crate) mod receiver;

use std::{collections::BTreeSet, time::Duration};

use consign::webhook::deliver::REQUEST_LIMIT;
use serde_json::Value;

use self::receiver::{Behaviour, Receiver};
use crate::support::{LIMIT, World, wait_for};

const SECRET: &str = "only the receiver knows";

/// A world whose agent signs, and may tell receivers on this machine.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    let secret = world.path("webhook.secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    world.bootstrap(&format!("[webhooks]\nallow_private = true\nsecret_file = \"{}\"\n", secret.display()));
    world
}

fn notify(urls: &[&str]) -> String {
    format!("notify = {}\n", serde_json::to_string(urls).unwrap())
}

/// The phases that one URL was told of, in the order of arrival.
fn states(bodies: &[Value]) -> Vec<&str> {
    bodies.iter().map(|body| body["state"].as_str().unwrap()).collect()
}

fn sequences(bodies: &[Value]) -> Vec<u64> {
    bodies.iter().map(|body| body["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_phase_is_told_once_in_order_and_signed() {
    let world = world("told").await;
    let _agent = world.agent().await;
    let receiver = Receiver::start(Behaviour::Take).await;
    let formula = "printf small > small.txt\nhead -c 300000 /dev/zero > large.bin\nexit 7\n";
    world.ops.commit("a formula", &[("formulas/f.sh", Some(formula))]);
    let further = format!(
        "artifacts = [\"*.txt\", \"*.bin\"]\n{}",
        notify(&[&receiver.url("/a"), &receiver.url("/b")])
    );
    world.commit_action("told", "f", &further);
    let result = world.result("told", LIMIT).await;
    let told = receiver.wait_for(8, LIMIT).await;
    for path in ["/a", "/b"] {
        let bodies: Vec<Value> =
            told.iter().filter(|got| got.path == path).map(receiver::Got::json).collect();
        assert_eq!(states(&bodies), ["queued", "loading", "working", "failed"], "{path}");
        assert_eq!(sequences(&bodies), [1, 2, 3, 4]);
        let ids: BTreeSet<&str> = bodies.iter().map(|body| body["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 4, "{bodies:?}");
        for body in &bodies {
            assert_eq!((&body["action_id"], &body["job_id"]), (&result["id"], &result["job_id"]));
        }
        for body in &bodies[..3] {
            assert!(body["outcome"].is_null() && body["result"].is_null(), "{body}");
        }
        let last = &bodies[3];
        assert_eq!((&last["outcome"], &last["cause"]), (&result["outcome"], &result["cause"]));
        assert_eq!((&last["exit_code"], &last["error"]), (&Value::from(7), &result["message"]));
        assert_eq!(last["result"], result);
        let artifacts = last["artifacts"].as_array().unwrap();
        let large = artifacts.iter().find(|artifact| artifact["name"] == "large.bin").unwrap();
        assert!(large["data"].is_null() && large["url"].as_str().unwrap().ends_with("/artifacts/large.bin"));
        let small = artifacts.iter().find(|artifact| artifact["name"] == "small.txt").unwrap();
        assert_eq!((&small["data"], &small["url"]), (&Value::from("c21hbGw="), &Value::Null));
        assert_eq!(small["content_type"], "text/plain; charset=utf-8");
    }
    for got in &told {
        assert!(consign::webhook::verify(SECRET.as_bytes(), &got.body, &got.signature), "{}", got.signature);
        assert!(!consign::webhook::verify(b"another", &got.body, &got.signature));
    }
}

#[tokio::test]
async fn receivers_that_fail_are_slow_or_send_elsewhere_change_nothing_for_others() {
    let world = world("trouble").await;
    let agent = world.agent().await;
    let good = Receiver::start(Behaviour::Take).await;
    let failing = Receiver::start(Behaviour::Fail).await;
    let slow = Receiver::start(Behaviour::Hang).await;
    let redirecting = Receiver::start(Behaviour::Redirect(good.url("/elsewhere"))).await;
    let gone = Receiver::start(Behaviour::Gone).await;
    world.ops.commit("a formula", &[("formulas/f.sh", Some("exit 0\n"))]);
    // More than the places that the slow one has.
    let ids: Vec<String> = (0..6).map(|number| format!("trouble-{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let mut urls = vec![slow.url("/slow"), good.url("/good")];
        if number == 0 {
            urls.extend([failing.url("/failing"), redirecting.url("/away"), gone.url("/gone")]);
        }
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        world.commit_action(id, "f", &notify(&urls));
    }
    for id in &ids {
        assert_eq!(world.result(id, LIMIT).await["outcome"], "succeeded");
    }
    // Where the machine is busy, one whose answer comes late is sent once more.
    let told = wait_for("each webhook", LIMIT, async || {
        let mut bodies: Vec<Value> = good.got().iter().map(receiver::Got::json).collect();
        let mut known = BTreeSet::new();
        bodies.retain(|body| known.insert(body["id"].to_string()));
        if bodies.len() >= 4 * ids.len() { Ok(bodies) } else { Err(format!("{} came", bodies.len())) }
    })
    .await;
    for id in &ids {
        let bodies: Vec<Value> =
            told.iter().filter(|body| body["action_id"] == id.as_str()).cloned().collect();
        assert_eq!(states(&bodies), ["queued", "loading", "working", "done"], "{id}");
    }
    // Four at a time: whoever comes fifth waited until one of those before had its time. Where the machine is busy, they
    // come late.
    let slowed = slow.wait_for(8, LIMIT).await;
    for five in slowed.windows(5) {
        let between = five[4].at.duration_since(five[0].at);
        assert!(between >= REQUEST_LIMIT / 2, "{between:?}");
    }
    // Four webhooks, five requests each, with 1, 2, 4 and 8 s between.
    let failed = failing.wait_for(20, Duration::from_secs(100)).await;
    for (index, attempts) in failed.chunks(5).enumerate() {
        let bodies: Vec<Value> = attempts.iter().map(receiver::Got::json).collect();
        assert_eq!(sequences(&bodies), vec![index as u64 + 1; 5]);
        assert!(bodies.iter().all(|body| body == &bodies[0]), "the same each time");
        for (pair, pause) in attempts.windows(2).zip([1, 2, 4, 8]) {
            let between = pair[1].at.duration_since(pair[0].at);
            assert!(between >= Duration::from_secs(pause), "{between:?} of {pause} s");
        }
    }
    wait_for("the log of what was given up", LIMIT, async || {
        let log = agent.log();
        let failing = log.lines().filter(|line| {
            line.contains("webhook given up") && line.contains("500") && line.contains(&failing.url(""))
        });
        if failing.count() == 4 { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(failing.got().len(), 20, "five requests for each and no more");
    redirecting.wait_for(20, LIMIT).await;
    assert!(good.got().iter().all(|got| got.path == "/good"), "nobody followed a redirect");
    assert_eq!(gone.got().len(), 1, "410 ends it");
}

#[tokio::test]
async fn every_webhook_arrives_although_the_agent_is_killed() {
    let world = world("killed").await;
    let receiver = Receiver::start(Behaviour::Hang).await;
    let agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/f.sh", Some("exit 0\n"))]);
    let ids: Vec<String> = (0..5).map(|number| format!("killed-{number}")).collect();
    for id in &ids {
        world.commit_action(id, "f", &notify(&[&receiver.url("/hook")]));
    }
    // As many as one receiver gets at a time; none is answered.
    let unanswered = receiver.wait_for(4, LIMIT).await;
    agent.kill();
    let agent = world.agent().await;
    for id in &ids {
        assert_eq!(world.result(id, LIMIT).await["outcome"], "succeeded");
    }
    agent.kill();
    receiver.behave(Behaviour::Take);
    let _agent = world.agent().await;
    let told = wait_for("all webhooks", LIMIT, async || {
        let told = receiver.taken();
        if told.len() >= 4 * ids.len() { Ok(told) } else { Err(format!("{} came", told.len())) }
    })
    .await;
    let bodies: Vec<Value> = told.iter().map(receiver::Got::json).collect();
    for id in &ids {
        let own: Vec<Value> =
            bodies.iter().filter(|body| body["action_id"] == id.as_str()).cloned().collect();
        assert_eq!(sequences(&own), [1, 2, 3, 4], "{id}");
        assert_eq!(states(&own), ["queued", "loading", "working", "done"], "{id}");
    }
    let first: BTreeSet<String> = unanswered.iter().map(|got| got.json()["id"].to_string()).collect();
    let last: BTreeSet<String> = bodies.iter().map(|body| body["id"].to_string()).collect();
    assert!(first.is_subset(&last), "{first:?} {last:?}");
    assert_eq!(last.len(), 4 * ids.len());
}

#[tokio::test]
async fn work_submitted_on_loopback_may_be_told_there_and_the_secret_changed() {
    let world = World::new("near").await;
    let secret = world.path("webhook.secret");
    std::fs::write(&secret, SECRET).unwrap();
    world.bootstrap(&format!("[webhooks]\nsecret_file = \"{}\"\n", secret.display()));
    let agent = world.agent().await;
    let formula = format!("while [ ! -e {} ]; do sleep 0.1; done\n", world.path("go").display());
    world.ops.commit("a formula", &[("formulas/f.sh", Some(&formula))]);
    let (good, failing) = (Receiver::start(Behaviour::Take).await, Receiver::start(Behaviour::Fail).await);
    let token = world.token("ann", "read,submit");
    let body = serde_json::json!({
        "formula": "f",
        "blast_radius": "low",
        "notify": [failing.url("/failing")],
        "state_webhook_url": good.url("/hook"),
    });
    let submit = |forwarded: bool| {
        let request = crate::support::http().post(format!("{}/jobs", world.agent_address()));
        let request = request.bearer_auth(&token).body(body.to_string());
        if forwarded { request.header("X-Forwarded-For", "203.0.113.1") } else { request }
    };
    let answered = wait_for("the formula to be known", LIMIT, async || {
        let answer = submit(false).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        if status == 202 { Ok(text) } else { Err(text) }
    })
    .await;
    let answered: Value = serde_json::from_str(&answered).unwrap();
    let job_id = answered["job_id"].as_str().unwrap();
    assert!(job_id.parse::<ulid::Ulid>().is_ok(), "{answered}");
    let refused = submit(true).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 422);
    assert!(refused.text().await.unwrap().contains("loopback"));

    for inner in ["http://169.254.169.254/latest/", "http://10.0.0.1/"] {
        let body = serde_json::json!({ "formula": "f", "state_webhook_url": inner });
        let request = crate::support::http().post(format!("{}/jobs", world.agent_address()));
        let refused = request.bearer_auth(&token).body(body.to_string()).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 422, "{inner}");
    }

    good.wait_for(3, LIMIT).await;
    std::fs::write(&secret, "another\n").unwrap();
    std::fs::write(world.path("go"), "").unwrap();
    let told = good.wait_for(4, LIMIT).await;
    let bodies: Vec<Value> = told.iter().map(receiver::Got::json).collect();
    assert_eq!(states(&bodies), ["queued", "loading", "working", "done"]);
    assert!(bodies.iter().all(|body| body["job_id"] == job_id && body["action_id"].is_null()));
    for (index, got) in told.iter().enumerate() {
        let secret = if index < 3 { SECRET } else { "another" };
        assert!(consign::webhook::verify(secret.as_bytes(), &got.body, &got.signature), "{index}");
    }
    failing.wait_for(2, LIMIT).await;
    wait_for("a failure to be counted", LIMIT, async || {
        let metrics = agent.get("/metrics").await.text().await.unwrap();
        let counted = metrics.contains("consign_webhooks_delivered_total 4")
            && !metrics.contains("consign_webhook_request_failures_total 0");
        if counted { Ok(()) } else { Err(metrics) }
    })
    .await;
}

#[tokio::test]
async fn an_inner_address_is_refused_with_a_result_and_never_connected_to() {
    let world = World::new("inner").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let receiver = Receiver::start(Behaviour::Take).await;
    world.ops.commit("a formula", &[("formulas/f.sh", Some("exit 0\n"))]);
    for (id, url, word) in [
        ("metadata", "http://169.254.169.254/latest/meta-data/".to_owned(), "metadata"),
        ("mapped", "http://[::ffff:169.254.169.254]/".to_owned(), "metadata"),
        ("private", "https://10.1.2.3/".to_owned(), "private"),
        ("loopback", receiver.url("/hook"), "loopback"),
        ("name", receiver.url("/hook").replace("127.0.0.1", "localhost"), "loopback"),
    ] {
        world.commit_action(id, "f", &notify(&["https://chat.example/hook", &url]));
        let result = world.result(id, LIMIT).await;
        assert_eq!(
            (&result["outcome"], &result["cause"]),
            (&"rejected".into(), &"invalid".into()),
            "{result}"
        );
        let message = result["message"].as_str().unwrap();
        assert!(message.contains(word) && message.contains(&format!("actions/{id}.toml:6")), "{message}");
    }
    assert_eq!(receiver.got().len(), 0);
    drop(agent);
}
