//! Short texts that people and clients write: bearer headers, lengths of time, schedules, the configuration.

use consign::{
    config::{self, Environment},
    duration::Span,
    formula,
    outcome::{Cause, Outcome},
    tokens::bearer,
    trigger::schedule::{Missed, Schedule},
};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

/// The first line is the word, the second a time zone.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(token) = bearer(text) {
        let token = token.expose_secret();
        assert!(!token.is_empty() && token.trim() == token && text.contains(token));
    }
    if let Ok(span) = text.parse::<Span>() {
        assert_eq!(span.to_string().parse(), Ok(span), "{text:?} is written as {span}");
    }
    let mut lines = text.lines();
    let (cron, zone) = (lines.next().unwrap_or_default(), lines.next().unwrap_or("UTC"));
    if let Ok(schedule) = Schedule::new(cron, zone, Missed::Once) {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let mut at = now;
        for _ in 0..3 {
            let Some(next) = schedule.next(at) else { break };
            assert!(next > at, "{cron:?}: {next} does not follow {at}");
            at = next;
        }
        let due = schedule.due(now, at);
        assert!(due.is_none_or(|due| due.at > now && due.at <= at && due.count >= 1));
    }
    if let Ok(cause) = text.parse::<Cause>() {
        assert_eq!(cause.to_string(), text);
    }
    if let Ok(outcome) = text.parse::<Outcome>() {
        assert_eq!(outcome.to_string(), text);
    }
    if let Err(error) = config::read("consign.toml", text, &Environment::default()) {
        assert!(!error.to_string().is_empty());
    }
    for path in ["formulas/fuzz.toml", "formulas/fuzz.sh"] {
        if let Err(problems) = formula::file::read(path, input) {
            assert!(
                problems.iter().all(|problem| problem.locate(path, text).line >= 1) && !problems.is_empty()
            );
        }
    }
}
