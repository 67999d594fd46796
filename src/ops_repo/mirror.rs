//! The mirror: a bare repository that follows the remote.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use secrecy::ExposeSecret as _;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Error, ErrorKind, OpsRepo, Settings, Tips,
    git::{Git, Invocation, LOOK_LIMIT, MINIMUM_VERSION, TRANSFER_LIMIT, parse_version},
};
use crate::ids::Revision;

/// Where the remote's branch stands in the mirror.
pub(super) const BRANCH: &str = "refs/mirror/branch";
/// Where the remote's results branch stands in the mirror.
pub(super) const RESULTS: &str = "refs/mirror/results";
/// Where the claim stands in the mirror.
pub(super) const OWNER: &str = "refs/mirror/owner";
/// Where the claim stands in the remote.
pub(super) const REMOTE_OWNER: &str = "refs/consign/owner";
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

impl OpsRepo {
    /// Opens the mirror, and makes it where it is absent or damaged. The remote is not contacted.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        check(&settings)?;
        let git = Git {
            repository: settings.mirror.join("repository.git"),
            home: settings.mirror.join("home"),
            configuration: settings.mirror.join("gitconfig"),
        };
        let prepare = || -> io::Result<()> {
            private_folder(&git.home)?;
            let mut text = CONFIGURATION.to_owned();
            if let Some(section) = settings.remote.credential_section() {
                text.push_str(section.expose_secret());
            }
            private_file(&git.configuration, &text)
        };
        prepare().map_err(|source| Error::Mirror { path: settings.mirror.clone(), source })?;
        let version = git.text(Invocation::new("ask git for its version", ["version"]).outside()).await?;
        if parse_version(&version).is_none_or(|found| found < MINIMUM_VERSION) {
            return Err(Error::OldGit { found: version.trim().to_owned() });
        }
        for branch in std::iter::once(&settings.branch).chain(&settings.results_branch) {
            let name = format!("refs/heads/{branch}");
            let checked =
                git.run(Invocation::new("check a branch name", ["check-ref-format", &name]).outside());
            if branch.starts_with('-') || !checked.await?.succeeded() {
                let reason = "git does not allow such a branch name";
                return Err(Error::Setting { setting: "the branch", value: branch.clone(), reason });
            }
        }
        let repo = Self { settings, git, writer: Mutex::new(()) };
        let guard = repo.exclusive().await;
        if !repo.is_sound().await? {
            repo.make_anew("sha1").await?;
        }
        drop(guard);
        Ok(repo)
    }

    /// Where the remote's references stand, in one question to it.
    pub async fn tips(&self) -> Result<Tips, Error> {
        let branch = format!("refs/heads/{}", self.settings.branch);
        let results = self.separate_results().map(|name| format!("refs/heads/{name}"));
        let mut arguments =
            vec!["ls-remote", "--refs", "--", self.settings.remote.address(), &branch, REMOTE_OWNER];
        arguments.extend(results.as_deref());
        let operation = "look at the ops repo's branches";
        let text = self.git.text(Invocation::new(operation, arguments).limit(LOOK_LIMIT)).await?;
        let mut tips = Tips::default();
        for line in text.lines() {
            let (revision, name) = line.split_once('\t').ok_or(Error::Answer { operation })?;
            let revision = Revision::parse(revision).map_err(|_| Error::Answer { operation })?;
            if name == branch {
                tips.branch = Some(revision);
            } else if name == REMOTE_OWNER {
                tips.owner = Some(revision);
            } else if Some(name) == results.as_deref() {
                tips.results = Some(revision);
            }
        }
        Ok(tips)
    }

    /// Brings the mirror up to date with what [`Self::tips`] saw, or newer. A damaged mirror is made
    /// anew on the way.
    pub async fn fetch(&self, tips: &Tips) -> Result<(), Error> {
        let _guard = self.exclusive().await;
        match self.fetch_into_mirror(tips).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "the mirror of the ops repo is made anew");
                let known = [&tips.branch, &tips.owner, &tips.results];
                let long = known.into_iter().flatten().any(|revision| revision.as_str().len() == 64);
                self.make_anew(if long { "sha256" } else { "sha1" }).await?;
                self.fetch_into_mirror(tips).await
            }
            other => other,
        }
    }

    /// As [`Self::fetch`], for a caller that holds the writer's turn.
    pub(super) async fn fetch_into_mirror(&self, tips: &Tips) -> Result<(), Error> {
        let results = self.separate_results().unwrap_or_default();
        let sources = [
            (tips.branch.is_some(), format!("refs/heads/{}", self.settings.branch), BRANCH),
            (tips.owner.is_some(), REMOTE_OWNER.to_owned(), OWNER),
            (tips.results.is_some(), format!("refs/heads/{results}"), RESULTS),
        ];
        let mut wanted = Vec::new();
        let mut gone = String::new();
        for (exists, source, target) in sources {
            if exists {
                wanted.push(format!("+{source}:{target}"));
            } else {
                gone.push_str("delete ");
                gone.push_str(target);
                gone.push('\n');
            }
        }
        let operation = "fetch from the ops repo";
        if !gone.is_empty() {
            self.git.output(Invocation::new(operation, ["update-ref", "--stdin"]).input(gone)).await?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let options = ["fetch", "--quiet", "--no-tags", "--no-auto-maintenance", "--no-write-fetch-head"];
        let mut arguments: Vec<&str> = options.to_vec();
        arguments.extend(["--no-recurse-submodules", "--", self.settings.remote.address()]);
        arguments.extend(wanted.iter().map(String::as_str));
        self.git.output(Invocation::new(operation, arguments).limit(TRANSFER_LIMIT)).await.map(drop)
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
        self.git.output(invocation).await.map(drop)
    }

    /// The branch of its own that results go to.
    pub(super) fn separate_results(&self) -> Option<&str> {
        self.settings.results_branch.as_deref().filter(|name| *name != self.settings.branch)
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
        self.write_repository_configuration(format)
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

/// Refuses settings that git would misread, and keys that cannot be read.
fn check(settings: &Settings) -> Result<(), Error> {
    for (setting, folder) in
        [("the actions folder", &settings.actions), ("the formulas folder", &settings.formulas)]
    {
        let legal = folder.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !folder.starts_with('-')
            && !folder.chars().any(char::is_control);
        if !legal {
            let reason = "it has to be a relative path without empty, `.` or `..` parts";
            return Err(Error::Setting { setting, value: folder.clone(), reason });
        }
    }
    for (setting, text) in
        [("the author's name", &settings.author_name), ("the author's address", &settings.author_email)]
    {
        if text.trim().is_empty()
            || text.chars().any(|character| character.is_control() || "<>".contains(character))
        {
            let reason = "it has to be a text without `<`, `>` and control characters";
            return Err(Error::Setting { setting, value: text.clone(), reason });
        }
    }
    settings.keys.contents().map(drop)
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
