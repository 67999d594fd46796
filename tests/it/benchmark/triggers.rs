//! How soon a webhook is answered, and Nomad has its job.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::say;
use crate::triggers::{Stage, TOKEN, webhook};

/// How many calls are timed, each after the run before has ended.
const CALLS: usize = 50;

#[tokio::test]
#[ignore = "a measurement"]
async fn from_a_webhooks_call_to_nomads_acceptance() {
    let stage = Stage::new("calls", &webhook("train", "")).await;
    let (mut answers, mut acceptances) = (Vec::new(), Vec::new());
    let mut standing = "no_previous_training";
    for _ in 0..CALLS {
        stage.until_standing("train", standing).await;
        standing = "cooldown_expired";
        let begun = Instant::now();
        let (status, answer) = stage.post("/triggers/train", TOKEN, "").await;
        answers.push(begun.elapsed());
        let answered = Timestamp::now();
        assert_eq!((status, &answer["status"]), (200, &json!("triggered")), "{answer}");
        stage.until_standing("train", standing).await;
        let job = stage.get(&format!("/jobs/{}", answer["job_id"].as_str().unwrap())).await;
        let accepted: Timestamp = job["attempts"][0]["dispatched_at"].as_str().unwrap().parse().unwrap();
        // It may come before the answer.
        acceptances.push(Duration::try_from(accepted.duration_since(answered)).unwrap_or_default());
    }
    answers.sort_unstable();
    acceptances.sort_unstable();
    let (middle, most) = (CALLS / 2, CALLS * 9 / 10);
    say(format_args!(
        "a webhook's answer: {:.1?} in the middle, {:.1?} for nine of ten; Nomad has accepted {:.1?} after it, \
         {:.1?} for nine of ten",
        answers[middle], answers[most], acceptances[middle], acceptances[most]
    ));
    assert!(answers[middle] < Duration::from_secs(1));
}
