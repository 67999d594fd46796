//! The token that requests to Nomad or Vault carry, or the secret that webhooks are signed with, and the file
//! that it comes from.
//!
//! Whoever keeps a token alive (Nomad for a workload identity, an operator for an ordinary one) writes a new
//! one into the same file. So the file is looked at before each request and read when it changed, and read in
//! any case after a refusal: the agent goes on without a restart.

use std::{
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};

/// A token that may be replaced while it is used; clones share it. The default is none at all.
#[derive(Clone, Default)]
pub struct Credential {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    source: Option<Source>,
    present: Mutex<Present>,
}

struct Source {
    file: PathBuf,
    read: Reader,
}

type Reader = fn(&Path) -> io::Result<SecretString>;

#[derive(Default)]
struct Present {
    token: Option<SecretString>,
    stamp: Option<Stamp>,
}

/// What tells one content of a file from the next: two of the same length within one tick of the kernel's
/// clock look alike where the file is not replaced. For a token the refusal of the first one tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), modified, length: metadata.len() }
    }
}

impl Credential {
    /// The token in a file, and whatever it holds later.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        Self::read(path, read_token_file)
    }

    /// The secret of a webhook in a file, and whatever it holds later.
    pub fn from_secret_file(path: &Path) -> io::Result<Self> {
        Self::read(path, read_secret_file)
    }

    fn read(path: &Path, read: Reader) -> io::Result<Self> {
        let stamp = stamp(path)?;
        let present = Present { token: Some(read(path)?), stamp: Some(stamp) };
        let source = Some(Source { file: path.to_owned(), read });
        Ok(Self { shared: Arc::new(Shared { source, present: Mutex::new(present) }) })
    }

    /// The file that it comes from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.shared.source.as_ref().map(|source| source.file.as_path())
    }

    /// The token to send now. A file that cannot be read, or is being written, leaves the one before.
    #[must_use]
    pub fn token(&self) -> Option<SecretString> {
        let mut present = self.present();
        if let Some(Source { file, read }) = &self.shared.source
            && let Ok(stamp) = stamp(file)
            && present.stamp != Some(stamp)
            && let Ok(token) = read(file)
        {
            *present = Present { token: Some(token), stamp: Some(stamp) };
        }
        present.token.clone()
    }

    /// Reads the file although it looks unchanged, because `refused` was; gives whether there is another
    /// token now. Without a file there never is.
    pub fn read_again(&self, refused: Option<&SecretString>) -> io::Result<bool> {
        let Some(Source { file, read }) = &self.shared.source else { return Ok(false) };
        let stamp = stamp(file)?;
        let token = read(file)?;
        let is_new = refused.is_none_or(|refused| refused.expose_secret() != token.expose_secret());
        *self.present() = Present { token: Some(token), stamp: Some(stamp) };
        Ok(is_new)
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.shared.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("file", &self.file()).finish_non_exhaustive()
    }
}

impl From<Option<SecretString>> for Credential {
    /// A token that stays.
    fn from(token: Option<SecretString>) -> Self {
        let present = Mutex::new(Present { token, stamp: None });
        Self { shared: Arc::new(Shared { source: None, present }) }
    }
}

impl From<SecretString> for Credential {
    /// A token that stays.
    fn from(token: SecretString) -> Self {
        Some(token).into()
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    fs::metadata(path).map(|metadata| Stamp::of(&metadata))
}

/// Reads a token from a file, without the white space around it. An empty file is an error.
pub fn read_token_file(path: &Path) -> io::Result<SecretString> {
    let text = SecretString::from(fs::read_to_string(path)?);
    let token = text.expose_secret().trim();
    if token.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the token file is empty"));
    }
    if !token.chars().all(|character| character.is_ascii_graphic()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the token file holds more than a token"));
    }
    Ok(SecretString::from(token))
}

/// Reads the secret of a webhook from a file, without the line end that editors add. Any other text may be a
/// secret, but none at all is an error.
pub fn read_secret_file(path: &Path) -> io::Result<SecretString> {
    let text = SecretString::from(fs::read_to_string(path)?);
    let secret = text.expose_secret();
    let secret = secret.strip_suffix('\n').unwrap_or(secret);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    Ok(secret.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: Option<&SecretString>) -> Option<&str> {
        token.map(secrecy::ExposeSecret::expose_secret)
    }

    #[test]
    fn a_token_file_holds_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (content, token) in
            [("hvs.a\n", Some("hvs.a")), (" hvs.a", Some("hvs.a")), ("", None), ("\n", None), ("a b", None)]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(text(read_token_file(&path).ok().as_ref()), token, "{content:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_leaves_the_token_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(Credential::from_file(&path).is_err());
        fs::write(&path, "one").unwrap();
        let credential = Credential::from_file(&path).unwrap();
        let clone = credential.clone();
        fs::write(&path, "second").unwrap();
        assert_eq!(text(clone.token().as_ref()), Some("second"));
        for content in ["", "two words"] {
            fs::write(&path, content).unwrap();
            assert_eq!(text(credential.token().as_ref()), Some("second"), "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(text(credential.token().as_ref()), Some("second"));
        fs::write(&path, "third").unwrap();
        assert_eq!(text(credential.token().as_ref()), Some("third"));
    }

    #[test]
    fn a_refusal_reads_a_file_that_looks_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "one").unwrap();
        let credential = Credential::from_file(&path).unwrap();
        let refused = credential.token();
        assert!(!credential.read_again(refused.as_ref()).unwrap());
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(text(credential.token().as_ref()), Some("one"), "same inode, time and length");
        assert!(credential.read_again(refused.as_ref()).unwrap());
        assert_eq!(text(credential.token().as_ref()), Some("two"));
    }

    #[test]
    fn a_given_token_stays_and_none_prints() {
        let credential = Credential::from(SecretString::from("hidden"));
        assert!(!credential.read_again(None).unwrap());
        assert_eq!(text(credential.token().as_ref()), Some("hidden"));
        assert!(!format!("{credential:?}").contains("hidden"));
        assert!(Credential::default().token().is_none());
    }
}
