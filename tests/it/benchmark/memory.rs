//! What the agent holds in memory while much waits, and while much works.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    LIMIT,
    figure::{Aim, Figure},
    stage::Stage,
    usage,
};
use crate::support::wait_for;

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let jobs = if quick { 20 } else { 1000 };
    let mut figures = Vec::new();
    for (state, key, further, aim) in [
        (
            "waiting",
            "rss_waiting_1000_mb",
            json!({ "job": "mock", "not_before": "2099-01-01T00:00:00Z" }),
            None,
        ),
        ("working", "rss_live_1000_mb", json!({ "job": "mock-live" }), Some(Aim::AtMost(60.0))),
    ] {
        let resident = of(&format!("memory-{state}"), jobs, state, &further).await;
        let figure = Figure::new(key, format!("resident with {jobs} jobs {state}"), resident);
        figures.push(Figure { aim, ..figure });
    }
    figures
}

/// What an agent holds with so many jobs in a phase.
async fn of(name: &str, jobs: usize, phase: &str, further: &Value) -> f64 {
    let stage = Stage::new(name, |config| config).await;
    let agent = stage.agent().await;
    stream::iter(0..jobs)
        .for_each_concurrent(8, |_| async { drop(stage.submit("note", further.clone()).await) })
        .await;
    wait_for(&format!("{jobs} jobs to be {phase}"), LIMIT, async || {
        let count = stage.count(phase).await;
        if count >= f64::from(u32::try_from(jobs).unwrap()) { Ok(()) } else { Err(format!("{count} are")) }
    })
    .await;
    usage::resident(agent.pid())
}
