//! The source that looks for labelled issues, and tells on them how their runs ended.
//!
//! ```text
//! look: the label is there ─▶ event and case ─▶ `-running` instead ─▶ job submitted ─▶ …
//!                  … the job ended ─▶ `-done` or `-failed` instead ─▶ comment ─▶ closed
//! ```
//!
//! The case is on record before anything is done, and until everything is; every step can be done again. The
//! forge's webhook only makes it look at once, so webhook and poll cannot start two runs, and a webhook that comes
//! twice starts none.

use std::{iter::once, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Trigger,
    attend::{self, Handle, Told, may_pass},
    case::{Case, End},
    labels::{self, Issues},
    ledger::{Event, Fate, Origin},
};
use crate::{
    forge,
    lifecycle::Stage,
    retry::Pause,
    store::{self, CaseChange, TriggerChange},
    telemetry::chain,
};

/// How often the records of jobs that go on are read, and the first pause after trouble.
const FOLLOW: Duration = Duration::from_secs(1);
/// The longest pause after trouble.
const LONGEST: Duration = Duration::from_mins(1);
/// How far the forge's clock may be behind this one, where it is asked for comments since a time.
const SKEW: SignedDuration = SignedDuration::from_hours(24);

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Forge(#[from] forge::Error),
    #[error("#{issue}: {source}")]
    Issue {
        issue: u32,
        #[source]
        source: forge::Error,
    },
    #[error("{0}")]
    Attend(#[from] attend::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
}

/// What looking at a trigger's issues needs.
#[derive(Debug)]
pub struct Source {
    /// The trigger.
    pub trigger: Trigger,
    /// What it looks for.
    pub issues: Issues,
    /// The forge, for the issues' repository.
    pub forge: forge::Client,
    /// Who decides about events.
    pub handle: Handle,
}

impl Source {
    /// Looks, and sees to open cases, until `ending`.
    pub async fn run(self, ending: CancellationToken) {
        let name = &self.trigger.name;
        let mut pause = Pause::new(FOLLOW, LONGEST);
        let (mut look, mut next_look) = (true, Instant::now());
        loop {
            let worked = tokio::select! {
                () = ending.cancelled() => return,
                worked = self.work(look) => worked,
            };
            let wait = match worked {
                Ok(live) => {
                    pause.reset();
                    if look {
                        next_look = Instant::now() + self.issues.poll;
                    }
                    let running = live.iter().map(|case| format!("#{} runs", case.issue));
                    let words: Vec<String> = once("followed".to_owned()).chain(running).collect();
                    self.handle.source_stands(name, words.join("; "));
                    if live.is_empty() { self.issues.poll } else { FOLLOW }
                }
                Err(error) => {
                    tracing::warn!(trigger = name, error = chain(&error), "its issues cannot be seen to");
                    self.handle.source_stands(name, format!("not followed: {}", chain(&error)));
                    let wait = pause.wait();
                    next_look = Instant::now() + wait;
                    wait
                }
            };
            let until_look = next_look.saturating_duration_since(Instant::now());
            look = tokio::select! {
                () = ending.cancelled() => return,
                () = self.handle.asked_to_look(name) => true,
                () = sleep(wait.min(until_look)) => Instant::now() >= next_look,
            };
        }
    }

    /// Looks for new issues where it is time to, and goes on with the open cases. Gives those that are left.
    async fn work(&self, look: bool) -> Result<Vec<Case>, Error> {
        if look {
            self.look().await?;
        }
        let mut trouble = None;
        for case in self.cases().await? {
            match self.advance(&case).await {
                // One issue that cannot be labelled holds up no other.
                Err(Error::Forge(source)) => {
                    let is_temporary = source.is_temporary();
                    trouble = Some(Error::Issue { issue: case.issue, source });
                    if is_temporary {
                        break;
                    }
                }
                advanced => advanced?,
            }
        }
        match trouble {
            Some(error) => Err(error),
            None => Ok(self.cases().await?),
        }
    }

    async fn cases(&self) -> Result<Vec<Case>, store::Error> {
        let mut cases = self.handle.store().cases().await?;
        cases.retain(|case| case.trigger == self.trigger.name);
        Ok(cases)
    }

    /// Tells of the labelled issues that no run goes on for. The label of the others waits for that to end.
    async fn look(&self) -> Result<(), Error> {
        let repository = self.issues.repository_key();
        for issue in self.forge.labelled(&self.issues.label).await? {
            if self.handle.store().case(&repository, issue).await?.is_some() {
                continue;
            }
            let told = Told {
                trigger: self.trigger.name.clone(),
                origin: Origin::Forge,
                caller: None,
                by: None,
                forced: false,
                content: Some(labels::content(issue).to_string()),
                mark: None,
                left_out: None,
            };
            self.handle.tell(told).await?;
        }
        Ok(())
    }

    async fn advance(&self, case: &Case) -> Result<(), Error> {
        let Some(job_id) = case.job_id else { return self.begin(case).await };
        let job = self.handle.store().job(job_id).await?;
        match job.as_ref().map(|job| (job.stage, &job.ending)) {
            None => self.report(case, End::Forgotten).await,
            Some((Stage::Ended, Some(ending))) => {
                let end =
                    End::Ended { cause: ending.cause, message: &ending.message, exit_code: ending.exit_code };
                self.report(case, end).await
            }
            Some(_) => Ok(()),
        }
    }

    /// Changes the label, and submits. In this order: what cannot be taken from the issue must not start a run, or
    /// it would start one again and again.
    async fn begin(&self, case: &Case) -> Result<(), Error> {
        let Issues { label, running, done, failed, .. } = &self.issues;
        if !self.forge.relabel(case.issue, running, &[label, done, failed]).await? {
            return self.close(case, became(Fate::Suppressed, "the issue is gone")).await;
        }
        match self.handle.submit(&self.trigger, case).await {
            Ok(job_id) => {
                tracing::info!(trigger = self.trigger.name, issue = case.issue, %job_id, "triggered");
                let case = Case { job_id: Some(job_id), ..case.clone() };
                let ran = |event: &mut Event| {
                    event.fate = Fate::Ran;
                    event.reason = None;
                    event.job_id = Some(job_id.to_string());
                };
                self.record(&case, CaseChange::Submitted(&case), ran).await
            }
            Err(refused) if may_pass(&refused) => Ok(()),
            Err(refused) => {
                let problem = chain(&refused);
                self.tell_end(case, End::Refused(&problem)).await?;
                self.close(case, became(Fate::Failed, &problem)).await
            }
        }
    }

    async fn report(&self, case: &Case, end: End<'_>) -> Result<(), Error> {
        self.tell_end(case, end).await?;
        self.close(case, |_| ()).await
    }

    /// Changes the label, and says on the issue how its run ended, unless it is gone.
    async fn tell_end(&self, case: &Case, end: End<'_>) -> Result<(), Error> {
        let Issues { label, running, done, failed, .. } = &self.issues;
        let (now, before) = if end.succeeded() { (done, failed) } else { (failed, done) };
        if !self.forge.relabel(case.issue, now, &[running, before]).await? {
            return Ok(());
        }
        let since = case.begun_at.checked_sub(SKEW).unwrap_or(Timestamp::UNIX_EPOCH);
        let text = case.comment(label, end);
        Ok(self.forge.comment_once(case.issue, since, &case.marker(), &text).await?)
    }

    /// Nothing is to be done for the issue any more, and another label of it may start a run.
    async fn close(&self, case: &Case, change: impl FnOnce(&mut Event)) -> Result<(), Error> {
        self.record(case, CaseChange::Closed(case), change).await?;
        for (trigger, _) in self.handle.of_forges() {
            self.handle.look(&trigger.name);
        }
        Ok(())
    }

    /// Puts on record what became of a case, and of the event that it came of.
    async fn record(
        &self,
        case: &Case,
        change: CaseChange<'_>,
        became: impl FnOnce(&mut Event),
    ) -> Result<(), Error> {
        let mut event = self.handle.store().trigger_event(case.event).await?;
        if let Some(event) = &mut event {
            became(event);
        }
        let events = event.into_iter().collect();
        let change = TriggerChange { case: Some(change), events, ..TriggerChange::default() };
        Ok(self.handle.store().save_trigger(&change).await?)
    }
}

fn became(fate: Fate, reason: &str) -> impl FnOnce(&mut Event) {
    move |event| {
        event.fate = fate;
        event.reason = Some(reason.to_owned());
    }
}
