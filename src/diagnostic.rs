//! What is wrong in a file, where, and what would be right.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// One thing that is wrong in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// The bytes of the text that it is about.
    pub span: Range<usize>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A diagnostic with its place worked out, as `validate --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without a remedy.
    #[must_use]
    pub fn new(message: impl Into<String>, span: Range<usize>) -> Self {
        Self { message: message.into(), span, help: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Works out line and column in `text`.
    #[must_use]
    pub fn locate(&self, file: &str, text: &str) -> Located {
        let start = floor_char_boundary(text, self.span.start);
        let before = &text[..start];
        Located {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.chars().rev().take_while(|character| *character != '\n').count() + 1,
            message: self.message.clone(),
            help: self.help.clone(),
        }
    }

    /// Renders it with the line it is about and a caret under the place.
    #[must_use]
    pub fn render(&self, file: &str, text: &str, colour: bool) -> String {
        let start = floor_char_boundary(text, self.span.start);
        let end = floor_char_boundary(text, self.span.end).max(start);
        let mut groups =
            vec![Group::with_title(Level::ERROR.primary_title(&self.message)).element(
                Snippet::source(text).path(file).annotation(AnnotationKind::Primary.span(start..end)),
            )];
        if let Some(help) = &self.help {
            groups.push(Group::with_title(Level::HELP.secondary_title(help)));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&groups)
    }
}

/// All diagnostics of one file in one sentence each, as a result file's message gives them.
#[must_use]
pub fn summary(file: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let places: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| {
            let place = diagnostic.locate(file, text);
            let help = place.help.map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}:{}:{}: {}{help}", place.file, place.line, place.column, place.message)
        })
        .collect();
    places.join("; ")
}

/// All messages in one sentence, for a text that nobody wrote and whose places say nothing.
#[must_use]
pub fn sentences(diagnostics: &[Diagnostic]) -> String {
    let sentences = diagnostics.iter().map(|Diagnostic { message, help, .. }| match help {
        Some(help) => format!("{message} ({help})"),
        None => message.clone(),
    });
    sentences.collect::<Vec<_>>().join("; ")
}

/// "did you mean" for the candidate nearest to `text`, if one is near enough.
#[must_use]
pub fn did_you_mean<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    text.floor_char_boundary(index.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = "ä = 1\nöö = x\n";
        let place = Diagnostic::new("no", text.find('x').map_or(0..0, |at| at..at + 1)).locate("f", text);
        assert_eq!((place.line, place.column), (2, 6));
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("secrts", ["secrets", "args"]).as_deref(), Some("did you mean `secrets`?"));
        assert_eq!(did_you_mean("zebra", ["secrets", "args"]), None);
    }
}
