//! What can be said about a TOML text before its keys are looked at.

use toml_parser::{Source, lexer::TokenKind};

use crate::diagnostic::Diagnostic;

/// The most levels of brackets, and of parts of a dotted key, that a file may have.
const NESTING_LIMIT: usize = 16;

/// Decodes a file: UTF-8 without NUL and byte order mark, at most `limit` bytes.
///
/// The span of the diagnostic is one in `String::from_utf8_lossy(content)`.
pub fn decode<'a>(content: &'a [u8], limit: usize, kind: &str) -> Result<&'a str, Diagnostic> {
    if content.len() > limit {
        return Err(Diagnostic::new(
            format!("the file has {} bytes; {kind} may have {limit}", content.len()),
            0..0,
        )
        .with_help("keep large inputs elsewhere, such as in an artifact or a mount, and name them here"));
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        let at = error.valid_up_to();
        Diagnostic::new("the file is not valid UTF-8 from here on", at..at)
            .with_help("save the file with the encoding UTF-8")
    })?;
    if text.starts_with('\u{feff}') {
        return Err(Diagnostic::new("the file begins with a byte order mark", 0..0)
            .with_help("save the file as UTF-8 without a byte order mark (BOM)"));
    }
    if let Some(at) = text.find('\0') {
        return Err(Diagnostic::new("the file contains a NUL character", at..at + 1)
            .with_help("remove it: no environment variable or script can carry one"));
    }
    Ok(text)
}

/// Refuses a text that nests too deeply for a walk by recursion.
///
/// The parser bounds brackets and the parts of one dotted key, but not their product: 80 inline tables
/// with keys of 80 parts each overflow a thread's stack.
pub(super) fn check_nesting(text: &str) -> Result<(), Diagnostic> {
    let mut brackets = 0_usize;
    let mut dots = 0_usize;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                brackets += 1;
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                brackets = brackets.saturating_sub(1);
                dots = 0;
            }
            TokenKind::Equals | TokenKind::Comma | TokenKind::Newline => dots = 0,
            _ => {}
        }
        if brackets > NESTING_LIMIT || dots > NESTING_LIMIT {
            let span = token.span();
            return Err(Diagnostic::new("the file nests too deeply", span.start()..span.end()).with_help(
                format!("lists, tables and dotted keys may be at most {NESTING_LIMIT} levels deep"),
            ));
        }
    }
    Ok(())
}

/// An error of the TOML parser with a remedy for the commonest slips.
pub(super) fn syntax_diagnostic(text: &str, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let diagnostic =
        Diagnostic::new(format!("not valid TOML: {}", error.message().replace('\n', ", ")), span.clone());
    let line_start = text[..text.floor_char_boundary(span.start)].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    match line.split_once('=') {
        _ if error.message().contains("duplicate key") => {
            diagnostic.with_help("a key may stand once; remove one of the two")
        }
        _ if error.message().contains("recurs") => diagnostic.with_help("nest less deeply"),
        Some((_, value)) if value.trim_start().starts_with(|first: char| first.is_alphabetic()) => {
            diagnostic.with_help("write a text in double quotes: key = \"text\"")
        }
        None if line.contains(':') => {
            diagnostic.with_help("TOML separates key and value by `=`: key = \"text\"")
        }
        _ => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_decoded_is_told_by_its_place() {
        let place =
            |content: &[u8]| decode(content, 10, "a file").map_err(|problem| problem.span.start).err();
        assert_eq!(place(b"abc"), None);
        assert_eq!(place(b"ab\xff"), Some(2));
        assert_eq!(place(b"a\0"), Some(1));
        assert_eq!(place(b"\xef\xbb\xbfa"), Some(0));
        assert_eq!(place(b"12345678901"), Some(0));
    }
}
