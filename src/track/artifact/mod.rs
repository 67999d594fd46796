//! Takes the artifacts of an allocation that has ended, before Nomad collects it.
//!
//! Nothing here fails a job: what could not be kept is said in a remark. Taking is repeatable. Files are
//! gathered aside and put in place together, with a record of them; after a crash in between they are
//! taken again, and once the record is in place it is read instead.

mod archive;
mod fetch;
mod search;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use archive::Record;
pub use archive::{Archive, Error, sweep};
use fetch::Source;

use crate::{
    artifact::{Chosen, Globs, Kind, Limits, Remarks, name},
    ids::JobId,
    nomad::{self, Client},
    outcome::result_file::Artifact,
    telemetry::chain,
};

/// How many jobs' artifacts are taken at a time. Each holds a list of at most
/// [`artifact::ENTRIES`](crate::artifact::ENTRIES) names and one piece of a file in memory.
const TAKINGS: usize = 4;
/// How long taking the artifacts of one job may last.
const TIME_LIMIT: Duration = Duration::from_mins(30);
/// The working directory of a task, as Nomad's file API names it: `$NOMAD_ALLOC_DIR/data`.
const WORKING_DIRECTORY: &str = "alloc/data";

/// Takes artifacts and keeps them.
#[derive(Debug)]
pub struct Collector {
    nomad: Arc<Client>,
    archive: Archive,
    limits: Limits,
    /// How much of the disk stays free, in bytes.
    reserve: u64,
    takings: Semaphore,
}

/// What was kept of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// The files, in the order of their names.
    pub artifacts: Vec<Artifact>,
    /// What is to be said about those that were not kept.
    pub remark: Option<String>,
}

impl Collector {
    /// A collector that keeps `reserve` bytes of the archive's disk free.
    #[must_use]
    pub fn new(nomad: Arc<Client>, archive: Archive, limits: Limits, reserve: u64) -> Self {
        Self { nomad, archive, limits, reserve, takings: Semaphore::new(TAKINGS) }
    }

    /// Takes the files of an ended allocation that `globs` match.
    ///
    /// It is an error only where nobody answers at Nomad's address, so that it is to be tried again later.
    /// A node that is away, and files that were collected, are lost.
    pub async fn take(
        &self,
        job_id: JobId,
        allocation: &str,
        globs: &[String],
    ) -> Result<Taken, nomad::Error> {
        if globs.is_empty() {
            return Ok(Taken::default());
        }
        let _permit = self.takings.acquire().await;
        if let Some(record) = self.archive.record(job_id, allocation).await {
            return Ok(Taken { artifacts: record.artifacts, remark: record.remark });
        }
        let globs = match Globs::new(globs) {
            Ok(globs) => globs,
            Err(error) => {
                let remark = format!("artifacts: {}", chain(&error));
                return Ok(Taken { artifacts: Vec::new(), remark: Some(remark) });
            }
        };
        let deadline = Instant::now() + TIME_LIMIT;
        let (chosen, mut remarks) =
            search::search(&self.nomad, allocation, &globs, self.limits, deadline).await?;
        let artifacts = match self.keep(job_id, allocation, chosen, &mut remarks, deadline).await {
            Ok(artifacts) => artifacts,
            Err(Failure::Nomad(error)) => return Err(error),
            Err(Failure::Archive(error)) => {
                tracing::warn!(%job_id, error = chain(&error), "cannot keep artifacts");
                remarks.note_reason(Kind::Unwritable, "", &chain(&error));
                Vec::new()
            }
        };
        Ok(Taken { artifacts, remark: remarks.clause(&self.limits) })
    }

    /// Fetches what was chosen and puts it in place.
    async fn keep(
        &self,
        job_id: JobId,
        allocation: &str,
        chosen: Vec<Chosen>,
        remarks: &mut Remarks,
        deadline: Instant,
    ) -> Result<Vec<Artifact>, Failure> {
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let mut taking = self.archive.begin(job_id).await?;
        let source = Source { nomad: &self.nomad, allocation, deadline, reserve: self.reserve };
        let mut artifacts = Vec::with_capacity(chosen.len());
        let mut lost = false;
        for file in chosen {
            if lost {
                remarks.note(Kind::Lost, &file.name);
                continue;
            }
            match source.fetch(&file, &mut taking).await {
                Ok(sha256) => {
                    let url = Some(name::url(&job_id.to_string(), &file.name));
                    artifacts.push(Artifact { name: file.name, size: file.size, sha256, url });
                }
                Err(refusal) => {
                    lost =
                        refusal.kind == Kind::Unreadable && search::is_gone(&self.nomad, allocation).await?;
                    match refusal.reason {
                        _ if lost => remarks.note(Kind::Lost, &file.name),
                        Some(reason) => remarks.note_reason(refusal.kind, &file.name, &reason),
                        None => remarks.note(refusal.kind, &file.name),
                    }
                }
            }
        }
        if artifacts.is_empty() {
            taking.discard().await?;
            return Ok(artifacts);
        }
        let record =
            Record { allocation: allocation.to_owned(), artifacts, remark: remarks.clause(&self.limits) };
        taking.finish(&record).await?;
        Ok(record.artifacts)
    }
}

/// Why nothing could be put in place.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Nomad(#[from] nomad::Error),
    #[error(transparent)]
    Archive(#[from] Error),
}

#[cfg(test)]
mod tests;
