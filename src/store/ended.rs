//! Which jobs have ended, in the order of the journal, for whoever tells of ends later.

use sqlx::Row as _;

use super::{Error, Store, failed};
use crate::ids::JobId;

impl Store {
    /// The number of the journal's last entry; 0 where it has none.
    pub async fn journal_end(&self) -> Result<i64, Error> {
        sqlx::query_scalar("SELECT COALESCE(MAX(sequence), 0) FROM journal")
            .fetch_one(&mut *self.turn().await?)
            .await
            .map_err(failed("look for the journal's end"))
    }

    /// At most `limit` entries of jobs that are over, or about to be, after the journal's entry `sequence`.
    pub async fn ended_since(&self, sequence: i64, limit: i64) -> Result<Vec<(i64, JobId)>, Error> {
        let rows = sqlx::query(
            "SELECT sequence, job_id FROM journal WHERE sequence > $1 AND phase IN ('done', 'failed')
             ORDER BY sequence LIMIT $2",
        )
        .bind(sequence)
        .bind(limit)
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("look for ended jobs"))?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let job_id: String = row.get(1);
            Some((row.get(0), job_id.parse().ok()?))
        };
        Ok(rows.iter().filter_map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        lifecycle::{Ending, Event, Job, Origin, Work},
        outcome::Cause,
    };

    #[tokio::test]
    async fn ends_are_told_in_their_order_and_from_where_one_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(store.journal_end().await.unwrap(), 0);
        let mut ended = Vec::new();
        for index in 0..3 {
            let origin = Origin::Hand { child: format!("c{index}"), note: None };
            let mut job = Job::new(origin, Work::default(), now);
            store.save(&job, "seen", now).await.unwrap();
            let ending = Ending::without_task(Cause::Invalid, "no", now);
            for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
                job.apply(event, now).unwrap();
            }
            store.finish(&job, None, now).await.unwrap();
            ended.push(job.job_id);
        }
        let found = store.ended_since(0, 2).await.unwrap();
        assert_eq!(found.iter().map(|(_, job_id)| *job_id).collect::<Vec<_>>(), ended[..2]);
        let rest = store.ended_since(found[1].0, 10).await.unwrap();
        assert_eq!(rest, [(store.journal_end().await.unwrap(), ended[2])]);
    }
}
