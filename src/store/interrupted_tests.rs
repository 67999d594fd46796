//! SQLite failing in the middle of a change, at one place after the other, until the change comes through: what it had
//! done by then is undone.

use std::{collections::BTreeSet, fmt::Write as _};

use jiff::Timestamp;
use sqlx::QueryBuilder;

use super::*;
use crate::{
    ids::{ActionId, DispatchId},
    lifecycle::{Ending, Event, Origin, Receiver, Work},
    outcome::Cause,
};

/// How many instructions of SQLite's virtual machine apart the places are.
const STRIDE: i32 = 5;
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn job(origin: Origin) -> Job {
    let notify = vec![Receiver { url: "https://one.example/hook".to_owned(), loopback: false }];
    Job::new(origin, Work { notify, ..Work::default() }, NOW)
}

fn revision() -> Revision {
    Revision::parse(&"a".repeat(40)).unwrap()
}

fn submission(key: Option<&str>) -> Submission {
    let job = job(Origin::Submitted { by: "ann".to_owned(), revision: revision() });
    let key = key.map(|key| IdempotencyKey {
        submitter: "ann".to_owned(),
        key: key.to_owned(),
        digest: "0".to_owned(),
    });
    Submission { job: Box::new(job), action: "formula = \"a\"\n".to_owned(), key }
}

/// All that is in the database.
async fn content(store: &Store) -> String {
    let tables =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlx%' ORDER BY name";
    let tables: Vec<String> =
        sqlx::query_scalar(tables).fetch_all(&mut *store.turn().await.unwrap()).await.unwrap();
    let mut all = String::new();
    for table in tables {
        let columns =
            "SELECT group_concat('quote(' || name || ')', '|| ''|'' ||') FROM pragma_table_info($1)";
        let columns: String = sqlx::query_scalar(columns)
            .bind(&table)
            .fetch_one(&mut *store.turn().await.unwrap())
            .await
            .unwrap();
        let mut rows = QueryBuilder::new("SELECT group_concat(");
        rows.push(columns).push(", char(10)) FROM ").push(&table);
        let rows: Option<String> =
            rows.build_query_scalar().fetch_one(&mut *store.turn().await.unwrap()).await.unwrap();
        writeln!(all, "{table}\n{}", rows.unwrap_or_default()).unwrap();
    }
    all
}

/// Has SQLite fail once, at the `place`-th place that it comes to.
async fn fail_at(store: &Store, place: u64) {
    let mut connection = store.turn().await.unwrap();
    let mut passed = 0;
    connection.lock_handle().await.unwrap().set_progress_handler(STRIDE, move || {
        passed += 1;
        passed != place
    });
}

async fn fail_no_more(store: &Store) {
    let mut connection = store.turn().await.unwrap();
    connection.lock_handle().await.unwrap().remove_progress_handler();
}

async fn is_whole(store: &Store, what: &str, change: impl AsyncFn() -> Result<(), Error>) {
    let before = content(store).await;
    let mut left = BTreeSet::new();
    for place in 1.. {
        fail_at(store, place).await;
        let changed = change().await;
        fail_no_more(store).await;
        let after = content(store).await;
        if changed.is_ok() {
            assert_ne!(before, after, "{what}");
            assert!(place > 5, "{what} failed at {place} places");
            assert!(left.iter().all(|one| *one == before || *one == after), "{what} left {left:#?}");
            return;
        }
        left.insert(after);
    }
}

#[tokio::test]
async fn what_fails_half_way_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let submissions = [submission(Some("k")), submission(None), submission(Some("k"))];
    let intake = Intake {
        revision: Some(revision()),
        jobs: vec![(
            job(Origin::Action {
                id: ActionId::parse("a").unwrap(),
                path: "actions/a.toml".to_owned(),
                blob: "b".repeat(40),
                revision: revision(),
            }),
            "seen",
            None,
        )],
        past: vec![PastAction {
            id: ActionId::parse("old").unwrap(),
            path: "actions/old.toml".to_owned(),
            rejected_blob: None,
            succeeded: true,
        }],
    };
    is_whole(&store, "submit", async || store.submit(&submissions, NOW).await.map(drop)).await;
    is_whole(&store, "take in", async || store.take_in(&intake, NOW).await).await;

    let mut live = (*submissions[0].job).clone();
    let attempt = DispatchId::new();
    for event in [
        Event::Intended {
            dispatch_id: attempt,
            parent: "runner".to_owned(),
            meta: [("secrets".to_owned(), String::new())].into(),
            payload: vec![],
        },
        Event::Dispatched { child: "runner/dispatch-1".to_owned() },
    ] {
        live.apply(event, NOW).unwrap();
    }
    is_whole(&store, "save", async || store.save(&live, "dispatched", NOW).await).await;
    is_whole(&store, "admit", async || store.admit(attempt, "one", NOW).await.map(drop)).await;

    let mut ended = intake.jobs[0].0.clone();
    for event in [
        Event::Concluded(Ending::without_task(Cause::Cancelled, "no longer wanted", NOW)),
        Event::Withdrawn,
        Event::Ended,
    ] {
        ended.apply(event, NOW).unwrap();
    }
    let path = Some("actions/a.result.json");
    is_whole(&store, "finish", async || store.finish(&ended, path, NOW).await).await;
    let pending = store.pending_results(10).await.unwrap();
    is_whole(&store, "push", async || store.results_pushed(&pending, NOW).await).await;
    let webhooks = store.due_webhooks("https://one.example", NOW, 10).await.unwrap();
    assert_eq!(webhooks.len(), 3, "of each job the earliest one");
    is_whole(&store, "request", async || store.request_webhooks(&mut webhooks.clone(), NOW).await).await;
    is_whole(&store, "deliver", async || store.webhook_delivered(&webhooks[0]).await).await;
    is_whole(&store, "give up", async || store.webhook_given_up(&webhooks[1]).await.map(drop)).await;
    is_whole(&store, "end", async || store.end_webhooks(&webhooks[2]).await).await;

    let mut over = (*submissions[1].job).clone();
    for event in [
        Event::Concluded(Ending::without_task(Cause::Cancelled, "no longer wanted", NOW)),
        Event::Withdrawn,
        Event::Ended,
    ] {
        over.apply(event, NOW).unwrap();
    }
    store.finish(&over, None, NOW).await.unwrap();
    let later = Timestamp::from_second(1).unwrap();
    is_whole(&store, "forget", async || store.forget_submission(over.job_id, later).await.map(drop)).await;
    let check: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut *store.turn().await.unwrap())
        .await
        .unwrap();
    assert_eq!(check, "ok");
}

/// Whoever waits for a change may go away in the middle of it.
#[tokio::test]
async fn what_is_given_up_half_way_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let (mut given_up, mut done) = (0, 0);
    for microseconds in (0..2000).step_by(20) {
        let change = [submission(Some(&microseconds.to_string())), submission(None)];
        let limit = Duration::from_micros(microseconds);
        match tokio::time::timeout(limit, store.submit(&change, NOW)).await {
            Ok(submitted) => done += submitted.unwrap().len(),
            Err(_) => given_up += 1,
        }
        let ids: BTreeSet<JobId> = store.live().await.unwrap().into_iter().map(|job| job.job_id).collect();
        let [first, second] = change.each_ref().map(|one| ids.contains(&one.job.job_id));
        assert_eq!(first, second, "after {microseconds} µs");
    }
    let ids = store.live().await.unwrap().len();
    assert!(ids >= done && given_up > 0, "{ids} on record, {done} told of, {given_up} given up");
}
