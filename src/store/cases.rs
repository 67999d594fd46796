//! The issues that triggers run for.

use sqlx::{Sqlite, Transaction};

use super::{
    Error, Store, failed,
    triggers::{json, read},
};
use crate::trigger::case::Case;

/// What a decision about a trigger changes of the case of an issue.
#[derive(Debug, Clone, Copy)]
pub enum CaseChange<'change> {
    /// It begins.
    Opened(&'change Case),
    /// The run has its job.
    Submitted(&'change Case),
    /// Nothing is to be done for it any more.
    Closed(&'change Case),
}

impl Store {
    /// Every open case, the oldest first.
    pub async fn cases(&self) -> Result<Vec<Case>, Error> {
        let records: Vec<String> = sqlx::query_scalar("SELECT record FROM trigger_issues ORDER BY rowid")
            .fetch_all(&mut *self.turn().await?)
            .await
            .map_err(failed("read the cases of issues"))?;
        records.iter().map(|record| read("its issues", record)).collect()
    }

    /// The open case of an issue.
    pub async fn case(&self, repository: &str, issue: u32) -> Result<Option<Case>, Error> {
        let record: Option<String> =
            sqlx::query_scalar("SELECT record FROM trigger_issues WHERE repository = $1 AND issue = $2")
                .bind(repository)
                .bind(issue)
                .fetch_optional(&mut *self.turn().await?)
                .await
                .map_err(failed("look the case of an issue up"))?;
        record.map(|record| read("its issues", &record)).transpose()
    }
}

pub(super) async fn change(
    transaction: &mut Transaction<'_, Sqlite>,
    change: CaseChange<'_>,
) -> Result<(), Error> {
    let (CaseChange::Opened(case) | CaseChange::Submitted(case) | CaseChange::Closed(case)) = change;
    let query = match change {
        CaseChange::Opened(_) => {
            "INSERT INTO trigger_issues (repository, issue, job_id, record) VALUES ($1, $2, $3, $4)"
        }
        CaseChange::Submitted(_) => {
            "UPDATE trigger_issues SET job_id = $3, record = $4 WHERE repository = $1 AND issue = $2"
        }
        CaseChange::Closed(_) => "DELETE FROM trigger_issues WHERE repository = $1 AND issue = $2",
    };
    let mut query = sqlx::query(query).bind(&case.repository).bind(case.issue);
    if !matches!(change, CaseChange::Closed(_)) {
        let job_id = case.job_id.map(|job_id| job_id.to_string());
        query = query.bind(job_id).bind(json(&case.trigger, case)?);
    }
    query.execute(&mut **transaction).await.map_err(failed("write the case of an issue")).map(drop)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use ulid::Ulid;

    use super::*;
    use crate::{ids::JobId, store::TriggerChange};

    #[tokio::test]
    async fn an_issue_has_one_case_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let case = |issue: u32, trigger: &str| Case {
            repository: "main:acme/app".to_owned(),
            issue,
            trigger: trigger.to_owned(),
            event: Ulid::generate(),
            by: None,
            begun_at: Timestamp::UNIX_EPOCH,
            job_id: None,
        };
        let save = async |change: CaseChange<'_>| {
            store.save_trigger(&TriggerChange { case: Some(change), ..TriggerChange::default() }).await
        };
        let (first, other) = (case(7, "triage"), case(8, "triage"));
        save(CaseChange::Opened(&first)).await.unwrap();
        save(CaseChange::Opened(&other)).await.unwrap();
        let second = case(7, "reproduce");
        save(CaseChange::Opened(&second)).await.unwrap_err();
        let submitted = Case { job_id: Some(JobId::new()), ..first.clone() };
        save(CaseChange::Submitted(&submitted)).await.unwrap();
        assert_eq!(store.cases().await.unwrap(), [submitted.clone(), other.clone()]);
        assert_eq!(store.case("main:acme/app", 7).await.unwrap().as_ref(), Some(&submitted));
        save(CaseChange::Closed(&submitted)).await.unwrap();
        assert_eq!(store.case("main:acme/app", 7).await.unwrap(), None);
        save(CaseChange::Opened(&second)).await.unwrap();
        assert_eq!(store.cases().await.unwrap(), [other, second]);
    }
}
