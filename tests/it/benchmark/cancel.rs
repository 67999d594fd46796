//! How soon a cancellation is acknowledged, and the task dead.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    LIMIT,
    figure::{Aim, Figure, middle_and_most, milliseconds, number},
    stage::{SOON, Stage},
};
use crate::support::look_every;

/// How long after a cancellation a task that obeys its signal may live.
const DEAD_AFTER: f64 = 5.0;

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let jobs = if quick { 3 } else { 15 };
    let stage = Stage::new("cancel", |config| config).await;
    let _agent = stage.agent().await;
    let (mut acknowledged, mut dead) = (Vec::new(), Vec::new());
    for _ in 0..jobs {
        let id = stage.submit("nap", json!({})).await;
        let job = stage.until(&id, "working").await;
        let child = job["attempts"][0]["nomad_job_id"].as_str().unwrap().replace('/', "%2F");
        let begun = Instant::now();
        let (status, answer) =
            stage.send(Method::POST, &format!("/jobs/{id}/cancel"), &json!({})).await.unwrap();
        acknowledged.push(begun.elapsed());
        assert!(status.is_success(), "{answer}");
        dead.push(until_dead(&stage, &child, begun).await);
    }
    let ((middle, most), (_, last)) = (middle_and_most(acknowledged), middle_and_most(dead));
    vec![
        Figure::new("cancel_ack_ms", "a cancellation's acknowledgement", milliseconds(middle))
            .beside(format_args!("{} ms for nine of ten", number(milliseconds(most))))
            .aiming(Aim::AtMost(20.0)),
        Figure::new("cancel_dead_s", "until the cancelled task is dead, nine of ten", last.as_secs_f64())
            .aiming(Aim::AtMost(DEAD_AFTER)),
    ]
}

/// Waits until Nomad has ended the job's one allocation.
async fn until_dead(stage: &Stage, child: &str, begun: Instant) -> Duration {
    look_every(SOON * 10, "the task to be dead", LIMIT, async || {
        let list = stage.world.nomad.get(&format!("/v1/job/{child}/allocations")).await?;
        let status: &Value = &list[0]["ClientStatus"];
        if status == "complete" || status == "failed" { Ok(begun.elapsed()) } else { Err(status.to_string()) }
    })
    .await
}
