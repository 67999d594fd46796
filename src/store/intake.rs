//! What a look at the ops repo brings, and the actions that ended before this store knew them.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _};

use super::{Error, REVISION, Store, failed, jobs::write_job, results::write_result, write_setting};
use crate::{
    ids::{ActionId, Revision},
    lifecycle::Job,
};

/// How many past actions one statement records: a repo may have 100,000.
const PAST_AT_ONCE: usize = 500;

/// An action whose result stood in the ops repo before this store knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastAction {
    /// The action's id.
    pub id: ActionId,
    /// Its file.
    pub path: String,
    /// Its content, where it was rejected before launch.
    pub rejected_blob: Option<String>,
    /// Whether it succeeded.
    pub succeeded: bool,
}

/// What one look at the ops repo found, taken over as a whole.
#[derive(Debug, Default)]
pub struct Intake {
    /// The revision that was looked at.
    pub revision: Option<Revision>,
    /// New and changed jobs, with the name of what happened, and the result path of ended ones.
    pub jobs: Vec<(Job, &'static str, Option<String>)>,
    /// Actions that had a result already.
    pub past: Vec<PastAction>,
}

impl Store {
    /// Takes over what one look at the ops repo found.
    pub async fn take_in(&self, intake: &Intake, now: Timestamp) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut transaction = turn.transaction().await?;
        for past in intake.past.chunks(PAST_AT_ONCE) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO past_actions (action_key, path, blob, succeeded) SELECT * FROM (",
            );
            insert.push_values(past, |mut row, past| {
                row.push_bind(past.id.key())
                    .push_bind(&past.path)
                    .push_bind(&past.rejected_blob)
                    .push_bind(past.succeeded);
            });
            // What the store knows itself needs no such note.
            insert.push(
                ") WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE action_key = column1) ON CONFLICT DO NOTHING",
            );
            insert.build().execute(&mut *transaction).await.map_err(failed("record past actions"))?;
        }
        for (job, event, result_path) in &intake.jobs {
            write_job(&mut transaction, job, event, now).await?;
            if let Some(path) = result_path {
                write_result(&mut transaction, job, path).await?;
            }
        }
        if let Some(revision) = &intake.revision {
            write_setting(&mut transaction, REVISION, revision.as_str()).await?;
        }
        transaction.commit().await.map_err(failed("commit what the ops repo gave"))?;
        if intake.revision.is_some() {
            self.revision.send_replace(intake.revision.clone());
        }
        self.recorded(intake.jobs.iter().map(|(job, ..)| job));
        Ok(())
    }

    /// The action of that id whose result stood in the ops repo before.
    pub async fn past_action(&self, id: &ActionId) -> Result<Option<PastAction>, Error> {
        let row = sqlx::query("SELECT path, blob, succeeded FROM past_actions WHERE action_key = $1")
            .bind(id.key())
            .fetch_optional(&mut *self.turn().await?)
            .await
            .map_err(failed("look a past action up"))?;
        Ok(row.map(|row| PastAction {
            id: id.clone(),
            path: row.get(0),
            rejected_blob: row.get(1),
            succeeded: row.get(2),
        }))
    }

    /// Takes note that the file of a past action moved.
    pub async fn move_past_action(&self, id: &ActionId, path: &str) -> Result<(), Error> {
        sqlx::query("UPDATE past_actions SET path = $1 WHERE action_key = $2")
            .bind(path)
            .bind(id.key())
            .execute(&mut *self.turn().await?)
            .await
            .map_err(failed("move a past action"))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Origin, Work};

    #[tokio::test]
    async fn a_long_past_is_noted_but_for_what_the_store_knows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let id = |number: usize| ActionId::parse(&format!("a-{number}")).unwrap();
        let past = |number: usize| PastAction {
            id: id(number),
            path: format!("actions/a-{number}.toml"),
            rejected_blob: number.is_multiple_of(2).then(|| "b".repeat(40)),
            succeeded: !number.is_multiple_of(2),
        };
        let (known, last) = (7, 2 * PAST_AT_ONCE);
        let origin = Origin::Action {
            id: id(known),
            path: format!("actions/a-{known}.toml"),
            blob: "b".repeat(40),
            revision: Revision::parse(&"a".repeat(40)).unwrap(),
        };
        let job = Job::new(origin, Work::default(), Timestamp::UNIX_EPOCH);
        store.save(&job, "seen", Timestamp::UNIX_EPOCH).await.unwrap();
        let intake = Intake { past: (0..=last).map(past).collect(), ..Intake::default() };
        for _ in 0..2 {
            store.take_in(&intake, Timestamp::UNIX_EPOCH).await.unwrap();
        }
        for number in [0, 1, last] {
            assert_eq!(store.past_action(&id(number)).await.unwrap(), Some(past(number)));
        }
        assert_eq!(store.past_action(&id(known)).await.unwrap(), None);
        assert_eq!(store.revision(), None);
    }
}
