//! The memory of everything: one SQLite file, the only room with SQL.
//!
//! One connection writes, so there is one order of events. A commit is on disk before the call
//! returns (`synchronous = FULL`). The folder is locked: a second agent on it ends with a message.

mod admissions;
mod cases;
mod counts;
mod durations;
mod ended;
mod events;
mod intake;
#[cfg(test)]
mod interrupted_tests;
mod jobs;
mod list;
mod outbox;
mod paused;
mod results;
mod submissions;
mod triggers;
mod turn;
mod variants;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::AtomicUsize,
    time::Duration,
};

use sqlx::{
    Sqlite, SqliteConnection, Transaction,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use self::turn::{Database, Turn};
pub use self::{
    cases::CaseChange,
    counts::Counts,
    events::{EVENTS_KEPT, Event},
    intake::{Intake, PastAction},
    jobs::dispatch_id_of,
    list::Page,
    outbox::Webhook,
    results::PendingResult,
    submissions::{IdempotencyKey, KeyUse, Submission},
    triggers::TriggerChange,
};
use crate::{
    fail_point,
    ids::{JobId, Revision},
    lifecycle::Job,
};

/// Versions of SQLite before this one can corrupt a database in WAL mode (the WAL-reset bug, 3.7.0 to
/// 3.51.2).
const SQLITE_FLOOR: (u32, u32, u32) = (3, 51, 3);
/// The name of the note that holds the revision.
const REVISION: &str = "revision";
/// How many pages of 4 KiB the write-ahead log may have before they are written into the database. A page that many
/// commits changed meanwhile is written once; SQLite's own 1,000 are full after a few hundred submissions.
const LOG_PAGES: &str = "4000";
/// How long a lock is asked for that somebody holds: a process that another one just began holds a copy of its
/// locks until it has become its own program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long is waited before the lock is asked for again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    id: String,
    /// Told when something may have been put in the outbox.
    outbox: std::sync::Arc<tokio::sync::Notify>,
    /// What [`Self::revision`] gives: every submission and every look asks for it.
    revision: std::sync::Arc<tokio::sync::watch::Sender<Option<Revision>>>,
    /// Tells listeners that a phase may have changed.
    changes: std::sync::Arc<tokio::sync::watch::Sender<()>>,
    /// How many jobs were put on record since the start.
    written: std::sync::Arc<AtomicUsize>,
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
    Migrate(#[source] MigrateError),
    /// The SQLite that is linked is too old to be trusted.
    #[error("SQLite {found} can corrupt its database; {SQLITE_FLOOR:?} or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// A note does not read back.
    #[error("the store's note {name:?} does not read")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
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
    /// What a trigger knows does not read back, or cannot be written.
    #[error("the record of trigger {name} does not read")]
    Trigger {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
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
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < patience => sleep(LOCK_PAUSE).await,
                Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: folder.to_path_buf() }),
                Err(TryLockError::Error(source)) => return Err(folder_error(source)),
            }
        }
        let options = SqliteConnectOptions::new()
            .filename(folder.join("consign.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", LOG_PAGES)
            // What a statement changes is kept until it is done, so that it can be undone alone: not in a file.
            .pragma("temp_store", "memory");
        let database = Database::open(options).await?;
        let mut turn = database.turn().await?;
        let found: String = sqlx::query_scalar("SELECT sqlite_version()")
            .fetch_one(&mut *turn)
            .await
            .map_err(failed("read SQLite's version"))?;
        if version(&found) < SQLITE_FLOOR {
            return Err(Error::TooOld { found });
        }
        migrate(&mut turn).await.map_err(Error::Migrate)?;
        sqlx::query("INSERT INTO settings (name, value) VALUES ('store_id', $1) ON CONFLICT DO NOTHING")
            .bind(JobId::new().to_string())
            .execute(&mut *turn)
            .await
            .map_err(failed("name the store"))?;
        let id = setting(&mut turn, "store_id").await?.unwrap_or_default();
        let revision = setting(&mut turn, REVISION).await?.and_then(|text| Revision::parse(&text).ok());
        drop(turn);
        Ok(Self {
            database,
            id,
            revision: std::sync::Arc::new(tokio::sync::watch::Sender::new(revision)),
            outbox: std::sync::Arc::default(),
            changes: std::sync::Arc::default(),
            // However few jobs there are between two starts, the first has the oldest changes go.
            written: std::sync::Arc::new(AtomicUsize::new(events::GO_TOGETHER - 1)),
            _lock: std::sync::Arc::new(lock),
        })
    }

    /// The store's own id, which stands in the ops repo as its owner.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision up to which the ops repo was read.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision.borrow().clone()
    }

    /// A note that was left with [`Self::set`].
    pub async fn get(&self, name: &str) -> Result<Option<String>, Error> {
        setting(&mut *self.turn().await?, name).await
    }

    /// Leaves a note under a name.
    pub async fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        write_setting(&mut transaction, name, value).await?;
        transaction.commit().await.map_err(failed("commit a setting"))
    }

    async fn turn(&self) -> Result<Turn, Error> {
        self.database.turn().await
    }

    /// Tells whoever waits for it that jobs were put on record: their phases may have changed.
    fn recorded<'jobs>(&self, jobs: impl IntoIterator<Item = &'jobs Job>) {
        if jobs.into_iter().any(|job| !job.work.notify.is_empty()) {
            self.outbox.notify_one();
        }
        self.changes.send_replace(());
    }

    /// Executes a statement as it is.
    #[cfg(test)]
    pub(crate) async fn execute(&self, text: &'static str) {
        sqlx::query(text).execute(&mut *self.turn().await.unwrap()).await.unwrap();
    }

    /// Gives no revision until one is on record.
    #[cfg(test)]
    pub(crate) fn forget_revision(&self) {
        self.revision.send_replace(None);
    }

    /// Finishes what is under way and closes the database.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// Brings the database to this version's form, in one transaction for each migration that it has not had.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    let migrator = sqlx::migrate!("src/store/migrations");
    // A new database has no such table.
    let had: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await
        .unwrap_or_default();
    for migration in migrator.iter().skip(usize::try_from(had).unwrap_or_default()) {
        fail_point::before("migrated");
        migrator.run_to(migration.version, &mut *connection).await?;
        fail_point::after("migrated");
    }
    // It refuses a database with migrations that this version does not know, or that read otherwise.
    migrator.run(connection).await
}

async fn setting(connection: &mut SqliteConnection, name: &str) -> Result<Option<String>, Error> {
    sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        ids::{ActionId, DispatchId},
        lifecycle::{Ending, Event, Job, Origin, Stage, Work},
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
        assert_eq!(store.revision(), Some(revision));
        assert_eq!(store.live().await.unwrap(), vec![first.clone()]);
        assert_eq!(store.job_of_action(&ActionId::parse("A").unwrap()).await.unwrap(), Some(first));
    }

    /// All that migrations write is appended to the write-ahead log, so what a crash leaves is a beginning of it.
    #[tokio::test]
    async fn migrations_that_were_cut_short_after_any_page_are_gone_on_with() {
        /// <https://www.sqlite.org/fileformat2.html#walformat>: a header, then frames of a header and a page.
        const HEADER: usize = 32;
        const FRAME: usize = 24 + 4096;
        let folder = tempfile::tempdir().unwrap();
        let _store = Store::open(folder.path()).await.unwrap();
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let (database, log) = (read("consign.db"), read("consign.db-wal"));
        assert_eq!((log.len() - HEADER) % FRAME, 0);
        for written in (HEADER..=log.len()).step_by(FRAME) {
            let crashed = tempfile::tempdir().unwrap();
            std::fs::write(crashed.path().join("consign.db"), &database).unwrap();
            std::fs::write(crashed.path().join("consign.db-wal"), &log[..written]).unwrap();
            let store = Store::open(crashed.path()).await.unwrap();
            let intake = Intake { revision: None, jobs: vec![(job("a"), "seen", None)], past: vec![] };
            store.take_in(&intake, Timestamp::UNIX_EPOCH).await.unwrap();
            let check: String = sqlx::query_scalar("PRAGMA integrity_check")
                .fetch_one(&mut *store.turn().await.unwrap())
                .await
                .unwrap();
            assert_eq!(check, "ok", "after {written} bytes");
        }
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
        store.finish(&job, Some("actions/a.result.json"), now).await.unwrap();
        let pending = store.pending_results(10).await.unwrap();
        assert_eq!(pending.len(), 1);
        job.ending = Some(Ending::without_task(Cause::Invalid, "still no formula", now));
        store.finish(&job, Some("actions/a.result.json"), now).await.unwrap();
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
