//! Where the ops repo is, with credentials that cannot be printed.

use std::{fmt, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretString};

use super::Error;
use crate::hexadecimal;

/// The address of the ops repo: a path, `ssh://…`, `user@host:path`, `https://…`, `http://…` or `file://…`.
///
/// A user name and password in an http(s) address are taken out of it and reach git as a request
/// header from a private file, so that they appear neither in a process list nor in git's messages.
#[derive(Debug, Clone)]
pub struct RemoteUrl {
    /// What git is given.
    address: String,
    /// `user:password`, decoded.
    credential: Option<SecretString>,
}

impl RemoteUrl {
    /// Reads an address as it stands in the configuration; a relative path is taken from the
    /// working directory.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse =
            |reason| Error::Setting { setting: "the ops repo's address", value: redact(text), reason };
        if text.is_empty()
            || text.contains("::")
            || text.starts_with('-')
            || text.chars().any(char::is_control)
        {
            return Err(refuse("it has to be a path or an ssh, https, http or file address"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            if is_host_and_path(text) {
                return Ok(Self { address: text.to_owned(), credential: None });
            }
            let path = std::path::absolute(text).map_err(|_| refuse("its path cannot be resolved"))?;
            let address = path.into_os_string().into_string().map_err(|_| refuse("its path is not UTF-8"))?;
            return Ok(Self { address, credential: None });
        };
        match scheme {
            "ssh" | "file" => Ok(Self { address: text.to_owned(), credential: None }),
            "https" | "http" => {
                let authority_end = rest.find('/').unwrap_or(rest.len());
                let Some(at) = rest[..authority_end].rfind('@') else {
                    return Ok(Self { address: text.to_owned(), credential: None });
                };
                let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
                let credential = decode(user)
                    .zip(decode(password))
                    .map(|(user, password)| SecretString::from(format!("{user}:{password}")))
                    .ok_or_else(|| refuse("its user name or password is not valid percent-encoding"))?;
                let address = format!("{scheme}://{}", &rest[at + 1..]);
                Ok(Self { address, credential: Some(credential) })
            }
            _ => Err(refuse("only ssh, https, http and file addresses and paths are used")),
        }
    }

    /// The path of a remote on this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        match self.address.strip_prefix("file://") {
            Some(path) => Some(PathBuf::from(path)),
            None => self.address.starts_with('/').then(|| PathBuf::from(&self.address)),
        }
    }

    /// What git is given as the remote; it holds no http credential.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The section of a git configuration file that sends the credential to this server alone.
    pub(super) fn credential_section(&self) -> Option<SecretString> {
        let credential = self.credential.as_ref()?;
        let (scheme, rest) = self.address.split_once("://")?;
        let authority = rest.split('/').next()?.replace(['"', '\\'], "");
        let encoded = BASE64_STANDARD.encode(credential.expose_secret());
        Some(SecretString::from(format!(
            "[http \"{scheme}://{authority}/\"]\n\textraHeader = \"Authorization: Basic {encoded}\"\n"
        )))
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&redact(&self.address))
    }
}

/// Whether git takes `text` for `[user@]host:path`: a colon before the first slash.
fn is_host_and_path(text: &str) -> bool {
    text.find(':').is_some_and(|colon| text.find('/').is_none_or(|slash| colon < slash))
}

/// Undoes percent-encoding; `None` where it is broken or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            bytes.push(hexadecimal::byte([rest.next()?, rest.next()?])?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// `text` with the user name and password of every address in it replaced by `***`.
pub(super) fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, after) = rest.split_at(scheme + 3);
        redacted.push_str(before);
        let end = after
            .find(|character: char| character == '/' || character == '\'' || character.is_whitespace())
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                redacted.push_str("***");
                &after[at..]
            }
            None => after,
        };
    }
    redacted.push_str(rest);
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_show() {
        let remote = RemoteUrl::parse("https://robot:p%40ss@git.example/ops.git").unwrap();
        assert_eq!(remote.address(), "https://git.example/ops.git");
        assert!(!format!("{remote} {remote:?}").contains("p@ss"));
        let section = remote.credential_section().unwrap();
        assert!(section.expose_secret().contains(&BASE64_STANDARD.encode("robot:p@ss")));
        assert!(section.expose_secret().starts_with("[http \"https://git.example/\"]"));

        let ssh = RemoteUrl::parse("ssh://git:word@git.example/ops.git").unwrap();
        assert_eq!(ssh.to_string(), "ssh://***@git.example/ops.git");
    }

    #[test]
    fn messages_are_redacted_wherever_an_address_stands() {
        assert_eq!(
            redact("fatal: 'https://a:b@h/x' and ssh://c@d/ but a@b and https://h/y@z"),
            "fatal: 'https://***@h/x' and ssh://***@d/ but a@b and https://h/y@z"
        );
    }

    #[test]
    fn only_known_transports_are_used() {
        for good in
            ["/srv/ops.git", "ops.git", "git@host:ops.git", "ssh://h/x", "file:///srv/x", "http://h/x"]
        {
            assert!(RemoteUrl::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-oProxyCommand=x", "ext::sh -c x", "ftp://h/x", "git://h/x", "a\nb", "https://%zz@h/"]
        {
            let refused = RemoteUrl::parse(bad).is_err()
                || RemoteUrl::parse(bad).is_ok_and(|remote| remote.address().starts_with("ext::"));
            assert!(refused, "{bad:?}");
        }
        assert!(RemoteUrl::parse("ops.git").unwrap().local_path().unwrap().is_absolute());
    }
}
