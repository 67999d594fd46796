//! Sessions: what a browser keeps in place of a token.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice};

use super::{Error, Token, random};
use crate::webhook;

/// How long a session lasts at most.
const LENGTH: SignedDuration = SignedDuration::from_hours(12);

/// Makes sessions and knows them again; each of these knows its own alone.
///
/// A session is the time of its end, the token's name, and the HMAC of both and of the token's hash. So nothing
/// of it is kept, it is no token, and it ends with the token's expiry or revocation.
pub struct Sessions(SecretSlice<u8>);

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sessions(****)")
    }
}

impl Sessions {
    /// Sessions that nobody has yet.
    pub fn new() -> Result<Self, Error> {
        Ok(Self(SecretSlice::from(random()?.to_vec())))
    }

    /// A session of the token's holder: letters that a cookie may have, and the time of its end.
    #[must_use]
    pub fn open(&self, token: &Token, now: Timestamp) -> (String, Timestamp) {
        let longest = now.saturating_add(LENGTH).unwrap_or(Timestamp::MAX);
        let end = token.expires_at.map_or(longest, |expiry| expiry.min(longest));
        let signature = webhook::sign(self.0.expose_secret(), &signed(end.as_second(), token));
        (format!("{}.{}.{signature}", end.as_second(), token.name), end)
    }

    /// The token that a session stands for, if both still hold.
    #[must_use]
    pub fn verify<'tokens>(
        &self,
        tokens: &'tokens [Token],
        session: &str,
        now: Timestamp,
    ) -> Option<&'tokens Token> {
        let (end, rest) = session.split_once('.')?;
        let (name, signature) = rest.rsplit_once('.')?;
        let end: i64 = end.parse().ok()?;
        let token = tokens.iter().find(|token| token.name.as_str() == name)?;
        let genuine = webhook::verify(self.0.expose_secret(), &signed(end, token), signature);
        (genuine && now.as_second() < end && !token.is_expired(now)).then_some(token)
    }
}

/// What the signature is of.
fn signed(end: i64, token: &Token) -> Vec<u8> {
    // A name has no line's end, so no two sessions share a text.
    [format!("{end}\n{}\n", token.name).as_bytes(), &token.sha256.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Scope;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(name: &str, expires_at: Option<Timestamp>) -> Token {
        Token::create(name.parse().unwrap(), &[Scope::Read], at(0), expires_at).unwrap().0
    }

    #[test]
    fn a_session_stands_for_its_token_until_it_or_the_token_ends() {
        let sessions = Sessions::new().unwrap();
        let kept = [token("ann.b-c", None), token("ben", Some(at(60)))];
        let (ann, ann_end) = sessions.open(&kept[0], at(0));
        let (ben, ben_end) = sessions.open(&kept[1], at(0));
        assert_eq!((ann_end, ben_end), (at(12 * 60 * 60), at(60)));
        let holder = |session: &str, now| {
            sessions.verify(&kept, session, now).map(|token| token.name.as_str().to_owned())
        };
        assert_eq!(holder(&ann, at(59)).as_deref(), Some("ann.b-c"));
        assert_eq!(holder(&ben, at(59)).as_deref(), Some("ben"));
        assert_eq!((holder(&ben, at(60)), holder(&ann, ann_end)), (None, None));
        assert!(sessions.verify(&kept[1..], &ann, at(1)).is_none(), "its token was revoked");
        let again = [token("ann.b-c", None)];
        assert!(sessions.verify(&again, &ann, at(1)).is_none(), "another token of that name");
        assert!(Sessions::new().unwrap().verify(&kept, &ann, at(1)).is_none(), "another agent's");
    }

    #[test]
    fn a_session_that_was_changed_is_none() {
        let sessions = Sessions::new().unwrap();
        let kept = [token("ann", None), token("ben", None)];
        let (session, _) = sessions.open(&kept[0], at(0));
        let longer = session.replacen("43200", "43201", 1);
        assert_ne!(longer, session);
        for changed in [&longer, &session.replace("ann", "ben"), &session[1..], "", ".", "..", "1.ann."] {
            assert!(sessions.verify(&kept, changed, at(1)).is_none(), "{changed}");
        }
        assert!(!format!("{sessions:?}").contains(char::is_numeric));
    }
}
