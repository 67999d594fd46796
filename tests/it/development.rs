//! The development mode, as a newcomer meets it: one command, real servers, the results, and nothing left.

use std::{
    process::Command,
    time::{Duration, Instant},
};

/// How long the samples may take from the first server's start to the last one's end.
const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn one_command_runs_the_samples_prints_their_results_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_consign"))
        .args(["agent", "--dev", "--once"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.starts_with("action "))
        .skip(1)
        .map(|line| line.split_whitespace().take(4).collect())
        .collect();
    let expected = [
        ["fails", "failed", "exit_code", "3"],
        ["greet", "succeeded", "success", "0"],
        ["hello", "succeeded", "success", "0"],
        ["secret", "succeeded", "success", "0"],
        ["steps", "succeeded", "success", "0"],
        ["train", "succeeded", "success", "0"],
    ];
    assert_eq!(rows, expected, "{text}");
    for stage in
        ["validated", "approved", "dispatched", "granted", "working", "grant withdrawn", "result committed"]
    {
        assert!(text.contains(stage), "{stage} is not shown:\n{text}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "its folder is gone");
    assert!(took < LIMIT, "it took {took:?}");
}
