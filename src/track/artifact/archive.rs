//! The folder that artifacts are kept in.
//!
//! ```text
//! <folder>/<job id>/record.json      whose they are, names, sizes, SHA-256, what was not kept
//! <folder>/<job id>/files/<name>     the files, under the names that the task gave them
//! <folder>/.taking/<job id>/…        the same while it is being filled
//! ```
//!
//! Everything is written, synced and then renamed into place at once, so a job's folder is there as a whole
//! or not at all. A folder for each job, rather than one file for each content: it can be looked at,
//! copied and removed with plain tools, and removing one job's cannot touch another's.

use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};
use tokio_util::sync::CancellationToken;

use crate::{
    artifact::{Described, described, name::is_legal_part},
    ids::JobId,
    outcome::result_file::Artifact,
    telemetry::chain,
};

const TAKING: &str = ".taking";
const RECORD: &str = "record.json";
const FILES: &str = "files";
/// How often old artifacts are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);
/// When what was left half taken is removed; nobody takes for so long.
const ABANDONED: Duration = Duration::from_hours(24);

/// A folder or file of the archive that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
pub struct Error {
    /// Which.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { path: path.to_path_buf(), source }
}

/// What was kept of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The allocation that the files come from.
    pub(super) allocation: String,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) remark: Option<String>,
}

/// The folder that artifacts are kept in.
#[derive(Debug, Clone)]
pub struct Archive {
    folder: PathBuf,
}

/// A job's folder while it is being filled.
#[derive(Debug)]
pub(super) struct Taking {
    archive: PathBuf,
    partial: PathBuf,
    place: PathBuf,
    /// The folders that were made, to be synced.
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    /// Opens the archive, and makes its folder, for the agent's user alone, where there is none.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let taking = folder.join(TAKING);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&taking).map_err(failed(&taking))?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The record of a job, where its artifacts are in place and come from this allocation.
    pub(super) async fn record(&self, job_id: JobId, allocation: &str) -> Option<Record> {
        let bytes = fs::read(self.folder.join(job_id.to_string()).join(RECORD)).await.ok()?;
        serde_json::from_slice::<Record>(&bytes).ok().filter(|record| record.allocation == allocation)
    }

    /// One artifact of a job, where it is still there and has that size in bytes. The name is one that a
    /// selection gave.
    pub async fn open_file(&self, job_id: JobId, name: &str, size: u64) -> Option<File> {
        if !name.split('/').all(is_legal_part) {
            return None;
        }
        let path = self.folder.join(job_id.to_string()).join(FILES).join(name);
        let file = File::open(path).await.ok()?;
        let metadata = file.metadata().await.ok()?;
        (metadata.is_file() && metadata.len() == size).then_some(file)
    }

    /// Puts the content of small artifacts beside their descriptions, in place of their urls. One that is gone
    /// meanwhile keeps its url.
    pub async fn inline(&self, job_id: JobId, artifacts: &mut [Described]) {
        for artifact in described::inlined(artifacts) {
            let Some(file) = self.open_file(job_id, &artifact.name, artifact.size).await else { continue };
            let mut content = Vec::new();
            let read = file.take(artifact.size).read_to_end(&mut content).await;
            if read.is_ok_and(|length| u64::try_from(length) == Ok(artifact.size)) {
                artifact.data = Some(STANDARD.encode(content));
                artifact.url = None;
            }
        }
    }

    /// Begins to take the artifacts of a job; what an earlier try left is removed.
    pub(super) async fn begin(&self, job_id: JobId) -> Result<Taking, Error> {
        let partial = self.folder.join(TAKING).join(job_id.to_string());
        remove_folder(&partial).await?;
        let mut taking = Taking {
            archive: self.folder.clone(),
            place: self.folder.join(job_id.to_string()),
            folders: BTreeSet::new(),
            partial,
        };
        let files = taking.partial.join(FILES);
        taking.make(&files).await?;
        Ok(taking)
    }

    /// Removes the artifacts of a job, if there are any.
    pub async fn forget(&self, job_id: JobId) -> Result<(), Error> {
        remove_folder(&self.folder.join(job_id.to_string())).await
    }

    /// Removes the artifacts that were put in place longer than `keep` ago (zero keeps them all), and what was
    /// left half taken. Only folders that are named like a job are touched.
    async fn sweep(&self, keep: Duration, now: Timestamp) -> Result<usize, Error> {
        let mut removed = 0;
        let taking = self.folder.join(TAKING);
        for (folder, keep) in [(&self.folder, keep), (&taking, ABANDONED)] {
            if keep.is_zero() {
                continue;
            }
            let mut entries = fs::read_dir(folder).await.map_err(failed(folder))?;
            while let Some(entry) = entries.next_entry().await.map_err(failed(folder))? {
                let name = entry.file_name();
                let job = name.to_str().and_then(|name| name.parse::<JobId>().ok());
                let metadata = entry.metadata().await.map_err(failed(&entry.path()))?;
                let since = metadata.modified().map_err(failed(&entry.path()))?;
                let since = Timestamp::try_from(since).unwrap_or(Timestamp::MAX);
                let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
                let old = now.duration_since(since) > keep;
                if job.is_some() && metadata.is_dir() && old {
                    remove_folder(&entry.path()).await?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// Removes old artifacts every hour, until `ending`. `keep` of zero keeps them for ever.
pub async fn sweep(archive: Archive, keep: Duration, ending: CancellationToken) {
    loop {
        match archive.sweep(keep, Timestamp::now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed old artifacts"),
            Err(error) => tracing::warn!(error = chain(&error), "cannot remove old artifacts"),
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}

impl Taking {
    /// How much of the disk is free for the agent's user, in bytes.
    pub(super) fn free(&self) -> Result<u64, Error> {
        let disk = rustix::fs::statvfs(&self.partial).map_err(|error| failed(&self.partial)(error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Makes the file of that name, which must be one that a selection gave.
    pub(super) async fn create(&mut self, name: &str) -> Result<File, Error> {
        let path = self.partial.join(FILES).join(name);
        if let Some(folder) = path.parent() {
            self.make(folder).await?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await
            .map_err(failed(&path))
    }

    /// Removes a file that was not finished; none is fine.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.partial.join(FILES).join(name);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => Ok(()),
        }
    }

    async fn make(&mut self, folder: &Path) -> Result<(), Error> {
        if !self.folders.contains(folder) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await.map_err(failed(folder))?;
            let made = folder.ancestors().take_while(|path| path.starts_with(&self.partial));
            self.folders.extend(made.map(Path::to_path_buf));
        }
        Ok(())
    }

    /// Removes what was gathered.
    pub(super) async fn discard(self) -> Result<(), Error> {
        remove_folder(&self.partial).await
    }

    /// Puts everything in place, in the stead of what an earlier attempt of the job left.
    pub(super) async fn finish(self, record: &Record) -> Result<(), Error> {
        let path = self.partial.join(RECORD);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await
            .map_err(failed(&path))?;
        let mut text = serde_json::to_vec_pretty(record).map_err(|error| failed(&path)(error.into()))?;
        text.push(b'\n');
        file.write_all(&text).await.map_err(failed(&path))?;
        file.flush().await.map_err(failed(&path))?;
        file.sync_all().await.map_err(failed(&path))?;
        for folder in &self.folders {
            sync_folder(folder).await?;
        }
        remove_folder(&self.place).await?;
        fs::rename(&self.partial, &self.place).await.map_err(failed(&self.place))?;
        sync_folder(&self.archive).await
    }
}

async fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = File::open(path).await.map_err(failed(path))?;
    folder.sync_all().await.map_err(failed(path))
}

async fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn record(allocation: &str) -> Record {
        let artifact =
            Artifact { name: "a/b".to_owned(), size: 1, sha256: "00".to_owned(), url: Some("/x".to_owned()) };
        Record { allocation: allocation.to_owned(), artifacts: vec![artifact], remark: None }
    }

    async fn put(archive: &Archive, job_id: JobId, allocation: &str, content: &[u8]) {
        let mut taking = archive.begin(job_id).await.unwrap();
        let mut file = taking.create("a/b").await.unwrap();
        file.write_all(content).await.unwrap();
        file.flush().await.unwrap();
        taking.finish(&record(allocation)).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_is_in_place_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(&folder.path().join("new/archive")).unwrap();
        let job_id = JobId::new();
        let mut left = archive.begin(job_id).await.unwrap();
        left.create("half").await.unwrap();
        assert_eq!(archive.record(job_id, "one").await, None);

        put(&archive, job_id, "one", b"1").await;
        assert_eq!(archive.record(job_id, "one").await, Some(record("one")));
        assert_eq!(archive.record(job_id, "two").await, None, "of another allocation");
        let place = archive.folder.join(job_id.to_string());
        assert_eq!(std::fs::read(place.join("files/a/b")).unwrap(), b"1");
        assert!(!place.join("files/half").exists());
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(place.join("files/a/b").metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let described = |name: &str, size: u64| {
            let artifact = Artifact { name: name.to_owned(), size, sha256: String::new(), url: None };
            Described::of(&job_id.to_string(), &artifact)
        };
        let absent = [("a/b", 0), ("a/b", 2), ("a", 1), ("half", 0), ("../record.json", 2), ("/a/b", 1)];
        let mut artifacts = vec![described("a/b", 1)];
        artifacts.extend(absent.map(|(name, size)| described(name, size)));
        let before = artifacts.clone();
        archive.inline(job_id, &mut artifacts).await;
        assert_eq!((artifacts[0].data.as_deref(), &artifacts[0].url), (Some("MQ=="), &None));
        assert_eq!(artifacts[1..], before[1..], "what is not there keeps its url");

        put(&archive, job_id, "two", b"2").await;
        assert_eq!(archive.record(job_id, "two").await, Some(record("two")));
        assert_eq!(std::fs::read(place.join("files/a/b")).unwrap(), b"2");
    }

    #[tokio::test]
    async fn only_old_folders_of_jobs_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        let job_id = JobId::new();
        put(&archive, job_id, "one", b"1").await;
        std::fs::create_dir(folder.path().join("mine")).unwrap();
        let _left = archive.begin(JobId::new()).await.unwrap();
        let hour = Duration::from_hours(1);
        assert_eq!(archive.sweep(hour, Timestamp::now()).await.unwrap(), 0);
        assert_eq!(archive.sweep(Duration::ZERO, Timestamp::now() + 2 * hour).await.unwrap(), 0);
        assert_eq!(archive.sweep(hour, Timestamp::now() + 2 * hour).await.unwrap(), 1);
        assert_eq!(archive.record(job_id, "one").await, None);
        assert_eq!(archive.sweep(hour, Timestamp::now() + 25 * hour).await.unwrap(), 1, "left half taken");
        assert!(folder.path().join("mine").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = Archive::open(&folder.path().join("file/archive")).unwrap_err();
        assert!(error.to_string().contains("file/archive"), "{error}");
    }
}
