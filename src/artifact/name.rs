//! The names of a task's files, which the task chose.

use crate::hexadecimal::percent;

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
    format!("/jobs/{job_id}/artifacts/{}", percent(name, b"/"))
}

/// How a browser that asks for the artifact is to treat it: as a file of its last part's name (RFC 6266),
/// whatever that name is.
#[must_use]
pub fn disposition(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    format!("attachment; filename*=UTF-8''{}", percent(file, b""))
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

    #[test]
    fn a_file_name_is_escaped_whole() {
        assert_eq!(disposition("a/ä \".txt"), "attachment; filename*=UTF-8''%C3%A4%20%22.txt");
        assert_eq!(disposition("plain"), "attachment; filename*=UTF-8''plain");
    }
}
