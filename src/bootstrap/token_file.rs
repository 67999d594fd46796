//! The file that gives the agent its token: readable by its owner alone, replaced as a whole.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};

use super::Error;
use crate::{
    credential::read_token_file,
    ids::DispatchId,
    vault::{Kind, Vault},
};

/// How long the agent's token lives after each renewal.
const PERIOD: Duration = Duration::from_hours(24);

/// What the token file holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFile {
    /// Nothing is there.
    Absent,
    /// It holds a token that Vault no longer takes.
    Expired,
    /// It holds a good token, but others than its owner may read it.
    TooOpen,
    /// It holds a good token.
    Good,
}

/// Looks into the file and asks Vault about the token in it.
pub(super) async fn inspect(vault: &Vault, path: &Path, policy: &str) -> Result<TokenFile, Error> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TokenFile::Absent),
        other => other.map_err(failed(path, "read"))?,
    };
    if metadata.len() == 0 && metadata.is_file() {
        return Ok(TokenFile::Absent);
    }
    let keep = |reason| Error::TokenFileTaken { path: path.to_owned(), reason };
    let token = match read_token_file(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(keep("it holds something other than a token"));
        }
        other => other.map_err(failed(path, "read"))?,
    };
    if !looks_like_a_token(&token) {
        return Err(keep("it holds something other than a token"));
    }
    match vault.with_token(&token).lookup_self().await {
        Ok(facts) => {
            let only_ours = facts.policies.iter().all(|name| name == policy || name == "default");
            if !only_ours || !facts.policies.iter().any(|name| name == policy) {
                return Err(keep("it holds a valid token with other rights than the agent's"));
            }
            if facts.period.is_zero() {
                return Ok(TokenFile::Expired);
            }
            let open = metadata.permissions().mode() & 0o077 != 0;
            Ok(if open { TokenFile::TooOpen } else { TokenFile::Good })
        }
        Err(error) if error.kind() == Some(Kind::Denied) => Ok(TokenFile::Expired),
        Err(error) => Err(Error::vault("asking about the token in the token file")(error)),
    }
}

fn looks_like_a_token(token: &SecretString) -> bool {
    let token = token.expose_secret();
    ["hvs.", "s."].iter().any(|start| token.starts_with(start))
}

/// Makes a token and puts it into the file.
pub(super) async fn make(vault: &Vault, path: &Path, policy: &str) -> Result<(), Error> {
    let mut new = NewFile::beside(path)?;
    let token = vault.create_orphan_token(&[policy.to_owned()], PERIOD, policy).await;
    let token = token.map_err(Error::vault("making a token for the agent"))?;
    let finished = new.finish(path, &token);
    if finished.is_err() {
        // Nobody has it: better that it ends now than in a day, but the error above is what counts.
        drop(vault.with_token(&token).revoke_self().await);
    }
    finished
}

/// Takes everybody's rights to the file but its owner's.
pub(super) fn close(path: &Path) -> Result<(), Error> {
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed(path, "closed to others"))
}

/// A file beside the final one, made before the token is, so that no token is made in vain.
struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    fn beside(target: &Path) -> Result<Self, Error> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", DispatchId::new()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(failed(target, "written"))?, path })
    }

    fn finish(&mut self, target: &Path, token: &SecretString) -> Result<(), Error> {
        let mut write = || {
            self.file.write_all(token.expose_secret().as_bytes())?;
            self.file.write_all(b"\n")?;
            self.file.sync_all()?;
            std::fs::rename(&self.path, target)
        };
        write().map_err(failed(target, "written"))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After a success the file has its final name and nothing is left here.
        drop(std::fs::remove_file(&self.path));
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::TokenFile { path, doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_its_owners_alone_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("token");
        drop(NewFile::beside(&target).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);

        std::fs::write(&target, "old").unwrap();
        NewFile::beside(&target).unwrap().finish(&target, &SecretString::from("hvs.new")).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "hvs.new\n");
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
