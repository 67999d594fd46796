//! What the attendant does with an event: decide, put it on record, submit, and read how it ended.

use super::{
    Answer, Arc, Attendant, Error, Fate, JobId, Refused, Shared, Source, Timestamp, Told, Trigger,
    TriggerChange, Ulid, Verdict, entry,
};
use crate::{
    controller::submit,
    fail_point,
    intake::submission,
    lifecycle::Stage,
    outcome::Outcome,
    store::{self, IdempotencyKey},
    telemetry::chain,
    trigger::{
        ledger::Event,
        state::{Arrival, Course, Decision, Own, Pending, Rules, Wait},
    },
};

impl Attendant {
    /// Takes an event in.
    pub(super) async fn hear(&mut self, told: Told) -> Result<Answer, Error> {
        let shared = Arc::clone(&self.shared);
        let trigger = shared.trigger(&told.trigger)?;
        if let Source::Forge(issues) = &trigger.source {
            return self.hear_of_issue(trigger, issues, told).await;
        }
        let (at, event_id) = (Timestamp::now(), Ulid::generate());
        let mut event = entry(&told, event_id, at);
        let before = self.owns.get(&trigger.name).cloned().unwrap_or_default();
        let mark = told.mark.or(before.mark);
        if let Some(reason) = told.left_out {
            event.fate = Fate::Suppressed;
            event.reason = Some(reason.to_owned());
            self.keep(trigger, Own { mark, ..before }, None, vec![event]).await?;
            return Ok(Answer { event_id, at, verdict: Verdict::LeftOut });
        }
        let arrival = Arrival { event: event_id, forced: told.forced, by: told.by, content: told.content };
        let pending = Rules::arrive(before.pending.as_ref(), arrival, at);
        if let Some(first) = &before.pending {
            event.fate = Fate::Merged;
            event.merged_into = Some(first.event);
        }
        let verdict = self.decide(trigger, pending, mark, Some(event), at).await?;
        Ok(Answer { event_id, at, verdict })
    }

    /// Puts on record up to where a source has looked.
    pub(super) async fn mark(&mut self, trigger: &str, mark: String) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let trigger = shared.trigger(trigger)?;
        let own = self.owns.get(&trigger.name).cloned().unwrap_or_default();
        Ok(self.keep(trigger, Own { mark: Some(mark), ..own }, None, Vec::new()).await?)
    }

    /// Decides about what waited.
    pub(super) async fn reconsider(&mut self, trigger: &Trigger, now: Timestamp) -> Result<(), Error> {
        let Some(Own { pending: Some(pending), mark }) = self.owns.get(&trigger.name).cloned() else {
            return Ok(());
        };
        self.decide(trigger, pending, mark, None, now).await.map(drop)
    }

    /// Decides about what is pending, puts that on record, and starts the run where there is one. `event` has
    /// just arrived.
    async fn decide(
        &mut self,
        trigger: &Trigger,
        mut pending: Pending,
        mark: Option<String>,
        mut event: Option<Event>,
        now: Timestamp,
    ) -> Result<Verdict, Error> {
        let mut course = self.courses.get(&trigger.course()).cloned().unwrap_or_default();
        course.rebase(now);
        pending.rebase(now);
        let decision = trigger.rules.decide(&course, &pending, now);
        match decision {
            Decision::Wait(wait) => {
                pending.held |= wait == Wait::Run;
                if let Some(event) = event.as_mut().filter(|event| event.fate == Fate::Pending) {
                    event.reason = Some(wait.as_str().to_owned());
                }
                let own = Own { pending: Some(pending), mark };
                if event.is_some() || self.owns.get(&trigger.name) != Some(&own) {
                    self.keep(trigger, own, None, event.into_iter().collect()).await?;
                }
                Ok(Verdict::Waits(wait))
            }
            Decision::Skip(skip) => {
                let events = self.with_first(&pending, event, |first| {
                    first.fate = Fate::Suppressed;
                    first.reason = Some(skip.as_str().to_owned());
                });
                let events = events.await?;
                self.keep(trigger, Own { pending: None, mark }, None, events).await?;
                Ok(Verdict::Skipped(skip))
            }
            Decision::Run => {
                course.run = Some(pending.run(&trigger.name, now));
                fail_point::before("trigger recorded");
                self.keep(trigger, Own { pending: None, mark }, Some(course), event.into_iter().collect())
                    .await?;
                fail_point::after("trigger recorded");
                match self.submit(&trigger.course()).await? {
                    Ok(job_id) => Ok(Verdict::Ran(job_id)),
                    Err(refused) => Ok(Verdict::Failed(refused)),
                }
            }
        }
    }

    /// The event that has just arrived, and the first of those that wait together, which `change` changes.
    async fn with_first(
        &self,
        pending: &Pending,
        event: Option<Event>,
        change: impl FnOnce(&mut Event),
    ) -> Result<Vec<Event>, store::Error> {
        let mut events: Vec<Event> = event.into_iter().collect();
        if events.first().is_none_or(|event| event.event_id != pending.event) {
            events.extend(self.shared.store.trigger_event(pending.event).await?);
        }
        if let Some(first) = events.iter_mut().find(|event| event.event_id == pending.event) {
            change(first);
        }
        Ok(events)
    }

    /// Puts a change on record, and then makes it.
    async fn keep(
        &mut self,
        trigger: &Trigger,
        own: Own,
        course: Option<Course>,
        events: Vec<Event>,
    ) -> Result<(), store::Error> {
        let name = trigger.course();
        let change = TriggerChange {
            own: Some((&trigger.name, &own)),
            course: course.as_ref().map(|course| (name.as_str(), course)),
            events,
            ..TriggerChange::default()
        };
        self.shared.store.save_trigger(&change).await?;
        self.owns.insert(trigger.name.clone(), own);
        if let Some(course) = course {
            self.courses.insert(name.clone(), course);
            self.unmarked.insert(name);
        }
        Ok(())
    }

    /// Submits the run that a course has on record. What cannot be made is over; what may be made later is
    /// kept, to be tried again.
    pub(super) async fn submit(&mut self, name: &str) -> Result<Result<JobId, Refused>, Error> {
        let Some(course) = self.courses.get(name).cloned() else { return Ok(Err(Refused::NotNow)) };
        let Some(run) = course.run.clone() else { return Ok(Err(Refused::NotNow)) };
        let shared = Arc::clone(&self.shared);
        let found = shared.trigger(&run.trigger);
        let answer = match found {
            Err(_) => Err(gone(&format!("trigger {}", run.trigger))),
            Ok(trigger) => shared.submit(trigger, run.event, run.by.as_deref(), run.content.as_deref()).await,
        };
        let mut after = course.clone();
        let mut event = self.shared.store.trigger_event(run.event).await?;
        match &answer {
            Ok(job_id) => {
                if let Some(run) = &mut after.run {
                    run.job_id = Some(*job_id);
                }
                if let Some(event) = &mut event {
                    event.fate = Fate::Ran;
                    event.reason = None;
                    event.job_id = Some(job_id.to_string());
                }
                tracing::info!(trigger = run.trigger, %job_id, "triggered");
            }
            Err(refused) if may_pass(refused) => return Ok(answer),
            Err(refused) => {
                after.run = None;
                if let Some(event) = &mut event {
                    event.fate = Fate::Failed;
                    event.reason = Some(chain(refused));
                }
                tracing::warn!(trigger = run.trigger, error = chain(refused), "its job cannot be made");
            }
        }
        fail_point::before("trigger's job noted");
        self.keep_course(name, after, event).await?;
        fail_point::after("trigger's job noted");
        Ok(answer)
    }

    /// Reads how the runs that go on stand, and takes down where the clock was set back.
    pub(super) async fn follow(&mut self, now: Timestamp) -> Result<(), store::Error> {
        let courses: Vec<(String, Course)> =
            self.courses.iter().map(|(name, course)| (name.clone(), course.clone())).collect();
        for (name, before) in courses {
            let mut course = before.clone();
            course.rebase(now);
            if let Some(job_id) = course.run.as_ref().and_then(|run| run.job_id) {
                match self.shared.store.job(job_id).await? {
                    Some(job) if job.stage != Stage::Ended => {}
                    Some(job) => {
                        let succeeded = job.outcome() == Some(Outcome::Succeeded);
                        // The node's clock may be ahead of this one.
                        let at = job.ending.as_ref().map_or(now, |ending| ending.finished_at.min(now));
                        course.end(succeeded, at);
                    }
                    // It was forgotten: how it ended is not known.
                    None => course.end(false, now),
                }
            }
            if course != before {
                self.keep_course(&name, course, None).await?;
            }
        }
        Ok(())
    }

    async fn keep_course(
        &mut self,
        name: &str,
        course: Course,
        event: Option<Event>,
    ) -> Result<(), store::Error> {
        let events = event.into_iter().collect();
        let change = TriggerChange { course: Some((name, &course)), events, ..TriggerChange::default() };
        self.shared.store.save_trigger(&change).await?;
        self.courses.insert(name.to_owned(), course);
        self.unmarked.insert(name.to_owned());
        Ok(())
    }
}

impl Shared {
    /// Submits what runs for an event; the same event gives the same job.
    pub(super) async fn submit(
        &self,
        trigger: &Trigger,
        event: Ulid,
        by: Option<&str>,
        content: Option<&str>,
    ) -> Result<JobId, Refused> {
        let desk = self.desk.get().ok_or(Refused::NotNow)?;
        let (submitter, event) = (format!("trigger {}", trigger.name), event.to_string());
        // One event is one job, also where its action was changed in between.
        let key = IdempotencyKey { submitter: submitter.clone(), key: event.clone(), digest: event };
        // The action, with whom it notifies, is of this machine's own configuration.
        desk.submit(by.unwrap_or(&submitter), true, Some(key), trigger.body(content)).await
    }
}

/// Whether a submission may be taken later that is not taken now.
pub(in crate::trigger) fn may_pass(refused: &Refused) -> bool {
    match refused {
        Refused::NotNow | Refused::Store(_) | Refused::Unsound(submission::Refused::OpsRepo(_)) => true,
        Refused::Unsound(_) | Refused::KeyTaken(_) => false,
    }
}

fn gone(submitter: &str) -> Refused {
    let problem = format!("the configuration has no {submitter} any more");
    submit::Refused::Unsound(submission::Refused::Invalid(problem))
}
