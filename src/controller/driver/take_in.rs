//! Takes over what a look at the ops repo found: pure but for what the store remembers.

use jiff::Timestamp;

use crate::{
    ids::{ActionId, Revision},
    intake::{Finding, Verdict},
    lifecycle::{Cancellation, Ending, Event, Job, Origin, Stage, Work},
    outcome::Cause,
    store::PastAction,
};

/// What the store knows of the id that a file goes by.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The job that has the id.
    pub job: Option<Job>,
    /// The ended action of that id from before this store.
    pub past: Option<PastAction>,
    /// An earlier rejected claim of the same file on a taken id.
    pub claim: Option<Job>,
}

/// What is done about one file.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// Nothing: it has been answered, or is under way.
    Nothing {
        /// Why, for the log.
        why: &'static str,
    },
    /// This job is put on record, with what happened.
    Record(Box<Job>, &'static str),
}

/// What is done about a file that is new or has other content; `decide` says whether a job may run.
pub(super) fn written(
    path: &str,
    blob: &str,
    verdict: &Verdict,
    known: Known,
    decide: &dyn Fn(&Job) -> Event,
    revision: &Revision,
    now: Timestamp,
) -> Taken {
    let Some(id) = verdict.id() else { return Taken::Nothing { why: "its name is no legal action id" } };
    let origin = Origin::Action {
        id: id.clone(),
        path: path.to_owned(),
        blob: blob.to_owned(),
        revision: revision.clone(),
    };
    if let Some(past) = &known.past {
        if past.path != path {
            return duplicate(id, origin, &past.path, known.claim, now);
        }
        if past.rejected_blob.as_deref().is_none_or(|rejected| rejected == blob) && known.job.is_none() {
            return Taken::Nothing { why: "it has its result already" };
        }
    }
    let Some(job) = known.job else {
        return Taken::Record(Box::new(decided(fresh(origin, verdict, now), verdict, decide, now)), "seen");
    };
    let Origin::Action { path: known_path, blob: known_blob, .. } = &job.origin else {
        return Taken::Nothing { why: "it is not from the ops repo" };
    };
    if known_path != path {
        return duplicate(id, origin, known_path, known.claim, now);
    }
    if known_blob == blob {
        return Taken::Nothing { why: "its content is known" };
    }
    let launched = !job.attempts.is_empty();
    if launched || (job.cancelled.is_some() && job.stage != Stage::Ended) {
        return Taken::Nothing { why: "it was launched, and an id runs once" };
    }
    let mut job = Job { job_id: job.job_id, submitted_at: job.submitted_at, ..fresh(origin, verdict, now) };
    job = decided(job, verdict, decide, now);
    Taken::Record(Box::new(job), "changed")
}

fn fresh(origin: Origin, verdict: &Verdict, now: Timestamp) -> Job {
    let work = match verdict {
        Verdict::Sound { work, .. } => (**work).clone(),
        Verdict::Unsound { .. } => Work::default(),
    };
    Job::new(origin, work, now)
}

/// A new job with the decision about it: queued, waiting, or ended.
fn decided(mut job: Job, verdict: &Verdict, decide: &dyn Fn(&Job) -> Event, now: Timestamp) -> Job {
    match verdict {
        Verdict::Unsound { cause, message, .. } => rejected(job, *cause, message, now),
        Verdict::Sound { .. } => {
            // A new job takes either decision.
            drop(job.apply(decide(&job), now));
            job
        }
    }
}

fn rejected(mut job: Job, cause: Cause, message: &str, now: Timestamp) -> Job {
    for event in [Event::Concluded(Ending::without_task(cause, message, now)), Event::Withdrawn, Event::Ended]
    {
        // A new job takes these three in this order.
        drop(job.apply(event, now));
    }
    job
}

/// The later file of two that claim one id.
fn duplicate(id: &ActionId, origin: Origin, earlier: &str, claim: Option<Job>, now: Timestamp) -> Taken {
    let message = format!(
        "the id {id} is taken by {earlier}: ids are unique over all folders, in any case of their letters"
    );
    if claim.as_ref().is_some_and(|claim| blob_of(&claim.origin) == blob_of(&origin)) {
        return Taken::Nothing { why: "it was told that its id is taken" };
    }
    let job = Job::new(origin, Work::default(), now);
    let job = match claim {
        Some(claim) => Job { job_id: claim.job_id, ..job },
        None => job,
    };
    Taken::Record(Box::new(rejected(job, Cause::Invalid, &message, now)), "duplicate")
}

fn blob_of(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::Action { blob, .. } => Some(blob),
        Origin::Submitted { .. } | Origin::Hand { .. } => None,
    }
}

/// What is done about the job of a file that is gone: it is cancelled. A moved file is not gone.
pub(super) fn deleted(path: &str) -> Event {
    Event::Cancelled(Cancellation {
        cause: Cause::Cancelled,
        reason: format!("its file {path} was deleted from the ops repo"),
    })
}

/// The files that moved: from where, to where, by the action's id.
pub(super) fn moves(files: &[Finding]) -> Vec<(String, String, String)> {
    let deleted = files.iter().filter_map(|finding| match finding {
        Finding::Deleted { path } => Some((crate::action::stem(path)?.to_ascii_lowercase(), path)),
        Finding::Written { .. } => None,
    });
    let deleted: std::collections::BTreeMap<String, &String> = deleted.collect();
    files
        .iter()
        .filter_map(|finding| match finding {
            Finding::Written { path, blob, verdict } => {
                let from = deleted.get(&verdict.id()?.key())?;
                Some(((*from).clone(), path.clone(), blob.clone()))
            }
            Finding::Deleted { .. } => None,
        })
        .collect()
}
