//! What the wrapper masks, with every shell and every awk that this machine has.

use std::{
    fs,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

use super::wrapper_tests::{Ending, Task, shells};
use crate::{dispatch::report::Ended, program};

/// Secrets with everything that a shell, a regular expression or awk could take for more than a byte.
const ODD: &str = "s3c.r*t[x]$^(\\/&|?)+{2} \"'`%s\\n ä🔑";
const LINES: &str = "-----BEGIN KEY-----\nb2Rk+/=\tline two\r\nshort\n";

/// Every shell with every awk; both kinds of awk differ in what they make of NUL.
fn surroundings() -> Vec<(Vec<&'static str>, &'static str)> {
    let awks: Vec<&str> =
        ["mawk", "gawk", "busybox"].into_iter().filter(|awk| program::find(awk).is_some()).collect();
    shells().into_iter().flat_map(|shell| awks.iter().map(move |awk| (shell.clone(), *awk))).collect()
}

/// The wrapper as the base job starts it, with these secrets.
fn command(task: &Task, shell: &[&str], awk: &str, secrets: &[(&str, &str)]) -> Command {
    let bin = task.path("bin");
    fs::create_dir_all(&bin).unwrap();
    // busybox goes by the name that it is called by.
    symlink(program::find(awk).unwrap(), bin.join("awk")).unwrap();
    let names: Vec<&str> = secrets.iter().map(|(name, _)| *name).collect();
    let mut command = task.command(shell);
    command
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .env("NOMAD_META_secrets", names.join(", "))
        .envs(secrets.iter().copied());
    command
}

fn run(plan: &str, formula: &str, shell: &[&str], awk: &str, secrets: &[(&str, &str)]) -> Ending {
    let task = Task::new(plan, formula);
    let child = command(&task, shell, awk, secrets).spawn().unwrap();
    task.end(child)
}

fn text(ending: &Ending) -> String {
    String::from_utf8_lossy(&ending.output).into_owned()
}

#[test]
fn values_and_their_lines_are_masked_wherever_they_stand() {
    let secrets = [
        ("ODD", ODD),
        ("LINES", LINES),
        ("SHORT", "1234567"),
        ("EIGHT", "12345678"),
        ("WITHIN", "hunter2hunter2"),
        ("AROUND", "postgres://me:hunter2hunter2@db"),
        ("FIRST", "abcdefgh"),
        ("SECOND", "fghijklm"),
        ("EMPTY", ""),
    ];
    let cases = [
        ("\"$ODD\"", "***"),
        ("\"a${ODD}b$ODD$ODD\"", "a***b******"),
        ("\"$LINES\"", "***\n***\r\nshort\n"),
        ("1234567 123456789", "1234567\n***9"),
        ("\"$AROUND\" \"$WITHIN\"", "***\n***"),
        ("abcdefghijklm fghijklmabcdefgh", "***\n******"),
        ("hunter2hunter hunter2hunter2hunter2", "hunter2hunter\n***"),
        ("\"${ODD%🔑}\"", ODD.strip_suffix('🔑').unwrap()),
    ];
    let formula =
        cases.iter().map(|(words, _)| format!("printf '%s\\n' {words}\n")).collect::<Vec<_>>().concat();
    let expected = cases.iter().map(|(_, text)| format!("{text}\n")).collect::<Vec<_>>().concat();
    for (shell, awk) in surroundings() {
        let ending = run("", &format!("{formula}printf '%s\\n' \"$ODD\" >&2; exit 7"), &shell, awk, &secrets);
        assert_eq!(text(&ending), format!("{expected}***\n"), "{shell:?} {awk}");
        assert_eq!((ending.code, ending.report.ended), (Some(7), Some(Ended::Exit(7))), "{shell:?} {awk}");
    }
}

#[test]
fn a_value_in_pieces_is_masked() {
    // The pipe is read in parts of 64 KiB at most, and these lines have another length.
    let formula = "i=0; while [ $i -lt 40000 ]; do printf '%s\\n' \"$i $ODD\"; i=$((i + 1)); done; \
        for byte in 1 2 3 4 5 6 7 8; do printf $byte; sleep 0.1; done; printf 1234";
    let expected = (0..40_000).map(|line| format!("{line} ***\n")).collect::<Vec<_>>().concat();
    for awk in ["mawk", "busybox"] {
        let ending = run("", formula, &["sh"], awk, &[("ODD", ODD), ("EIGHT", "12345678")]);
        assert!(text(&ending) == format!("{expected}***1234"), "{awk}: {:?}", text(&ending).get(..1000));
    }
}

#[test]
fn everything_else_passes_unchanged() {
    let secrets = [("ODD", ODD), ("LINES", LINES)];
    for awk in ["mawk", "busybox"] {
        let formula = "printf 'a\\000\\000b\\036\\001\\r\\n\\n\\036'; head -c 20971520 /dev/zero; seq 1 1000000; \
            printf 'no end'; exit 3";
        let ending = run("", formula, &["sh"], awk, &secrets);
        let lines = (1..=1_000_000).map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
        let expected =
            [&b"a\0\0b\x1e\x01\r\n\n\x1e"[..], &vec![0; 20_971_520], lines.as_bytes(), b"no end"].concat();
        assert_eq!((ending.code, ending.output.len()), (Some(3), expected.len()), "{awk}");
        assert!(ending.output == expected, "{awk}");
    }
    let random = "head -c 2000000 /dev/urandom | tee random; exit 4";
    let task = Task::new("", random);
    let ending = task.end(command(&task, &["sh"], "mawk", &secrets).spawn().unwrap());
    assert!(ending.code == Some(4) && ending.output == fs::read(task.path("alloc/data/random")).unwrap());
}

#[test]
fn an_unfinished_line_is_printed_but_for_what_may_begin_a_value() {
    for (shell, awk) in surroundings() {
        let formula = "printf '45 %% s3c'; until [ -e go ]; do sleep 0.1; done; printf urity";
        let task = Task::new("timeout 30\n", formula);
        let child = command(&task, &shell, awk, &[("ODD", ODD)]).spawn().unwrap();
        let began = Instant::now();
        while fs::read(task.path("output")).unwrap() != b"45 % " {
            assert!(began.elapsed() < Duration::from_secs(25), "{shell:?} {awk}");
            std::thread::yield_now();
        }
        fs::write(task.path("alloc/data/go"), "").unwrap();
        assert_eq!(text(&task.end(child)), "45 % s3curity", "{shell:?} {awk}");
    }
}

#[test]
fn what_a_formula_prints_when_it_is_told_to_end_is_masked_too() {
    for (shell, awk) in surroundings() {
        let formula = "trap 'printf \"bye %s\\n\" \"$ODD\"; exit 7' TERM; echo up >up; sleep 300 & wait";
        let task = Task::new("", formula);
        let child = command(&task, &shell, awk, &[("ODD", ODD)]).spawn().unwrap();
        while !fs::read(task.path("alloc/data/up")).is_ok_and(|text| !text.is_empty()) {
            std::thread::yield_now();
        }
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let ending = task.end(child);
        assert_eq!((text(&ending).as_str(), ending.code), ("bye ***\n", Some(7)), "{shell:?} {awk}");
    }
}

#[test]
fn what_outlives_the_formula_does_not_hold_its_end_up() {
    for (shell, awk) in surroundings() {
        let formula = "setsid sh -c 'until [ -e go ]; do sleep 0.1; done' & echo $ODD";
        let task = Task::new("", formula);
        let mut child = command(&task, &shell, awk, &[("ODD", "12345678")]).spawn().unwrap();
        let began = Instant::now();
        child.wait().unwrap();
        assert!(began.elapsed() < Duration::from_secs(50), "{shell:?} {awk}");
        fs::write(task.path("alloc/data/go"), "").unwrap();
        assert_eq!(text(&task.end(child)), "***\n", "{shell:?} {awk}");
    }
}

#[test]
fn no_argument_of_a_process_has_a_value() {
    for (shell, awk) in surroundings() {
        let task = Task::new("", "cat /proc/[0-9]*/cmdline >arguments; ls -R \"$NOMAD_ALLOC_DIR\"; exit 0");
        let ending = task.end(command(&task, &shell, awk, &[("ODD", ODD)]).spawn().unwrap());
        let arguments = fs::read(task.path("alloc/data/arguments")).unwrap();
        let arguments = String::from_utf8_lossy(&arguments);
        // It was masked while this was read.
        assert!(arguments.contains("function show_masked"), "{shell:?} {awk}");
        assert!(!arguments.contains(ODD), "{shell:?} {awk}");
        // The pipe, which holds what is not masked yet, cannot be opened by others.
        assert!(!text(&ending).contains("output"), "{shell:?} {awk}: {}", text(&ending));
    }
}

#[test]
fn an_action_can_switch_it_off_and_without_secrets_there_is_nothing() {
    let formula = "printf '%s\\n' \"$ODD\"";
    for (plan, secrets) in [("mask no\n", "ODD"), ("", "")] {
        let task = Task::new(plan, formula);
        let mut command = task.command(&shells()[0]);
        command.env("ODD", ODD).env("NOMAD_META_secrets", secrets);
        let ending = task.end(command.spawn().unwrap());
        assert_eq!(text(&ending), format!("{ODD}\n"), "{plan:?}");
    }
}

#[test]
fn the_token_of_a_bot_is_masked() {
    let task = Task::new("", "echo \"$BOT_NAME $BOT_TOKEN\"");
    let mut command = command(&task, &shells()[0], "mawk", &[]);
    command.env("NOMAD_META_bot", "triage").env("BOT_NAME", "triage").env("BOT_TOKEN", "0123456789");
    assert_eq!(text(&task.end(command.spawn().unwrap())), "triage ***\n");
}

#[test]
fn a_formula_is_not_run_where_nothing_can_mask_its_secrets() {
    let bin = tempfile::tempdir().unwrap();
    for name in ["sh", "dd", "tr", "mkfifo", "mkdir", "rm", "mv", "cat", "chmod", "sleep"] {
        symlink(program::find(name).unwrap(), bin.path().join(name)).unwrap();
    }
    let task = Task::new("", "echo ran >ran; echo \"$ODD\"");
    let mut command = task.command(&["/bin/sh"]);
    command.env("PATH", bin.path()).env("ODD", ODD).env("NOMAD_META_secrets", "ODD");
    let ending = task.end(command.spawn().unwrap());
    assert_eq!((ending.code, ending.report.ended), (Some(122), Some(Ended::Unmasked)));
    assert!(ending.output.is_empty() && !task.path("alloc/data/ran").exists());
}
