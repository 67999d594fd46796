//! Results on their way to the ops repo.

use jiff::Timestamp;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, Store, failed};
use crate::lifecycle::Job;

/// A result on its way to the ops repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingResult {
    /// The file.
    pub path: String,
    /// Whose result it is.
    pub job_id: String,
    /// The file's content.
    pub content: String,
    /// The content of the action file that goes beside it: that of submitted work, which has none in the repo.
    pub action: Option<String>,
}

impl Store {
    /// At most `limit` results that are not in the ops repo yet.
    pub async fn pending_results(&self, limit: i64) -> Result<Vec<PendingResult>, Error> {
        let rows = sqlx::query(
            "SELECT path, job_id, content, action FROM results LEFT JOIN submissions USING (job_id)
             WHERE pushed_at IS NULL ORDER BY job_id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("read the pending results"))?;
        Ok(rows
            .iter()
            .map(|row| PendingResult {
                path: row.get(0),
                job_id: row.get(1),
                content: row.get(2),
                action: row.get(3),
            })
            .collect())
    }

    /// Takes note that results are in the ops repo. A result that was replaced meanwhile stays
    /// pending; the content of a pushed one is not kept twice.
    pub async fn results_pushed(&self, results: &[PendingResult], now: Timestamp) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
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
}

pub(super) async fn write_result(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    path: &str,
) -> Result<(), Error> {
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
