//! The latest changes of jobs' phases, for whoever listens: written with the job's record.

use std::sync::atomic::Ordering;

use sqlx::{QueryBuilder, Row as _, Sqlite};
use tokio::sync::watch;

use super::{Error, Store, failed};
use crate::{ids::JobId, lifecycle::Job, webhook::Body};

/// How many changes of phases are kept. Each takes about half a KiB.
pub const EVENTS_KEPT: i64 = 10_000;
/// How many entries of the journal are kept. Each takes about 50 bytes.
const ENTRIES_KEPT: i64 = 100_000;
/// With how many jobs that are put on record the oldest changes go: together, because each by itself would touch pages
/// that nothing else does.
pub(super) const GO_TOGETHER: usize = 64;

/// One change of a job's phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number; later changes have greater ones, over all jobs and restarts.
    pub sequence: i64,
    /// What it was, as JSON: the body of a webhook without result and artifacts.
    pub body: String,
}

impl Store {
    /// Tells when something may have changed a phase.
    #[must_use]
    pub fn events(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The numbers of the last change that is no longer kept and of the last one that was made; 0 is none.
    pub async fn events_window(&self) -> Result<(i64, i64), Error> {
        let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("look the last event up"))?;
        let last = last.unwrap_or_default();
        Ok(((last - EVENTS_KEPT).max(0), last))
    }

    /// At most `limit` changes after the one numbered `after`, the earliest first; of one job alone where one is
    /// given.
    pub async fn events_after(
        &self,
        after: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let query = match job_id {
            None => "SELECT sequence, body FROM events WHERE sequence > $1 ORDER BY sequence LIMIT $2",
            Some(_) => {
                "SELECT sequence, body FROM events WHERE job_id = $3 AND sequence > $1 ORDER BY sequence LIMIT $2"
            }
        };
        let mut query = sqlx::query(query).bind(after).bind(limit);
        if let Some(job_id) = job_id {
            query = query.bind(job_id.to_string());
        }
        let rows = query.fetch_all(&mut *self.turn().await?).await.map_err(failed("read events"))?;
        Ok(rows.iter().map(|row| Event { sequence: row.get(0), body: row.get(1) }).collect())
    }

    /// Has the oldest changes and entries of the journal let go when `jobs` more are put on record, if it is time.
    pub(super) fn push_pruning(&self, query: &mut QueryBuilder<Sqlite>, jobs: usize) {
        let before = self.written.fetch_add(jobs, Ordering::Relaxed);
        if before / GO_TOGETHER == before.wrapping_add(jobs) / GO_TOGETHER {
            return;
        }
        query.push("DELETE FROM events WHERE sequence <= (SELECT seq - ").push_bind(EVENTS_KEPT);
        query.push(" FROM sqlite_sequence WHERE name = 'events'); ");
        query.push("DELETE FROM journal WHERE sequence <= (SELECT MAX(sequence) - ").push_bind(ENTRIES_KEPT);
        query.push(" FROM journal); ");
    }
}

/// Has changes of jobs' phases kept.
pub(super) fn push(query: &mut QueryBuilder<Sqlite>, announced: &[(&Job, Body)]) -> Result<(), Error> {
    let mut rows = Vec::with_capacity(announced.len());
    for (_, body) in announced {
        let text = serde_json::to_string(&body.clone().without_contents())
            .map_err(|source| Error::Record { job_id: body.job_id.clone(), source })?;
        rows.push((body.job_id.clone(), text));
    }
    if rows.is_empty() {
        return Ok(());
    }
    query.push("INSERT INTO events (job_id, body) ");
    query.push_values(rows, |mut row, (job_id, text)| {
        row.push_bind(job_id).push_bind(text);
    });
    query.push("; ");
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{super::Submission, *};
    use crate::lifecycle::{Origin, Work};

    fn job() -> Job {
        let revision = crate::ids::Revision::parse(&"a".repeat(40)).unwrap();
        let origin = Origin::Submitted { by: "ann".to_owned(), revision };
        Job::new(origin, Work::default(), Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn changes_are_numbered_over_restarts_and_forgotten_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(store.events_window().await.unwrap(), (0, 0));
        let mut heard = store.events();
        let (first, second) = (job(), job());
        store.save(&first, "seen", now).await.unwrap();
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        store.save(&first, "again", now).await.unwrap();
        let submission = Submission { job: Box::new(second.clone()), action: String::new(), key: None };
        store.submit(&[submission], now).await.unwrap();
        assert!(heard.has_changed().unwrap());
        let all = store.events_after(0, None, 10).await.unwrap();
        assert_eq!(all.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
        let body: Body = serde_json::from_str(&all[1].body).unwrap();
        assert_eq!((body.job_id, body.state.as_str()), (second.job_id.to_string(), "queued"));
        assert_eq!(store.events_after(1, None, 10).await.unwrap(), all[1..]);
        assert_eq!(store.events_after(0, None, 1).await.unwrap(), all[..1]);
        assert_eq!(store.events_after(0, Some(first.job_id), 10).await.unwrap(), all[..1]);
        sqlx::query("DELETE FROM jobs").execute(&mut *store.turn().await.unwrap()).await.unwrap();
        store.close().await;
        drop(store);

        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(store.events_after(0, None, 10).await.unwrap(), [], "what is forgotten is not told");
        store.save(&job(), "seen", now).await.unwrap();
        assert_eq!(store.events_after(0, None, 10).await.unwrap()[0].sequence, 3);
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_are_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', $1)")
            .bind(EVENTS_KEPT - 1)
            .execute(&mut *store.turn().await.unwrap())
            .await
            .unwrap();
        for _ in 0..3 {
            store.save(&job(), "seen", Timestamp::UNIX_EPOCH).await.unwrap();
        }
        assert_eq!(store.events_window().await.unwrap(), (2, EVENTS_KEPT + 2));
        let job = job();
        store.save(&job, "seen", Timestamp::UNIX_EPOCH).await.unwrap();
        sqlx::query("UPDATE events SET sequence = 3 WHERE job_id = $1")
            .bind(job.job_id.to_string())
            .execute(&mut *store.turn().await.unwrap())
            .await
            .unwrap();
        for _ in 0..GO_TOGETHER {
            store.save(&self::job(), "seen", Timestamp::UNIX_EPOCH).await.unwrap();
        }
        let left = store.events_after(0, None, 10).await.unwrap();
        assert_eq!(left.first().map(|event| event.sequence), Some(EVENTS_KEPT));
    }

    #[tokio::test]
    async fn the_journal_keeps_its_latest_entries() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        for _ in 0..3 {
            store.save(&job(), "seen", Timestamp::UNIX_EPOCH).await.unwrap();
        }
        // The last is so late that the first is one too many, and the second is not.
        for (from, to) in [(2, 100), (3, ENTRIES_KEPT + 3)] {
            sqlx::query("UPDATE journal SET sequence = $1 WHERE sequence = $2")
                .bind(to)
                .bind(from)
                .execute(&mut *store.turn().await.unwrap())
                .await
                .unwrap();
        }
        for _ in 0..GO_TOGETHER {
            store.save(&job(), "seen", Timestamp::UNIX_EPOCH).await.unwrap();
        }
        let left: Vec<i64> = sqlx::query_scalar("SELECT sequence FROM journal ORDER BY sequence LIMIT 2")
            .fetch_all(&mut *store.turn().await.unwrap())
            .await
            .unwrap();
        assert_eq!(left, [100, ENTRIES_KEPT + 3]);
    }
}
