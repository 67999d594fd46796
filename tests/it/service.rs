//! The units that systemd runs the agent by, and the script that installs them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests").into()
}

fn install(destination: &Path, arguments: &[&str], program: &str) -> Output {
    Command::new(root().join("scripts/install-service"))
        .args(arguments)
        .env("DESTDIR", destination)
        .env("HOME", "/home/ann")
        .env_remove("XDG_CONFIG_HOME")
        .env("CONSIGN", program)
        .output()
        .unwrap()
}

#[test]
fn systemd_takes_both_units_as_they_are_installed() {
    // Where it is missing the script installs unchecked; here that is a failure.
    assert!(
        Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success())
    );
    let program = env!("CARGO_BIN_EXE_consign");
    for (arguments, place) in [
        (&[][..], "etc/systemd/system/consign.service"),
        (&["--user"], "home/ann/.config/systemd/user/consign.service"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = install(folder.path(), arguments, program);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let unit = fs::read_to_string(folder.path().join(place)).unwrap();
        assert!(unit.contains(&format!("ExecStart={program} agent")), "{unit}");
        for line in ["NoNewPrivileges=yes", "PrivateTmp=yes", "ProtectSystem=", "Restart=on-failure"] {
            assert!(unit.contains(line), "{place} has no {line}");
        }
        // A second time changes nothing.
        assert!(install(folder.path(), arguments, program).status.success());
    }
}

#[test]
fn what_cannot_be_installed_is_said_and_nothing_is_left() {
    for (arguments, program, words) in
        [(&["--system"][..], "/bin/true", "--system"), (&[], "/nowhere/consign", "/nowhere/consign")]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = install(folder.path(), arguments, program);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
