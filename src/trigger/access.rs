//! Who may call a webhook: its own bearer token, or a signature with a timestamp.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};

use super::settings::{Source, Trigger};
use crate::{
    credential::{self, Credential},
    webhook,
};

/// How far a signature's timestamp may be from now.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// How long signatures are kept after their call: a clock that is set back makes no old one good.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Where systemd puts what `LoadCredential=` names.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// What the callers of a trigger show.
#[derive(Debug, Clone, Default)]
pub struct Access {
    token: Option<Credential>,
    key: Option<SecretString>,
}

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no key to check it with.
    #[error("this trigger takes no signatures")]
    NoKey,
    /// The timestamp is missing, no number, or too far from now.
    #[error("the timestamp is missing, or further than 5 minutes from now")]
    Timestamp,
    /// It is not the signature of this timestamp and body.
    #[error("the signature is wrong")]
    Signature,
}

impl Access {
    /// Reads the files that a trigger names. Whoever else can read one can call the trigger, so that is an error.
    pub fn read(trigger: &Trigger) -> io::Result<Self> {
        let (token_file, hmac_file) = match &trigger.source {
            Source::Webhook(webhook) => (&webhook.token_file, &webhook.hmac_file),
            Source::Forge(issues) => (&None, &issues.hmac_file),
            _ => return Ok(Self::default()),
        };
        let token = token_file.as_deref().map(|path| guarded(path, Credential::from_file));
        let key = hmac_file.as_deref().map(|path| guarded(path, credential::read_secret_file));
        Ok(Self { token: token.transpose()?, key: key.transpose()? })
    }

    /// The key of its signatures.
    #[must_use]
    pub const fn key(&self) -> Option<&SecretString> {
        self.key.as_ref()
    }

    /// Whether `bearer` is the trigger's own token.
    #[must_use]
    pub fn is_token(&self, bearer: &SecretString) -> bool {
        let token = self.token.as_ref().and_then(Credential::token);
        token.is_some_and(|token| same(&token, bearer))
    }

    /// Checks the signature `sha256=<hex>` of `<timestamp>.<body>`, the timestamp in seconds since 1970.
    pub fn check(
        &self,
        timestamp: &str,
        body: &[u8],
        signature: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let key = self.key.as_ref().ok_or(Refused::NoKey)?;
        let at = timestamp.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        if at.is_none_or(|at| at.duration_since(now).abs() > WINDOW) {
            return Err(Refused::Timestamp);
        }
        let signed = [timestamp.as_bytes(), b".", body].concat();
        if webhook::verify(key.expose_secret().as_bytes(), &signed, signature) {
            Ok(())
        } else {
            Err(Refused::Signature)
        }
    }
}

fn guarded<T>(path: &Path, read: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let open = || {
        let mode = fs::metadata(path)?.mode() & 0o777;
        // systemd opens a credential to its service by an ACL, which shows as the group's right to read.
        let is_credential = std::env::var_os(CREDENTIALS).is_some_and(|folder| path.starts_with(folder));
        if mode & if is_credential { 0o037 } else { 0o077 } != 0 {
            return Err(io::Error::other(format!(
                "its mode is {mode:04o}: others may read it; chmod it to 0600"
            )));
        }
        read(path)
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Compares in a time that does not depend on where two secrets differ: by HMACs of the one.
fn same(one: &SecretString, other: &SecretString) -> bool {
    let key = one.expose_secret().as_bytes();
    webhook::verify(key, other.expose_secret().as_bytes(), &webhook::sign(key, key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn access() -> Access {
        Access { token: Some(SecretString::from("own").into()), key: Some(SecretString::from("key")) }
    }

    #[test]
    fn only_the_own_token_opens() {
        for (bearer, opens) in [("own", true), ("ow", false), ("ownn", false), ("", false), ("Own", false)] {
            assert_eq!(access().is_token(&bearer.into()), opens, "{bearer}");
        }
        assert!(!Access::default().is_token(&"".into()));
    }

    #[test]
    fn a_signature_is_good_for_its_body_and_its_time_alone() {
        let signature =
            |timestamp: &str, body: &str| webhook::sign(b"key", format!("{timestamp}.{body}").as_bytes());
        let good = signature("299", "{}");
        assert_eq!(access().check("299", b"{}", &good, NOW), Ok(()));
        assert_eq!(access().check("299", b"{ }", &good, NOW), Err(Refused::Signature));
        assert_eq!(access().check("298", b"{}", &good, NOW), Err(Refused::Signature));
        assert_eq!(access().check("301", b"{}", &signature("301", "{}"), NOW), Err(Refused::Timestamp));
        for wrong in ["", "soon", "-301", "99999999999999999999"] {
            assert_eq!(access().check(wrong, b"{}", &signature(wrong, "{}"), NOW), Err(Refused::Timestamp));
        }
        assert_eq!(Access::default().check("0", b"{}", &good, NOW), Err(Refused::NoKey));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "t").unwrap();
        for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = guarded(&path, Credential::from_file);
            assert_eq!(read.is_err(), refused, "{mode:o}");
            assert!(read.err().is_none_or(|error| error.to_string().contains("0600")));
        }
    }
}
