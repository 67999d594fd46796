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

use crate::{
    artifact::{Globs, Kind, Limits, Remarks, name},
    ids::JobId,
    nomad::Client,
    outcome::result_file::Artifact,
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
    pub async fn take(&self, job_id: JobId, allocation: &str, globs: &[String]) -> Taken {
        if globs.is_empty() {
            return Taken::default();
        }
        let _permit = self.takings.acquire().await;
        if let Some(record) = self.archive.record(job_id, allocation).await {
            return Taken { artifacts: record.artifacts, remark: record.remark };
        }
        let globs = match Globs::new(globs) {
            Ok(globs) => globs,
            Err(error) => {
                let remark = format!("artifacts: {}", crate::telemetry::chain(&error));
                return Taken { artifacts: Vec::new(), remark: Some(remark) };
            }
        };
        let deadline = Instant::now() + TIME_LIMIT;
        let (chosen, mut remarks) =
            search::search(&self.nomad, allocation, &globs, self.limits, deadline).await;
        if chosen.is_empty() {
            return Taken { artifacts: Vec::new(), remark: remarks.clause(&self.limits) };
        }
        match self.keep(job_id, allocation, chosen, &mut remarks, deadline).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%job_id, error = crate::telemetry::chain(&error), "cannot keep artifacts");
                remarks.note_reason(Kind::Unwritable, "", &crate::telemetry::chain(&error));
                Taken { artifacts: Vec::new(), remark: remarks.clause(&self.limits) }
            }
        }
    }

    async fn keep(
        &self,
        job_id: JobId,
        allocation: &str,
        chosen: Vec<crate::artifact::Chosen>,
        remarks: &mut Remarks,
        deadline: Instant,
    ) -> Result<Taken, Error> {
        let mut taking = self.archive.begin(job_id).await?;
        let mut artifacts = Vec::with_capacity(chosen.len());
        let mut lost = false;
        for file in chosen {
            if lost {
                remarks.note(Kind::Lost, &file.name);
                continue;
            }
            let source = fetch::Source { nomad: &self.nomad, allocation, deadline, reserve: self.reserve };
            match source.fetch(&file, &mut taking).await {
                Ok(sha256) => {
                    let url = Some(name::url(&job_id.to_string(), &file.name));
                    artifacts.push(Artifact { name: file.name, size: file.size, sha256, url });
                }
                Err(refusal) => {
                    lost = search::is_gone(&self.nomad, allocation).await;
                    match (lost, refusal.reason) {
                        (true, _) => remarks.note(Kind::Lost, &file.name),
                        (false, Some(reason)) => remarks.note_reason(refusal.kind, &file.name, &reason),
                        (false, None) => remarks.note(refusal.kind, &file.name),
                    }
                }
            }
        }
        let remark = remarks.clause(&self.limits);
        let record = Record { allocation: allocation.to_owned(), artifacts, remark };
        if record.artifacts.is_empty() {
            taking.discard().await?;
        } else {
            taking.finish(&record).await?;
        }
        Ok(Taken { artifacts: record.artifacts, remark: record.remark })
    }
}
