//! Jobs, their children and the journal of what happened to them.

use std::str::FromStr as _;

use jiff::Timestamp;
use sqlx::{Row as _, Sqlite, Transaction, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    Error, Store, durations::write_duration, failed, outbox, results::write_result, submissions::write_end,
    word,
};
use crate::{
    ids::{ActionId, DispatchId, JobId},
    lifecycle::{Job, Origin},
};

impl Store {
    /// Puts a job as it now is on record, with what happened to it.
    pub async fn save(&self, job: &Job, event: &str, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        write_job(&mut transaction, job, event, now).await?;
        transaction.commit().await.map_err(failed("commit a job"))?;
        self.recorded();
        Ok(())
    }

    /// Puts an ended job on record together with its result, which then waits to be pushed; without a path
    /// the record is all that there is of the result.
    pub async fn finish(&self, job: &Job, result_path: Option<&str>, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        write_job(&mut transaction, job, "ended", now).await?;
        write_duration(&mut transaction, job, now).await?;
        if let Some(path) = result_path {
            write_result(&mut transaction, job, path).await?;
        }
        transaction.commit().await.map_err(failed("commit a result"))?;
        self.recorded();
        Ok(())
    }

    /// Every job that has not ended.
    pub async fn live(&self) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query(
            "SELECT job_id, record FROM jobs WHERE stage <> 'ended' ORDER BY submitted_at, job_id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the live jobs"))?;
        rows.iter().map(read_job).collect()
    }

    /// One job.
    pub async fn job(&self, job_id: JobId) -> Result<Option<Job>, Error> {
        let row = sqlx::query("SELECT job_id, record FROM jobs WHERE job_id = $1")
            .bind(job_id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look a job up"))?;
        row.as_ref().map(read_job).transpose()
    }

    /// The job that an action id belongs to, in any case of its letters.
    pub async fn job_of_action(&self, id: &ActionId) -> Result<Option<Job>, Error> {
        let row = sqlx::query("SELECT job_id, record FROM jobs WHERE action_key = $1")
            .bind(id.key())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look an action up"))?;
        row.as_ref().map(read_job).transpose()
    }

    /// The jobs whose action file is at `path`, the latest first.
    pub async fn jobs_at(&self, path: &str) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query("SELECT job_id, record FROM jobs WHERE path = $1 ORDER BY submitted_at DESC")
            .bind(path)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("look a path up"))?;
        rows.iter().map(read_job).collect()
    }

    /// The job that a child belongs to, ended or not.
    pub async fn job_of_child(&self, child: &str) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT job_id FROM children WHERE child = $1")
            .bind(child)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look a child up"))
    }

    /// Whether the store knows an attempt, ended or not.
    pub async fn knows_dispatch(&self, dispatch_id: DispatchId) -> Result<bool, Error> {
        let pattern = format!("%/dispatch-{dispatch_id}-%");
        let known: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM admissions WHERE dispatch_id = $1)
                  + (SELECT COUNT(*) FROM children WHERE child LIKE $2)",
        )
        .bind(dispatch_id.to_string())
        .bind(pattern)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("look an attempt up"))?;
        Ok(known > 0)
    }
}

pub(super) async fn write_job(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let phase_before = outbox::phase_on_record(transaction, job).await?;
    write_record(transaction, job, phase_before.as_deref(), event, now).await?;
    write_end(transaction, job).await
}

/// As [`write_job`], for a caller that knows the phase on record, and writes by itself what is kept of submitted
/// work.
pub(super) async fn write_record(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    phase_before: Option<&str>,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let job_id = job.job_id.to_string();
    let record =
        serde_json::to_string(job).map_err(|source| Error::Record { job_id: job_id.clone(), source })?;
    let (key, path) = match &job.origin {
        Origin::Action { id, path, .. } => (Some(id.key()), Some(path.as_str())),
        Origin::Submitted { .. } | Origin::Hand { .. } => (None, None),
    };
    // A file that claims a taken id has a row, without the id.
    let key = match key {
        Some(key) => {
            let holder: Option<String> = sqlx::query_scalar("SELECT job_id FROM jobs WHERE action_key = $1")
                .bind(&key)
                .fetch_optional(&mut **transaction)
                .await
                .map_err(failed("look an action up"))?;
            holder.is_none_or(|holder| holder == job_id).then_some(key)
        }
        None => None,
    };
    let phase_changes: u32 = sqlx::query_scalar(
        "INSERT INTO jobs (job_id, action_key, path, stage, phase, submitted_at, record, phase_changes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
         ON CONFLICT (job_id) DO UPDATE SET path = excluded.path, stage = excluded.stage,
             phase = excluded.phase, record = excluded.record,
             phase_changes = phase_changes + (phase <> excluded.phase)
         RETURNING phase_changes",
    )
    .bind(&job_id)
    .bind(key)
    .bind(path)
    .bind(word(&job.stage))
    .bind(job.phase().as_str())
    .bind(job.submitted_at.as_millisecond())
    .bind(record)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("write a job"))?;
    if phase_before != Some(job.phase().as_str()) {
        outbox::announce(transaction, job, phase_changes, now).await?;
    }
    if let Some(child) = job.attempt().and_then(|attempt| attempt.child.as_ref()) {
        sqlx::query("INSERT INTO children (child, job_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(child)
            .bind(&job_id)
            .execute(&mut **transaction)
            .await
            .map_err(failed("write a child"))?;
    }
    sqlx::query("INSERT INTO journal (job_id, at, event, phase) VALUES ($1, $2, $3, $4)")
        .bind(&job_id)
        .bind(now.as_millisecond())
        .bind(event)
        .bind(job.phase().as_str())
        .execute(&mut **transaction)
        .await
        .map_err(failed("write the journal"))
        .map(drop)
}

pub(super) fn read_job(row: &SqliteRow) -> Result<Job, Error> {
    let record: String = row.get(1);
    serde_json::from_str(&record).map_err(|source| Error::Record { job_id: row.get(0), source })
}

/// The attempt that a child's id names, where it begins like one of consign's own.
#[must_use]
pub fn dispatch_id_of(child: &str) -> Option<DispatchId> {
    let (_, rest) = child.split_once("/dispatch-")?;
    let prefix = rest.split('-').next()?;
    Ulid::from_string(prefix).ok()?;
    DispatchId::from_str(prefix).ok()
}
