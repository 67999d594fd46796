//! The machine, in words.

use std::{fs, process::Command};

pub(super) fn describe() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: f64 =
        memory.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse().ok()).unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} cores of {model}, {:.0} GB of memory, Linux {}; {}, {}, {}; load {} before",
        std::thread::available_parallelism().map_or(0, usize::from),
        memory * 1024.0 / 1e9,
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        version("nomad"),
        version("vault"),
        version("git"),
        load.split(' ').next().unwrap_or_default(),
    )
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Vault adds the commit and when it was built.
    text.lines().next().unwrap_or_default().split([',', '(']).next().unwrap_or_default().trim().to_owned()
}
