//! What consign costs, beside what Nomad, Vault, git and SQLite take without it: `scripts/bench` runs and prints it.
//!
//! Times move with the machine, so each measurement takes both sides in one run. Nothing is asserted of the figures:
//! the table says which miss their aim.

pub(crate) mod floor;

mod accept;
mod cancel;
mod dispatch;
mod drain;
mod figure;
mod history;
mod machine;
mod memory;
mod plot;
mod report;
mod stage;
mod start;
mod trigger;
mod usage;

pub(crate) use stage::mock_job;

use std::{fmt::Display, io::Write as _, panic::AssertUnwindSafe, path::PathBuf, time::Duration};

use futures_util::FutureExt as _;

use self::figure::Figure;

/// How long anything may take.
const LIMIT: Duration = Duration::from_mins(5);

/// The measurements, in the order in which they are taken.
const NAMES: [&str; 8] = ["start", "accept", "dispatch", "trigger", "cancel", "history", "drain", "memory"];

pub(crate) fn say(line: impl Display) {
    writeln!(std::io::stderr().lock(), "benchmark: {line}").unwrap();
}

async fn measure(name: &str, quick: bool) -> Vec<Figure> {
    match name {
        "start" => start::measure().await,
        "accept" => accept::measure(quick).await,
        "dispatch" => dispatch::measure(quick).await,
        "trigger" => trigger::measure(quick).await,
        "cancel" => cancel::measure(quick).await,
        "history" => history::measure(quick).await,
        "drain" => drain::measure(quick).await,
        "memory" => memory::measure(quick).await,
        other => panic!("no measurement is called {other}; there are {NAMES:?}"),
    }
}

/// Takes the measurements that `scripts/bench` asks for and writes what came of them where it says.
#[tokio::test]
#[ignore = "measurements, not a test"]
async fn figures() {
    let asked = std::env::var("CONSIGN_BENCH_ONLY").unwrap_or_default();
    let quick = std::env::var_os("CONSIGN_BENCH_QUICK").is_some();
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let names: Vec<&str> = if asked.is_empty() { NAMES.to_vec() } else { asked.split_whitespace().collect() };
    let machine = machine::describe();
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        say(format_args!("measuring {name}"));
        // One that fails takes none of the others away.
        match AssertUnwindSafe(measure(name, quick)).catch_unwind().await {
            Ok(measured) => {
                measured.iter().for_each(say);
                figures.extend(measured);
            }
            Err(_) => failed.push(name),
        }
    }
    say(format_args!("{}\n\n{}", machine, report::table(&figures)));
    if let Some(path) = path("CONSIGN_BENCH_JSON") {
        std::fs::write(path, report::json(&machine, &figures)).unwrap();
    }
    if let Some(folder) = path("CONSIGN_BENCH_PUBLISH") {
        report::publish(&folder, &machine, &figures);
    }
    assert!(failed.is_empty(), "these measurements failed: {failed:?}");
}
