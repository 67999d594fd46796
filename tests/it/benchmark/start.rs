//! How large the program is, how soon it starts, and what it holds when it has nothing to do.

use std::{fs, time::Instant};

use super::{
    LIMIT,
    figure::{Aim, Figure, middle_and_most, milliseconds},
    stage::{SOON, Stage},
    usage,
};
use crate::support::{is_ready, look_every};

const STARTS: usize = 10;

pub(super) async fn measure() -> Vec<Figure> {
    let stage = Stage::new("start", |config| config).await;
    // The first start makes store and mirror.
    stage.agent().await.kill();
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let agent = stage.launch();
        look_every(SOON, "the agent to be ready", LIMIT, async || is_ready(&agent.address).await).await;
        times.push(begun.elapsed());
        assert!(agent.terminate().await.success());
    }
    let (middle, most) = middle_and_most(times);
    let agent = stage.agent().await;
    for _ in 0..STARTS {
        stage.model().await;
    }
    let size = fs::metadata(env!("CARGO_BIN_EXE_consign")).unwrap().len();
    vec![
        Figure::new("binary_mb", "the program's size", f64::from(u32::try_from(size).unwrap()) / 1e6),
        Figure::new("start_ms", "from its start until it takes work", milliseconds(middle))
            .beside(format_args!("{:.0} ms for nine of ten", milliseconds(most))),
        Figure::new("rss_idle_mb", "resident, idle after ten jobs", usage::resident(agent.pid()))
            .aiming(Aim::AtMost(30.0)),
    ]
}
