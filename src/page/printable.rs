//! What a task printed, ready to be shown: text without what a terminal would obey.

/// Takes what a task printed, in pieces of any size, and gives what is to be shown of it.
///
/// What is not UTF-8 becomes U+FFFD. Escape sequences (ECMA-48: colours, the cursor, a window's title) are left out,
/// and so are the other control characters but tab and line feed. A carriage return, as progress bars print it,
/// ends a line too.
#[derive(Debug, Default)]
pub struct Printable {
    /// The beginning of a character whose end has not come.
    rest: Vec<u8>,
    state: State,
}

/// What the characters before were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// A carriage return: a line feed behind it ends no other line.
    Return,
    /// The beginning of an escape sequence.
    Escape,
    /// A control sequence; an ASCII letter ends it, or a sign beside them.
    Sequence,
    /// A control string; BEL ends it, an escape sequence, or, where it is broken, the line.
    Title,
}

impl Printable {
    /// What is to be shown of the next piece.
    pub fn push(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(piece);
        let mut shown = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            shown.extend(chunk.valid().chars().filter_map(|letter| self.next(letter)));
            let invalid = chunk.invalid();
            let may_go_on = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if may_go_on && chunks.peek().is_none() {
                self.rest = invalid.to_vec();
            } else if !invalid.is_empty() {
                shown.extend(self.next(char::REPLACEMENT_CHARACTER));
            }
        }
        shown
    }

    /// What is to be shown of one character.
    fn next(&mut self, letter: char) -> Option<char> {
        let (state, shown) = match (self.state, letter) {
            (State::Return, '\n') => (State::Text, None),
            (State::Escape, '[') | (State::Sequence, ' '..='?') => (State::Sequence, None),
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => (State::Title, None),
            (_, '\u{1b}') | (State::Escape, ' '..='/') => (State::Escape, None),
            (State::Escape, '0'..='~') | (State::Sequence, '@'..='~') | (State::Title, '\u{7}') => {
                (State::Text, None)
            }
            (State::Title, letter) if letter != '\n' => (State::Title, None),
            (_, '\r') => (State::Return, Some('\n')),
            (_, letter) => (State::Text, Some(letter).filter(|it| !it.is_control() || "\t\n".contains(*it))),
        };
        self.state = state;
        shown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8]) -> String {
        Printable::default().push(bytes)
    }

    #[test]
    fn what_a_terminal_would_obey_is_left_out() {
        for (printed, expected) in [
            ("one\ttwo\nthree", "one\ttwo\nthree"),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}[38:5:1mmore\u{1b}[K", "red more"),
            ("\u{1b}]0;a title\u{7}a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "alink"),
            ("\u{1b}]never ended\nnext", "\nnext"),
            ("\u{1b}(Ba\u{1b}=b\u{1b}", "ab"),
            ("10%\r20%\r\ndone\r\n", "10%\n20%\ndone\n"),
            ("a\0b\u{8}c\u{7f}d\u{9b}e", "abcde"),
            ("<script>&amp;", "<script>&amp;"),
            ("\u{1b}[ä\u{1b}[\nb", "ä\nb"),
        ] {
            assert_eq!(shown(printed.as_bytes()), expected, "{printed:?}");
        }
        assert_eq!(shown(b"a\xffb\xe2\x82c"), "a\u{fffd}b\u{fffd}c");
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"\x1b[]\r\n\\;m\x07\xe2\x82\xac".to_vec())],
                0..60,
            ),
            cut in 0..60_usize,
        ) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let mut printable = Printable::default();
            let pieces = printable.push(one) + &printable.push(two);
            let whole = shown(&bytes);
            prop_assert!(!whole.chars().any(|it| it.is_control() && it != '\t' && it != '\n'));
            prop_assert_eq!(pieces, whole);
        }
    }
}
