//! Pages of jobs, for whoever looks from outside.

use super::{Error, Store, failed, jobs::read_job};
use crate::{
    ids::JobId,
    lifecycle::{Job, Phase},
};

/// Which jobs a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Jobs in this phase alone.
    pub phase: Option<Phase>,
    /// Jobs older than this one alone: the last one of the page before.
    pub before: Option<JobId>,
    /// How many at most.
    pub limit: u32,
}

impl Store {
    /// One page of jobs, the newest first, and whether there are more.
    pub async fn page(&self, page: Page) -> Result<(Vec<Job>, bool), Error> {
        // No id sorts after this one.
        let before = page.before.map_or_else(|| "~".to_owned(), |job_id| job_id.to_string());
        let query = match page.phase {
            None => {
                sqlx::query("SELECT job_id, record FROM jobs WHERE job_id < $1 ORDER BY job_id DESC LIMIT $2")
            }
            Some(_) => sqlx::query(
                "SELECT job_id, record FROM jobs WHERE job_id < $1 AND phase = $3 ORDER BY job_id DESC LIMIT $2",
            ),
        };
        let query = query.bind(before).bind(i64::from(page.limit) + 1);
        let query = match page.phase {
            None => query,
            Some(phase) => query.bind(phase.as_str()),
        };
        let rows = query.fetch_all(&mut *self.turn().await?).await.map_err(failed("list jobs"))?;
        let mut jobs = rows.iter().map(read_job).collect::<Result<Vec<Job>, Error>>()?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        Ok((jobs, more))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        lifecycle::{Ending, Event, Origin, Work},
        outcome::Cause,
    };

    #[tokio::test]
    async fn pages_hold_every_job_once_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut jobs = Vec::new();
        for index in 0..7 {
            let origin = Origin::Hand { child: format!("c{index}"), note: None };
            let mut job = Job::new(origin, Work::default(), now);
            if index % 2 == 0 {
                let ending = Ending::without_task(Cause::Invalid, "no", now);
                for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
                    job.apply(event, now).unwrap();
                }
            }
            store.save(&job, "seen", now).await.unwrap();
            jobs.push(job);
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.job_id));
        for phase in [None, Some(Phase::Failed), Some(Phase::Queued), Some(Phase::Done)] {
            let expected: Vec<JobId> = jobs
                .iter()
                .filter(|job| phase.is_none_or(|phase| job.phase() == phase))
                .map(|job| job.job_id)
                .collect();
            let (mut found, mut before) = (Vec::new(), None);
            loop {
                let (page, more) = store.page(Page { phase, before, limit: 2 }).await.unwrap();
                found.extend(page.iter().map(|job| job.job_id));
                before = found.last().copied();
                assert_eq!(more, found.len() < expected.len());
                if !more {
                    break;
                }
            }
            assert_eq!(found, expected, "{phase:?}");
        }
    }
}
