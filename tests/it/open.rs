//! An agent that asks for no tokens: everything but approvals is for this machine, and nothing for anybody else.

use std::process::Output;

use consign::{
    client::{By, Client, Wait},
    outcome::{Cause, Outcome},
};
use serde_json::{Value, json};

use crate::support::{Browser, LIMIT, World, wait_for};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(world: &World, arguments: &[&str]) -> Output {
    world.consign(arguments).output().unwrap()
}

async fn until(world: &World, id: &str, state: &str) -> Value {
    wait_for(&format!("{id} to be {state}"), LIMIT, async || {
        let output = run(world, &["show", id, "--json"]);
        let job: Value = serde_json::from_slice(&output.stdout).map_err(|_| said(&output))?;
        if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
    })
    .await
}

#[tokio::test]
async fn work_is_submitted_followed_and_cancelled_without_a_token() {
    let world = World::new("open").await;
    let config = world.config_toml().replace("[server]\n", "[server]\nauth = \"none\"\n");
    let rule = "[[approval.rule]]\nformula = \"guarded\"\nrequire = \"review\"\n";
    world.bootstrap_with(&format!("{config}{rule}"));
    world.ops.commit(
        "formulas",
        &[
            ("formulas/greet.sh", Some("echo hello\n")),
            ("formulas/hold.sh", Some("sleep 600\n")),
            ("formulas/guarded.sh", Some("true\n")),
        ],
    );
    let agent = world.agent().await;
    let submit = |formula: &str| {
        let output = run(&world, &["submit", "--formula", formula, "--blast-radius", "low"]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let held = submit("hold");
    assert_eq!(until(&world, &held, "working").await["submitted_by"], "anyone");
    let cancelled = run(&world, &["cancel", &held]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    let ended = until(&world, &held, "failed").await;
    assert_eq!(
        (&ended["cause"], &ended["cancelled"]),
        (&json!("cancelled"), &json!("it was cancelled by anyone")),
        "{ended}"
    );

    let client = Client::new(&agent.address, None).unwrap();
    let greet = json!({ "formula": "greet", "blast_radius": "low" });
    for by in [By::Webhook { secret: None }, By::Polling] {
        let wait = Wait { by, deadline: Some(LIMIT), ..Wait::default() };
        let job = client.submit_and_wait(&greet, &wait).await.unwrap();
        assert_eq!(
            (job.summary.outcome, job.summary.cause),
            (Some(Outcome::Succeeded), Some(Cause::Success))
        );
        assert_eq!(client.logs(&job.summary.job_id).await.unwrap(), b"hello\n");
    }

    let guarded = submit("guarded");
    until(&world, &guarded, "waiting").await;
    for verb in [&["approve", &guarded][..], &["reject", &guarded, "--reason", "no"]] {
        let refused = run(&world, verb);
        assert!(
            refused.status.code() == Some(1) && said(&refused).contains("auth = \"none\""),
            "{refused:?}"
        );
    }

    let browser = Browser::start().await;
    // By its other name too.
    browser.open(&agent.address.replace("127.0.0.1", "localhost")).await;
    assert!(browser.text("[aria-labelledby=waiting]").await.contains(&guarded));
    browser.open(&format!("{}/ui/jobs/{guarded}", agent.address)).await;
    browser.click("#cancel").await;
    until(&world, &guarded, "failed").await;
    let rebound = crate::support::http().post(format!("{}/jobs", agent.address));
    let rebound = rebound.header("host", "evil.example").body(greet.to_string()).send().await.unwrap();
    assert_eq!(rebound.status().as_u16(), 403);
}

#[tokio::test]
async fn no_agent_starts_that_others_could_reach_without_a_token() {
    let world = World::new("open-wide").await;
    let config = world.config_toml().replace("127.0.0.1:", "0.0.0.0:");
    let config = config.replace("[server]\n", "[server]\nauth = \"none\"\n");
    std::fs::write(world.path("consign.toml"), config).unwrap();
    let refused = run(&world, &["agent"]);
    assert!(refused.status.code() == Some(1) && said(&refused).contains("loopback"), "{}", said(&refused));
}
