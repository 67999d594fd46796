//! The regular expressions that arguments are checked with.

use regex::{Regex, RegexBuilder};

/// The most memory that one compiled expression may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// Compiles an expression that matches whole values; the error is a plain reason on one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let build =
        |text: &str| RegexBuilder::new(text).size_limit(SIZE_LIMIT).nest_limit(64).build().map_err(reason);
    // Alone first: `a)(b` is no expression, although it would be one between parentheses.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

fn reason(error: regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        error => {
            let text = error.to_string();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let matches =
            |pattern: &str, value: &str| compile(pattern).map(|expression| expression.is_match(value));
        assert_eq!(matches("a|ab", "ab"), Ok(true));
        assert_eq!(matches("[a-z]+", "ab\n"), Ok(false));
        assert_eq!(matches("[a-z]+", "ab1"), Ok(false));
        assert_eq!(matches("[a", "a"), Err("unclosed character class".to_owned()));
        assert!(matches("a)(b", "ab").is_err());
        assert!(matches("(?:a{1000}){1000}", "a").is_err());
    }
}
