//! Many actions in one commit until all their results are pushed, beside a bare loop over the same jobs and beside a
//! loop of `nomad job dispatch`.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{
    LIMIT,
    figure::{Aim, Figure, number},
    floor::{self, Dispatching},
    stage::Stage,
};
use crate::support::{action, look_every};

/// How often is looked whether results were pushed.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let (actions, dispatches) = if quick { (50, 10) } else { (1000, 200) };
    let stage = Stage::new("drain", |config| config).await;
    let agent = stage.agent().await;
    let model = stage.model().await;
    assert!(agent.terminate().await.success());
    let world = &stage.world;
    let bare = async |job, count, how| {
        stage.register_copy(job).await;
        floor::time(world, job, &model, count, how).await.as_secs_f64()
    };
    let before = bare("before", actions, Dispatching::Api).await;

    let agent = stage.agent().await;
    let files: Vec<(String, String)> = (0..actions)
        .map(|number| {
            let id = format!("drain-{number:04}");
            (format!("actions/2026/11/{id}.toml"), action(&id, "note", "job = \"mock\""))
        })
        .collect();
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    let revision = world.ops.commit("many actions", &changes);
    let begun = Instant::now();
    stage.tell().await;
    until_pushed(&stage, actions).await;
    let took = begun.elapsed().as_secs_f64();
    let pushes = world.ops.bare(&["rev-list", "--count", &format!("{revision}..main")]);
    let pushes: f64 = pushes.trim().parse().unwrap();
    let push_time = stage.metric("consign_result_push_seconds_sum").await
        / stage.metric("consign_result_push_seconds_count").await;
    drop(agent);

    let after = bare("after", actions, Dispatching::Api).await;
    let floor = f64::midpoint(before, after);
    let count = f64::from(u32::try_from(actions).unwrap());
    let command_line = bare("commands", dispatches, Dispatching::CommandLine).await;
    let command_line = command_line * count / f64::from(u32::try_from(dispatches).unwrap());
    vec![
        Figure::new("drain_s", format!("{actions} actions in one commit, all results pushed"), took)
            .beside(format_args!("{} s before, {} s after in a bare loop", number(before), number(after))),
        Figure::new("drain_ratio", "that to the bare loop", took / floor).aiming(Aim::AtMost(1.15)),
        Figure::new("drain_vs_cli_ratio", "that to a loop of nomad job dispatch", took / command_line)
            .beside(format_args!("{} s for as many", number(command_line)))
            .aiming(Aim::AtMost(1.0)),
        Figure::new("results_per_push", "results in one push meanwhile", count / pushes),
        Figure::new("push_ms", "one commit and push of results", push_time * 1e3),
    ]
}

/// Waits until the ops repo has so many results of this measurement.
async fn until_pushed(stage: &Stage, count: usize) {
    let branch = stage.world.ops.bare.join("refs/heads/main");
    let mut looked_at = String::new();
    look_every(LOOK, "all results", LIMIT, async || {
        let tip = fs::read_to_string(&branch).unwrap();
        if tip == looked_at {
            return Err(format!("still {tip}"));
        }
        looked_at = tip;
        let paths = stage.world.ops.paths();
        let is_result = |path: &&String| path.contains("/drain-") && path.ends_with(".result.json");
        let results = paths.iter().filter(is_result).count();
        if results == count { Ok(()) } else { Err(format!("{results} results")) }
    })
    .await;
}
