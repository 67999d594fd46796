//! The client library on a real agent: both ways to hear of a job's end, deadlines, logs and artifacts.

mod example;

use std::time::Duration;

use consign::{
    client::{AtDeadline, By, Client, Error, Wait},
    outcome::{Cause, Outcome},
};
use serde_json::{Value, json};

use crate::support::{LIMIT, World, wait_for};

const SECRET: &str = "only the receiver knows";

/// What `report` keeps: a small file and one that is too large to stand in an answer.
const REPORT: &str = "description = \"reports\"\nartifacts = [\"*.csv\", \"*.bin\"]\n[args.month]\nrequired = true\n\
    [[steps]]\nname = \"report\"\nrun = \"echo reporting; echo $ARG_MONTH > report.csv; yes 0123456789 | head -c 300000 > large.bin\"\n";

/// A world whose agent signs webhooks, and whose formulas are `report` and `hold`, which waits for the file `go`.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    let secret = world.path("webhook.secret");
    std::fs::write(&secret, SECRET).unwrap();
    world.bootstrap(&format!("[webhooks]\nsecret_file = \"{}\"\n", secret.display()));
    let hold = format!("while [ ! -e {} ]; do sleep 0.1; done\n", world.path("go").display());
    let files = [("formulas/report.toml", Some(REPORT)), ("formulas/hold.sh", Some(hold.as_str()))];
    world.ops.commit("formulas", &files);
    world
}

/// A client of the world's agent, once that knows the formulas.
async fn client(world: &World) -> Client {
    let client = Client::new(&world.agent_address(), Some(world.token("ann", "read,submit").into())).unwrap();
    wait_for("the ops repo to be read", LIMIT, async || {
        match client.submit(&json!({}), "nothing").await.unwrap_err() {
            Error::Refused { status, .. } if status.as_u16() == 422 => Ok(()),
            error => Err(error.to_string()),
        }
    })
    .await;
    client
}

fn report() -> Value {
    json!({ "formula": "report", "args": { "month": "2026-10" }, "blast_radius": "low" })
}

/// How many webhooks of a job were delivered.
fn delivered(log: &str, job_id: &str) -> usize {
    log.lines().filter(|line| line.contains("webhook delivered") && line.contains(job_id)).count()
}

#[tokio::test]
async fn the_example_of_the_documentation_does_what_it_says() {
    let world = world("example").await;
    let _agent = world.agent().await;
    client(&world).await;
    let token = world.token("example", "read,submit");
    let content = example::report(&world.agent_address(), token.into()).await.unwrap();
    assert_eq!(content.as_deref(), Some(&b"2026-10\n"[..]));
}

#[tokio::test]
async fn told_or_asking_the_end_is_the_same() {
    let world = world("client").await;
    let agent = world.agent().await;
    let client = client(&world).await;
    for (by, webhooks) in [
        (By::Webhook { secret: Some(SECRET.into()) }, 4),
        (By::Webhook { secret: None }, 4),
        (By::Polling, 0),
    ] {
        let told = format!("{by:?}");
        let wait = Wait { by, deadline: Some(LIMIT), ..Wait::default() };
        let job = client.submit_and_wait(&report(), &wait).await.unwrap();
        let id = job.summary.job_id.as_str();
        assert_eq!(
            (job.summary.outcome, job.summary.exit_code),
            (Some(Outcome::Succeeded), Some(0)),
            "{told}"
        );
        assert_eq!(client.job(id).await.unwrap(), job);
        assert_eq!(client.logs(id).await.unwrap(), b"reporting\n");
        wait_for("webhooks to be delivered", LIMIT, async || {
            let count = delivered(&agent.log(), id);
            if count == webhooks { Ok(()) } else { Err(format!("{count} of {webhooks} {told}")) }
        })
        .await;

        let artifacts = client.artifacts(id).await.unwrap();
        let names: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["large.bin", "report.csv"]);
        let [large, small] = &artifacts[..] else { unreachable!("two") };
        assert_eq!((small.data.as_deref(), &small.url), (Some("MjAyNi0xMAo="), &None));
        assert_eq!((&large.data, &large.url), (&None, &Some(format!("/jobs/{id}/artifacts/large.bin"))));
        let result = job.result.unwrap();
        assert_eq!(result.artifacts[0].url, large.url, "the url of a result answers");
        let mut content = Vec::new();
        let take = |piece: &[u8]| {
            content.extend_from_slice(piece);
            Ok(())
        };
        client.fetch(id, large, take).await.unwrap();
        assert!(content.len() == 300_000 && content.starts_with(b"0123456789\n0123"));
    }
}

#[tokio::test]
async fn a_deadline_leaves_the_job_running_or_cancels_it() {
    let world = world("deadlines").await;
    let _agent = world.agent().await;
    let client = client(&world).await;
    let hold = json!({ "formula": "hold", "blast_radius": "low" });
    for (by, at_deadline) in [(By::default(), AtDeadline::Leave), (By::Polling, AtDeadline::Cancel)] {
        let wait = Wait { by, deadline: Some(Duration::from_secs(3)), at_deadline };
        let error = client.submit_and_wait(&hold, &wait).await.unwrap_err();
        let Error::Deadline { job_id, cancelled } = error else { panic!("{error:?}") };
        assert_eq!(cancelled, at_deadline == AtDeadline::Cancel);
        assert_eq!(client.job(&job_id).await.unwrap().summary.outcome, None);
        if !cancelled {
            std::fs::write(world.path("go"), "").unwrap();
        }
        let mut log = client.follow(&job_id).await.unwrap();
        while log.next().await.unwrap().is_some() {}
        let mut states = Vec::new();
        let ended = client.wait(&job_id, &Wait::default(), |job| states.push(job.summary.state)).await;
        let expected = if cancelled { Cause::Cancelled } else { Cause::Success };
        assert_eq!(ended.unwrap().summary.cause, Some(expected), "{states:?}");
        drop(std::fs::remove_file(world.path("go")));
    }
}

#[tokio::test]
async fn artifacts_are_listed_printed_and_written_to_files() {
    let world = world("kept").await;
    let _agent = world.agent().await;
    let client = client(&world).await;
    let wait = Wait { deadline: Some(LIMIT), ..Wait::default() };
    let job = client.submit_and_wait(&report(), &wait).await.unwrap();
    let id = job.summary.job_id.as_str();
    let token = world.token("operator", "read");
    let run = |arguments: &[&str]| {
        let arguments = [&["artifacts", id], arguments].concat();
        world.consign(&arguments).env("CONSIGN_TOKEN", &token).output().unwrap()
    };
    let table = String::from_utf8(run(&[]).stdout).unwrap();
    assert!(
        table.contains("report.csv") && table.contains("text/csv") && table.contains("293.0 KiB"),
        "{table}"
    );
    let listed: Value = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    assert_eq!(listed[1]["name"], "report.csv");
    assert_eq!(run(&["report.csv"]).stdout, b"2026-10\n");
    let file = world.path("large.copy");
    std::fs::write(&file, "before").unwrap();
    let written = run(&["large.bin", "-o", file.to_str().unwrap()]);
    assert!(written.status.success() && written.stdout.is_empty(), "{written:?}");
    assert_eq!(std::fs::read(&file).unwrap().len(), 300_000);
    for name in ["absent", "../record.json"] {
        let refused = run(&[name]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("has no artifact"), "{refused:?}");
    }
    // What is damaged on the agent's disk is not handed out as what was kept.
    let kept = world.path("store/artifacts").join(id).join("files/large.bin");
    let mut content = std::fs::read(&kept).unwrap();
    content[7] ^= 1;
    std::fs::write(&kept, content).unwrap();
    let damaged = run(&["large.bin", "-o", file.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("SHA-256"), "{damaged:?}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"0123456789\n0123"), "the file is as it was");
    std::fs::remove_dir_all(world.path("store/artifacts").join(id)).unwrap();
    let gone = run(&["report.csv"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("gone"), "{gone:?}");
}
