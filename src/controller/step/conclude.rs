//! The steps from the end of a task on.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{health::Subject, now, plan::Seen},
    Error, Rooms,
};
use crate::{
    dispatch::report::{self, Report},
    fail_point,
    lifecycle::{Ending, Event, Excerpt, Job, Stage},
    nomad,
    track::{
        judge::{self, Evidence},
        log,
    },
};

/// How often fetching a log is tried before it counts as lost.
const LOG_TRIES: u32 = 5;

impl Rooms {
    pub(super) async fn conclude(&self, job: &mut Job, seen: &Seen, allocation: &str) -> Result<(), Error> {
        let Some(state) = seen.allocations.get(allocation) else { return Ok(()) };
        let Some(attempt) = job.attempt().cloned() else { return Ok(()) };
        let task = judge::task_name(state).filter(|_| judge::has_started(state));
        let (excerpt, report) = match task {
            Some(task) => {
                let _permit = self.permits.collections.acquire().await;
                fail_point::before("log read");
                let read = (self.excerpt(allocation, task).await?, self.report(allocation).await?);
                fail_point::after("log read");
                read
            }
            None => (Excerpt::lost(), None),
        };
        let evidence = Evidence {
            allocation: state,
            admitted: attempt.allocation.is_some(),
            report: report.as_ref(),
            stopped: attempt.stopped.as_ref(),
            timeout: job.work.timeout(),
            now: now(),
        };
        let mut ending = Ending { log: excerpt, ..judge::judge(&evidence) };
        if let Some(missing) = report.map(|report| report.missing).filter(|missing| *missing > 0) {
            ending.lacks(missing);
        }
        // A task may start and end between two looks; that it worked is told all the same.
        if let (Stage::Granted, Some(at)) = (job.stage, ending.started_at) {
            self.record(job, Event::Started { at }).await?;
        }
        if ending.started_at.is_some() && !job.work.artifacts.is_empty() {
            // Large files take a while, and the rights end now. Where that fails, `withdraw` repeats it; the
            // files do not wait for it, because Nomad may collect the allocation at any time.
            if let Err(error) = self.grants.withdraw(allocation).await {
                tracing::debug!(allocation, %error, "the grant is withdrawn later");
            }
            fail_point::before("artifacts taken");
            let taken = self.artifacts.take(job.job_id, allocation, &job.work.artifacts).await?;
            fail_point::after("artifacts taken");
            ending.artifacts = taken.artifacts;
            if let Some(remark) = taken.remark {
                ending.remark(&remark);
            }
        }
        self.health.clear(Subject::Nomad);
        self.record(job, Event::Concluded(ending)).await
    }

    /// The end of what the task printed. Nomad may have collected it already, or the node may be away; only
    /// where nobody answers at Nomad's address is it asked for again later.
    async fn excerpt(&self, allocation: &str, task: &str) -> Result<Excerpt, nomad::Error> {
        for tried in 1..=LOG_TRIES {
            match self.nomad.log_tail(allocation, task, self.log_tail).await {
                Ok(Some(tail)) => return Ok(log::excerpt(&tail.bytes, tail.truncated)),
                Ok(None) => break,
                Err(error) if error.is_out_of_reach() => return Err(error),
                Err(error) => tracing::warn!(allocation, %error, tried, "cannot read the log"),
            }
            tokio::time::sleep(Duration::from_millis(100) * tried).await;
        }
        Ok(Excerpt::lost())
    }

    async fn report(&self, allocation: &str) -> Result<Option<Report>, nomad::Error> {
        match self.nomad.file(allocation, &format!("alloc/{}", report::PATH), report::SIZE_LIMIT).await {
            // A wrapper that was killed, or met its marker, wrote nothing.
            Ok(found) => Ok(Some(report::parse(&found.unwrap_or_default()))),
            Err(error) if error.is_out_of_reach() => Err(error),
            Err(error) => {
                tracing::warn!(allocation, %error, "cannot read the wrapper's report");
                Ok(None)
            }
        }
    }

    /// Sees to it that an attempt's allocations are known: after a restart an ended one is heard of no more, and may
    /// have an identity in Vault though it was never admitted, which opens nothing.
    async fn find_allocations(&self, job: &Job, seen: &mut Seen) -> Result<(), Error> {
        let Some(attempt) = job.attempt().filter(|_| seen.allocations.is_empty()) else { return Ok(()) };
        let prefix = format!("{}/dispatch-{}-", attempt.parent, attempt.dispatch_id);
        let children = self.nomad.children(&prefix).await?.into_iter().map(|child| child.id);
        let children: BTreeSet<String> = children.chain(attempt.child.clone()).collect();
        for child in children {
            self.nomad.job_allocations(&child).await?.into_iter().for_each(|one| seen.take(one));
        }
        Ok(())
    }

    pub(super) async fn withdraw(&self, job: &mut Job, seen: &mut Seen) -> Result<(), Error> {
        let admitted = job.attempt().and_then(|attempt| attempt.allocation.clone());
        if let Some(admitted) = &admitted {
            self.grants.withdraw(admitted).await?;
        }
        self.find_allocations(job, seen).await?;
        for other in seen.allocations.keys().filter(|id| Some(*id) != admitted.as_ref()) {
            self.grants.withdraw(other).await?;
        }
        // Whatever else was created for this attempt lost at the gate: it must not stay.
        let unended =
            |allocation: &nomad::Allocation| judge::progress(allocation) != judge::Progress::Terminal;
        let losers: BTreeSet<&String> = seen
            .allocations
            .values()
            .filter(|allocation| unended(allocation))
            .map(|allocation| &allocation.job_id)
            .collect();
        for child in losers {
            self.nomad.deregister(child).await?;
        }
        self.record(job, Event::Withdrawn).await
    }
}
