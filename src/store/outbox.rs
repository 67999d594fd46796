//! The outbox of webhooks: written with the job's record, emptied by whoever sends them.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::{Error, Store, failed};
use crate::{
    lifecycle::{Job, Receiver},
    webhook::{Body, origin, pause_after},
};

/// One webhook that a URL has not got yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Whose phase changed.
    pub job_id: String,
    /// The URL, and whether it may be on this machine.
    pub receiver: Receiver,
    /// Which change it is.
    pub sequence: u32,
    /// The body, without the content of artifacts.
    pub body: String,
    /// How many requests were made for it.
    pub requests: u32,
}

impl Store {
    /// Waits until something may have been put in the outbox.
    pub async fn outbox_filled(&self) {
        self.outbox.notified().await;
    }

    /// The receivers that something is due for, whoever has waited longest first: scheme, host and port.
    pub async fn due_receivers(&self, now: Timestamp) -> Result<Vec<String>, Error> {
        // One step in the index for each receiver, however much waits for it.
        sqlx::query_scalar(
            "WITH RECURSIVE known (receiver) AS (
                 SELECT MIN(receiver) FROM webhooks
                 UNION ALL
                 SELECT (SELECT MIN(receiver) FROM webhooks WHERE receiver > known.receiver)
                 FROM known WHERE receiver IS NOT NULL),
             earliest (receiver, due_at) AS (
                 SELECT receiver, (SELECT MIN(due_at) FROM webhooks WHERE receiver = known.receiver)
                 FROM known WHERE receiver IS NOT NULL)
             SELECT receiver FROM earliest WHERE due_at <= $1 ORDER BY due_at",
        )
        .bind(now.as_millisecond())
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("look for due webhooks"))
    }

    /// At most `limit` webhooks that are due for a receiver: of each job and URL the earliest one alone.
    pub async fn due_webhooks(
        &self,
        receiver: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Webhook>, Error> {
        let rows = sqlx::query(
            "SELECT job_id, url, loopback, sequence, body, requests FROM webhooks AS this
             WHERE receiver = $1 AND due_at <= $2 AND NOT EXISTS (
                 SELECT 1 FROM webhooks AS earlier WHERE earlier.job_id = this.job_id
                 AND earlier.url = this.url AND earlier.sequence < this.sequence)
             ORDER BY due_at, job_id LIMIT $3",
        )
        .bind(receiver)
        .bind(now.as_millisecond())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("read due webhooks"))?;
        Ok(rows.iter().map(read).collect())
    }

    /// When the next webhook is due that is not due yet.
    pub async fn next_webhook(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let due: Option<i64> = sqlx::query_scalar("SELECT MIN(due_at) FROM webhooks WHERE due_at > $1")
            .bind(now.as_millisecond())
            .fetch_one(&mut *self.turn().await?)
            .await
            .map_err(failed("look for the next webhook"))?;
        Ok(due.and_then(|millisecond| Timestamp::from_millisecond(millisecond).ok()))
    }

    /// Takes note that a request is about to be made for each of these: it counts, whatever becomes of it.
    pub async fn request_webhooks(&self, webhooks: &mut [Webhook], now: Timestamp) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        for webhook in webhooks {
            webhook.requests += 1;
            delay(&mut transaction, webhook, now).await?;
        }
        transaction.commit().await.map_err(failed("commit requests of webhooks"))
    }

    /// Takes note that a request failed: the next one is due after the pause.
    pub async fn postpone_webhook(&self, webhook: &Webhook, now: Timestamp) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        delay(&mut transaction, webhook, now).await?;
        transaction.commit().await.map_err(failed("commit a failed webhook"))
    }

    /// Takes a webhook that was delivered out of the outbox.
    pub async fn webhook_delivered(&self, webhook: &Webhook) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        remove(&mut transaction, webhook).await?;
        transaction.commit().await.map_err(failed("commit a delivered webhook"))
    }

    /// Takes a webhook that no further request is made for out of the outbox, and gives how many ended so in
    /// all the store's life.
    pub async fn webhook_given_up(&self, webhook: &Webhook) -> Result<u64, Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        remove(&mut transaction, webhook).await?;
        let count: String = sqlx::query_scalar(
            "INSERT INTO settings (name, value) VALUES ('webhooks_given_up', '1')
             ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("count a failed webhook"))?;
        transaction.commit().await.map_err(failed("commit a webhook that was given up"))?;
        Ok(count.parse().unwrap_or_default())
    }

    /// How many webhooks were given up in all the store's life.
    pub async fn webhooks_given_up(&self) -> Result<u64, Error> {
        Ok(self.get("webhooks_given_up").await?.and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    /// Takes note that a receiver wants no more of a job: what waits for it goes, and nothing more comes.
    pub async fn end_webhooks(&self, webhook: &Webhook) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        for statement in [
            "INSERT INTO webhooks_ended (job_id, url) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            "DELETE FROM webhooks WHERE job_id = $1 AND url = $2",
        ] {
            sqlx::query(statement)
                .bind(&webhook.job_id)
                .bind(&webhook.receiver.url)
                .execute(&mut *transaction)
                .await
                .map_err(failed("end the webhooks of a receiver"))?;
        }
        transaction.commit().await.map_err(failed("commit the end of webhooks"))
    }
}

/// Has changes of jobs' phases put in the outbox, for each of their URLs.
pub(super) fn push(
    query: &mut QueryBuilder<Sqlite>,
    announced: &[(&Job, Body)],
    now: Timestamp,
) -> Result<(), Error> {
    for (job, body) in announced.iter().filter(|(job, _)| !job.work.notify.is_empty()) {
        let text = serde_json::to_string(body)
            .map_err(|source| Error::Record { job_id: body.job_id.clone(), source })?;
        for Receiver { url, loopback } in &job.work.notify {
            query.push(
                "INSERT INTO webhooks (job_id, url, sequence, receiver, loopback, body, due_at) SELECT ",
            );
            query
                .separated(", ")
                .push_bind(body.job_id.clone())
                .push_bind(url.clone())
                .push_bind(body.sequence)
                .push_bind(origin(url))
                .push_bind(*loopback)
                .push_bind(text.clone())
                .push_bind(now.as_millisecond());
            query.push(" WHERE NOT EXISTS (SELECT 1 FROM webhooks_ended WHERE job_id = ");
            query.push_bind(body.job_id.clone()).push(" AND url = ").push_bind(url.clone());
            query.push(") ON CONFLICT DO NOTHING; ");
        }
    }
    Ok(())
}

async fn delay(
    transaction: &mut Transaction<'_, Sqlite>,
    webhook: &Webhook,
    now: Timestamp,
) -> Result<(), Error> {
    let pause = pause_after(webhook.requests).unwrap_or_default();
    let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE webhooks SET requests = $1, due_at = $2 WHERE job_id = $3 AND url = $4 AND sequence = $5",
    )
    .bind(webhook.requests)
    .bind(now.as_millisecond().saturating_add(pause))
    .bind(&webhook.job_id)
    .bind(&webhook.receiver.url)
    .bind(webhook.sequence)
    .execute(&mut **transaction)
    .await
    .map_err(failed("count a request of a webhook"))
    .map(drop)
}

async fn remove(transaction: &mut Transaction<'_, Sqlite>, webhook: &Webhook) -> Result<(), Error> {
    sqlx::query("DELETE FROM webhooks WHERE job_id = $1 AND url = $2 AND sequence = $3")
        .bind(&webhook.job_id)
        .bind(&webhook.receiver.url)
        .bind(webhook.sequence)
        .execute(&mut **transaction)
        .await
        .map_err(failed("remove a webhook"))
        .map(drop)
}

fn read(row: &SqliteRow) -> Webhook {
    Webhook {
        job_id: row.get(0),
        receiver: Receiver { url: row.get(1), loopback: row.get(2) },
        sequence: row.get(3),
        body: row.get(4),
        requests: row.get(5),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        lifecycle::{Ending, Event, Origin, Work},
        outcome::Cause,
    };

    const ONE: &str = "https://one.example/hook";
    const TWO: &str = "https://two.example:8443/hook";

    fn job(urls: &[&str]) -> Job {
        let notify = urls.iter().map(|url| Receiver { url: (*url).to_owned(), loopback: false }).collect();
        let work = Work { notify, ..Work::default() };
        Job::new(Origin::Hand { child: "c".to_owned(), note: None }, work, Timestamp::UNIX_EPOCH)
    }

    fn end(job: &mut Job, now: Timestamp) {
        let ending = Ending::without_task(Cause::Invalid, "no", now);
        for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
            job.apply(event, now).unwrap();
        }
    }

    async fn due(store: &Store, now: Timestamp) -> Vec<Webhook> {
        let mut found = Vec::new();
        for receiver in store.due_receivers(now).await.unwrap() {
            found.extend(store.due_webhooks(&receiver, now, 10).await.unwrap());
        }
        found
    }

    #[tokio::test]
    async fn each_change_of_phase_is_put_in_once_and_taken_out_in_order_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let store = Store::open(folder.path()).await.unwrap();
        let mut job = job(&[ONE, TWO]);
        store.save(&job, "seen", now).await.unwrap();
        store.save(&job, "seen", now).await.unwrap();
        end(&mut job, now);
        store.finish(&job, Some("r"), now).await.unwrap();
        let first = due(&store, now).await;
        store.close().await;
        drop(store);

        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(due(&store, now).await, first);
        assert_eq!(first.len(), 2, "{first:?}");
        let bodies: Vec<Body> =
            first.iter().map(|webhook| serde_json::from_str(&webhook.body).unwrap()).collect();
        assert_eq!((bodies[0].state.as_str(), bodies[0].sequence, &bodies[0]), ("queued", 1, &bodies[1]));
        for webhook in &first {
            store.webhook_delivered(webhook).await.unwrap();
        }
        let last = due(&store, now).await;
        let states: Vec<(u32, bool)> =
            last.iter().map(|webhook| (webhook.sequence, webhook.body.contains("\"failed\""))).collect();
        assert_eq!(states, [(2, true), (2, true)]);
        assert!(!last[0].body.contains(&bodies[0].id), "another id");
    }

    #[tokio::test]
    async fn a_request_counts_before_it_is_made_and_the_last_one_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let mut now = Timestamp::UNIX_EPOCH;
        store.save(&job(&[ONE]), "seen", now).await.unwrap();
        for (requests, pause) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            let mut webhooks = due(&store, now).await;
            store.request_webhooks(&mut webhooks, now).await.unwrap();
            assert_eq!(webhooks[0].requests, requests);
            let next = store.next_webhook(now).await.unwrap().unwrap();
            assert_eq!(next, now + Duration::from_secs(pause));
            assert_eq!(due(&store, now).await, []);
            now = next;
        }
        let webhook = due(&store, now).await.remove(0);
        assert_eq!(webhook.requests, 4);
        assert_eq!(store.webhook_given_up(&webhook).await.unwrap(), 1);
        assert_eq!(store.webhook_given_up(&webhook).await.unwrap(), 2);
        assert_eq!(store.webhooks_given_up().await.unwrap(), 2);
        assert_eq!(due(&store, Timestamp::MAX).await, []);
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_hears_no_more_of_that_job() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let (mut job, other) = (job(&[ONE, TWO]), job(&[ONE]));
        store.save(&job, "seen", now).await.unwrap();
        let gone = due(&store, now).await.into_iter().find(|webhook| webhook.receiver.url == ONE).unwrap();
        store.end_webhooks(&gone).await.unwrap();
        end(&mut job, now);
        store.finish(&job, Some("r"), now).await.unwrap();
        store.save(&other, "seen", now).await.unwrap();
        let left: Vec<(String, String)> = due(&store, now)
            .await
            .into_iter()
            .map(|webhook| (webhook.job_id, webhook.receiver.url))
            .collect();
        let (job_id, other_id) = (job.job_id.to_string(), other.job_id.to_string());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&(job_id, TWO.to_owned())) && left.contains(&(other_id, ONE.to_owned())));
    }
}
