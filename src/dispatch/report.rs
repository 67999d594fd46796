//! What the wrapper in the base job says about a run, and the exit codes that it keeps for itself.
//!
//! The formula can write to the same folder: a report is what the task claims, never more than that.

use crate::{hexadecimal, ids::FormulaName, outcome::result_file::StepResult};

/// The wrapper met its started-marker: the formula ran, or runs, already.
///
/// A formula may end with the same code; then the report's last line is `ended exit 121`, which the
/// wrapper never writes for itself.
pub const RESTARTED_EXIT_CODE: i64 = 121;
/// The wrapper could not start the formula: a folder or the payload was missing.
pub const UNSTARTABLE_EXIT_CODE: i64 = 122;
/// The base job does not take this formula: it names others.
pub const REFUSED_EXIT_CODE: i64 = 123;
/// The job's or a step's time was over.
pub const TIMEOUT_EXIT_CODE: i64 = 124;
/// Where the report stands, relative to the allocation's shared folder (`alloc/` for Nomad).
pub const PATH: &str = "consign/report";
/// The most of a report that is read, in bytes.
pub const SIZE_LIMIT: usize = 256 * 1024;
/// The most names of formulas that are kept.
const NAME_LIMIT: usize = 20;
/// The most steps that are kept.
pub const STEP_LIMIT: usize = 1000;

/// A parsed report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The steps that ended, in order. A program has none.
    pub steps: Vec<StepResult>,
    /// The CPU time in seconds of the formula and of what it waited for, as the shell that ran it counts it.
    pub cpu_seconds: Option<f64>,
    /// The most memory in bytes that its container held; `None` where the wrapper cannot see that.
    pub peak_memory: Option<u64>,
    /// The kernel killed a process of its container for its memory.
    pub out_of_memory: bool,
    /// How many bytes it printed that were not in Nomad's log when the wrapper ended.
    pub missing: u64,
    /// How the formula ended; `None` while it runs, or where the wrapper itself was killed.
    pub ended: Option<Ended>,
}

/// How the formula ended, as the wrapper saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exit(i64),
    /// The job's time was over.
    Timeout,
    /// The time of the step named was over.
    StepTimeout(String),
    /// Nomad asked the task to end.
    Stopped,
    /// It was not run: the base job takes these formulas alone.
    Refused(Vec<FormulaName>),
    /// It was not run: nothing there can mask its secrets in the log.
    Unmasked,
}

/// Reads a report. Lines that are none of its own are passed over.
#[must_use]
pub fn parse(bytes: &[u8]) -> Report {
    let bytes = bytes.get(..SIZE_LIMIT).unwrap_or(bytes);
    let mut report = Report::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["step", _, name, code, milliseconds] if report.steps.len() < STEP_LIMIT => {
                if let (Ok(exit_code), Ok(milliseconds)) = (code.parse(), milliseconds.parse::<u32>()) {
                    let seconds = f64::from(milliseconds) / 1000.0;
                    report.steps.push(StepResult { name: unescape(name), exit_code, seconds });
                }
            }
            ["cpu", user, system] => {
                let sum = seconds(user).zip(seconds(system)).map(|(user, system)| user + system);
                report.cpu_seconds = sum.filter(|sum| sum.is_finite());
            }
            ["memory", bytes] => report.peak_memory = bytes.parse().ok(),
            ["oom"] => report.out_of_memory = true,
            ["missing", bytes] => report.missing = bytes.parse().unwrap_or_default(),
            ["ended", "exit", code] => report.ended = code.parse().ok().map(Ended::Exit),
            ["ended", "timeout"] => report.ended = Some(Ended::Timeout),
            ["ended", "step_timeout", name] => report.ended = Some(Ended::StepTimeout(unescape(name))),
            ["ended", "unmasked"] => report.ended = Some(Ended::Unmasked),
            ["ended", "stopped"] => report.ended = Some(Ended::Stopped),
            ["ended", "refused", taken @ ..] => {
                let taken = taken.iter().filter_map(|name| name.parse().ok()).take(NAME_LIMIT).collect();
                report.ended = Some(Ended::Refused(taken));
            }
            _ => {}
        }
    }
    report
}

/// A time as a shell's `times` writes it, such as `1m2.500s`; some write the decimal point of the locale.
fn seconds(text: &str) -> Option<f64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    let seconds: f64 = seconds.replace(',', ".").parse().ok()?;
    let total = f64::from(minutes.parse::<u32>().ok()?) * 60.0 + seconds;
    (total.is_finite() && total >= 0.0).then_some(total)
}

/// A name as one word of letters, digits, `.`, `_`, `-` and `%XX` for every other byte.
pub(super) fn escape(name: &str) -> String {
    let mut word = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            word.push(char::from(byte));
        } else {
            word.push('%');
            for digit in [byte >> 4, byte & 15] {
                word.extend(char::from_digit(u32::from(digit), 16));
            }
        }
    }
    word
}

/// Undoes [`escape`]; what is no escape stands for itself.
fn unescape(word: &str) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.first_chunk().filter(|_| *first == b'%');
        let escaped = digits.and_then(|digits| hexadecimal::byte(*digits));
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_report_says_steps_and_end() {
        let report = parse(b"step 1 a%20b 0 1500\nnonsense\nstep 2 c 124 10\nended step_timeout c\n");
        assert_eq!(report.steps.len(), 2);
        assert_eq!(report.steps[0], StepResult { name: "a b".to_owned(), exit_code: 0, seconds: 1.5 });
        assert_eq!(report.ended, Some(Ended::StepTimeout("c".to_owned())));
        assert_eq!(parse(b"").ended, None);
        let names = ["triage", "verify"].map(|name| FormulaName::parse(name).unwrap());
        let refused = parse(b"ended refused triage verify \xff\n").ended;
        assert_eq!(refused, Some(Ended::Refused(names.to_vec())));
        assert_eq!(parse(b"cpu 1m2.500s 0m0,25s\n").cpu_seconds, Some(62.75));
        let short = parse(b"memory 4096\noom\nended exit 0\nmissing 7\n");
        assert_eq!((short.peak_memory, short.out_of_memory, short.missing), (Some(4096), true, 7));
        let odd = parse(b"memory max\noom 1\nmissing -1\n");
        assert_eq!((odd.peak_memory, odd.out_of_memory, odd.missing), (None, false, 0));
        for wrong in [
            "cpu",
            "cpu 1s 1s",
            "cpu 0mnans 0m0s",
            "cpu -1m0s 0m0s",
            "cpu 0minfs 0m1s",
            "cpu 0m1e308s 0m1e308s",
        ] {
            assert_eq!(parse(wrong.as_bytes()).cpu_seconds, None, "{wrong}");
        }
        assert_eq!(parse(b"ended exit 121\n").ended, Some(Ended::Exit(RESTARTED_EXIT_CODE)));
    }

    proptest! {
        #[test]
        fn names_survive_a_round_trip(name in any::<String>()) {
            let word = escape(&name);
            prop_assert!(word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\''));
            prop_assert_eq!(unescape(&word), name);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let report = parse(&bytes);
            prop_assert!(report.steps.len() <= STEP_LIMIT);
        }
    }
}
