//! The excerpt of a log that stands in a result file.

use crate::{lifecycle::Excerpt, outcome::result_file::LogStatus};

/// Makes valid UTF-8 of the end of a log, cut at a line where more stood before it.
///
/// Bytes that are not UTF-8 become U+FFFD. Where the excerpt has no line's end but its last, the cut
/// stands inside the line.
#[must_use]
pub fn excerpt(bytes: &[u8], truncated: bool) -> Excerpt {
    if !truncated {
        return Excerpt { text: String::from_utf8_lossy(bytes).into_owned(), status: LogStatus::Complete };
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let start = match body.iter().position(|byte| *byte == b'\n') {
        Some(end_of_line) => end_of_line + 1,
        None => bytes.iter().position(|byte| byte & 0b1100_0000 != 0b1000_0000).unwrap_or_default(),
    };
    Excerpt { text: String::from_utf8_lossy(&bytes[start..]).into_owned(), status: LogStatus::Truncated }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_log_is_kept_as_it_is() {
        let excerpt = excerpt(b"one\ntwo", false);
        assert_eq!((excerpt.text.as_str(), excerpt.status), ("one\ntwo", LogStatus::Complete));
    }

    #[test]
    fn a_truncated_log_begins_with_a_whole_line() {
        let excerpt = excerpt(b"e\ntwo\nthree\n", true);
        assert_eq!((excerpt.text.as_str(), excerpt.status), ("two\nthree\n", LogStatus::Truncated));
    }

    #[test]
    fn one_endless_line_is_cut_between_characters() {
        let bytes = "ää".as_bytes();
        assert_eq!(excerpt(&bytes[1..], true).text, "ä");
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_excerpt(bytes in proptest::collection::vec(any::<u8>(), 0..200), truncated: bool) {
            let excerpt = excerpt(&bytes, truncated);
            prop_assert!(excerpt.text.len() <= 3 * bytes.len());
        }
    }
}
