//! Turns at the database: what was read in one still holds when it writes.
//!
//! There is one connection, and whoever asks first has it first. Waking its thread costs more than most statements do. So
//! all that a turn writes goes there at once, as a transaction with a `BEGIN` and `COMMIT` of its own; and nobody asks the
//! connection whether it lives, as a pool does after each turn: a file needs no sign of life from its other end.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{
    Connection as _, QueryBuilder, Sqlite, SqliteConnection, Transaction, sqlite::SqliteConnectOptions,
};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

use super::{Error, failed};

/// The database, for whoever's turn it is.
#[derive(Debug, Clone)]
pub(super) struct Database {
    options: SqliteConnectOptions,
    /// `None` once it is closed.
    connection: Arc<Mutex<Option<SqliteConnection>>>,
    /// Whether a transaction may be open, of which the connection knows nothing.
    is_open: Arc<AtomicBool>,
}

impl Database {
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self, Error> {
        let connection = connect(&options).await?;
        Ok(Self {
            options,
            connection: Arc::new(Mutex::new(Some(connection))),
            is_open: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Waits for the turn.
    pub(super) async fn turn(&self) -> Result<Turn, Error> {
        let closed = || failed("find the database open")(sqlx::Error::PoolClosed);
        let guard = Arc::clone(&self.connection).lock_owned().await;
        let mut connection = OwnedMutexGuard::try_map(guard, Option::as_mut).map_err(|_| closed())?;
        if self.is_open.load(Ordering::Relaxed) || !is_clean(&mut connection).await {
            let replaced = std::mem::replace(&mut *connection, connect(&self.options).await?);
            // It ends what is under way before that, and takes back what was not committed.
            replaced.close().await.map_err(failed("close a connection"))?;
            self.is_open.store(false, Ordering::Relaxed);
        }
        Ok(Turn { connection, is_open: Arc::clone(&self.is_open) })
    }

    /// Waits for the turn and closes the database.
    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "cannot close the database");
        }
    }
}

async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, Error> {
    SqliteConnection::connect_with(options).await.map_err(failed("open the database"))
}

/// Whether a connection has no transaction left. Where the disk is full SQLite rolls one back by itself, sqlx counts it as
/// open from then on, and what it takes for commits later may be none: such a connection is replaced.
async fn is_clean(connection: &mut SqliteConnection) -> bool {
    // A rollback may be on its way.
    !connection.is_in_transaction() || connection.ping().await.is_ok() && !connection.is_in_transaction()
}

/// A turn: the connection.
#[derive(Debug)]
pub(super) struct Turn {
    connection: OwnedMappedMutexGuard<Option<SqliteConnection>, SqliteConnection>,
    is_open: Arc<AtomicBool>,
}

impl Turn {
    /// A transaction of several statements, each of which is waited for.
    pub(super) async fn transaction(&mut self) -> Result<Transaction<'_, Sqlite>, Error> {
        self.connection.begin().await.map_err(failed("begin a transaction"))
    }

    /// Nothing to write yet; each statement that is pushed ends with `; `.
    pub(super) fn statements() -> QueryBuilder<Sqlite> {
        QueryBuilder::new("BEGIN IMMEDIATE; ")
    }

    /// Writes all of it, on disk when this returns, or nothing.
    pub(super) async fn write(mut self, mut statements: QueryBuilder<Sqlite>) -> Result<(), sqlx::Error> {
        statements.push("COMMIT");
        // Whoever stops waiting for it leaves this behind.
        self.is_open.store(true, Ordering::Relaxed);
        let written = statements.build().execute(&mut *self.connection).await;
        let is_open = match &written {
            Ok(_) => false,
            Err(_) => match sqlx::query("ROLLBACK").execute(&mut *self.connection).await {
                Ok(_) => false,
                // <https://www.sqlite.org/lang_transaction.html>: after some errors SQLite rolls back by itself.
                Err(error) => !error.to_string().contains("no transaction is active"),
            },
        };
        self.is_open.store(is_open, Ordering::Relaxed);
        written.map(drop)
    }
}

impl Deref for Turn {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}
