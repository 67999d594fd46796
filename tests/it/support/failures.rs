//! What fails is told when it fails.

use std::{io::Write as _, panic, sync::Once};

/// How much of a failure is told at once; all of it stands at the end of the test run.
const TOLD: usize = 1500;

/// From now on a failing test says so at once, beside what the others print: a run that is cut off, or of which only a
/// part is kept, has it too.
pub(crate) fn tell_failures() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |failure| {
            let thread = std::thread::current();
            let text: String = failure.to_string().replace('\n', " | ").chars().take(TOLD).collect();
            // What cannot be told at once is told in the end.
            drop(writeln!(std::io::stderr().lock(), "FAILS {}: {text}", thread.name().unwrap_or_default()));
            usual(failure);
        }));
    });
}
