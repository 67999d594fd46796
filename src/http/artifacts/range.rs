//! Which part of a file a request wants (RFC 9110, sections 13 and 14).

use axum::http::{HeaderMap, HeaderValue, header};

/// What of a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it; also where the request asks for several parts, or in units that are not known.
    All,
    /// The bytes from `first` to `last`, both included.
    Part {
        /// The first one, counted from 0.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// A part that there is not.
    Nothing,
}

/// Whether a condition such as `If-None-Match` names the tag.
pub(super) fn names(condition: Option<&HeaderValue>, tag: &str) -> bool {
    let condition = condition.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut tags = condition.split(',').map(|given| given.trim().trim_start_matches("W/"));
    tags.any(|given| given == tag || given == "*")
}

/// What a request wants of a file of `size` bytes whose tag is `tag`.
pub(super) fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let condition = headers.get(header::IF_RANGE);
    // Whoever has the beginning of another version needs all of this one.
    if condition.is_some_and(|condition| condition.as_bytes() != tag.as_bytes()) {
        return Wanted::All;
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let bounds = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
    let part = |first: u64, last: u64| {
        if first < size { Wanted::Part { first, last: last.min(size - 1) } } else { Wanted::Nothing }
    };
    match bounds.map(|(first, last)| (first, number(first), last, number(last))) {
        Some(("", _, _, Some(length))) => {
            if length == 0 {
                Wanted::Nothing
            } else {
                part(size.saturating_sub(length), u64::MAX)
            }
        }
        Some((_, Some(first), "", _)) => part(first, u64::MAX),
        Some((_, Some(first), _, Some(last))) if first <= last => part(first, last),
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"ab\"";

    fn range(range: &'static str, size: u64) -> Wanted {
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
        wanted(&headers, TAG, size)
    }

    #[test]
    fn one_range_of_bytes_is_understood_and_nothing_else() {
        let part = |first, last| Wanted::Part { first, last };
        for (given, size, expected) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=2-4", 10, part(2, 4)),
            ("bytes=2-", 10, part(2, 9)),
            ("bytes=2-99", 10, part(2, 9)),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-99", 10, part(0, 9)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=0-0", 0, Wanted::Nothing),
            ("bytes=-1", 0, Wanted::Nothing),
            ("bytes=4-2", 10, Wanted::All),
            ("bytes=-", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("bytes=+1-2", 10, Wanted::All),
            ("bytes=99999999999999999999-", 10, Wanted::All),
            ("lines=0-1", 10, Wanted::All),
            ("", 10, Wanted::All),
        ] {
            assert_eq!(range(given, size), expected, "{given} of {size}");
        }
    }

    #[test]
    fn a_part_of_another_version_is_not_given() {
        for (tag, expected) in [(TAG, Wanted::Part { first: 1, last: 2 }), ("\"cd\"", Wanted::All)] {
            let headers = HeaderMap::from_iter([
                (header::RANGE, HeaderValue::from_static("bytes=1-2")),
                (header::IF_RANGE, HeaderValue::from_static(tag)),
            ]);
            assert_eq!(wanted(&headers, TAG, 10), expected, "{tag}");
        }
    }

    #[test]
    fn a_condition_names_tags() {
        for (given, expected) in [
            (TAG, true),
            ("W/\"ab\"", true),
            ("\"cd\", \"ab\"", true),
            ("*", true),
            ("\"cd\"", false),
            ("", false),
        ] {
            assert_eq!(names(Some(&HeaderValue::from_static(given)), TAG), expected, "{given}");
        }
        assert!(!names(None, TAG));
    }
}
