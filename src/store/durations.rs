//! How long runs took, kept for longer than the jobs themselves.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, Store, failed};
use crate::{lifecycle::Job, queue::estimate::RUNS};

impl Store {
    /// How long the latest successful runs of all formulas took, the earliest first.
    pub async fn durations(&self) -> Result<Vec<(String, Duration)>, Error> {
        let rows = sqlx::query("SELECT formula, milliseconds FROM durations ORDER BY ended_at, job_id")
            .fetch_all(&mut *self.turn().await?)
            .await
            .map_err(failed("read how long runs took"))?;
        let read = |milliseconds: i64| Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default());
        Ok(rows.iter().map(|row| (row.get(0), read(row.get(1)))).collect())
    }
}

/// Puts on record how long a job ran that succeeded; of each formula only the latest [`RUNS`] are kept.
pub(super) async fn write_duration(
    transaction: &mut Transaction<'_, Sqlite>,
    job: &Job,
    now: Timestamp,
) -> Result<(), Error> {
    let Some((formula, took)) = job.successful_run() else { return Ok(()) };
    sqlx::query(
        "INSERT INTO durations (job_id, formula, ended_at, milliseconds) VALUES ($1, $2, $3, $4)
         ON CONFLICT (job_id) DO NOTHING",
    )
    .bind(job.job_id.to_string())
    .bind(formula.as_str())
    .bind(now.as_millisecond())
    .bind(i64::try_from(took.as_millis()).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await
    .map_err(failed("write how long a run took"))?;
    sqlx::query(
        "DELETE FROM durations WHERE formula = $1 AND job_id NOT IN (
             SELECT job_id FROM durations WHERE formula = $1 ORDER BY ended_at DESC, job_id DESC LIMIT $2)",
    )
    .bind(formula.as_str())
    .bind(i64::try_from(RUNS).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("forget how long earlier runs took"))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        ids::FormulaName,
        lifecycle::{Ending, Event, Origin, Work},
        outcome::Cause,
    };

    #[tokio::test]
    async fn the_latest_successful_runs_of_each_formula_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let start = Timestamp::UNIX_EPOCH;
        for (formula, cause, count) in
            [("other", Cause::Success, 1), ("build", Cause::ExitCode, 1), ("build", Cause::Success, RUNS + 5)]
        {
            for number in 1..=count {
                let took = SignedDuration::from_secs(i64::try_from(number).unwrap());
                let formula = FormulaName::parse(formula).ok();
                let origin = Origin::Hand { child: "c".to_owned(), note: None };
                let mut job = Job::new(origin, Work { formula, ..Work::default() }, start);
                let ending = Ending::without_task(cause, "", start + took);
                let ending = Ending { started_at: Some(start), ..ending };
                for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
                    job.apply(event, start).unwrap();
                }
                store.finish(&job, None, start + took).await.unwrap();
            }
        }
        let durations = store.durations().await.unwrap();
        let of = |formula: &str| -> Vec<u64> {
            let of = durations.iter().filter(|(name, _)| name == formula);
            of.map(|(_, took)| took.as_secs()).collect()
        };
        assert_eq!(of("other"), [1]);
        assert_eq!(of("build"), (6..=25).collect::<Vec<u64>>());
    }
}
