//! Jobs, their children and the journal of what happened to them.

use std::str::FromStr as _;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    Error, Store, durations::write_duration, events, failed, outbox, results::write_result, submissions,
    turn::Turn, word,
};
use crate::{
    ids::{ActionId, DispatchId, JobId, WebhookId},
    lifecycle::{Job, Origin},
    webhook::Body,
};

impl Store {
    /// Puts a job as it now is on record, with what happened to it.
    pub async fn save(&self, job: &Job, event: &str, now: Timestamp) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let known = Known::read(&mut turn, job).await?;
        let mut statements = Turn::statements();
        push(&mut statements, &[Written { job, action: None }], Some(&known), event, now)?;
        self.push_pruning(&mut statements, 1);
        turn.write(statements).await.map_err(failed("write a job"))?;
        self.recorded([job]);
        Ok(())
    }

    /// Puts an ended job on record together with its result, which then waits to be pushed; without a path
    /// the record is all that there is of the result.
    pub async fn finish(&self, job: &Job, result_path: Option<&str>, now: Timestamp) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        write_job(&mut transaction, job, "ended", now).await?;
        write_duration(&mut transaction, job, now).await?;
        if let Some(path) = result_path {
            write_result(&mut transaction, job, path).await?;
        }
        transaction.commit().await.map_err(failed("commit a result"))?;
        self.recorded([job]);
        Ok(())
    }

    /// Every job that has not ended.
    pub async fn live(&self) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query(
            "SELECT job_id, record FROM jobs WHERE phase IN ('waiting', 'queued', 'loading', 'working')
             ORDER BY submitted_at, job_id",
        )
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("read the live jobs"))?;
        rows.iter().map(read_job).collect()
    }

    /// Every job whose allocation was admitted and has its rights yet.
    pub async fn holding(&self) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query(
            "SELECT job_id, record FROM jobs
             WHERE phase IN ('queued', 'loading', 'working')
             AND stage IN ('admitted', 'granted', 'working', 'concluded')",
        )
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("read the jobs with rights"))?;
        rows.iter().map(read_job).collect()
    }

    /// One job.
    pub async fn job(&self, job_id: JobId) -> Result<Option<Job>, Error> {
        let row = sqlx::query("SELECT job_id, record FROM jobs WHERE job_id = $1")
            .bind(job_id.to_string())
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("look a job up"))?;
        row.as_ref().map(read_job).transpose()
    }

    /// The job that an action id belongs to, in any case of its letters.
    pub async fn job_of_action(&self, id: &ActionId) -> Result<Option<Job>, Error> {
        let row = sqlx::query("SELECT job_id, record FROM jobs WHERE action_key = $1")
            .bind(id.key())
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("look an action up"))?;
        row.as_ref().map(read_job).transpose()
    }

    /// The jobs whose action file is at `path`, the latest first.
    pub async fn jobs_at(&self, path: &str) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query("SELECT job_id, record FROM jobs WHERE path = $1 ORDER BY submitted_at DESC")
            .bind(path)
            .fetch_all(&mut *self.turn().await?)
            .await
            .map_err(failed("look a path up"))?;
        rows.iter().map(read_job).collect()
    }

    /// The job that a child belongs to, ended or not.
    pub async fn job_of_child(&self, child: &str) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT job_id FROM children WHERE child = $1")
            .bind(child)
            .fetch_optional(&mut *self.turn().await?)
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
        .fetch_one(&mut *self.turn().await?)
        .await
        .map_err(failed("look an attempt up"))?;
        Ok(known > 0)
    }
}

/// How many jobs one statement puts on record at most: with eight values each they are far from SQLite's limit of 32,766
/// for one statement.
pub(super) const JOBS_AT_ONCE: usize = 256;

/// A job to be put on record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'job> {
    /// The job as it now is.
    pub job: &'job Job,
    /// The action of a new submission.
    pub action: Option<&'job str>,
}

/// Puts a job on record, with what happened to it.
pub(super) async fn write_job(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let known = Known::read(transaction, job).await?;
    let mut query = QueryBuilder::new("");
    push(&mut query, &[Written { job, action: None }], Some(&known), event, now)?;
    query.build().execute(&mut **transaction).await.map_err(failed("write a job")).map(drop)
}

/// Has jobs put on record, each once and at most [`JOBS_AT_ONCE`], with what happened to all of them. Without what is
/// known of them they are new.
pub(super) fn push(
    query: &mut QueryBuilder<Sqlite>,
    jobs: &[Written<'_>],
    known: Option<&Known>,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let announced = jobs.iter().filter(|written| known.is_none_or(|known| known.is_changed(written.job)));
    let announced: Vec<(&Job, Body)> = announced
        .map(|Written { job, .. }| {
            let sequence = known.map_or(1, |known| known.changes(job));
            (*job, Body::of(job, WebhookId::new(), sequence, now))
        })
        .collect();
    push_records(query, jobs, known)?;
    events::push(query, &announced)?;
    push_children(query, jobs);
    submissions::push(query, jobs);
    query.push("INSERT INTO journal (job_id, at, event, phase) ");
    query.push_values(jobs, |mut row, Written { job, .. }| {
        row.push_bind(job.job_id.to_string())
            .push_bind(now.as_millisecond())
            .push_bind(event.to_owned())
            .push_bind(job.phase().as_str());
    });
    query.push("; ");
    outbox::push(query, &announced, now)
}

/// What is on record before a job is written.
#[derive(Debug)]
pub(super) struct Known {
    /// The phase of the job, and how often it changed.
    phase: Option<(String, u32)>,
    /// Whose its action id is.
    holder: Option<String>,
}

impl Known {
    async fn read(connection: &mut SqliteConnection, job: &Job) -> Result<Self, Error> {
        let (job_id, key) = (job.job_id.to_string(), action_key(job));
        let rows = sqlx::query(
            "SELECT job_id, action_key, phase, phase_changes FROM jobs WHERE job_id = $1 OR action_key = $2",
        )
        .bind(&job_id)
        .bind(&key)
        .fetch_all(connection)
        .await
        .map_err(failed("look a job up"))?;
        let mut known = Self { phase: None, holder: None };
        for row in rows {
            let found: String = row.get(0);
            if found == job_id {
                known.phase = Some((row.get(2), row.get(3)));
            }
            if key.is_some() && row.get::<Option<String>, _>(1) == key {
                known.holder = Some(found);
            }
        }
        Ok(known)
    }

    fn is_changed(&self, job: &Job) -> bool {
        self.phase.as_ref().is_none_or(|(phase, _)| phase != job.phase().as_str())
    }

    /// How often the job's phase has changed, once it is written.
    fn changes(&self, job: &Job) -> u32 {
        self.phase.as_ref().map_or(0, |(_, changes)| *changes) + u32::from(self.is_changed(job))
    }
}

/// The action's id in lower case, for a job that has one.
fn action_key(job: &Job) -> Option<String> {
    match &job.origin {
        Origin::Action { id, .. } => Some(id.key()),
        Origin::Submitted { .. } | Origin::Hand { .. } => None,
    }
}

fn push_records(
    query: &mut QueryBuilder<Sqlite>,
    jobs: &[Written<'_>],
    known: Option<&Known>,
) -> Result<(), Error> {
    let mut records = Vec::with_capacity(jobs.len());
    for Written { job, .. } in jobs {
        let failed = |source| Error::Record { job_id: job.job_id.to_string(), source };
        records.push((job, serde_json::to_string(job).map_err(failed)?));
    }
    query.push(
        "INSERT INTO jobs (job_id, action_key, path, stage, phase, submitted_at, record, phase_changes) ",
    );
    query.push_values(records, |mut row, (job, record)| {
        let job_id = job.job_id.to_string();
        // A file that claims a taken id has a row, without the id.
        let holder = known.and_then(|known| known.holder.as_ref());
        let key = action_key(job).filter(|_| holder.is_none_or(|holder| *holder == job_id));
        let path = match &job.origin {
            Origin::Action { path, .. } => Some(path.clone()),
            Origin::Submitted { .. } | Origin::Hand { .. } => None,
        };
        row.push_bind(job_id)
            .push_bind(key)
            .push_bind(path)
            .push_bind(word(&job.stage))
            .push_bind(job.phase().as_str())
            .push_bind(job.submitted_at.as_millisecond())
            .push_bind(record)
            .push_bind(known.map_or(1, |known| known.changes(job)));
    });
    if known.is_some() {
        query.push(
            " ON CONFLICT (job_id) DO UPDATE SET path = excluded.path, stage = excluded.stage,
                 phase = excluded.phase, record = excluded.record, phase_changes = excluded.phase_changes",
        );
    }
    query.push("; ");
    Ok(())
}

fn push_children(query: &mut QueryBuilder<Sqlite>, jobs: &[Written<'_>]) {
    let children = jobs.iter().filter_map(|Written { job, .. }| Some((job.attempt()?.child.clone()?, job)));
    let children: Vec<_> = children.collect();
    if children.is_empty() {
        return;
    }
    query.push("INSERT INTO children (child, job_id) ");
    query.push_values(children, |mut row, (child, job)| {
        row.push_bind(child).push_bind(job.job_id.to_string());
    });
    query.push(" ON CONFLICT DO NOTHING; ");
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
