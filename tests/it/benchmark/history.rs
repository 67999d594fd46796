//! What a long past costs: an idle look, a new action and a start, beside a bare idle `git fetch`.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{
    LIMIT,
    figure::{Aim, Figure, middle_and_most, milliseconds, number},
    say,
    stage::{SOON, Stage},
};
use crate::support::{action, is_ready, look_every};

/// Actions from long ago that wait until 2099: the agent has read what it lists among its jobs.
const WAITS: &str = "not_before = \"2099-01-01T00:00:00Z\"";

#[derive(Debug, Clone, Copy)]
enum Layout {
    /// A folder for each thousand.
    Dated,
    Flat,
}

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let sizes: &[usize] = if quick { &[100, 1000] } else { &[1000, 10_000, 100_000] };
    let mut figures = Vec::new();
    for layout in [Layout::Dated, Layout::Flat] {
        let stage = Stage::new("history", |config| config.replace("poll = \"1m\"", "poll = \"50ms\"")).await;
        let mut past = 0;
        for &size in sizes {
            say(format_args!("{size} past actions, {layout:?}"));
            figures.extend(of(&stage, layout, past..size).await);
            past = size;
        }
    }
    figures
}

/// Adds past actions and measures an agent that has never seen the ops repo, and one that has.
async fn of(stage: &Stage, layout: Layout, added: std::ops::Range<usize>) -> Vec<Figure> {
    let size = added.end;
    let mut files: Vec<(String, String)> = added.flat_map(|number| ended(layout, number)).collect();
    let marker = format!("after-{size}");
    files.push((path(layout, size, &marker), action(&marker, "note", WAITS)));
    import(&stage.world.ops.bare, &files);
    let store = stage.world.path("store");
    if store.exists() {
        fs::remove_dir_all(&store).unwrap();
    }
    let begun = Instant::now();
    let agent = stage.world.launch_agent(&["--take-over"]);
    knows(stage, &marker).await;
    let cold = begun.elapsed();

    let (look, bare) = idle(stage).await;
    let mut new = Vec::new();
    for number in 0..5 {
        let id = format!("new-{size}-{number}");
        import(&stage.world.ops.bare, &[(path(layout, size, &id), action(&id, "note", WAITS))]);
        let begun = Instant::now();
        stage.tell().await;
        knows(stage, &id).await;
        new.push(begun.elapsed());
    }
    assert!(agent.terminate().await.success());
    let begun = Instant::now();
    let agent = stage.launch();
    look_every(SOON, "the agent to be ready", LIMIT, async || is_ready(&agent.address).await).await;
    let restart = begun.elapsed();
    assert!(agent.terminate().await.success());
    let bare_new = fetched(stage, layout, size);

    let (suffix, place) = match layout {
        Layout::Dated => ("", "dated folders"),
        Layout::Flat => ("_flat", "one folder"),
    };
    let name = if size < 1000 { size.to_string() } else { format!("{}k", size / 1000) };
    let key = |figure: &str, unit: &str| format!("{figure}_{name}{suffix}{unit}");
    let over = format!("over {size} past actions in {place}");
    let ratio = milliseconds(look) / milliseconds(bare);
    vec![
        Figure::new(key("idle_poll_ratio", ""), format!("an idle look {over}, to a bare fetch"), ratio)
            .beside(format_args!("{} ms to {} ms", number(milliseconds(look)), number(milliseconds(bare))))
            .aiming(Aim::AtMost(1.2)),
        Figure::new(
            key("new_action", "_ms"),
            format!("a new action {over}"),
            milliseconds(middle_and_most(new).0),
        )
        .beside(format_args!("{} ms for git's fetch and diff-tree alone", number(milliseconds(bare_new)))),
        Figure::new(key("cold_start", "_s"), format!("the first start {over}"), cold.as_secs_f64()),
        Figure::new(key("restart", "_ms"), format!("a later start {over}"), milliseconds(restart)),
    ]
}

/// How long the agent's idle looks and as many bare idle fetches of its mirror take, one beside the other.
async fn idle(stage: &Stage) -> (Duration, Duration) {
    let looks = async || {
        let sum = stage.metric("consign_look_seconds_sum").await;
        (sum, stage.metric("consign_look_seconds_count").await)
    };
    // The look that found everything may go on yet.
    let (_, before) = looks().await;
    look_every(SOON, "an idle look", LIMIT, async || {
        let (_, count) = looks().await;
        if count >= before + 2.0 { Ok(()) } else { Err(format!("{count} looks")) }
    })
    .await;
    let mirror = stage.world.path("store/mirror.git/repository.git");
    let (sum, count) = looks().await;
    let mut bare = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let fetched = tokio::process::Command::new("git")
            .arg("--git-dir")
            .arg(&mirror)
            .args(["fetch", "--quiet", "--no-write-fetch-head"])
            .arg(&stage.world.ops.bare)
            .arg("refs/heads/main")
            .status();
        assert!(fetched.await.unwrap().success());
        bare.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (later_sum, later_count) = looks().await;
    (Duration::from_secs_f64((later_sum - sum) / (later_count - count)), bare.iter().sum::<Duration>() / 50)
}

/// How long git alone takes to fetch a new action into the agent's mirror and to name it; the agent does not run.
fn fetched(stage: &Stage, layout: Layout, size: usize) -> Duration {
    let store = stage.world.path("store/mirror.git");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.env("GIT_CONFIG_GLOBAL", store.join("gitconfig")).stdout(Stdio::null()).arg("--git-dir");
        assert!(command.arg(store.join("repository.git")).args(arguments).status().unwrap().success());
    };
    let remote = stage.world.ops.bare.to_str().unwrap();
    git(&["fetch", "--quiet", remote, "+refs/heads/main:refs/heads/after"]);
    let mut times = Vec::new();
    for number in 0..5 {
        let id = format!("bare-{size}-{number}");
        import(&stage.world.ops.bare, &[(path(layout, size, &id), action(&id, "note", WAITS))]);
        git(&["update-ref", "refs/heads/before", "refs/heads/after"]);
        let begun = Instant::now();
        git(&["fetch", "--quiet", "--no-write-fetch-head", remote, "+refs/heads/main:refs/heads/after"]);
        git(&["diff-tree", "-r", "refs/heads/before", "refs/heads/after"]);
        times.push(begun.elapsed());
    }
    middle_and_most(times).0
}

/// Waits until the agent has a job of this action.
async fn knows(stage: &Stage, id: &str) {
    look_every(SOON, &format!("{id} to be known"), LIMIT, async || {
        let (status, answer) = stage.send(Method::GET, &format!("/jobs/{id}"), &json!({})).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

fn path(layout: Layout, number: usize, id: &str) -> String {
    match layout {
        Layout::Dated => {
            format!("actions/{}/{:02}/{id}.toml", 2000 + number / 12_000, number / 1000 % 12 + 1)
        }
        Layout::Flat => format!("actions/{id}.toml"),
    }
}

/// An action that has ended, and its result as consign would have left it.
fn ended(layout: Layout, number: usize) -> [(String, String); 2] {
    let id = format!("past-{number:06}");
    let path = path(layout, number, &id);
    let result = json!({
        "id": id, "job_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "outcome": "succeeded", "cause": "success",
        "message": "the task ended with exit code 0", "exit_code": 0, "timestamp": "2024-01-01T00:00:00Z",
        "logs": "all is well\n", "log_status": "complete", "submitted_at": "2024-01-01T00:00:00Z",
        "dispatched_at": null, "started_at": null, "finished_at": "2024-01-01T00:00:00Z", "revision": null,
        "approved_by": "merged", "secrets": [], "attempts": [], "steps": [], "artifacts": [], "usage": null,
    });
    let result = (path.replace(".toml", ".result.json"), format!("{result:#}\n"));
    [(path, action(&id, "note", "")), result]
}

/// Commits files on top of the branch, without a work tree.
fn import(repository: &Path, files: &[(String, String)]) {
    let mut git = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(repository)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = std::io::BufWriter::new(git.stdin.take().unwrap());
    writeln!(stream, "commit refs/heads/main\ncommitter A <a@example.invalid> 1700000000 +0000").unwrap();
    write!(stream, "data 4\nmore\nfrom refs/heads/main^0\n").unwrap();
    for (path, text) in files {
        writeln!(stream, "M 100644 inline {path}\ndata {}\n{text}", text.len()).unwrap();
    }
    stream.flush().unwrap();
    drop(stream);
    assert!(git.wait().unwrap().success());
}
