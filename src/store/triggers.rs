//! What triggers know, and their ledger.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, Sqlite, Transaction};
use ulid::Ulid;

use super::{
    Error, Store,
    cases::{self, CaseChange},
    failed,
};
use crate::trigger::{
    ledger::{Event, Fate},
    state::{Course, Own},
};

/// What a decision about a trigger changes, all in one transaction.
#[derive(Debug, Default)]
pub struct TriggerChange<'change> {
    /// What the trigger of this name knows.
    pub own: Option<(&'change str, &'change Own)>,
    /// What the group of this name shares.
    pub course: Option<(&'change str, &'change Course)>,
    /// What becomes of an issue that a trigger runs for.
    pub case: Option<CaseChange<'change>>,
    /// Events that arrived, or that something became of.
    pub events: Vec<Event>,
}

impl Store {
    /// Puts a decision on record.
    pub async fn save_trigger(&self, change: &TriggerChange<'_>) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        if let Some((name, own)) = change.own {
            write_state(&mut transaction, &format!("own/{name}"), own).await?;
        }
        if let Some((name, course)) = change.course {
            write_state(&mut transaction, &format!("course/{name}"), course).await?;
        }
        if let Some(change) = change.case {
            cases::change(&mut transaction, change).await?;
        }
        for event in &change.events {
            sqlx::query(
                "INSERT INTO trigger_events (event_id, trigger_name, refused, record) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (event_id) DO UPDATE SET record = excluded.record",
            )
            .bind(event.event_id.to_string())
            .bind(&event.trigger)
            .bind(event.fate == Fate::Refused)
            .bind(json(&event.trigger, event)?)
            .execute(&mut *transaction)
            .await
            .map_err(failed("write a trigger's event"))?;
        }
        transaction.commit().await.map_err(failed("commit a trigger's event"))
    }

    /// What the trigger of this name knows.
    pub async fn trigger_own(&self, name: &str) -> Result<Own, Error> {
        self.trigger_state(&format!("own/{name}")).await
    }

    /// What the group of this name shares.
    pub async fn trigger_course(&self, name: &str) -> Result<Course, Error> {
        self.trigger_state(&format!("course/{name}")).await
    }

    async fn trigger_state<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, Error> {
        let record: Option<String> = sqlx::query_scalar("SELECT record FROM trigger_states WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("read a trigger's state"))?;
        record.map_or_else(|| Ok(T::default()), |record| read(name, &record))
    }

    /// At most `limit` events of a trigger, the latest first.
    pub async fn trigger_events(&self, trigger: &str, limit: u32) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query(
            "SELECT record FROM trigger_events WHERE trigger_name = $1 ORDER BY sequence DESC LIMIT $2",
        )
        .bind(trigger)
        .bind(limit)
        .fetch_all(&mut *self.turn().await?)
        .await
        .map_err(failed("read a trigger's events"))?;
        rows.iter().map(|row| read(trigger, row.get(0))).collect()
    }

    /// One event.
    pub async fn trigger_event(&self, event_id: Ulid) -> Result<Option<Event>, Error> {
        let record: Option<String> =
            sqlx::query_scalar("SELECT record FROM trigger_events WHERE event_id = $1")
                .bind(event_id.to_string())
                .fetch_optional(&mut *self.turn().await?)
                .await
                .map_err(failed("look a trigger's event up"))?;
        record.map(|record| read("", &record)).transpose()
    }

    /// Takes down a signature that was shown at `now`; says whether it is the first time. Those from before
    /// `forget` are forgotten.
    pub async fn take_signature(
        &self,
        trigger: &str,
        signature: &str,
        now: Timestamp,
        forget: Timestamp,
    ) -> Result<bool, Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        sqlx::query("DELETE FROM trigger_signatures WHERE at < $1")
            .bind(forget.as_millisecond())
            .execute(&mut *transaction)
            .await
            .map_err(failed("forget signatures"))?;
        let written = sqlx::query(
            "INSERT INTO trigger_signatures (trigger_name, signature, at) VALUES ($1, $2, $3)
             ON CONFLICT DO NOTHING",
        )
        .bind(trigger)
        .bind(signature)
        .bind(now.as_millisecond())
        .execute(&mut *transaction)
        .await
        .map_err(failed("write a signature"))?;
        transaction.commit().await.map_err(failed("commit a signature"))?;
        Ok(written.rows_affected() > 0)
    }

    /// Forgets all but the latest `keep` events of a trigger, and of its refused ones by themselves.
    pub async fn prune_trigger(&self, trigger: &str, keep: u32) -> Result<(), Error> {
        for refused in [false, true] {
            sqlx::query(
                "DELETE FROM trigger_events WHERE trigger_name = $1 AND refused = $2 AND sequence <= (
                     SELECT sequence FROM trigger_events WHERE trigger_name = $1 AND refused = $2
                     ORDER BY sequence DESC LIMIT 1 OFFSET $3)",
            )
            .bind(trigger)
            .bind(refused)
            .bind(keep)
            .execute(&mut *self.turn().await?)
            .await
            .map_err(failed("forget a trigger's events"))?;
        }
        Ok(())
    }
}

async fn write_state(
    transaction: &mut Transaction<'_, Sqlite>,
    name: &str,
    state: &impl Serialize,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO trigger_states (name, record) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET record = excluded.record",
    )
    .bind(name)
    .bind(json(name, state)?)
    .execute(&mut **transaction)
    .await
    .map_err(failed("write a trigger's state"))
    .map(drop)
}

pub(super) fn json(name: &str, value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error::Trigger { name: name.to_owned(), source })
}

pub(super) fn read<T: DeserializeOwned>(name: &str, record: &str) -> Result<T, Error> {
    serde_json::from_str(record).map_err(|source| Error::Trigger { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::ledger::Origin;

    fn event(trigger: &str, fate: Fate) -> Event {
        Event {
            event_id: Ulid::generate(),
            trigger: trigger.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            origin: Origin::Webhook,
            caller: None,
            forced: false,
            content: None,
            fate,
            reason: None,
            merged_into: None,
            job_id: None,
        }
    }

    #[tokio::test]
    async fn the_ledger_keeps_the_latest_and_refused_callers_push_nothing_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let mut events: Vec<Event> = (0..5).map(|_| event("a", Fate::Suppressed)).collect();
        events.extend((0..9).map(|_| event("a", Fate::Refused)));
        events.push(event("b", Fate::Ran));
        store
            .save_trigger(&TriggerChange { events: events.clone(), ..TriggerChange::default() })
            .await
            .unwrap();
        store.prune_trigger("a", 3).await.unwrap();
        let kept = store.trigger_events("a", 100).await.unwrap();
        assert_eq!(kept.iter().filter(|event| event.fate == Fate::Suppressed).count(), 3);
        assert_eq!(kept.iter().filter(|event| event.fate == Fate::Refused).count(), 3);
        assert_eq!(kept[0], events[13], "the latest first");
        assert_eq!(store.trigger_events("b", 1).await.unwrap(), events[14..]);
        let changed = Event { fate: Fate::Ran, ..events[4].clone() };
        store
            .save_trigger(&TriggerChange { events: vec![changed.clone()], ..TriggerChange::default() })
            .await
            .unwrap();
        assert_eq!(store.trigger_event(changed.event_id).await.unwrap(), Some(changed));
    }

    #[tokio::test]
    async fn a_signature_is_taken_once_and_forgotten_later() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(store.take_signature("a", "s", at(10), at(0)).await.unwrap());
        assert!(!store.take_signature("a", "s", at(11), at(0)).await.unwrap());
        assert!(store.take_signature("b", "s", at(11), at(0)).await.unwrap());
        assert!(store.take_signature("a", "s", at(99), at(20)).await.unwrap());
    }
}
