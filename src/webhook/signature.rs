//! The signature of a webhook: HMAC-SHA256 of the body (RFC 2104, FIPS 180-4).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::hexadecimal;

/// The header that carries the signature.
pub const HEADER: &str = "X-Consign-Signature";

const PREFIX: &str = "sha256=";

/// What the header [`HEADER`] says of a body: `sha256=` and 64 hexadecimal digits.
#[must_use]
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    let digits = hmac(secret, body).map(|hmac| hexadecimal::encode(&hmac.finalize().into_bytes()));
    format!("{PREFIX}{}", digits.unwrap_or_default())
}

/// Whether `signature`, the content of the header `X-Consign-Signature`, was made of exactly this body with
/// this secret: for receivers. The time that it takes says nothing of the right signature.
///
/// The body is what came over the wire, before anything is parsed. The secret is the content of the agent's
/// `[webhooks] secret_file` without the line end.
///
/// ```
/// let secret = b"what the agent has in [webhooks] secret_file";
/// let body = br#"{"state":"done"}"#;
/// let header = consign::webhook::sign(secret, body); // what the agent sends
/// assert!(consign::webhook::verify(secret, body, &header));
/// assert!(!consign::webhook::verify(secret, br#"{"state":"failed"}"#, &header));
/// assert!(!consign::webhook::verify(secret, body, "sha256=00"));
/// ```
#[must_use]
pub fn verify(secret: &[u8], body: &[u8], signature: &str) -> bool {
    signature.strip_prefix(PREFIX).is_some_and(|digits| is_hmac(secret, body, digits))
}

/// Whether the hexadecimal `digits` are the HMAC of a body, in constant time.
pub(crate) fn is_hmac(secret: &[u8], body: &[u8], digits: &str) -> bool {
    let given = bytes(digits);
    hmac(secret, body).zip(given).is_some_and(|(hmac, given)| hmac.verify_slice(&given).is_ok())
}

/// A key of any length is one, so there always is an HMAC.
fn hmac(secret: &[u8], body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    hmac.update(body);
    Some(hmac)
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 4231, test case 2.
    const KEY: &[u8] = b"Jefe";
    const BODY: &[u8] = b"what do ya want for nothing?";
    const SIGNATURE: &str = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn the_published_vector_is_signed_and_verified() {
        assert_eq!(sign(KEY, BODY), SIGNATURE);
        assert!(verify(KEY, BODY, SIGNATURE));
        let hex = &SIGNATURE[PREFIX.len()..];
        for bad in
            ["", "sha256=", hex, &SIGNATURE[..70], &SIGNATURE.replace('5', "6"), "sha256=+1", "sha256=é"]
        {
            assert!(!verify(KEY, BODY, bad), "{bad}");
        }
        assert!(!verify(b"", BODY, SIGNATURE));
    }

    proptest! {
        #[test]
        fn only_the_same_secret_and_body_verify(
            secret in proptest::collection::vec(any::<u8>(), 1..200),
            body in proptest::collection::vec(any::<u8>(), 1..500),
            place in any::<prop::sample::Index>(),
            header in ".*",
        ) {
            let signature = sign(&secret, &body);
            prop_assert!(verify(&secret, &body, &signature));
            let mut other = body.clone();
            other[place.index(body.len())] ^= 1;
            prop_assert!(!verify(&secret, &other, &signature));
            let mut wrong = secret.clone();
            wrong[place.index(secret.len())] ^= 1;
            prop_assert!(!verify(&wrong, &body, &signature));
            prop_assert!(header == signature || !verify(&secret, &body, &header));
        }
    }
}
