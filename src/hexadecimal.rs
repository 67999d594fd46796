//! Bytes as people and other programs write them.

use std::fmt::Write as _;

/// Two lower-case hexadecimal digits for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The byte that two hexadecimal digits stand for; `None` where they are none, as a sign is none.
#[must_use]
pub fn byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(16 * high? + low?).ok()
}

/// A text in percent-encoding, but for the unreserved characters of URLs (RFC 3986, section 2.3) and `plain` ones.
#[must_use]
pub fn percent(text: &str, plain: &[u8]) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
