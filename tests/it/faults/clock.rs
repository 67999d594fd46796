//! A clock that is set, again and again, while work comes in and runs.

use std::{fs, path::PathBuf};

use crate::{
    outages::{commit_formulas, each_once, let_end, works},
    support::{LIMIT, World},
};

/// How often the clock is set.
const JUMPS: usize = 20;
/// How far from the time it is set each time: an hour, a leap second and ten years, forwards and backwards.
const OFFSETS: [&str; 7] = ["+3600", "-3600", "+10y", "-10y", "+1", "-1", "+0"];

/// The library that lies about the time to a program that loads it, from Debian's package faketime.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.is_file()).expect("faketime is installed: scripts/test does it")
}

#[tokio::test]
async fn the_clock_is_set_and_everything_starts_once_and_nothing_runs_out_of_time() {
    let world = World::new("clock").await;
    world.bootstrap("");
    let clock = world.path("clock");
    // A program that sees half a file would see no time.
    let set = |offset: &str| {
        fs::write(world.path("clock.new"), offset).unwrap();
        fs::rename(world.path("clock.new"), &clock).unwrap();
    };
    set("+0");
    let library = library();
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        // Like the kernel's, which no setting of the clock moves.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let agent = world.launch_agent_with(&[], &environment);
    agent.ready().await;
    commit_formulas(&world);
    // Its hour is not over when the clock says so.
    world.commit_action("working", "wait", "timeout = \"1h\"");
    works(&world, "working").await;
    let mut ids = vec!["working".to_owned()];
    for (jump, offset) in OFFSETS.iter().cycle().take(JUMPS).enumerate() {
        let id = format!("clock-{jump}");
        world.commit_action(&id, "note", "timeout = \"1h\"");
        set(offset);
        // Some come in at one time and end at another.
        if jump % 3 == 0 {
            world.result(&id, LIMIT).await;
        }
        ids.push(id);
    }
    set("+0");
    let_end(&world, "working");
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    each_once(&world, &ids).await;
    agent.recovered().await;
}
