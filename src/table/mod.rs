//! Walks a TOML text key by key and notes everything that is wrong with it, each with its place.
//!
//! A reader asks a [`Table`] for the keys it knows. What was not asked for is an unknown key, so the
//! code that reads a file is also the list of the keys that it may have.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ops::{Range, RangeInclusive},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::diagnostic::{Diagnostic, did_you_mean};

mod source;

pub use source::decode;
use source::{check_nesting, syntax_diagnostic};

/// The most diagnostics that are kept of one file; a last one says how many more there were.
pub const DIAGNOSTIC_LIMIT: usize = 25;

/// The most characters of a file that a message repeats.
const QUOTE_LIMIT: usize = 60;

/// Where problems are noted while a text is walked.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Diagnostic>>,
}

impl Problems {
    /// Notes one.
    pub fn note(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Everything that was noted, in the order of the text.
    #[must_use]
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|diagnostic| diagnostic.span.start);
        found.dedup();
        let more = found.len().saturating_sub(DIAGNOSTIC_LIMIT);
        if more > 0 {
            found.truncate(DIAGNOSTIC_LIMIT);
            if let Some(last) = found.last() {
                let place = last.span.clone();
                found.push(Diagnostic::new(format!("{more} more problems follow"), place));
            }
        }
        found
    }
}

/// Parses `text` and hands its top-level table to `read`.
///
/// Gives what `read` gave where nothing was noted, and otherwise all problems: errors of syntax, and of
/// the rest of the text as far as it could be understood.
pub fn parse<T>(
    text: &str,
    kind: &str,
    read: impl FnOnce(&Table<'_, '_>) -> Option<T>,
) -> Result<T, Vec<Diagnostic>> {
    check_nesting(text).map_err(|problem| vec![problem])?;
    let (document, errors) = DeTable::parse_recoverable(text);
    let problems = Problems::default();
    let table = Table::new(document.get_ref(), kind.to_owned(), 0..0, &problems);
    let value = read(&table);
    table.note_unknown_keys();
    if errors.is_empty() {
        let found = problems.into_diagnostics();
        return match value {
            Some(value) if found.is_empty() => Ok(value),
            None if found.is_empty() => {
                Err(vec![Diagnostic::new(format!("the file does not make {kind}"), 0..0)])
            }
            _ => Err(found),
        };
    }
    let syntax: Vec<Diagnostic> = errors.iter().map(|error| syntax_diagnostic(text, error)).collect();
    let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_of = |diagnostic: &Diagnostic| line_ends.partition_point(|end| *end < diagnostic.span.start);
    let broken_lines: BTreeSet<usize> = syntax.iter().map(line_of).collect();
    // What the parser made up to go on after an error says nothing about what the author meant.
    problems
        .found
        .borrow_mut()
        .retain(|diagnostic| !diagnostic.span.is_empty() && !broken_lines.contains(&line_of(diagnostic)));
    for diagnostic in syntax {
        problems.note(diagnostic);
    }
    Err(problems.into_diagnostics())
}

/// Where the value of a top-level key stands in `text`; the beginning where there is none.
#[must_use]
pub fn place_of(text: &str, key: &str) -> Range<usize> {
    if check_nesting(text).is_err() {
        return 0..0;
    }
    let (document, _) = DeTable::parse_recoverable(text);
    document.get_ref().get(key).map_or(0..0, Spanned::span)
}

/// `text` as a message repeats it: quoted, control characters escaped, and cut where it is long.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTE_LIMIT).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    format!("\"{}\"", quoted.escape_debug())
}

/// A TOML table of which keys are asked for one by one.
#[derive(Debug)]
pub struct Table<'t, 'i> {
    entries: &'t DeTable<'i>,
    /// What the table is, as messages call it: `an action`, `resources`.
    name: String,
    span: Range<usize>,
    problems: &'t Problems,
    known: RefCell<Vec<&'static str>>,
}

impl<'t, 'i> Table<'t, 'i> {
    fn new(entries: &'t DeTable<'i>, name: String, span: Range<usize>, problems: &'t Problems) -> Self {
        Self { entries, name, span, problems, known: RefCell::default() }
    }

    /// The bytes that the table is written in.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Notes a problem with the table.
    pub fn note(&self, diagnostic: Diagnostic) {
        self.problems.note(diagnostic);
    }

    /// The value of `key`, if it stands there.
    pub fn optional(&self, key: &'static str) -> Option<Value<'t, 'i>> {
        self.known.borrow_mut().push(key);
        let value = self.entries.get(key)?;
        Some(Value { name: format!("`{key}`"), inner: value, problems: self.problems })
    }

    /// The value of `key`; notes that it is missing where it is. `example` is a line that would do.
    pub fn required(&self, key: &'static str, example: &str) -> Option<Value<'t, 'i>> {
        let value = self.optional(key);
        if value.is_none() {
            self.note(
                Diagnostic::new(format!("`{key}` is missing: {} needs it", self.name), self.span.clone())
                    .with_help(format!("add a line such as: {example}")),
            );
        }
        value
    }

    /// All entries of a table whose keys are the author's own, in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = (&'t str, Range<usize>, Value<'t, 'i>)> + use<'t, 'i> {
        let problems = self.problems;
        self.entries.iter().map(move |(key, value)| {
            let name = key.get_ref().as_ref();
            (name, key.span(), Value { name: format!("`{}`", name.escape_debug()), inner: value, problems })
        })
    }

    /// Notes every key that was not asked for.
    pub fn note_unknown_keys(&self) {
        let known = self.known.borrow();
        for key in self.entries.keys() {
            let text: &str = key.get_ref();
            if known.contains(&text) {
                continue;
            }
            let help = did_you_mean(text, known.iter().copied()).unwrap_or_else(|| {
                let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                format!("{} has the keys {}", self.name, names.join(", "))
            });
            self.problems.note(
                Diagnostic::new(format!("{} has no key {}", self.name, quote(text)), key.span())
                    .with_help(help),
            );
        }
    }
}

/// A TOML value and what it is called in messages.
#[derive(Debug, Clone)]
pub struct Value<'t, 'i> {
    name: String,
    inner: &'t Spanned<DeValue<'i>>,
    problems: &'t Problems,
}

impl<'t, 'i> Value<'t, 'i> {
    /// The bytes that the value is written in.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.inner.span()
    }

    /// What messages call it, such as `` `timeout` ``.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes that the value is bad: `message` goes on after the value's name.
    pub fn note(&self, message: &str, help: impl Into<String>) {
        self.problems.note(Diagnostic::new(format!("{} {message}", self.name), self.span()).with_help(help));
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> Option<&'t str> {
        match self.inner.get_ref() {
            DeValue::String(text) => Some(text),
            DeValue::Integer(number) => {
                self.note("must be a text, not a number", format!("write \"{number}\""));
                None
            }
            DeValue::Boolean(word) => {
                self.note("must be a text, not true or false", format!("write \"{word}\""));
                None
            }
            _ => self.wrong_type("a text", "write it in double quotes: \"text\""),
        }
    }

    /// Its number as it is written, if it is a whole number.
    #[must_use]
    pub fn written_number(&self) -> Option<String> {
        self.inner.get_ref().as_integer().map(ToString::to_string)
    }

    /// Its number, which must be within `bounds`.
    #[must_use]
    pub fn integer(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let range = if *bounds.end() > i64::MAX.unsigned_abs() {
            format!("a whole number from {}", bounds.start())
        } else {
            format!("a whole number from {} to {}", bounds.start(), bounds.end())
        };
        let DeValue::Integer(number) = self.inner.get_ref() else {
            return self.wrong_type(&range, "write it without quotes, such as 3");
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let parsed = parsed.and_then(|number| u64::try_from(number).ok());
        if let Some(number) = parsed.filter(|number| bounds.contains(number)) {
            return Some(number);
        }
        self.note(&format!("is out of range: {number}"), format!("it must be {range}"));
        None
    }

    /// Its truth value.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.inner.get_ref() {
            DeValue::Boolean(word) => Some(*word),
            _ => self.wrong_type("true or false", "write true or false without quotes"),
        }
    }

    /// Its point in time as text: a TOML offset date-time, or a text that may be one.
    #[must_use]
    pub fn date_time(&self) -> Option<String> {
        match self.inner.get_ref() {
            DeValue::Datetime(time) => Some(time.to_string()),
            DeValue::String(text) => Some(text.to_string()),
            _ => self.wrong_type("a date and time", "write it as \"2027-01-31T22:00:00Z\""),
        }
    }

    /// Its elements.
    #[must_use]
    pub fn list(&self) -> Option<Vec<Self>> {
        let DeValue::Array(elements) = self.inner.get_ref() else {
            return self.wrong_type("a list", "write it in brackets: [\"first\", \"second\"]");
        };
        let name = |index: usize| format!("element {} of {}", index + 1, self.name);
        let value = |(index, inner)| Self { name: name(index), inner, problems: self.problems };
        Some(elements.iter().enumerate().map(value).collect())
    }

    /// The table that it is.
    #[must_use]
    pub fn table(&self) -> Option<Table<'t, 'i>> {
        match self.inner.get_ref() {
            DeValue::Table(entries) => {
                Some(Table::new(entries, self.name.clone(), self.span(), self.problems))
            }
            _ => self.wrong_type("a table", "write it as { key = \"value\" } or under a [heading]"),
        }
    }

    /// What `parse` makes of its text; notes the problem that it gives, a message and a help.
    pub fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, (String, String)>) -> Option<T> {
        parse(self.text()?).map_err(|(message, help)| self.note(&message, help)).ok()
    }

    fn wrong_type<T>(&self, wanted: &str, help: &str) -> Option<T> {
        let given = match self.inner.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.note(&format!("must be {wanted}, not {given}"), help);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<Diagnostic> {
        parse(text, "a file", |table| {
            let name = table.required("name", "name = \"x\"").and_then(|value| value.text());
            let count = table.optional("count").map(|value| value.integer(1..=9));
            Some((name?.to_owned(), count))
        })
        .err()
        .unwrap_or_default()
    }

    #[test]
    fn every_problem_is_noted_in_the_order_of_the_text() {
        let found = problems_of("nmae = 1\ncount = 12\n");
        let messages: Vec<&str> = found.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "`name` is missing: a file needs it",
                "a file has no key \"nmae\"",
                "`count` is out of range: 12"
            ]
        );
        let found = problems_of("name = 1\nother = 2\nother = 3\n");
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn a_deep_nest_is_an_error_and_no_overflow() {
        let small_stack = |text: String| {
            std::thread::Builder::new()
                .stack_size(1 << 20)
                .spawn(move || problems_of(&text).len())
                .and_then(|thread| thread.join().map_err(|_| std::io::Error::other("panicked")))
                .unwrap()
        };
        assert!(small_stack(format!("x = {}", "[".repeat(10_000))) > 0);
        assert!(small_stack(format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000))) > 0);
        assert!(small_stack(format!("x = {}", "{a=".repeat(10_000))) > 0);
        assert!(small_stack(format!("{}x = 1", "a.".repeat(10_000))) > 0);
        assert!(small_stack(format!("[{}x]", "a.".repeat(10_000))) > 0);
        let dotted = format!("{}a = {{", "a.".repeat(78));
        assert!(small_stack(dotted.repeat(79)) > 0);
        assert!(small_stack(format!("[{}a]\n{}1{}", "a.".repeat(78), dotted.repeat(79), "}".repeat(79))) > 0);
    }

    #[test]
    fn a_file_full_of_errors_is_read_in_a_moment() {
        let start = std::time::Instant::now();
        for line in ["a\n", "= 1\n", "\"\n", "x = [\n", "name = 1\n", "]\n", "count = {,}\n", ",", "\u{e9} "]
        {
            assert!(!problems_of(&line.repeat((64 << 10) / line.len())).is_empty());
        }
        let many = (0..9_000).fold(String::new(), |text, number| format!("{text}{number}=1\n"));
        assert!(!problems_of(&many).is_empty());
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn many_problems_are_cut_short() {
        let found =
            problems_of(&(0..100).fold(String::new(), |text, number| format!("{text}k{number} = 1\n")));
        assert_eq!(found.len(), DIAGNOSTIC_LIMIT + 1);
        assert_eq!(found[DIAGNOSTIC_LIMIT].message, "76 more problems follow");
    }
}
