//! What can go wrong between here and the ops repo, and what kind of trouble it is.

use std::{io, path::PathBuf, time::Duration};

use super::{
    Owner,
    git::{MINIMUM_VERSION, Place},
};
use crate::ids::Revision;

/// An operation on the ops repo that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program did not start.
    #[error("could not start {program}, which has to be on PATH")]
    Spawn {
        /// The program: git, or one that verifies signatures.
        program: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The pipes to and from git broke.
    #[error("could not {operation}: lost the connection to the git process")]
    Pipe {
        /// What git was asked to do.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Git did not end within the time that the operation may take.
    #[error("could not {operation}: git was stopped after {} s", limit.as_secs())]
    TimedOut {
        /// What git was asked to do.
        operation: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// Git ran and failed.
    #[error("could not {operation}: {stderr}")]
    Exit {
        /// What git was asked to do.
        operation: &'static str,
        /// What git worked on.
        place: Place,
        /// Git's exit code; `None` where a signal ended it.
        code: Option<i32>,
        /// What git said, trimmed and without credentials.
        stderr: String,
    },
    /// Git printed something that this version does not understand.
    #[error("could not {operation}: git's answer was not understood")]
    Answer {
        /// What git was asked to do.
        operation: &'static str,
    },
    /// The installed git lacks what is needed.
    #[error("git {found} is too old: {}.{} or newer is needed", MINIMUM_VERSION.0, MINIMUM_VERSION.1)]
    OldGit {
        /// The version found.
        found: String,
    },
    /// A setting cannot be used.
    #[error("{setting} {value:?} cannot be used: {reason}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its value, without credentials.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The mirror's folder could not be made, read or written.
    #[error("could not prepare the mirror at {}", path.display())]
    Mirror {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The mirror has no such commit: history was rewritten, or the mirror is new.
    #[error("the mirror has no commit {revision}")]
    UnknownRevision {
        /// The commit asked for.
        revision: Revision,
    },
    /// The remote has no such branch yet, so there is nothing to put a result beside.
    #[error("the ops repo has no branch {branch:?} yet: push a first commit to it")]
    EmptyRemote {
        /// The branch.
        branch: String,
    },
    /// The remote is a repository with a work tree in which the branch is checked out.
    #[error(
        "the ops repo has branch {branch:?} checked out, and git refuses a push to it: use a bare repository \
         (git clone --bare), check out another branch there, or set [results] branch"
    )]
    CheckedOut {
        /// The branch.
        branch: String,
    },
    /// The remote was reached and refused the push: rights, a hook, or a protected branch.
    #[error("the ops repo refused the push to {reference:?}: {reason}")]
    PushRefused {
        /// The reference pushed to.
        reference: String,
        /// The remote's reason, without credentials.
        reason: String,
    },
    /// Others kept pushing: the branch had moved at every try. Nothing was lost; try later.
    #[error("branch {branch:?} moved during each of {tries} pushes")]
    Moved {
        /// The branch.
        branch: String,
        /// How often the push was tried.
        tries: u32,
    },
    /// Another store has claimed the ops repo since this one did.
    #[error("the ops repo belongs to another store by now: nothing is written to it")]
    Superseded,
    /// The results could not be signed.
    #[error("could not sign the result commit with {}: {stderr}", key.display())]
    Signing {
        /// The key's path.
        key: PathBuf,
        /// What git or ssh-keygen said.
        stderr: String,
    },
    /// A file with keys whose signatures count, or do not, cannot be read.
    #[error("could not read {setting} {}", path.display())]
    Keys {
        /// The key of the configuration.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// `refs/consign/owner` does not hold what consign writes there.
    #[error("refs/consign/owner is at {revision}, which is no claim that this version can read")]
    UnreadableOwner {
        /// Where the reference stands.
        revision: Revision,
    },
}

/// What kind of trouble an error is, for whoever decides whether to wait, to rebuild or to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The remote could not be reached, or broke off: an outage that may pass.
    Unreachable,
    /// There is no repository at the address: a typing error, or a folder not mounted at present.
    Missing,
    /// The remote was reached and said no.
    Refused,
    /// The mirror, or what the remote sent, is damaged.
    Corrupt,
    /// Something that only a person can change: a setting, the git version, the remote's own set-up.
    Misconfigured,
    /// The remote changed meanwhile; the same call may succeed next time.
    Moved,
    /// This machine: processes, disk, memory.
    Local,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing a setting.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Missing | Self::Moved | Self::Local)
    }
}

impl Error {
    /// What kind of trouble this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spawn { .. }
            | Self::OldGit { .. }
            | Self::Setting { .. }
            | Self::EmptyRemote { .. }
            | Self::CheckedOut { .. }
            | Self::Signing { .. }
            | Self::Keys { .. }
            | Self::UnreadableOwner { .. } => ErrorKind::Misconfigured,
            Self::Pipe { .. } | Self::Mirror { .. } => ErrorKind::Local,
            Self::TimedOut { .. } => ErrorKind::Unreachable,
            Self::Exit { place, stderr, .. } => kind_of(*place, stderr),
            Self::Answer { .. } => ErrorKind::Corrupt,
            Self::UnknownRevision { .. } | Self::Moved { .. } | Self::Superseded => ErrorKind::Moved,
            Self::PushRefused { .. } => ErrorKind::Refused,
        }
    }
}

/// Why a claim on the ops repo was not granted.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another store owns the repo, or came first.
    #[error("the ops repo belongs to store {} of {}, since {}", owner.store_id, owner.host, owner.claimed_at)]
    Held {
        /// Where the claim stands: what a take-over has to expect.
        revision: Revision,
        /// Who holds it.
        owner: Owner,
    },
    /// The claim could not be tried.
    #[error("could not claim the ops repo")]
    Failed(#[from] Error),
}

/// Phrases of git, ssh and curl (in the C locale), and the trouble that each tells of.
///
/// The order decides where a text holds several: git ends most remote failures with "Could not read
/// from remote repository", so what ssh said before it has to win.
const PHRASES: [(&str, ErrorKind); 50] = [
    ("No space left on device", ErrorKind::Local),
    ("Disk quota exceeded", ErrorKind::Local),
    ("Cannot allocate memory", ErrorKind::Local),
    ("Too many open files", ErrorKind::Local),
    ("couldn't find remote ref", ErrorKind::Moved),
    ("not our ref", ErrorKind::Moved),
    ("Authentication failed", ErrorKind::Refused),
    ("could not read Username", ErrorKind::Refused),
    ("could not read Password", ErrorKind::Refused),
    ("Host key verification failed", ErrorKind::Refused),
    ("SSL certificate problem", ErrorKind::Refused),
    ("certificate verification failed", ErrorKind::Refused),
    ("Permission denied", ErrorKind::Refused),
    ("requested URL returned error: 401", ErrorKind::Refused),
    ("requested URL returned error: 403", ErrorKind::Refused),
    ("dubious ownership", ErrorKind::Refused),
    ("requested URL returned error: 429", ErrorKind::Unreachable),
    ("requested URL returned error: 5", ErrorKind::Unreachable),
    ("Could not resolve", ErrorKind::Unreachable),
    ("Connection refused", ErrorKind::Unreachable),
    ("Connection reset", ErrorKind::Unreachable),
    ("Connection closed", ErrorKind::Unreachable),
    ("Connection timed out", ErrorKind::Unreachable),
    ("Failed to connect", ErrorKind::Unreachable),
    ("Couldn't connect", ErrorKind::Unreachable),
    ("Network is unreachable", ErrorKind::Unreachable),
    ("No route to host", ErrorKind::Unreachable),
    ("timed out", ErrorKind::Unreachable),
    ("transport '", ErrorKind::Misconfigured),
    ("unable to find remote helper", ErrorKind::Misconfigured),
    ("does not appear to be a git repository", ErrorKind::Missing),
    ("requested URL returned error: 404", ErrorKind::Missing),
    ("not found", ErrorKind::Missing),
    ("does not exist", ErrorKind::Missing),
    ("No such file or directory", ErrorKind::Missing),
    ("reference broken", ErrorKind::Corrupt),
    ("mismatched algorithms", ErrorKind::Corrupt),
    ("fsck error", ErrorKind::Corrupt),
    ("corrupt", ErrorKind::Corrupt),
    ("bad object", ErrorKind::Corrupt),
    ("is empty", ErrorKind::Corrupt),
    ("unable to read", ErrorKind::Corrupt),
    ("missing blob", ErrorKind::Corrupt),
    ("did not receive expected object", ErrorKind::Corrupt),
    ("unresolved delta", ErrorKind::Corrupt),
    ("end of packfile", ErrorKind::Corrupt),
    ("error: RPC failed", ErrorKind::Unreachable),
    ("of body are still expected", ErrorKind::Unreachable),
    ("error: failed to push", ErrorKind::Unreachable),
    ("not a git repository", ErrorKind::Corrupt),
];

/// What kind of trouble git's own words tell of.
///
/// What no phrase matches is taken for an outage: waiting and saying so loses nothing. The mirror alone knows no
/// outage: unless this machine is in trouble, git fails there because something is damaged.
pub(super) fn kind_of(place: Place, stderr: &str) -> ErrorKind {
    let known = PHRASES.iter().find(|(phrase, _)| stderr.contains(phrase)).map(|(_, kind)| *kind);
    match (place, known) {
        (Place::Mirror, Some(ErrorKind::Local)) => ErrorKind::Local,
        (Place::Mirror, _) => ErrorKind::Corrupt,
        // What git says of the other side begins with `fatal:` or `remote:`.
        (Place::Remote, None) if has_errors(stderr) => ErrorKind::Corrupt,
        (Place::Remote | Place::Outside, known) => known.unwrap_or(ErrorKind::Unreachable),
    }
}

/// Whether git's own words, about the mirror, tell that something there cannot be read. `fatal:` alone may be an answer,
/// as for a commit that is not there.
pub(super) fn tells_of_damage(stderr: &str) -> bool {
    let unread = has_errors(stderr) || stderr.contains("corrupt");
    unread && kind_of(Place::Mirror, stderr) == ErrorKind::Corrupt
}

fn has_errors(stderr: &str) -> bool {
    stderr.lines().any(|line| line.starts_with("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_what_git_says() {
        let tail = "\nfatal: Could not read from remote repository.";
        for (text, kind) in [
            (format!("git@h: Permission denied (publickey).{tail}"), ErrorKind::Refused),
            (format!("ssh: connect to host h port 22: Connection refused{tail}"), ErrorKind::Unreachable),
            (format!("fatal: '/x' does not appear to be a git repository{tail}"), ErrorKind::Missing),
            (
                "fatal: unable to access 'https://h/': Could not resolve host: h".to_owned(),
                ErrorKind::Unreachable,
            ),
            (
                "fatal: unable to access 'https://h/': The requested URL returned error: 503".to_owned(),
                ErrorKind::Unreachable,
            ),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled".to_owned(),
                ErrorKind::Refused,
            ),
            ("remote: Repository not found.".to_owned(), ErrorKind::Missing),
            ("fatal: transport 'ext' not allowed".to_owned(), ErrorKind::Misconfigured),
            ("error: object file x is empty".to_owned(), ErrorKind::Corrupt),
            ("fatal: write error: No space left on device".to_owned(), ErrorKind::Local),
            ("something new".to_owned(), ErrorKind::Unreachable),
            (
                "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output".to_owned(),
                ErrorKind::Unreachable,
            ),
            ("error: RPC failed; curl 18 transfer closed".to_owned(), ErrorKind::Unreachable),
            ("error: non-monotonic index /x.idx\nfatal: index-pack failed".to_owned(), ErrorKind::Corrupt),
            ("fatal: pack has 1 unresolved delta".to_owned(), ErrorKind::Corrupt),
        ] {
            assert_eq!(kind_of(Place::Remote, &text), kind, "{text}");
        }
        let full = "fatal: write error: No space left on device";
        for (text, kind) in [("something new", ErrorKind::Corrupt), (full, ErrorKind::Local)] {
            assert_eq!(kind_of(Place::Mirror, text), kind, "{text}");
        }
    }
}
