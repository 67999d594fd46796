//! What the attendant does with the event of an issue: at most one run goes on for each.
//!
//! It only opens the issue's case. `trigger::issues` does the rest, which is up to the forge.

use super::{
    Access, Answer, Attendant, Error, Fate, Refused, Skip, Source, Timestamp, Told, Trigger, TriggerChange,
    Ulid, Verdict, Wait, entry,
};
use crate::{
    intake::submission,
    store::{self, CaseChange},
    trigger::{
        case::Case,
        labels::{self, Issues},
    },
};

impl Attendant {
    pub(super) async fn hear_of_issue(
        &self,
        trigger: &Trigger,
        issues: &Issues,
        told: Told,
    ) -> Result<Answer, Error> {
        let (at, event_id, store) = (Timestamp::now(), Ulid::generate(), &self.shared.store);
        let mut event = entry(&told, event_id, at);
        let repository = issues.repository_key();
        let verdict = match labels::issue(told.content.as_deref()) {
            None => {
                let problem = "which issue? Say so with the event: {\"issue\": 7}".to_owned();
                event.fate = Fate::Failed;
                event.reason = Some(problem.clone());
                Verdict::Failed(Refused::Unsound(submission::Refused::Invalid(problem)))
            }
            Some(issue) if store.case(&repository, issue).await?.is_some() => {
                event.fate = Fate::Suppressed;
                event.reason = Some(Skip::AlreadyRunning.as_str().to_owned());
                Verdict::Skipped(Skip::AlreadyRunning)
            }
            Some(issue) => {
                event.reason = Some(Wait::Label.as_str().to_owned());
                let trigger = trigger.name.clone();
                let case = Case {
                    repository,
                    issue,
                    trigger,
                    event: event_id,
                    by: told.by,
                    begun_at: at,
                    job_id: None,
                };
                let change = TriggerChange {
                    case: Some(CaseChange::Opened(&case)),
                    events: vec![event],
                    ..TriggerChange::default()
                };
                store.save_trigger(&change).await?;
                self.shared.look(&case.trigger);
                return Ok(Answer { event_id, at, verdict: Verdict::Waits(Wait::Label) });
            }
        };
        store.save_trigger(&TriggerChange { events: vec![event], ..TriggerChange::default() }).await?;
        Ok(Answer { event_id, at, verdict })
    }

    /// Gives issues up that no configured trigger sees to any more.
    pub(super) async fn forget_abandoned(&self) -> Result<(), store::Error> {
        for case in self.shared.store.cases().await? {
            let sees_to = |(trigger, _): &(Trigger, Access)| match &trigger.source {
                Source::Forge(issues) => {
                    trigger.name == case.trigger && issues.repository_key() == case.repository
                }
                _ => false,
            };
            if !self.shared.triggers.iter().any(sees_to) {
                tracing::warn!(
                    trigger = case.trigger,
                    issue = case.issue,
                    "the configuration has the trigger no more: nothing will be said on the issue"
                );
                let change =
                    TriggerChange { case: Some(CaseChange::Closed(&case)), ..TriggerChange::default() };
                self.shared.store.save_trigger(&change).await?;
            }
        }
        Ok(())
    }
}
