//! The tokens file: replaced as a whole, its owner's alone, and read anew when it has changed.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{HolderName, Scope, Token};
use crate::{credential::Stamp, ids::DispatchId};

/// The largest tokens file that is read, in bytes: some 5,000 tokens.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// What went wrong with the tokens file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("cannot {doing} the tokens file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may write to it, so what it says is worth nothing.
    #[error("others may write to the tokens file {}: `chmod 600` it, and look at who has a token", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
    },
    /// It does not read.
    #[error("the tokens file {} does not read", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It cannot be written as TOML.
    #[error("cannot write the tokens")]
    Write(#[source] toml::ser::Error),
    /// The name is taken.
    #[error("there is a token called {0} already: `consign token revoke {0}` first, or choose another name")]
    Taken(HolderName),
    /// There is no such token.
    #[error("no token is called {0}: see `consign token list`")]
    Unknown(HolderName),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Random(#[source] io::Error),
}

/// The file and what was last read from it.
#[derive(Debug)]
pub struct TokensFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Arc<[Token]>)>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    token: Vec<Token>,
}

impl TokensFile {
    /// The file at `path`, which need not exist.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// Every token on record; none where there is no file. Read anew only where it has changed.
    pub fn tokens(&self) -> Result<Arc<[Token]>, Error> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read.as_ref().filter(|(known, _)| {
            std::fs::metadata(&self.path).is_ok_and(|metadata| *known == Stamp::of(&metadata))
        });
        if let Some((_, tokens)) = known {
            return Ok(Arc::clone(tokens));
        }
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::new([])),
            Err(error) => return Err(self.failed("read")(error)),
        };
        let metadata = file.metadata().map_err(self.failed("read"))?;
        let stamp = Stamp::of(&metadata);
        if metadata.mode() & 0o022 != 0 {
            return Err(Error::TooOpen { path: self.path.clone() });
        }
        let mut text = String::new();
        file.take(SIZE_LIMIT).read_to_string(&mut text).map_err(self.failed("read"))?;
        let invalid = |source| Error::Invalid { path: self.path.clone(), source: Box::new(source) };
        let content: Content = toml::from_str(&text).map_err(invalid)?;
        let tokens: Arc<[Token]> = content.token.into();
        *read = Some((stamp, Arc::clone(&tokens)));
        Ok(tokens)
    }

    /// Makes a token and puts it on record; it is given here and nowhere else.
    pub fn create(
        &self,
        name: HolderName,
        scopes: &[Scope],
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<SecretString, Error> {
        let _turn = self.lock()?;
        let mut tokens = self.tokens()?.to_vec();
        if tokens.iter().any(|token| token.name == name) {
            return Err(Error::Taken(name));
        }
        let (token, secret) = Token::create(name, scopes, now, expires_at)?;
        tokens.push(token);
        self.replace(tokens)?;
        Ok(secret)
    }

    /// Takes a token from the record; it is refused from then on.
    pub fn revoke(&self, name: &HolderName) -> Result<(), Error> {
        let _turn = self.lock()?;
        let mut tokens = self.tokens()?.to_vec();
        let before = tokens.len();
        tokens.retain(|token| token.name != *name);
        if tokens.len() == before {
            return Err(Error::Unknown(name.clone()));
        }
        self.replace(tokens)
    }

    /// Keeps other commands from changing the file meanwhile: held on its folder, which stays. Before the agent's first
    /// start it is made as the agent makes it; one that is there keeps its mode.
    fn lock(&self) -> Result<File, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.folder());
        made.map_err(self.failed("make the folder of"))?;
        let folder = File::open(self.folder()).map_err(self.failed("lock the folder of"))?;
        folder.lock().map_err(self.failed("lock the folder of"))?;
        Ok(folder)
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Puts new content in the file's place. Where root does so it stays the agent's: it belongs to whom
    /// the file, or else its folder, belonged to.
    fn replace(&self, tokens: Vec<Token>) -> Result<(), Error> {
        let text = toml::to_string(&Content { token: tokens }).map_err(Error::Write)?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", DispatchId::new()));
        let new = self.path.with_file_name(name);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            let owner = std::fs::metadata(&self.path).or_else(|_| std::fs::metadata(self.folder()))?;
            if file.metadata()?.uid() != owner.uid() {
                std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|error| {
            // It is not there where it could not be made.
            drop(std::fs::remove_file(&new));
            self.failed("write")(error)
        })
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.path.clone();
        move |source| Error::File { path, doing, source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tokens::{Refused, verify};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn name(text: &str) -> HolderName {
        text.parse().unwrap()
    }

    #[test]
    fn what_one_reader_has_seen_another_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let agent = TokensFile::new(path.clone());
        assert_eq!(agent.tokens().unwrap().len(), 0);
        let command = TokensFile::new(path.clone());
        let ann = command.create(name("ann"), &[Scope::Read, Scope::Read], NOW, None).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(verify(&agent.tokens().unwrap(), &ann, NOW).unwrap().scopes, [Scope::Read]);
        assert!(matches!(command.create(name("ann"), &[], NOW, None), Err(Error::Taken(_))));
        let ben = command.create(name("ben"), &[Scope::Admin], NOW, Some(NOW)).unwrap();
        assert_eq!(verify(&agent.tokens().unwrap(), &ben, NOW), Err(Refused::Expired));
        command.revoke(&name("ann")).unwrap();
        assert_eq!(verify(&agent.tokens().unwrap(), &ann, NOW), Err(Refused::Unknown));
        assert!(matches!(command.revoke(&name("ann")), Err(Error::Unknown(_))));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn no_token_of_many_at_once_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        std::thread::scope(|scope| {
            for index in 0..8 {
                let path = path.clone();
                scope.spawn(move || {
                    TokensFile::new(path).create(name(&format!("n{index}")), &[], NOW, None).unwrap()
                });
            }
        });
        assert_eq!(TokensFile::new(path).tokens().unwrap().len(), 8);
    }

    #[test]
    fn a_file_that_others_may_write_to_or_that_does_not_read_gives_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let file = TokensFile::new(path.clone());
        file.create(name("ann"), &[Scope::Read], NOW, None).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
        assert!(matches!(TokensFile::new(path.clone()).tokens(), Err(Error::TooOpen { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "[[token]]\nname = \"ann\"\nsha256 = \"12\"\n").unwrap();
        assert!(matches!(file.tokens(), Err(Error::Invalid { .. })));
    }
}
