//! When variants of base jobs were last used.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row as _;

use super::{Error, Store, failed};

impl Store {
    /// Takes note that a variant is used now.
    pub async fn use_variant(&self, id: &str, now: Timestamp) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO variants (id, used_at) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at",
        )
        .bind(id)
        .bind(now.as_millisecond())
        .execute(&mut *self.turn().await?)
        .await
        .map_err(failed("note the use of a variant"))
        .map(drop)
    }

    /// Takes note of a variant that Nomad has; one that is known stays as it is.
    pub async fn meet_variant(&self, id: &str, now: Timestamp) -> Result<(), Error> {
        sqlx::query("INSERT INTO variants (id, used_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(id)
            .bind(now.as_millisecond())
            .execute(&mut *self.turn().await?)
            .await
            .map_err(failed("note a variant"))
            .map(drop)
    }

    /// Every known variant, and when it was last used.
    pub async fn variants(&self) -> Result<BTreeMap<String, Timestamp>, Error> {
        let rows = sqlx::query("SELECT id, used_at FROM variants")
            .fetch_all(&mut *self.turn().await?)
            .await
            .map_err(failed("read the variants"))?;
        let used_at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(rows.iter().map(|row| (row.get(0), used_at(row.get(1)))).collect())
    }

    /// Forgets a variant that is gone.
    pub async fn forget_variant(&self, id: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM variants WHERE id = $1")
            .bind(id)
            .execute(&mut *self.turn().await?)
            .await
            .map_err(failed("forget a variant"))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_use_counts_and_a_meeting_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        store.use_variant("a", at(5)).await.unwrap();
        store.meet_variant("a", at(9)).await.unwrap();
        store.meet_variant("b", at(9)).await.unwrap();
        store.use_variant("b", at(12)).await.unwrap();
        let expected = BTreeMap::from([("a".to_owned(), at(5)), ("b".to_owned(), at(12))]);
        assert_eq!(store.variants().await.unwrap(), expected);
        store.forget_variant("a").await.unwrap();
        assert_eq!(store.variants().await.unwrap().len(), 1);
    }
}
