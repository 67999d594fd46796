//! The memory of everything: one SQLite file, the only room with SQL.
//!
//! One connection writes, so there is one order of events. A commit is on disk before the call
//! returns (`synchronous = FULL`). The folder is locked: a second agent on it ends with a message.

mod list;

pub use list::Page;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    str::FromStr as _,
};

use jiff::Timestamp;
use sqlx::{
    Row as _, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use ulid::Ulid;

use crate::{
    ids::{ActionId, DispatchId, JobId, Revision},
    lifecycle::{Job, Origin},
};

mod variants;

/// Versions of SQLite before this one can corrupt a database in WAL mode (the WAL-reset bug, 3.7.0 to
/// 3.51.2).
const SQLITE_FLOOR: (u32, u32, u32) = (3, 51, 3);

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    id: String,
    _lock: std::sync::Arc<File>,
}

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it cannot be used.
    #[error("cannot use {}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another agent has it.
    #[error("another agent is using the store {}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The database said no.
    #[error("the store failed to {operation}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The database cannot be brought to this version's form.
    #[error("the store's database cannot be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The SQLite that is linked is too old to be trusted.
    #[error("SQLite {found} can corrupt its database; {SQLITE_FLOOR:?} or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// A record does not read back.
    #[error("the record of job {job_id} does not read")]
    Record {
        /// Which.
        job_id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A result on its way to the ops repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingResult {
    /// The file.
    pub path: String,
    /// Whose result it is.
    pub job_id: String,
    /// The file's content.
    pub content: String,
}

/// An action whose result stood in the ops repo before this store knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastAction {
    /// The action's id.
    pub id: ActionId,
    /// Its file.
    pub path: String,
    /// Its content, where it was rejected before launch.
    pub rejected_blob: Option<String>,
    /// Whether it succeeded.
    pub succeeded: bool,
}

/// What one look at the ops repo found, taken over as a whole.
#[derive(Debug, Default)]
pub struct Intake {
    /// The revision that was looked at.
    pub revision: Option<Revision>,
    /// New and changed jobs, with the name of what happened, and the result path of ended ones.
    pub jobs: Vec<(Job, &'static str, Option<String>)>,
    /// Actions that had a result already.
    pub past: Vec<PastAction>,
}

fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Database { operation, source }
}

fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

impl Store {
    /// Opens, and where there is none makes, the store in `folder`.
    pub async fn open(folder: &Path) -> Result<Self, Error> {
        let folder_error = |source| Error::Folder { path: folder.to_path_buf(), source };
        std::fs::create_dir_all(folder).map_err(folder_error)?;
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(folder_error)?;
        let lock = File::create(folder.join("lock")).map_err(folder_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: folder.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(folder_error(source)),
        }
        let options = SqliteConnectOptions::new()
            .filename(folder.join("consign.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(failed("open the database"))?;
        let found: String = sqlx::query_scalar("SELECT sqlite_version()")
            .fetch_one(&pool)
            .await
            .map_err(failed("read SQLite's version"))?;
        if version(&found) < SQLITE_FLOOR {
            return Err(Error::TooOld { found });
        }
        sqlx::migrate!("src/store/migrations").run(&pool).await.map_err(Error::Migrate)?;
        sqlx::query("INSERT INTO settings (name, value) VALUES ('store_id', $1) ON CONFLICT DO NOTHING")
            .bind(JobId::new().to_string())
            .execute(&pool)
            .await
            .map_err(failed("name the store"))?;
        let id = setting(&pool, "store_id").await?.unwrap_or_default();
        Ok(Self { pool, id, _lock: std::sync::Arc::new(lock) })
    }

    /// The store's own id, which stands in the ops repo as its owner.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision up to which the ops repo was read.
    pub async fn revision(&self) -> Result<Option<Revision>, Error> {
        Ok(setting(&self.pool, "revision").await?.and_then(|text| Revision::parse(&text).ok()))
    }

    /// A note that was left with [`Self::set`].
    pub async fn get(&self, name: &str) -> Result<Option<String>, Error> {
        setting(&self.pool, name).await
    }

    /// Leaves a note under a name.
    pub async fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        write_setting(&mut transaction, name, value).await?;
        transaction.commit().await.map_err(failed("commit a setting"))
    }

    /// Takes over what one look at the ops repo found.
    pub async fn take_in(&self, intake: &Intake, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for past in &intake.past {
            // What the store knows itself needs no such note.
            sqlx::query(
                "INSERT INTO past_actions (action_key, path, blob, succeeded)
                 SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE action_key = $1)
                 ON CONFLICT DO NOTHING",
            )
            .bind(past.id.key())
            .bind(&past.path)
            .bind(&past.rejected_blob)
            .bind(past.succeeded)
            .execute(&mut *transaction)
            .await
            .map_err(failed("record a past action"))?;
        }
        for (job, event, result_path) in &intake.jobs {
            write_job(&mut transaction, job, event, now).await?;
            if let Some(path) = result_path {
                write_result(&mut transaction, job, path).await?;
            }
        }
        if let Some(revision) = &intake.revision {
            write_setting(&mut transaction, "revision", revision.as_str()).await?;
        }
        transaction.commit().await.map_err(failed("commit what the ops repo gave"))
    }

    /// Puts a job as it now is on record, with what happened to it.
    pub async fn save(&self, job: &Job, event: &str, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        write_job(&mut transaction, job, event, now).await?;
        transaction.commit().await.map_err(failed("commit a job"))
    }

    /// Puts an ended job on record together with its result, which then waits to be pushed.
    pub async fn finish(&self, job: &Job, result_path: &str, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        write_job(&mut transaction, job, "ended", now).await?;
        write_result(&mut transaction, job, result_path).await?;
        transaction.commit().await.map_err(failed("commit a result"))
    }

    /// Chooses the one allocation of an attempt that the launch gate is opened for, and gives the
    /// allocation that is chosen: the present one, or the one of an earlier call.
    pub async fn admit(
        &self,
        dispatch_id: DispatchId,
        allocation: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO admissions (dispatch_id, allocation, admitted_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(dispatch_id.to_string())
        .bind(allocation)
        .bind(now.as_millisecond())
        .execute(&mut *transaction)
        .await
        .map_err(failed("admit an allocation"))?;
        let chosen: Option<String> =
            sqlx::query_scalar("SELECT allocation FROM admissions WHERE dispatch_id = $1")
                .bind(dispatch_id.to_string())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed("read an admission"))?;
        transaction.commit().await.map_err(failed("commit an admission"))?;
        Ok(chosen.unwrap_or_default())
    }

    /// Whether an allocation was ever admitted.
    pub async fn admitted(&self, dispatch_id: DispatchId) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT allocation FROM admissions WHERE dispatch_id = $1")
            .bind(dispatch_id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read an admission"))
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

    /// The action of that id whose result stood in the ops repo before.
    pub async fn past_action(&self, id: &ActionId) -> Result<Option<PastAction>, Error> {
        let row = sqlx::query("SELECT path, blob, succeeded FROM past_actions WHERE action_key = $1")
            .bind(id.key())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look a past action up"))?;
        Ok(row.map(|row| PastAction {
            id: id.clone(),
            path: row.get(0),
            rejected_blob: row.get(1),
            succeeded: row.get(2),
        }))
    }

    /// Takes note that the file of a past action moved.
    pub async fn move_past_action(&self, id: &ActionId, path: &str) -> Result<(), Error> {
        sqlx::query("UPDATE past_actions SET path = $1 WHERE action_key = $2")
            .bind(path)
            .bind(id.key())
            .execute(&self.pool)
            .await
            .map_err(failed("move a past action"))
            .map(drop)
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

    /// At most `limit` results that are not in the ops repo yet.
    pub async fn pending_results(&self, limit: i64) -> Result<Vec<PendingResult>, Error> {
        let rows = sqlx::query(
            "SELECT path, job_id, content FROM results WHERE pushed_at IS NULL ORDER BY job_id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the pending results"))?;
        Ok(rows
            .iter()
            .map(|row| PendingResult { path: row.get(0), job_id: row.get(1), content: row.get(2) })
            .collect())
    }

    /// Takes note that results are in the ops repo. A result that was replaced meanwhile stays
    /// pending; the content of a pushed one is not kept twice.
    pub async fn results_pushed(&self, results: &[PendingResult], now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for result in results {
            sqlx::query("UPDATE results SET pushed_at = $1, content = '' WHERE path = $2 AND content = $3")
                .bind(now.as_millisecond())
                .bind(&result.path)
                .bind(&result.content)
                .execute(&mut *transaction)
                .await
                .map_err(failed("mark a result as pushed"))?;
        }
        transaction.commit().await.map_err(failed("commit pushed results"))
    }

    async fn begin(&self) -> Result<Transaction<'_, Sqlite>, Error> {
        self.pool.begin().await.map_err(failed("begin a transaction"))
    }

    /// Finishes what is under way and closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn write_job(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    event: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let job_id = job.job_id.to_string();
    let record =
        serde_json::to_string(job).map_err(|source| Error::Record { job_id: job_id.clone(), source })?;
    let (key, path) = match &job.origin {
        Origin::Action { id, path, .. } => (Some(id.key()), Some(path.as_str())),
        Origin::Hand { .. } => (None, None),
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
    sqlx::query(
        "INSERT INTO jobs (job_id, action_key, path, stage, phase, submitted_at, record)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (job_id) DO UPDATE SET path = excluded.path, stage = excluded.stage,
             phase = excluded.phase, record = excluded.record",
    )
    .bind(&job_id)
    .bind(key)
    .bind(path)
    .bind(word(&job.stage))
    .bind(job.phase().as_str())
    .bind(job.submitted_at.as_millisecond())
    .bind(record)
    .execute(&mut **transaction)
    .await
    .map_err(failed("write a job"))?;
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
        .map_err(failed("write the journal"))?;
    Ok(())
}

async fn write_result(transaction: &mut Transaction<'_, Sqlite>, job: &Job, path: &str) -> Result<(), Error> {
    let Some(result) = job.result() else { return Ok(()) };
    sqlx::query(
        "INSERT INTO results (path, job_id, content) VALUES ($1, $2, $3)
         ON CONFLICT (path) DO UPDATE SET job_id = excluded.job_id, content = excluded.content, pushed_at = NULL",
    )
    .bind(path)
    .bind(job.job_id.to_string())
    .bind(result.to_text())
    .execute(&mut **transaction)
    .await
    .map_err(failed("write a result"))?;
    Ok(())
}

fn read_job(row: &SqliteRow) -> Result<Job, Error> {
    let record: String = row.get(1);
    serde_json::from_str(&record).map_err(|source| Error::Record { job_id: row.get(0), source })
}

async fn setting(pool: &SqlitePool, name: &str) -> Result<Option<String>, Error> {
    sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
        .bind(name)
        .fetch_optional(pool)
        .await
        .map_err(failed("read a setting"))
}

async fn write_setting(
    transaction: &mut Transaction<'_, Sqlite>,
    name: &str,
    value: &str,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(&mut **transaction)
    .await
    .map_err(failed("write a setting"))
    .map(drop)
}

fn version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or_default());
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// The attempt that a child's id names, where it begins like one of consign's own.
#[must_use]
pub fn dispatch_id_of(child: &str) -> Option<DispatchId> {
    let (_, rest) = child.split_once("/dispatch-")?;
    let prefix = rest.split('-').next()?;
    Ulid::from_string(prefix).ok()?;
    DispatchId::from_str(prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lifecycle::{Ending, Event, Stage, Work},
        outcome::Cause,
    };

    fn job(id: &str) -> Job {
        let origin = Origin::Action {
            id: ActionId::parse(id).unwrap(),
            path: format!("actions/{id}.toml"),
            blob: "b".repeat(40),
            revision: Revision::parse(&"a".repeat(40)).unwrap(),
        };
        Job::new(origin, Work::default(), Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_second_agent_is_refused_and_a_restart_finds_everything() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let store = Store::open(folder.path()).await.unwrap();
        assert!(matches!(Store::open(folder.path()).await, Err(Error::Locked { .. })));
        let id = store.id().to_owned();
        let first = job("a");
        let revision = Revision::parse(&"c".repeat(40)).unwrap();
        let intake = Intake {
            revision: Some(revision.clone()),
            jobs: vec![(first.clone(), "seen", None)],
            past: vec![],
        };
        store.take_in(&intake, now).await.unwrap();
        store.close().await;
        drop(store);

        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(store.id(), id);
        assert_eq!(store.revision().await.unwrap(), Some(revision));
        assert_eq!(store.live().await.unwrap(), vec![first.clone()]);
        assert_eq!(store.job_of_action(&ActionId::parse("A").unwrap()).await.unwrap(), Some(first));
    }

    #[tokio::test]
    async fn one_allocation_is_admitted_for_an_attempt_and_no_other_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let attempt = DispatchId::new();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(store.admit(attempt, "one", now).await.unwrap(), "one");
        assert_eq!(store.admit(attempt, "two", now).await.unwrap(), "one");
        assert_eq!(store.admitted(attempt).await.unwrap().as_deref(), Some("one"));
        assert!(store.knows_dispatch(attempt).await.unwrap());
        assert!(!store.knows_dispatch(DispatchId::new()).await.unwrap());
    }

    #[tokio::test]
    async fn a_result_waits_until_that_very_content_is_pushed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut job = job("a");
        for event in [
            Event::Concluded(Ending::without_task(Cause::Invalid, "no formula", now)),
            Event::Withdrawn,
            Event::Ended,
        ] {
            job.apply(event, now).unwrap();
        }
        assert_eq!(job.stage, Stage::Ended);
        store.finish(&job, "actions/a.result.json", now).await.unwrap();
        let pending = store.pending_results(10).await.unwrap();
        assert_eq!(pending.len(), 1);
        job.ending = Some(Ending::without_task(Cause::Invalid, "still no formula", now));
        store.finish(&job, "actions/a.result.json", now).await.unwrap();
        store.results_pushed(&pending, now).await.unwrap();
        assert_eq!(store.pending_results(10).await.unwrap().len(), 1, "the newer content is not pushed yet");
        store.results_pushed(&store.pending_results(10).await.unwrap(), now).await.unwrap();
        assert!(store.pending_results(10).await.unwrap().is_empty());
    }

    #[test]
    fn a_childs_id_names_its_attempt() {
        let id = DispatchId::new();
        assert_eq!(dispatch_id_of(&format!("runner/dispatch-{id}-1700000000-0a1b2c3d")), Some(id));
        assert_eq!(dispatch_id_of("runner/dispatch-1700000000-0a1b2c3d"), None);
        assert_eq!(dispatch_id_of("runner"), None);
    }
}
