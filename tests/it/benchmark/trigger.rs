//! How soon a webhook is answered, and Nomad has its job.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    LIMIT,
    figure::{Aim, Figure, middle_and_most, milliseconds, number},
    stage::{SOON, Stage},
};
use crate::support::look_every;

const TOKEN: &str = "a-token-of-its-own";

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let calls = if quick { 5 } else { 50 };
    let stage = Stage::new("trigger", |config| config).await;
    let token = stage.world.path("trigger.token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let config = stage.world.path("consign.toml");
    let text = fs::read_to_string(&config).unwrap()
        + &format!(
            "\n[[trigger]]\nname = \"bench\"\nkind = \"webhook\"\noverlap = \"queue\"\ntoken_file = \"{}\"\n\
             [trigger.action]\nformula = \"note\"\njob = \"mock\"\nblast_radius = \"low\"\n",
            token.display()
        );
    fs::write(&config, text).unwrap();
    let _agent = stage.agent().await;
    let http = crate::support::http();
    let url = format!("{}/triggers/bench", stage.world.agent_address());
    let (mut answers, mut acceptances) = (Vec::new(), Vec::new());
    for _ in 0..calls {
        let begun = Instant::now();
        let answer = http.post(&url).bearer_auth(TOKEN).send().await.unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        answers.push(begun.elapsed());
        let answered = Timestamp::now();
        assert_eq!(answer["status"], json!("triggered"), "{answer}");
        let job = stage.until(answer["job_id"].as_str().unwrap(), "done").await;
        idle(&stage).await;
        let accepted: Timestamp = job["attempts"][0]["dispatched_at"].as_str().unwrap().parse().unwrap();
        // It may come before the answer.
        acceptances.push(Duration::try_from(accepted.duration_since(answered)).unwrap_or_default());
    }
    let ((middle, most), (accepted, _)) = (middle_and_most(answers), middle_and_most(acceptances));
    vec![
        Figure::new("trigger_ms", "a trigger's answer", milliseconds(middle))
            .beside(format_args!("{} ms for nine of ten", number(milliseconds(most))))
            .aiming(Aim::AtMost(20.0)),
        Figure::new("trigger_dispatch_ms", "from that to Nomad's acceptance", milliseconds(accepted))
            .aiming(Aim::AtMost(100.0)),
    ]
}

/// Waits until the trigger has heard of its run's end.
async fn idle(stage: &Stage) {
    look_every(SOON * 5, "the trigger to be idle", LIMIT, async || {
        let (_, details) = stage.send(Method::GET, "/triggers/bench", &json!({})).await?;
        if details["reason"] == "already_running" { Err(details.to_string()) } else { Ok(()) }
    })
    .await;
}
