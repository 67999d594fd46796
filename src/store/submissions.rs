//! Submitted work: the keys that keep a repeated request from running twice, and its end after a while.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{
    Error, Store, failed,
    jobs::{self, JOBS_AT_ONCE, Written},
    turn::Turn,
};
use crate::{
    ids::JobId,
    lifecycle::{Job, Origin, Stage},
};

/// What tells one request of a submitter from another, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is: two submitters may use the same.
    pub submitter: String,
    /// The key.
    pub key: String,
    /// The SHA-256 of the request's body, in hexadecimal.
    pub digest: String,
}

/// A piece of work without an action file.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its job, just made.
    pub job: Box<Job>,
    /// Its action, as the text of a file.
    pub action: String,
    /// What tells its request from others.
    pub key: Option<IdempotencyKey>,
}

/// What a key was used for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// For the same request, which made this job.
    Same(JobId),
    /// For another request.
    Other,
}

impl Store {
    /// What `key` was used for before; `None` where it is new. It is known for as long as its job.
    pub async fn key_use(&self, key: &IdempotencyKey) -> Result<Option<KeyUse>, Error> {
        key_use(&mut *self.turn().await?, key).await
    }

    /// Puts submissions on record in one transaction. Gives for each what its key was used for before; of one
    /// whose key was used nothing is recorded.
    pub async fn submit(
        &self,
        submissions: &[Submission],
        now: Timestamp,
    ) -> Result<Vec<Option<KeyUse>>, Error> {
        let mut turn = self.turn().await?;
        let mut statements = Turn::statements();
        let mut uses: Vec<Option<KeyUse>> = Vec::with_capacity(submissions.len());
        for (at, Submission { job, key, .. }) in submissions.iter().enumerate() {
            uses.push(match key {
                Some(key) => match used_by(key, &submissions[..at], &uses) {
                    Some(first) => Some(first),
                    None => key_use(&mut turn, key).await?,
                },
                None => None,
            });
            if let (Some(key), None) = (key, &uses[at]) {
                push_key(&mut statements, key, job.job_id);
            }
        }
        let new = submissions.iter().zip(&uses).filter(|(_, used)| used.is_none());
        let new: Vec<Written<'_>> =
            new.map(|(Submission { job, action, .. }, _)| Written { job, action: Some(action) }).collect();
        for batch in new.chunks(JOBS_AT_ONCE) {
            jobs::push(&mut statements, batch, None, "submitted", now)?;
        }
        self.push_pruning(&mut statements, new.len());
        turn.write(statements).await.map_err(failed("write submissions"))?;
        self.recorded(new.iter().map(|written| written.job));
        Ok(uses)
    }

    /// The action that was submitted, as the text of a file; `None` for other work.
    pub async fn submitted_action(&self, job_id: JobId) -> Result<Option<String>, Error> {
        let action = sqlx::query_scalar("SELECT action FROM submissions WHERE job_id = $1")
            .bind(job_id.to_string())
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("read a submitted action"))?;
        Ok(action.flatten())
    }

    /// At most `limit` submitted jobs that ended before `end` and whose result, if it goes to the ops repo, is
    /// there; the earliest first.
    pub async fn submissions_ended(&self, end: Timestamp, limit: i64) -> Result<Vec<JobId>, Error> {
        let rows = sqlx::query(
            "SELECT job_id FROM submissions WHERE ended_at < $1 AND NOT EXISTS (
                 SELECT 1 FROM results WHERE results.job_id = submissions.job_id AND pushed_at IS NULL)
             AND NOT EXISTS (SELECT 1 FROM trigger_issues WHERE trigger_issues.job_id = submissions.job_id)
             ORDER BY ended_at, job_id LIMIT $2",
        )
        .bind(end.as_millisecond())
        .bind(limit)
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("look for ended submissions"))?;
        Ok(rows.iter().filter_map(|row| row.get::<String, _>(0).parse().ok()).collect())
    }

    /// Forgets a submitted job that ended before `end`, with its key, unless its result is still
    /// to be pushed, or its outcome to be told on an issue; says whether it did.
    ///
    /// Its children and admissions stay known, so that nothing of it is taken for somebody else's and no
    /// launch gate opens twice.
    pub async fn forget_submission(&self, job_id: JobId, end: Timestamp) -> Result<bool, Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        let job_id = job_id.to_string();
        let gone = sqlx::query(
            "DELETE FROM submissions WHERE job_id = $1 AND ended_at < $2
             AND NOT EXISTS (SELECT 1 FROM results WHERE job_id = $1 AND pushed_at IS NULL)
             AND NOT EXISTS (SELECT 1 FROM trigger_issues WHERE job_id = $1)",
        )
        .bind(&job_id)
        .bind(end.as_millisecond())
        .execute(&mut *transaction)
        .await
        .map_err(failed("forget a submission"))?
        .rows_affected();
        if gone == 0 {
            return Ok(false);
        }
        for query in [
            "DELETE FROM idempotency_keys WHERE job_id = $1",
            "DELETE FROM results WHERE job_id = $1",
            "DELETE FROM jobs WHERE job_id = $1",
        ] {
            sqlx::query(query)
                .bind(&job_id)
                .execute(&mut *transaction)
                .await
                .map_err(failed("forget a submission"))?;
        }
        transaction.commit().await.map_err(failed("commit a forgotten submission"))?;
        Ok(true)
    }
}

/// What a key was used for among those that come before in the same batch.
fn used_by(key: &IdempotencyKey, before: &[Submission], uses: &[Option<KeyUse>]) -> Option<KeyUse> {
    let is_its = |one: &&IdempotencyKey| (&one.submitter, &one.key) == (&key.submitter, &key.key);
    let first = before.iter().zip(uses).find_map(|(submission, used)| {
        let first = submission.key.as_ref().filter(is_its).filter(|_| used.is_none())?;
        Some((first, submission.job.job_id))
    });
    first.map(|(first, job_id)| if first.digest == key.digest { KeyUse::Same(job_id) } else { KeyUse::Other })
}

/// Has a key kept for a job.
fn push_key(query: &mut QueryBuilder<Sqlite>, key: &IdempotencyKey, job_id: JobId) {
    query.push("INSERT INTO idempotency_keys (submitter, key, digest, job_id) ");
    query.push_values([key], |mut row, key| {
        row.push_bind(key.submitter.clone())
            .push_bind(key.key.clone())
            .push_bind(key.digest.clone())
            .push_bind(job_id.to_string());
    });
    query.push("; ");
}

async fn key_use(connection: &mut SqliteConnection, key: &IdempotencyKey) -> Result<Option<KeyUse>, Error> {
    let row = sqlx::query("SELECT digest, job_id FROM idempotency_keys WHERE submitter = $1 AND key = $2")
        .bind(&key.submitter)
        .bind(&key.key)
        .fetch_optional(connection)
        .await
        .map_err(failed("look an idempotency key up"))?;
    Ok(row.map(|row| {
        let same = row.get::<String, _>(0) == key.digest;
        match row.get::<String, _>(1).parse() {
            Ok(job_id) if same => KeyUse::Same(job_id),
            _ => KeyUse::Other,
        }
    }))
}

/// Has it written whether submitted work has ended, and when, and the action of what is new; nothing of other work.
pub(super) fn push(query: &mut QueryBuilder<Sqlite>, jobs: &[Written<'_>]) {
    let submitted = jobs.iter().filter(|written| matches!(written.job.origin, Origin::Submitted { .. }));
    let submitted: Vec<&Written<'_>> = submitted.collect();
    if submitted.is_empty() {
        return;
    }
    query.push("INSERT INTO submissions (job_id, ended_at, action) ");
    query.push_values(submitted, |mut row, Written { job, action }| {
        let ending = job.ending.as_ref().filter(|_| job.stage == Stage::Ended);
        row.push_bind(job.job_id.to_string())
            .push_bind(ending.map(|ending| ending.finished_at.as_millisecond()))
            .push_bind(action.map(ToOwned::to_owned));
    });
    query.push(" ON CONFLICT (job_id) DO UPDATE SET ended_at = excluded.ended_at; ");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        ids::Revision,
        lifecycle::{Ending, Event, Work},
        outcome::Cause,
        store::{CaseChange, TriggerChange},
        trigger::case::Case,
    };

    const ACTION: &str = "formula = \"a\"\n";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn submitted() -> Job {
        let revision = Revision::parse(&"a".repeat(40)).unwrap();
        Job::new(Origin::Submitted { by: "ann".to_owned(), revision }, Work::default(), at(1))
    }

    fn ended(mut job: Job, second: i64) -> Job {
        let ending = Ending::without_task(Cause::Cancelled, "no longer wanted", at(second));
        for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
            job.apply(event, at(second)).unwrap();
        }
        job
    }

    fn key(submitter: &str, digest: &str) -> IdempotencyKey {
        IdempotencyKey { submitter: submitter.to_owned(), key: "k".to_owned(), digest: digest.to_owned() }
    }

    fn submission(job: &Job, key: Option<IdempotencyKey>) -> Submission {
        Submission { job: Box::new(job.clone()), action: ACTION.to_owned(), key }
    }

    async fn submit(store: &Store, job: &Job, key: Option<IdempotencyKey>) -> Option<KeyUse> {
        store.submit(&[submission(job, key)], at(1)).await.unwrap().remove(0)
    }

    #[tokio::test]
    async fn requests_that_come_together_are_told_apart_by_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let [first, again, other, free] = [submitted(), submitted(), submitted(), submitted()];
        let batch = [
            submission(&first, Some(key("ann", "1"))),
            submission(&again, Some(key("ann", "1"))),
            submission(&other, Some(key("ann", "2"))),
            submission(&free, None),
        ];
        let uses = store.submit(&batch, at(1)).await.unwrap();
        assert_eq!(uses, [None, Some(KeyUse::Same(first.job_id)), Some(KeyUse::Other), None]);
        let live: BTreeSet<JobId> = store.live().await.unwrap().into_iter().map(|job| job.job_id).collect();
        assert_eq!(live, BTreeSet::from([first.job_id, free.job_id]));
    }

    #[tokio::test]
    async fn a_key_makes_one_job_of_its_submitter() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let (first, second) = (submitted(), submitted());
        let ann = key("ann", "1");
        assert_eq!(store.key_use(&ann).await.unwrap(), None);
        assert_eq!(submit(&store, &first, Some(ann.clone())).await, None);
        let same = Some(KeyUse::Same(first.job_id));
        assert_eq!(submit(&store, &second, Some(ann.clone())).await, same);
        assert_eq!(store.key_use(&ann).await.unwrap(), same);
        assert_eq!(submit(&store, &second, Some(key("ann", "2"))).await, Some(KeyUse::Other));
        assert!(store.job(second.job_id).await.unwrap().is_none(), "nothing was recorded");
        assert_eq!(store.submitted_action(first.job_id).await.unwrap().as_deref(), Some(ACTION));
        assert_eq!(store.submitted_action(second.job_id).await.unwrap(), None);
        assert_eq!(submit(&store, &second, Some(key("ben", "2"))).await, None);
        submit(&store, &submitted(), None).await;
        assert_eq!(store.live().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn ended_submissions_are_forgotten_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let (old, new, live) = (submitted(), submitted(), submitted());
        submit(&store, &old, Some(key("ann", "1"))).await;
        submit(&store, &new, None).await;
        submit(&store, &live, None).await;
        let hand = Job { origin: Origin::Hand { child: "c".to_owned(), note: None }, ..submitted() };
        let hand = ended(hand, 10);
        store.finish(&hand, Some("actions/by-hand/x.result.json"), at(10)).await.unwrap();
        store.finish(&ended(old.clone(), 10), None, at(10)).await.unwrap();
        store.finish(&ended(new.clone(), 20), None, at(20)).await.unwrap();
        assert_eq!(store.pending_results(10).await.unwrap().len(), 1, "only the child's result is pushed");

        assert_eq!(store.submissions_ended(at(15), 10).await.unwrap(), [old.job_id]);
        assert!(store.forget_submission(old.job_id, at(15)).await.unwrap());
        for kept in [new.job_id, live.job_id, hand.job_id] {
            assert!(!store.forget_submission(kept, at(15)).await.unwrap());
            assert!(store.job(kept).await.unwrap().is_some());
        }
        assert!(store.job(old.job_id).await.unwrap().is_none());
        assert_eq!(store.key_use(&key("ann", "1")).await.unwrap(), None, "the key goes with the job");
        // What runs again has not ended.
        store.save(&Job { stage: Stage::Queued, ..new.clone() }, "retried", at(21)).await.unwrap();
        assert!(store.submissions_ended(at(99), 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_submission_whose_result_is_to_be_pushed_is_kept_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let job = submitted();
        submit(&store, &job, None).await;
        store.finish(&ended(job.clone(), 10), Some("actions/api/x.result.json"), at(10)).await.unwrap();
        assert!(store.submissions_ended(at(15), 10).await.unwrap().is_empty());
        assert!(!store.forget_submission(job.job_id, at(15)).await.unwrap());
        let pending = store.pending_results(10).await.unwrap();
        assert_eq!(pending[0].action.as_deref(), Some(ACTION), "they are pushed together");
        store.results_pushed(&pending, at(11)).await.unwrap();
        assert_eq!(store.submissions_ended(at(15), 10).await.unwrap(), [job.job_id]);
        assert!(store.forget_submission(job.job_id, at(15)).await.unwrap());
    }

    #[tokio::test]
    async fn a_submission_whose_outcome_is_to_be_told_on_an_issue_is_kept_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let job = submitted();
        submit(&store, &job, None).await;
        store.finish(&ended(job.clone(), 10), None, at(10)).await.unwrap();
        let case = Case {
            repository: "main:acme/app".to_owned(),
            issue: 7,
            trigger: "triage".to_owned(),
            event: ulid::Ulid::nil(),
            by: None,
            begun_at: at(1),
            job_id: Some(job.job_id),
        };
        for (change, is_kept) in [(CaseChange::Opened(&case), true), (CaseChange::Closed(&case), false)] {
            store
                .save_trigger(&TriggerChange { case: Some(change), ..TriggerChange::default() })
                .await
                .unwrap();
            assert_eq!(store.submissions_ended(at(15), 10).await.unwrap().is_empty(), is_kept);
            assert_eq!(store.forget_submission(job.job_id, at(15)).await.unwrap(), !is_kept);
        }
    }
}
