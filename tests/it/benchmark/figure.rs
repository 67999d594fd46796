//! One figure, and what is aimed at.

use std::{fmt, time::Duration};

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// Its name for programs; it ends in the unit.
    pub(super) key: String,
    pub(super) what: String,
    pub(super) value: f64,
    /// The same without consign, in words.
    pub(super) floor: String,
    pub(super) aim: Option<Aim>,
}

impl Figure {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>, value: f64) -> Self {
        Self { key: key.into(), what: what.into(), value, floor: String::new(), aim: None }
    }

    pub(super) fn beside(self, floor: impl fmt::Display) -> Self {
        Self { floor: floor.to_string(), ..self }
    }

    pub(super) fn aiming(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// How much of its aim a figure takes: more than 1 misses it.
    pub(super) fn share(&self) -> Option<f64> {
        self.aim.map(|aim| match aim {
            Aim::AtMost(limit) => self.value / limit,
            Aim::AtLeast(limit) => limit / self.value,
        })
    }

    pub(super) fn is_missed(&self) -> bool {
        self.share().is_some_and(|share| share > 1.0)
    }

    /// The value with its unit.
    pub(super) fn text(&self) -> String {
        let unit = match self.key.rsplit('_').find(|word| ["ms", "s", "mb", "ratio"].contains(word)) {
            _ if self.key.ends_with("per_s") => " /s",
            Some("ms") => " ms",
            Some("s") => " s",
            Some("mb") => " MB",
            Some("ratio") => " ×",
            _ => "",
        };
        format!("{}{unit}", number(self.value))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.what, self.text())?;
        if !self.floor.is_empty() {
            write!(formatter, " ({})", self.floor)?;
        }
        Ok(())
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(formatter, "at most {limit}"),
            Self::AtLeast(limit) => write!(formatter, "at least {limit}"),
        }
    }
}

/// Three significant digits, where there are fewer before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// The middle one, and the one that nine of ten do not exceed.
pub(super) fn middle_and_most(mut spans: Vec<Duration>) -> (Duration, Duration) {
    spans.sort_unstable();
    (spans[spans.len() / 2], spans[spans.len() * 9 / 10])
}
