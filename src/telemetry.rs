//! Log lines, and how an error is told with its causes.

use std::{error::Error, io::IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// What is logged where `RUST_LOG` says nothing. vaultrs and rustify log every refusal of Vault's as
/// an error; whoever asked deals with it.
const DEFAULT_FILTER: &str = "warn,consign=info,vaultrs=off,rustify=off";

/// Sends log lines to standard error.
pub fn start(quiet: bool) {
    let fallback = if quiet { "error,vaultrs=off,rustify=off" } else { DEFAULT_FILTER };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    // A test process starts it once for all its tests.
    drop(started);
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot reach Vault")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_once_each() {
        assert_eq!(chain(&Outer(std::io::Error::other("no route"))), "cannot reach Vault: no route");
    }
}
