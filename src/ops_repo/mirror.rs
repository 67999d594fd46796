//! The mirror: a bare repository that follows the remote.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use secrecy::ExposeSecret as _;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Error, ErrorKind, RemoteUrl,
    git::{Git, Invocation, LOOK_LIMIT, MINIMUM_VERSION, TRANSFER_LIMIT, parse_version},
    reader::Reader,
};
use crate::ids::Revision;

/// Where the remote's branch stands in the mirror.
pub(super) const BRANCH: &str = "refs/mirror/branch";
/// Keeps the last processed revision.
const PIN: &str = "refs/pins/processed";

/// Stands in for the personal configuration. It reaches the processes that git starts for a remote
/// on the same machine too, which options on the command line do not.
const CONFIGURATION: &str = "\
[safe]
\tdirectory = *
[protocol]
\tallow = never
[protocol \"file\"]
\tallow = always
[protocol \"ssh\"]
\tallow = always
[protocol \"https\"]
\tallow = always
[protocol \"http\"]
\tallow = always
[core]
\thooksPath = /dev/null
\tfsmonitor = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\tfsckObjects = true
[fetch \"fsck\"]
\tzeroPaddedFilemode = ignore
\tbadTimezone = ignore
\tmissingSpaceBeforeDate = ignore
[http]
\tlowSpeedLimit = 1000
\tlowSpeedTime = 30
[gpg]
\tformat = ssh
[init]
\tdefaultBranch = main
";

/// A bare repository in a private folder that follows references of a remote. Calls may overlap; those that change it
/// take turns.
#[derive(Debug)]
pub struct Mirror {
    pub(super) remote: RemoteUrl,
    pub(super) git: Git,
    /// Reads what is in it.
    pub(super) reader: Reader,
    /// Held by whoever changes it.
    writer: Mutex<()>,
}

/// Where a reference of the remote stands, and its place in the mirror.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed<'tips> {
    /// Its name in the remote.
    pub(super) source: &'tips str,
    /// Its name in the mirror.
    pub(super) target: &'static str,
    /// Where it stands; `None` where the remote has none.
    pub(super) tip: Option<&'tips Revision>,
}

impl Mirror {
    /// Opens the mirror in `folder`, and makes it where it is absent or damaged. The remote is not contacted.
    pub async fn open(remote: RemoteUrl, folder: &Path) -> Result<Self, Error> {
        let git = Git {
            repository: folder.join("repository.git"),
            home: folder.join("home"),
            configuration: folder.join("gitconfig"),
            damaged: Arc::default(),
        };
        let prepare = || -> io::Result<()> {
            private_folder(&git.home)?;
            let mut text = CONFIGURATION.to_owned();
            if let Some(section) = remote.credential_section() {
                text.push_str(section.expose_secret());
            }
            private_file(&git.configuration, &text)
        };
        prepare().map_err(|source| Error::Mirror { path: folder.to_path_buf(), source })?;
        let version = git.text(Invocation::new("ask git for its version", ["version"]).outside()).await?;
        if parse_version(&version).is_none_or(|found| found < MINIMUM_VERSION) {
            return Err(Error::OldGit { found: version.trim().to_owned() });
        }
        let mirror = Self { remote, reader: Reader::new(&git), git, writer: Mutex::new(()) };
        let guard = mirror.exclusive().await;
        if !mirror.is_sound().await? {
            mirror.make_anew("sha1").await?;
        }
        drop(guard);
        Ok(mirror)
    }

    /// Where a branch stands in the remote; `None` where there is none.
    pub async fn tip(&self, branch: &str) -> Result<Option<Revision>, Error> {
        let name = format!("refs/heads/{branch}");
        Ok(self.look(&[&name]).await?.remove(&name))
    }

    /// Brings a branch that stands at `tip`, or a newer commit, into the mirror, and keeps `tip` there.
    pub async fn take(&self, branch: &str, tip: &Revision) -> Result<(), Error> {
        let source = format!("refs/heads/{branch}");
        self.fetch(&[Followed { source: &source, target: BRANCH, tip: Some(tip) }]).await?;
        self.pin(tip).await
    }

    /// Refuses what is no name of a branch.
    pub async fn check_branch(&self, branch: &str) -> Result<(), Error> {
        let name = format!("refs/heads/{branch}");
        let invocation = Invocation::new("check a branch name", ["check-ref-format", &name]).outside();
        if branch.starts_with('-') || !self.git.run(invocation).await?.succeeded() {
            let reason = "git does not allow such a branch name";
            return Err(Error::Setting { setting: "the branch", value: branch.to_owned(), reason });
        }
        Ok(())
    }

    /// Where references of these names stand in the remote, in one question to it; those that are not there are left
    /// out.
    pub(super) async fn look(&self, names: &[&str]) -> Result<BTreeMap<String, Revision>, Error> {
        let operation = "look at the branches of the remote";
        let mut arguments = vec!["ls-remote", "--refs", "--", self.remote.address()];
        arguments.extend(names);
        let text = self.git.text(Invocation::new(operation, arguments).remote(LOOK_LIMIT)).await?;
        references(&text).ok_or(Error::Answer { operation })
    }

    /// Whether something in the mirror could not be read: the next [`Self::fetch`] makes it anew.
    pub(super) fn is_damaged(&self) -> bool {
        self.git.damaged.load(Ordering::Relaxed)
    }

    /// Takes note that something in the mirror could not be read.
    pub(super) fn suspect(&self) {
        self.git.damaged.store(true, Ordering::Relaxed);
    }

    /// Brings the mirror up to date with what [`Self::look`] saw, or newer. A damaged mirror is made anew on the
    /// way.
    pub(super) async fn fetch(&self, followed: &[Followed<'_>]) -> Result<(), Error> {
        let _guard = self.exclusive().await;
        let fetched = if self.is_damaged() { None } else { Some(self.fetch_in_turn(followed).await) };
        match fetched {
            Some(Err(error)) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, remote = %self.remote, "cannot fetch into the mirror of a repository");
            }
            Some(fetched) => return fetched,
            None => {}
        }
        tracing::warn!(remote = %self.remote, "the mirror of a repository is damaged and made anew");
        let long = followed.iter().filter_map(|one| one.tip).any(|tip| tip.as_str().len() == 64);
        self.make_anew(if long { "sha256" } else { "sha1" }).await?;
        self.git.damaged.store(false, Ordering::Relaxed);
        self.fetch_in_turn(followed).await
    }

    /// As [`Self::fetch`], for a caller that holds the writer's turn.
    pub(super) async fn fetch_in_turn(&self, followed: &[Followed<'_>]) -> Result<(), Error> {
        let mut wanted = Vec::new();
        let mut gone = String::new();
        for Followed { source, target, tip } in followed {
            if tip.is_some() {
                wanted.push(format!("+{source}:{target}"));
            } else {
                gone.push_str("delete ");
                gone.push_str(target);
                gone.push('\n');
            }
        }
        let operation = "fetch from the remote";
        if !gone.is_empty() {
            self.git.output(Invocation::new(operation, ["update-ref", "--stdin"]).input(gone)).await?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let options = ["fetch", "--quiet", "--no-tags", "--no-auto-maintenance", "--no-write-fetch-head"];
        let mut arguments: Vec<&str> = options.to_vec();
        arguments.extend(["--no-recurse-submodules", "--", self.remote.address()]);
        arguments.extend(wanted.iter().map(String::as_str));
        self.git.output(Invocation::new(operation, arguments).remote(TRANSFER_LIMIT)).await.map(drop)
    }

    /// Keeps `revision` in the mirror, also when the remote's history is rewritten; it replaces the
    /// one kept before.
    pub async fn pin(&self, revision: &Revision) -> Result<(), Error> {
        let _guard = self.exclusive().await;
        if !self.has_commit(revision).await? {
            return Err(Error::UnknownRevision { revision: revision.clone() });
        }
        let arguments = ["update-ref", PIN, revision.as_str()];
        self.git.output(Invocation::new("keep a revision", arguments)).await.map(drop)
    }

    /// Packs the mirror's loose objects and drops what nothing refers to for two weeks. It holds up
    /// fetches and pushes meanwhile, seconds in a large repo.
    pub async fn collect_garbage(&self) -> Result<(), Error> {
        let _guard = self.exclusive().await;
        let arguments = ["gc", "--quiet", "--prune=2.weeks.ago"];
        let invocation = Invocation::new("collect garbage in the mirror", arguments).limit(TRANSFER_LIMIT);
        let collected = self.git.output(invocation).await.map(drop);
        self.reader.forget().await;
        collected
    }

    /// Waits for the writer's turn. Lock files met then belong to a git that was killed.
    pub(super) async fn exclusive(&self) -> MutexGuard<'_, ()> {
        let guard = self.writer.lock().await;
        remove_locks(&self.git.repository, true);
        guard
    }

    /// Whether the mirror is a repository with all that its references name.
    async fn is_sound(&self) -> Result<bool, Error> {
        if !self.git.repository.join("HEAD").is_file() {
            return Ok(false);
        }
        let format = fs::read_to_string(self.git.repository.join("config"))
            .map_or("sha1", |text| if text.contains("sha256") { "sha256" } else { "sha1" });
        self.write_repository_configuration(format)?;
        let arguments = ["for-each-ref", "--format=%(objecttype)"];
        let ended = self.git.run(Invocation::new("check the mirror", arguments)).await?;
        // A broken reference is only warned of.
        Ok(ended.succeeded() && ended.stderr.is_empty())
    }

    /// Throws the repository away and makes an empty one.
    async fn make_anew(&self, format: &str) -> Result<(), Error> {
        let path = &self.git.repository;
        match fs::remove_dir_all(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Mirror { path: path.clone(), source });
            }
            _ => (),
        }
        let format_option = format!("--object-format={format}");
        let arguments = ["init", "--quiet", "--bare", "--template=", &format_option];
        self.git.output(Invocation::new("make the mirror", arguments)).await?;
        self.write_repository_configuration(format)?;
        // Not before: what is asked meanwhile may start one in the old repository.
        self.reader.forget().await;
        Ok(())
    }

    /// Gives the repository the configuration that it was made with, whatever was written there since.
    fn write_repository_configuration(&self, format: &str) -> Result<(), Error> {
        let text = match format {
            "sha256" => {
                "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
            }
            _ => "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
        };
        let path = self.git.repository.join("config");
        private_file(&path, text).map_err(|source| Error::Mirror { path, source })
    }
}

/// References by their names, from lines of the commit and the name.
fn references(text: &str) -> Option<BTreeMap<String, Revision>> {
    let read = |line: &str| {
        let (revision, name) = line.split_once('\t')?;
        Some((name.to_owned(), Revision::parse(revision).ok()?))
    };
    text.lines().map(read).collect()
}

pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn private_file(path: &Path, text: &str) -> io::Result<()> {
    use io::Write as _;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

/// Removes lock files directly in the repository and anywhere below its references.
fn remove_locks(folder: &Path, top: bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && (!top || entry.file_name() == "refs") {
            remove_locks(&path, false);
        } else if !is_folder && path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(path).unwrap_or_default();
        }
    }
}
