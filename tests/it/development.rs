//! The development mode, as a newcomer meets it: one command, real servers, the results, and nothing left.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::support::{LIMIT, tell_failures, wait_for};

#[test]
fn one_command_runs_the_samples_prints_their_results_and_leaves_nothing() {
    tell_failures();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_consign"))
        .args(["agent", "--dev", "--once"])
        .env("TMPDIR", folder.path())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
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
}

/// A session that does not outlive its test.
struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A command as somebody beside the session gives it: no configuration, no address and no token.
fn beside(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consign"));
    command.args(arguments).current_dir(folder).env("TMPDIR", folder).env_remove("XDG_RUNTIME_DIR");
    let output = command.env_remove("CONSIGN_ADDR").env_remove("CONSIGN_TOKEN").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn the_commands_find_the_session_while_it_runs() {
    tell_failures();
    let folder = tempfile::tempdir().unwrap();
    let session = Command::new(env!("CARGO_BIN_EXE_consign"))
        .args(["agent", "--dev"])
        .current_dir(folder.path())
        .env("TMPDIR", folder.path())
        .env_remove("XDG_RUNTIME_DIR")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut session = Session(session);
    wait_for("the sample that fails to have failed", LIMIT, async || {
        let listed = beside(folder.path(), &["jobs", "--phase", "failed"])?;
        if listed.contains("fails  failed  exit_code") { Ok(()) } else { Err(listed) }
    })
    .await;
    beside(folder.path(), &["retry", "fails"]).unwrap();
    wait_for("the second attempt to have ended", LIMIT, async || {
        let shown = beside(folder.path(), &["show", "fails"])?;
        let ended = shown.contains("retried by   developer") && shown.contains("outcome      failed");
        if ended { Ok(()) } else { Err(shown) }
    })
    .await;
    let pid = rustix::process::Pid::from_raw(session.0.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_for("the session to end", LIMIT, async || {
        session.0.try_wait().unwrap().map(|_| ()).ok_or_else(|| "it runs".to_owned())
    })
    .await;
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is left");
}
