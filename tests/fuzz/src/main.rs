//! What libFuzzer calls with each input that it makes up: the target that the environment names. A target panics
//! where consign breaks a promise; `scripts/fuzz` runs them.

#![no_main]

mod action;
mod events;
mod lifecycle;
mod log;
mod names;
mod nomad;
mod webhook;
mod words;

use std::{env, sync::OnceLock, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The most processor time that one input may take. A clock on the wall would tell how busy the machine is.
const LIMIT: Duration = Duration::from_secs(1);

/// Which target runs.
const TARGET: &str = "CONSIGN_FUZZ_TARGET";

/// Tries one input, and panics where it breaks a promise.
type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 8] = [
    ("action", action::check),
    ("events", events::check),
    ("lifecycle", lifecycle::check),
    ("log", log::check),
    ("names", names::check),
    ("nomad", nomad::check),
    ("webhook", webhook::check),
    ("words", words::check),
];

fn target() -> Check {
    let name = env::var(TARGET).unwrap_or_default();
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, check)) => *check,
        None => panic!("{TARGET} is {name:?}; the targets are {:?}", TARGETS.map(|(known, _)| known)),
    }
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("no time before the thread's")
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static CHECK: OnceLock<Check> = OnceLock::new();
    let check = CHECK.get_or_init(target);
    let before = processor_time();
    check(input);
    let took = processor_time() - before;
    assert!(took < LIMIT, "one input took {took:?}");
});
