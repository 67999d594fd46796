//! The launch gate's memory: one allocation for each attempt, for ever.

use jiff::Timestamp;

use super::{Error, Store, failed};
use crate::ids::DispatchId;

impl Store {
    /// Chooses the one allocation of an attempt that the launch gate is opened for, and gives the
    /// allocation that is chosen: the present one, or the one of an earlier call.
    pub async fn admit(
        &self,
        dispatch_id: DispatchId,
        allocation: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        sqlx::query(
            "INSERT INTO admissions (dispatch_id, allocation, admitted_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(dispatch_id.to_string())
        .bind(allocation)
        .bind(now.as_millisecond())
        .execute(&mut *transaction)
        .await
        .map_err(failed("admit an allocation"))?;
        let chosen: Option<String> =
            sqlx::query_scalar("SELECT allocation FROM admissions WHERE dispatch_id = $1")
                .bind(dispatch_id.to_string())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed("read an admission"))?;
        transaction.commit().await.map_err(failed("commit an admission"))?;
        Ok(chosen.unwrap_or_default())
    }

    /// Whether an allocation was ever admitted.
    pub async fn admitted(&self, dispatch_id: DispatchId) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT allocation FROM admissions WHERE dispatch_id = $1")
            .bind(dispatch_id.to_string())
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("read an admission"))
    }
}
