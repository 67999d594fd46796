//! The names of a task's files, which the task chose.

use std::fmt::Write as _;

/// The longest name that is kept, in bytes: it stands in the result file, as it is and as a URL.
pub const LIMIT: usize = 512;

/// Whether one entry of a folder may become part of an artifact's name.
///
/// Nomad's lists show U+FFFD for what is not UTF-8, so a name with it cannot be asked for again.
#[must_use]
pub fn is_legal_part(part: &str) -> bool {
    !part.is_empty()
        && part != "."
        && part != ".."
        && !part.contains(['/', char::REPLACEMENT_CHARACTER])
        && !part.chars().any(char::is_control)
}

/// Where an artifact can be had: a path on the agent's HTTP address, each part of the name escaped.
#[must_use]
pub fn url(job_id: &str, name: &str) -> String {
    let mut url = format!("/jobs/{job_id}/artifacts/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_legal() {
        for legal in ["a", ".hidden", "a b", "ä", "...", "a\\b", "-rf", "%2e%2e"] {
            assert!(is_legal_part(legal), "{legal:?}");
        }
        for illegal in ["", ".", "..", "a/b", "/", "a\0", "a\nb", "\u{1b}[2J", "\u{85}", "a\u{fffd}"] {
            assert!(!is_legal_part(illegal), "{illegal:?}");
        }
    }

    #[test]
    fn a_url_keeps_folders_and_escapes_the_rest() {
        assert_eq!(url("01J", "a b/ä#?%.txt"), "/jobs/01J/artifacts/a%20b/%C3%A4%23%3F%25.txt");
    }
}
