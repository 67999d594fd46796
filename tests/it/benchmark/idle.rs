//! What an agent costs that has nothing to do.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{LIMIT, ratio, say};
use crate::support::{World, action, wait_for};

/// How many ended actions the ops repo has.
const PAST: usize = 100_000;
/// How long an idle agent is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// How often it looks.
const POLL: &str = "100ms";

/// What the agent uses.
struct Usage {
    resident: u64,
    /// The processor time of the agent and of the programs that it ran.
    processor: Duration,
}

fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = kilobytes.trim().trim_end_matches(" kB").parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may have spaces; utime, stime, cutime and cstime are the fields 14 to 17.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Usage { resident: resident * 1024, processor: Duration::from_millis(ticks * 10) }
}

/// Adds ended actions to the branch, in dated folders, as consign would have left them.
fn add_past(world: &World) {
    let mut git = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(&world.ops.bare)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = std::io::BufWriter::new(git.stdin.take().unwrap());
    let subject = "the past";
    writeln!(stream, "commit refs/heads/main\ncommitter A <a@example.invalid> 1700000000 +0000").unwrap();
    writeln!(stream, "data {}\n{subject}\nfrom refs/heads/main^0", subject.len()).unwrap();
    for number in 0..PAST {
        let id = format!("past-{number:06}");
        let folder = format!("actions/{}/{:02}", 2000 + number / 12_000, number / 1000 % 12 + 1);
        let text = action(&id, "note", "");
        let result = format!(
            "{{\"id\":\"{id}\",\"exit_code\":0,\"outcome\":\"succeeded\",\"timestamp\":\"2024-01-01T00:00:00Z\",\"logs\":\"\"}}\n"
        );
        for (path, text) in [(format!("{id}.toml"), text), (format!("{id}.result.json"), result)] {
            writeln!(stream, "M 100644 inline {folder}/{path}\ndata {}\n{text}", text.len()).unwrap();
        }
    }
    stream.flush().unwrap();
    drop(stream);
    assert!(git.wait().unwrap().success());
}

/// The processor time that the agent uses in [`WATCHED`], and its resident memory then.
async fn watched(pid: u32) -> Usage {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = usage(pid);
    tokio::time::sleep(WATCHED).await;
    let after = usage(pid);
    Usage { resident: after.resident, processor: after.processor.saturating_sub(before.processor) }
}

/// How long a bare idle `git fetch` takes, of the mirror that the agent has.
fn fetch(world: &World) -> Duration {
    let times = 50;
    let begun = Instant::now();
    for _ in 0..times {
        let fetched = Command::new("git")
            .arg("--git-dir")
            .arg(world.path("store/mirror.git/repository.git"))
            .args(["fetch", "--quiet"])
            .arg(&world.ops.bare)
            .arg("refs/heads/main")
            .status();
        assert!(fetched.unwrap().success());
    }
    begun.elapsed() / times
}

#[tokio::test]
#[ignore = "a measurement"]
async fn an_idle_agent_over_a_long_past() {
    let world = World::new("idle").await;
    world.bootstrap_with(&world.config_toml().replace("poll = \"200ms\"", &format!("poll = \"{POLL}\"")));
    world.ops.commit("a formula", &[("formulas/note.sh", Some("true\n"))]);
    let young = world.agent().await;
    let without = watched(young.pid()).await;
    let bare = fetch(&world);
    young.kill();
    world.commit_action("last", "note", "");
    add_past(&world);
    let begun = Instant::now();
    let agent = world.agent().await;
    wait_for("the past to be read", LIMIT, async || {
        world
            .ops
            .read("actions/last.result.json")
            .map(drop)
            .ok_or_else(|| "no result of what came last".to_owned())
    })
    .await;
    let read = begun.elapsed();
    let with = watched(agent.pid()).await;
    let with_bare = fetch(&world);
    let mebibytes = |bytes: u64| bytes / 1024 / 1024;
    say(format_args!(
        "idle: {} MiB resident, {} MiB after {PAST} past actions were read in {read:.1?}",
        mebibytes(without.resident),
        mebibytes(with.resident)
    ));
    say(format_args!(
        "idle with a look every {POLL}: {:.1?} of processor time a second; over {PAST} past actions {:.1?}; ratio {:.2}",
        without.processor / 20,
        with.processor / 20,
        ratio(with.processor, without.processor)
    ));
    say(format_args!("a bare idle fetch takes {bare:.1?}, over {PAST} past actions {with_bare:.1?}"));
    assert!(with.processor < without.processor * 4);
}
