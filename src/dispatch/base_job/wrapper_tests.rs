//! The wrapper of the base jobs, run by every POSIX shell that this machine has.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(super) use self::written::write_program;
use super::WRAPPER_TEXT;
use crate::{
    dispatch::report::{self, Ended, Report},
    program,
};

#[path = "../../../tests/it/support/program.rs"]
mod written;

pub(super) fn shells() -> Vec<Vec<&'static str>> {
    [vec!["sh"], vec!["dash"], vec!["bash", "--posix"], vec!["busybox", "sh"]]
        .into_iter()
        .filter(|shell| program::find(shell[0]).is_some())
        .collect()
}

/// One task's folders.
pub(super) struct Task {
    folder: tempfile::TempDir,
}

pub(super) struct Ending {
    pub(super) code: Option<i32>,
    pub(super) output: Vec<u8>,
    pub(super) report: Report,
    took: Duration,
}

impl Task {
    pub(super) fn new(plan: &str, payload: &str) -> Self {
        let task = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(task.path("alloc/data")).unwrap();
        fs::create_dir_all(task.path("local/consign")).unwrap();
        fs::write(task.path("local/consign/plan"), plan).unwrap();
        fs::write(task.path("local/consign/wrapper"), WRAPPER_TEXT).unwrap();
        write_program(&task.path("local/formula"), payload);
        task
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub(super) fn command(&self, shell: &[&str]) -> Command {
        let output = fs::File::create(self.path("output")).unwrap();
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .arg(self.path("local/consign/wrapper"))
            .env("NOMAD_ALLOC_DIR", self.path("alloc"))
            .env("NOMAD_TASK_DIR", self.path("local"))
            .env("CONSIGN_FORMULA", "fix")
            .stderr(output.try_clone().unwrap())
            .stdout(output);
        command
    }

    fn start(&self, shell: &[&str]) -> Child {
        self.command(shell).spawn().unwrap()
    }

    /// Waits for the end; nothing of the task is left then.
    pub(super) fn end(&self, mut child: Child) -> Ending {
        let began = Instant::now();
        let code = child.wait().unwrap().code();
        let took = began.elapsed();
        // The kernel needs a moment to end what was killed.
        while !processes_in(self.folder.path()).is_empty() {
            assert!(
                began.elapsed() < took + Duration::from_secs(5),
                "{:?}",
                processes_in(self.folder.path())
            );
            std::thread::yield_now();
        }
        let report = report::parse(&fs::read(self.path("alloc/consign/report")).unwrap_or_default());
        Ending { code, output: fs::read(self.path("output")).unwrap(), report, took }
    }

    fn run(&self, shell: &[&str]) -> Ending {
        self.end(self.start(shell))
    }
}

/// The processes that work in `folder` and are not over.
fn processes_in(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let inside = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if inside {
            found.push(fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
        }
    }
    found.retain(|line| !line.is_empty());
    found
}

fn steps(text: &str) -> Task {
    Task::new("kind steps\ntimeout 60\n", text)
}

#[test]
fn the_time_of_the_processor_is_told_and_that_of_waiting_is_not() {
    for shell in shells() {
        let work = "sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done'; sleep 2";
        let ending = Task::new("", work).run(&shell);
        let cpu = ending.report.cpu_seconds.unwrap();
        assert!(cpu > 0.01 && cpu < ending.took.as_secs_f64() - 1.5, "{shell:?}: {cpu} s");
    }
}

#[test]
fn both_streams_are_one_and_nothing_is_added() {
    for shell in shells() {
        let ending =
            Task::new("", "echo one; echo two >&2; pwd; read -r x || echo empty; exit 3").run(&shell);
        let text = String::from_utf8(ending.output).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3], lines.len()), ("one", "two", "empty", 4), "{shell:?}");
        assert!(lines[2].ends_with("/alloc/data"), "{shell:?}");
        assert_eq!((ending.code, ending.report.ended), (Some(3), Some(Ended::Exit(3))), "{shell:?}");
    }
}

#[test]
fn a_program_is_run_by_its_interpreter_and_prints_any_bytes() {
    for shell in shells() {
        let task = Task::new("", "#!/usr/bin/env cat\n\u{81}Ł\u{1f980}");
        assert_eq!(task.run(&shell).output, "#!/usr/bin/env cat\n\u{81}Ł\u{1f980}".as_bytes(), "{shell:?}");
        let task = Task::new("", "printf '\\377\\000z'");
        assert_eq!(task.run(&shell).output, b"\xff\0z", "{shell:?}");
    }
}

#[test]
fn fifty_megabytes_arrive() {
    for shell in shells() {
        let ending = Task::new("", "head -c 52428800 /dev/zero").run(&shell);
        assert_eq!((ending.code, ending.output.len()), (Some(0), 52_428_800), "{shell:?}");
    }
}

#[test]
fn a_formula_starts_once() {
    for shell in shells() {
        let task = Task::new("", "echo start >>ledger");
        assert_eq!(task.run(&shell).code, Some(0), "{shell:?}");
        assert_eq!(task.run(&shell).code, Some(121), "{shell:?}");
        assert_eq!(fs::read_to_string(task.path("alloc/data/ledger")).unwrap(), "start\n");
    }
}

#[test]
fn the_end_of_the_time_reaches_children_that_ignore_it() {
    let script = "trap '' TERM; sh -c 'sleep 300; sleep 300' & while :; do sleep 300; done";
    for shell in shells() {
        let ending = Task::new("timeout 1\n", script).run(&shell);
        assert_eq!((ending.code, ending.report.ended), (Some(124), Some(Ended::Timeout)), "{shell:?}");
        assert!(ending.output.is_empty(), "{shell:?}");
        assert!(ending.took < Duration::from_secs(10), "{shell:?}: {:?}", ending.took);
    }
}

#[test]
fn what_is_left_in_the_background_ends_with_the_formula() {
    for shell in shells() {
        let ending = Task::new("", "sleep 300 & echo done").run(&shell);
        assert_eq!((ending.code, ending.output.as_slice()), (Some(0), &b"done\n"[..]), "{shell:?}");
    }
}

#[test]
fn a_signal_reaches_the_formula() {
    for shell in shells() {
        let task = Task::new("", "trap 'echo bye; exit 7' TERM; echo up >up; sleep 300 & wait");
        let child = task.start(&shell);
        while !fs::read(task.path("alloc/data/up")).is_ok_and(|text| !text.is_empty()) {
            std::thread::yield_now();
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ending = task.end(child);
        assert_eq!((ending.code, ending.report.ended), (Some(7), Some(Ended::Stopped)), "{shell:?}");
        assert_eq!(ending.output, b"bye\n", "{shell:?}");
    }
}

/// As docker starts it: what it prints goes to a pipe that somebody copies to the log.
fn piped(task: &Task, shell: &[&str]) -> Command {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(task.path("local/consign/wrapper")).env("NOMAD_TASK_NAME", "runner");
    command.env("NOMAD_ALLOC_DIR", task.path("alloc")).env("NOMAD_TASK_DIR", task.path("local"));
    command.stdout(Stdio::piped());
    command
}

fn copied(task: &Task, shell: &[&str]) -> Vec<u8> {
    let output = piped(task, shell).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{shell:?}");
    output.stdout
}

#[test]
fn what_is_copied_to_the_log_goes_into_the_logs_own_pipe() {
    for shell in shells() {
        let task = Task::new("", "echo one; echo two >&2; printf three");
        let pipe = task.path("alloc/logs/.runner.stdout.fifo");
        fs::create_dir(task.path("alloc/logs")).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
        assert_eq!(copied(&task, &shell), b"", "{shell:?}");
        assert_eq!(reader.join().unwrap(), b"one\ntwo\nthree", "{shell:?}");
    }
}

#[test]
fn where_the_pipe_is_out_of_reach_and_the_log_is_not_whole_the_end_waits_for_quiet() {
    for shell in shells() {
        let task = Task::new("", "echo one; printf two");
        fs::create_dir(task.path("alloc/logs")).unwrap();
        // Nomad has thrown the first one away.
        fs::write(task.path("alloc/logs/runner.stdout.1"), "one\n").unwrap();
        let began = Instant::now();
        assert_eq!(copied(&task, &shell), b"one\ntwo\n", "{shell:?}");
        assert!(began.elapsed() >= Duration::from_secs(2), "{shell:?}: {:?}", began.elapsed());
    }
}

/// Reads all that a formula prints, copies `before` bytes of it to the log, and the rest once the wrapper has told
/// of what is missing and `patience` is over. Gives what the report says at the end.
async fn copied_late(shell: &[&str], before: usize, patience: Duration, rest: bool) -> Report {
    const PRINTED: &[u8] = b"one\ntwo\n";
    let task = Task::new("", "echo one; printf two");
    fs::create_dir(task.path("alloc/logs")).unwrap();
    fs::write(task.path("alloc/logs/runner.stdout.0"), "").unwrap();
    fs::write(task.path("alloc/logs/runner.stderr.0"), "somebody else's").unwrap();
    let mut child = piped(&task, shell).spawn().unwrap();
    let mut printed = vec![0; PRINTED.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
    assert_eq!(printed, PRINTED, "{shell:?}");
    let log = task.path("alloc/logs/runner.stdout.0");
    fs::write(&log, &PRINTED[..before]).unwrap();
    let report = || report::parse(&fs::read(task.path("alloc/consign/report")).unwrap_or_default());
    let began = Instant::now();
    let missing = u64::try_from(PRINTED.len() - before).unwrap();
    while report().missing != missing || began.elapsed() < patience {
        assert!(began.elapsed() < Duration::from_secs(30), "{shell:?}: {:?}", report());
        assert_eq!(child.try_wait().unwrap(), None, "{shell:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if rest {
        fs::write(&log, PRINTED).unwrap();
    }
    let waited = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{shell:?}");
    assert!(!rest || waited.elapsed() < Duration::from_secs(5), "{shell:?}: {:?}", waited.elapsed());
    report()
}

#[tokio::test]
async fn where_the_pipe_is_out_of_reach_the_end_waits_for_all_of_the_copy() {
    for shell in shells() {
        let report = copied_late(&shell, 5, Duration::from_secs(4), true).await;
        assert_eq!((report.ended, report.missing), (Some(Ended::Exit(0)), 0), "{shell:?}");
    }
}

#[tokio::test]
async fn what_is_never_copied_is_reported() {
    let report = copied_late(&["sh"], 4, Duration::ZERO, false).await;
    assert_eq!((report.ended, report.missing), (Some(Ended::Exit(0)), 4));
}

#[test]
fn a_formula_has_a_home_that_it_can_write_to() {
    for shell in shells() {
        for (home, expected) in [("/proc", "home"), ("/nonexistent", "home"), ("", "")] {
            let task = Task::new("", "echo \"$HOME\"; [ \"$HOME\" ] && echo 1 >\"$HOME/file\"");
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).arg(task.path("local/consign/wrapper")).env("HOME", home);
            command.env("NOMAD_ALLOC_DIR", task.path("alloc")).env("NOMAD_TASK_DIR", task.path("local"));
            let output = fs::File::create(task.path("output")).unwrap();
            command.stdout(output).status().unwrap();
            let text = fs::read_to_string(task.path("output")).unwrap();
            let place = task.path("local").join(expected).display().to_string();
            let expected = if expected.is_empty() { "\n".to_owned() } else { format!("{place}\n") };
            assert_eq!(text, expected, "{shell:?}: {home}");
        }
    }
}

#[test]
fn some_base_jobs_take_certain_formulas_alone() {
    for shell in shells() {
        let run = |formulas: &str| {
            let task = Task::new("", "echo ran\n");
            fs::write(task.path("local/consign/formulas"), formulas).unwrap();
            task.run(&shell)
        };
        for formulas in ["", "\n", "fix\n", "test fix build\n"] {
            let ending = run(formulas);
            assert_eq!((ending.code, ending.output), (Some(0), b"ran\n".to_vec()), "{shell:?} {formulas}");
        }
        for formulas in ["test\n", "prefix fixed\n"] {
            let ending = run(formulas);
            assert_eq!((ending.code, ending.output), (Some(123), Vec::new()), "{shell:?} {formulas}");
            let Some(Ended::Refused(taken)) = ending.report.ended else { panic!("{shell:?} {formulas}") };
            assert_eq!(taken.len(), formulas.split_whitespace().count(), "{shell:?} {formulas}");
        }
    }
}

#[test]
fn steps_run_in_order_until_one_fails() {
    let text = "consign_step 'a%20b' 0 0 no <<'END'\nexport X=1; echo \u{81}Ł\nEND\n\
        consign_step flaky 0 2 no <<'END'\necho \"${X:-try}\" | tee -a tries; [ \"$(wc -l <tries)\" -eq 3 ]\nEND\n\
        consign_step slow 1 0 yes <<'END'\nsleep 300\nEND\n\
        consign_step bad 0 0 yes <<'END'\nexit 4\nEND\n\
        consign_step last 0 0 no <<'END'\n#!/usr/bin/env sh\nexit 5\nEND\n\
        consign_step never 0 0 no <<'END'\necho no\nEND\n";
    for shell in shells() {
        let ending = steps(text).run(&shell);
        assert_eq!(ending.output, "\u{81}Ł\ntry\ntry\ntry\n".as_bytes(), "{shell:?}");
        let codes: Vec<(&str, i64)> =
            ending.report.steps.iter().map(|step| (step.name.as_str(), step.exit_code)).collect();
        assert_eq!(codes, [("a b", 0), ("flaky", 0), ("slow", 124), ("bad", 4), ("last", 5)], "{shell:?}");
        assert_eq!((ending.code, ending.report.ended), (Some(5), Some(Ended::Exit(5))), "{shell:?}");
    }
}

#[test]
fn steps_before_the_first_one_wanted_are_left_out() {
    let text = "consign_step one 0 0 no <<'END'\necho one; exit 1\nEND\n\
        consign_step two 0 0 no <<'END'\necho two\nEND\n\
        consign_step three 0 0 no <<'END'\necho three\nEND\n";
    for (from, printed) in
        [("1", "one\n"), ("2", "two\nthree\n"), ("3", "three\n"), ("x", "one\n"), ("", "one\n")]
    {
        for shell in shells() {
            let task = Task::new(&format!("kind steps\ntimeout 60\nfrom_step {from}\n"), text);
            let ending = task.run(&shell);
            assert_eq!(String::from_utf8_lossy(&ending.output), printed, "{from:?} {shell:?}");
            let names: Vec<&str> = ending.report.steps.iter().map(|step| step.name.as_str()).collect();
            assert_eq!(names, printed.lines().collect::<Vec<_>>(), "{from:?} {shell:?}");
        }
    }
}

#[test]
fn a_step_and_the_job_have_times_of_their_own() {
    for shell in shells() {
        let ending = steps("consign_step slow 1 0 no <<'END'\nsleep 300\nEND\n").run(&shell);
        assert_eq!(ending.report.ended, Some(Ended::StepTimeout("slow".to_owned())), "{shell:?}");
        assert_eq!(ending.code, Some(124), "{shell:?}");
        let task = Task::new(
            "kind steps\ntimeout 1\n",
            "consign_step slow 9 3 yes <<'END'\nsleep 300\nEND\nconsign_step b 0 0 no <<'END'\necho no\nEND\n",
        );
        let ending = task.run(&shell);
        assert_eq!((ending.code, ending.report.ended), (Some(124), Some(Ended::Timeout)), "{shell:?}");
        assert!(ending.output.is_empty(), "{shell:?}");
    }
}

#[test]
fn without_setsid_the_formula_alone_is_ended() {
    let bin = tempfile::tempdir().unwrap();
    for name in ["sh", "env", "mkdir", "rm", "mv", "cat", "chmod", "sleep", "true"] {
        symlink(program::find(name).unwrap(), bin.path().join(name)).unwrap();
    }
    let task = Task::new("timeout 1\n", "exec sleep 300\n");
    let mut command = Command::new("/bin/sh");
    command.arg(task.path("local/consign/wrapper")).env("PATH", bin.path());
    command.env("NOMAD_ALLOC_DIR", task.path("alloc")).env("NOMAD_TASK_DIR", task.path("local"));
    assert_eq!(command.status().unwrap().code(), Some(124));
}
