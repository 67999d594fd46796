//! A turn at the database: what was read in it still holds when it writes.
//!
//! It has the only connection. Waking that one's thread costs more than most statements do, so all that a turn writes
//! goes there at once, as a transaction with a `BEGIN` and `COMMIT` of its own.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

use super::{Error, failed};

/// A turn.
#[derive(Debug)]
pub(super) struct Turn {
    connection: PoolConnection<Sqlite>,
    /// Whether a transaction may be open, of which the connection knows nothing.
    is_open: bool,
}

impl Turn {
    /// Waits for the turn.
    pub(super) async fn take(pool: &SqlitePool) -> Result<Self, Error> {
        let connection = pool.acquire().await.map_err(failed("wait for the database"))?;
        Ok(Self { connection, is_open: false })
    }

    /// What reads are made with.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Nothing to write yet; each statement that is pushed ends with `; `.
    pub(super) fn statements() -> QueryBuilder<Sqlite> {
        QueryBuilder::new("BEGIN IMMEDIATE; ")
    }

    /// Writes all of it, on disk when this returns, or nothing.
    pub(super) async fn write(mut self, mut statements: QueryBuilder<Sqlite>) -> Result<(), sqlx::Error> {
        statements.push("COMMIT");
        self.is_open = true;
        let written = statements.build().execute(&mut *self.connection).await;
        self.is_open = match &written {
            Ok(_) => false,
            Err(_) => match sqlx::query("ROLLBACK").execute(&mut *self.connection).await {
                Ok(_) => false,
                // <https://www.sqlite.org/lang_transaction.html>: after some errors SQLite rolls back by itself.
                Err(error) => !error.to_string().contains("no transaction is active"),
            },
        };
        written.map(drop)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}
