//! Where the commands find the agent of a development session: a file in the user's runtime folder, which
//! nobody else may read, there for as long as the session is.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::ids::JobId;

/// The file's name.
const NAME: &str = "dev.json";

/// An agent's address and a token that may do everything there.
#[derive(Debug, Clone)]
pub struct Whereabouts {
    /// Such as `http://127.0.0.1:8480`.
    pub address: String,
    /// The token.
    pub token: SecretString,
}

#[derive(Serialize, Deserialize)]
struct Content {
    address: String,
    token: String,
}

/// The file of a session; it goes when this is dropped, unless a later session has replaced it.
#[derive(Debug)]
pub(super) struct Posted {
    folder: PathBuf,
    address: String,
}

impl Whereabouts {
    /// The session that runs on this machine for this user, if any.
    #[must_use]
    pub fn find() -> Option<Self> {
        read(&folder())
    }

    /// Lets the commands find the session.
    pub(super) fn post(&self) -> io::Result<Posted> {
        let folder = folder();
        write(&folder, self)?;
        Ok(Posted { folder, address: self.address.clone() })
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        if read(&self.folder).is_some_and(|found| found.address == self.address) {
            // What cannot be removed names an agent that is no longer there.
            drop(fs::remove_file(self.folder.join(NAME)).and_then(|()| fs::remove_dir(&self.folder)));
        }
    }
}

fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => Path::new(&folder).join("consign"),
        None => std::env::temp_dir().join(format!("consign-{}", rustix::process::getuid().as_raw())),
    }
}

fn write(folder: &Path, whereabouts: &Whereabouts) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ if !is_ours_alone(folder) => {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may use the folder"));
        }
        _ => {}
    }
    let Whereabouts { address, token } = whereabouts;
    let content = Content { address: address.clone(), token: token.expose_secret().to_owned() };
    let new = folder.join(format!("{NAME}.{}", JobId::new()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&content)?)?;
    fs::rename(&new, folder.join(NAME))
}

/// What stands in `folder`, where nobody else can have put it there.
fn read(folder: &Path) -> Option<Whereabouts> {
    let path = folder.join(NAME);
    if !is_ours_alone(folder) || !is_ours_alone(&path) {
        return None;
    }
    let Content { address, token } = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(Whereabouts { address, token: token.into() })
}

fn is_ours_alone(path: &Path) -> bool {
    let ours = |metadata: fs::Metadata| {
        metadata.uid() == rustix::process::getuid().as_raw()
            && (metadata.mode() & 0o777) | 0o700 == 0o700
            && !metadata.is_symlink()
    };
    fs::symlink_metadata(path).is_ok_and(ours)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn whereabouts(address: &str) -> Whereabouts {
        Whereabouts { address: address.to_owned(), token: "consign_x".into() }
    }

    #[test]
    fn a_session_is_found_while_it_runs_and_not_after() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("consign");
        assert!(read(&folder).is_none());
        write(&folder, &whereabouts("http://one")).unwrap();
        let first = Posted { folder: folder.clone(), address: "http://one".to_owned() };
        assert_eq!(read(&folder).unwrap().token.expose_secret(), "consign_x");
        write(&folder, &whereabouts("http://two")).unwrap();
        drop(first);
        assert_eq!(read(&folder).unwrap().address, "http://two", "a later session stays");
        drop(Posted { folder: folder.clone(), address: "http://two".to_owned() });
        assert_eq!(runtime.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_others_may_have_written_is_not_believed() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("consign");
        write(&folder, &whereabouts("http://one")).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read(&folder).is_none());
        assert!(write(&folder, &whereabouts("http://two")).is_err());
    }
}
