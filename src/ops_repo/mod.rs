//! Both ends of the flow: the ops repo, read and written through a bare mirror of it.
//!
//! This is the only room that touches git. It runs the `git` program hermetically (`git`), on a
//! bare repository in a private folder (`mirror`) that holds nothing which the remote and the store
//! do not hold as well: a damaged mirror is thrown away and made anew. Only objects are read
//! (`objects`, mostly by asking one git that stays for a while, `reader`): there is no work tree, so no hook,
//! filter or symbolic link of the repo ever acts here.
//! Hooks of a remote on the same machine do not run for pushes from here either.
//!
//! Where approvals need evidence, `history` tells which commits gave a file its content, and `signature` what
//! their signatures are worth.
//!
//! What is written is result files (`publish`), as a commit on the tip that the remote is known to
//! have and accepted only while it still has it, and one reference, `refs/consign/owner` (`owner`),
//! that names the store which works for this repo. Both are compare-and-set: nobody's work is ever
//! overwritten.

use std::{path::PathBuf, sync::Mutex};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Revision;

mod arrival;
mod error;
mod git;
mod history;
mod mirror;
mod objects;
mod owner;
mod publish;
mod reader;
mod remote;
mod signature;
#[cfg(test)]
mod signature_tests;
#[cfg(test)]
mod tests;
mod tips;

pub use arrival::Arrival;
pub use error::{ClaimError, Error, ErrorKind};
pub use git::Place;
pub use mirror::Mirror;
#[doc(hidden)]
pub use objects::{TreeLine, parse_changes, parse_snapshot, parse_tree};
pub use remote::RemoteUrl;
pub use signature::Keys;

/// What this room has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the ops repo is.
    pub remote: RemoteUrl,
    /// The branch that actions are taken from.
    pub branch: String,
    /// The private folder of the mirror; made when absent.
    pub mirror: PathBuf,
    /// The folder of the actions, relative to the repo's root.
    pub actions: String,
    /// The folder of the formulas, relative to the repo's root.
    pub formulas: String,
    /// The author of result commits.
    pub author_name: String,
    /// The author's address.
    pub author_email: String,
    /// The branch that results go to; `None` is `branch`.
    pub results_branch: Option<String>,
    /// The ssh key that signs result commits.
    pub signing_key: Option<PathBuf>,
    /// Whose signatures on commits count.
    pub keys: Keys,
}

#[cfg(test)]
impl Settings {
    /// The plainest ones.
    pub(crate) fn plain(remote: &str, mirror: PathBuf) -> Self {
        Self {
            remote: RemoteUrl::parse(remote).unwrap(),
            branch: "main".to_owned(),
            mirror,
            actions: "actions".to_owned(),
            formulas: "formulas".to_owned(),
            author_name: "consign".to_owned(),
            author_email: "consign@example.invalid".to_owned(),
            results_branch: None,
            signing_key: None,
            keys: Keys::default(),
        }
    }
}

/// The ops repo, as one agent sees it. Calls may overlap; those that write take turns.
#[derive(Debug)]
pub struct OpsRepo {
    settings: Settings,
    mirror: Mirror,
    /// The claim that it is worked under.
    claim: Mutex<Option<Revision>>,
}

/// Where the remote's references stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tips {
    /// The branch that actions are taken from.
    pub branch: Option<Revision>,
    /// The claim on the repo.
    pub owner: Option<Revision>,
    /// The separate results branch, where one is set and exists.
    pub results: Option<Revision>,
}

/// The id of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(String);

impl BlobId {
    /// Reads 40 or 64 hexadecimal digits, as ids of commits are.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Revision::parse(text).ok().map(|revision| Self(revision.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    Regular,
    /// A file with the executable bit.
    Executable,
    /// A symbolic link; never followed.
    Symlink,
    /// A submodule; never entered.
    Submodule,
    /// Anything whose path is not UTF-8; its path is given with replacement characters.
    NotUtf8,
}

/// The content at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What it is.
    pub kind: EntryKind,
    /// The blob; for a submodule the foreign commit.
    pub blob: BlobId,
}

/// One path of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path from the repo's root.
    pub path: String,
    /// What stands there.
    pub content: Content,
}

/// One path that differs between two revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path from the repo's root.
    pub path: String,
    /// What stood there; `None` where it is new.
    pub before: Option<Content>,
    /// What stands there now; `None` where it was deleted.
    pub after: Option<Content>,
}

/// A blob as far as it was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blob {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// It is larger than the limit and was not read.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The mirror has no such blob.
    Missing,
}

/// Who works for the repo: what `refs/consign/owner` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The id of the store.
    pub store_id: String,
    /// The host that it was claimed from.
    pub host: String,
    /// When it was claimed.
    pub claimed_at: Timestamp,
}

/// A result file to be written, or the record of submitted work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultEntry {
    /// Its path from the repo's root: within the actions folder, ending in `.result.json`, or a record's.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// What became of the result files given to [`OpsRepo::publish`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// The commit that carries them; `None` where the branch held all of them already.
    pub commit: Option<Revision>,
    /// Those that can never be written, with the reason; they did not hold up the others.
    pub refused: Vec<(String, &'static str)>,
}
