//! Numbers and times over all jobs.

use jiff::Timestamp;
use sqlx::Row as _;

use super::{Error, Store, failed};
use crate::{ids::DispatchId, lifecycle::Phase};

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// The jobs in each phase that has any.
    pub jobs: Vec<(Phase, u64)>,
    /// The results that are not in the ops repo yet.
    pub results_pending: u64,
}

impl Store {
    /// Counts jobs and results. It reads one index of each, all of the jobs': about 10 ms for 100,000.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let rows = sqlx::query("SELECT phase, COUNT(*) FROM jobs GROUP BY phase")
            .fetch_all(&mut *self.turn().await?)
            .await
            .map_err(failed("count jobs"))?;
        let jobs = rows.iter().filter_map(|row| {
            let (word, count): (String, i64) = (row.get(0), row.get(1));
            let phase = Phase::ALL.into_iter().find(|phase| phase.as_str() == word)?;
            Some((phase, u64::try_from(count).unwrap_or_default()))
        });
        let pending: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM results WHERE pushed_at IS NULL")
            .fetch_one(&mut *self.turn().await?)
            .await
            .map_err(failed("count the pending results"))?;
        Ok(Counts { jobs: jobs.collect(), results_pending: u64::try_from(pending).unwrap_or_default() })
    }

    /// When a job last ended; `None` where none has.
    pub async fn last_end(&self) -> Result<Option<Timestamp>, Error> {
        // Read from the end, the journal has one soon.
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT at FROM journal WHERE phase IN ('done', 'failed') ORDER BY sequence DESC LIMIT 1",
        )
        .fetch_optional(&mut *self.turn().await?)
        .await
        .map_err(failed("look the last end up"))?;
        Ok(at.and_then(|at| Timestamp::from_millisecond(at).ok()))
    }

    /// When an allocation of the attempt was admitted.
    pub async fn admitted_at(&self, dispatch_id: DispatchId) -> Result<Option<Timestamp>, Error> {
        let at: Option<i64> = sqlx::query_scalar("SELECT admitted_at FROM admissions WHERE dispatch_id = $1")
            .bind(dispatch_id.to_string())
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("look an admission up"))?;
        Ok(at.and_then(|at| Timestamp::from_millisecond(at).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lifecycle::{Ending, Event, Job, Origin, Work},
        outcome::Cause,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn what_is_counted_is_what_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(store.counts().await.unwrap(), Counts::default());
        assert_eq!(store.last_end().await.unwrap(), None);
        for second in 1..=3 {
            let origin = Origin::Hand { child: format!("c{second}"), note: None };
            let mut job = Job::new(origin, Work::default(), at(second));
            store.save(&job, "seen", at(second)).await.unwrap();
            if second < 3 {
                let ending = Ending::without_task(Cause::Invalid, "no", at(second));
                for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
                    job.apply(event, at(second)).unwrap();
                }
                let path = format!("actions/{second}.result.json");
                store.finish(&job, Some(&path), at(second * 10)).await.unwrap();
            }
        }
        let pending = store.pending_results(1).await.unwrap();
        store.results_pushed(&pending, at(40)).await.unwrap();
        let counts = Counts { jobs: vec![(Phase::Failed, 2), (Phase::Queued, 1)], results_pending: 1 };
        assert_eq!(store.counts().await.unwrap(), counts);
        assert_eq!(store.last_end().await.unwrap(), Some(at(20)));
        let attempt = DispatchId::new();
        assert_eq!(store.admitted_at(attempt).await.unwrap(), None);
        store.admit(attempt, "one", at(50)).await.unwrap();
        store.admit(attempt, "two", at(60)).await.unwrap();
        assert_eq!(store.admitted_at(attempt).await.unwrap(), Some(at(50)));
    }
}
