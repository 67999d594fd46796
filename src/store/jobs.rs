//! Jobs, their children and the journal of what happened to them.

use std::{collections::HashMap, str::FromStr as _};

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, Transaction, sqlite::SqliteRow};
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

    /// Every job whose allocation was admitted and has its rights yet.
    pub async fn holding(&self) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query(
            "SELECT job_id, record FROM jobs WHERE stage IN ('admitted', 'granted', 'working', 'concluded')",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the jobs with rights"))?;
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

/// How many jobs one statement puts on record at most: with ten values each they are far from SQLite's limit of 32,766
/// for one statement.
pub(super) const JOBS_AT_ONCE: usize = 256;

pub(super) async fn write_job(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let known = Known::read(transaction, job).await?;
    write_jobs(transaction, &[job], &known, event, now).await?;
    write_end(transaction, job).await
}

/// Puts jobs as they now are on record, each once, with what happened to all of them: in as many statements as it takes
/// for one. They are at most [`JOBS_AT_ONCE`]; what is kept of submitted work besides is the caller's to write.
pub(super) async fn write_jobs(
    transaction: &mut Transaction<'_, Sqlite>,
    jobs: &[&Job],
    known: &Known,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let changes = write_records(transaction, jobs, known).await?;
    let announced = jobs.iter().filter(|job| known.phase(job) != Some(job.phase().as_str()));
    let announced = announced.filter_map(|job| Some((*job, *changes.get(&job.job_id.to_string())?)));
    outbox::announce(transaction, &announced.collect::<Vec<_>>(), now).await?;
    let children = jobs.iter().filter_map(|job| Some((job.attempt()?.child.as_ref()?, job.job_id)));
    let children: Vec<_> = children.collect();
    if !children.is_empty() {
        let mut insert = QueryBuilder::new("INSERT INTO children (child, job_id) ");
        insert.push_values(children, |mut row, (child, job_id)| {
            row.push_bind(child).push_bind(job_id.to_string());
        });
        insert.push(" ON CONFLICT DO NOTHING");
        insert.build().execute(&mut **transaction).await.map_err(failed("write a child"))?;
    }
    let mut insert = QueryBuilder::new("INSERT INTO journal (job_id, at, event, phase) ");
    insert.push_values(jobs, |mut row, job| {
        row.push_bind(job.job_id.to_string())
            .push_bind(now.as_millisecond())
            .push_bind(event)
            .push_bind(job.phase().as_str());
    });
    insert.build().execute(&mut **transaction).await.map_err(failed("write the journal")).map(drop)
}

/// What is on record before jobs are written; nothing of new ones.
#[derive(Default)]
pub(super) struct Known {
    /// The phase of each, by its id.
    phases: HashMap<String, String>,
    /// Whose the action ids are that they go by, in lower case.
    holders: HashMap<String, String>,
}

impl Known {
    async fn read(transaction: &mut Transaction<'_, Sqlite>, job: &Job) -> Result<Self, Error> {
        let rows =
            sqlx::query("SELECT job_id, action_key, phase FROM jobs WHERE job_id = $1 OR action_key = $2")
                .bind(job.job_id.to_string())
                .bind(action_key(job))
                .fetch_all(&mut **transaction)
                .await
                .map_err(failed("look jobs up"))?;
        let (mut phases, mut holders) = (HashMap::new(), HashMap::new());
        for row in rows {
            let job_id: String = row.get(0);
            if let Some(key) = row.get::<Option<String>, _>(1) {
                holders.insert(key, job_id.clone());
            }
            phases.insert(job_id, row.get(2));
        }
        Ok(Self { phases, holders })
    }

    fn phase(&self, job: &Job) -> Option<&str> {
        self.phases.get(&job.job_id.to_string()).map(String::as_str)
    }
}

/// The action's id in lower case, for a job that has one.
fn action_key(job: &Job) -> Option<String> {
    match &job.origin {
        Origin::Action { id, .. } => Some(id.key()),
        Origin::Submitted { .. } | Origin::Hand { .. } => None,
    }
}

/// Writes the records; gives how often each job's phase has changed by now.
async fn write_records(
    transaction: &mut Transaction<'_, Sqlite>,
    jobs: &[&Job],
    known: &Known,
) -> Result<HashMap<String, u32>, Error> {
    let mut rows = Vec::with_capacity(jobs.len());
    for job in jobs {
        let job_id = job.job_id.to_string();
        let record =
            serde_json::to_string(job).map_err(|source| Error::Record { job_id: job_id.clone(), source })?;
        // A file that claims a taken id has a row, without the id.
        let key = action_key(job).filter(|key| known.holders.get(key).is_none_or(|holder| *holder == job_id));
        let path = match &job.origin {
            Origin::Action { path, .. } => Some(path.as_str()),
            Origin::Submitted { .. } | Origin::Hand { .. } => None,
        };
        rows.push((job, job_id, key, path, record));
    }
    let mut insert = QueryBuilder::new(
        "INSERT INTO jobs (job_id, action_key, path, stage, phase, submitted_at, record, phase_changes) ",
    );
    insert.push_values(rows, |mut row, (job, job_id, key, path, record)| {
        row.push_bind(job_id)
            .push_bind(key)
            .push_bind(path)
            .push_bind(word(&job.stage))
            .push_bind(job.phase().as_str())
            .push_bind(job.submitted_at.as_millisecond())
            .push_bind(record)
            .push_bind(1);
    });
    insert.push(
        " ON CONFLICT (job_id) DO UPDATE SET path = excluded.path, stage = excluded.stage,
             phase = excluded.phase, record = excluded.record,
             phase_changes = phase_changes + (phase <> excluded.phase)
         RETURNING job_id, phase_changes",
    );
    let rows = insert.build().fetch_all(&mut **transaction).await.map_err(failed("write jobs"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
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
