//! Printing: the only place that writes to the terminal. A reader that has gone is no error.

use std::io::{self, IsTerminal as _, Write as _, stderr, stdout};

use jiff::Timestamp;

/// Prints a line on standard output.
pub(super) fn line(text: &str) {
    drop(writeln!(stdout(), "{text}"));
}

/// Prints a text as it is on standard output.
pub(super) fn text(text: &str) {
    drop(write!(stdout(), "{text}"));
}

/// Prints bytes as they are on standard output, at once.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}

/// A time to the second, as people read it.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Prints an error on standard error.
pub(super) fn error(text: &str) {
    // A rendered diagnostic begins with the word itself.
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mark = if stderr().is_terminal() { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
    drop(writeln!(stderr(), "{mark}: {text}"));
}

/// Prints a remark on standard error.
pub(super) fn remark(text: &str) {
    drop(writeln!(stderr(), "{text}"));
}

/// Whether standard output is a terminal, so that colour helps.
pub(super) fn colour() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
