//! The attendant: the one task that owns the state of every trigger.
//!
//! Whoever tells of an event is answered once it is on record. Nothing is changed in memory before the store has
//! it, so a crash forgets nothing that was answered for.

mod issue;
mod marker;
mod perform;
pub mod times;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

pub use self::marker::Marker;
pub(super) use self::perform::may_pass;
use super::{
    access::Access,
    case::Case,
    ledger::{Event, Fate, Origin},
    settings::{Source, Trigger, Webhook},
    state::{self, Course, Decision, Own, Skip, Wait},
    view::Summary,
};
use crate::{
    controller::submit::{Desk, Refused},
    ids::JobId,
    store::{self, Store, TriggerChange},
    telemetry::chain,
};

/// How many events may wait to be taken; whoever tells more waits.
const INBOX: usize = 1024;
/// How often the record of a job that goes on is read.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often the clock is looked at, and old events are forgotten, where nothing else is due.
const GLANCE: Duration = Duration::from_secs(30);

/// An event on its way to the attendant.
#[derive(Debug, Clone)]
pub struct Told {
    /// The trigger's name.
    pub trigger: String,
    /// Where it came from.
    pub origin: Origin,
    /// Who called, for the ledger.
    pub caller: Option<String>,
    /// Who asked for it with a token of the API.
    pub by: Option<String>,
    /// Whether the cooldown is to be passed over.
    pub forced: bool,
    /// What came with it, as JSON.
    pub content: Option<String>,
    /// Up to where the source has told with this.
    pub mark: Option<String>,
    /// Why it must not run, where its source knows.
    pub left_out: Option<&'static str>,
}

/// What became of an event.
#[derive(Debug)]
pub struct Answer {
    /// Its id in the ledger.
    pub event_id: Ulid,
    /// When it was decided.
    pub at: Timestamp,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of an event, as its teller is told.
#[derive(Debug)]
pub enum Verdict {
    /// It started a job.
    Ran(JobId),
    /// It waits.
    Waits(Wait),
    /// Nothing runs.
    Skipped(Skip),
    /// Its source left it out.
    LeftOut,
    /// The job could not be made. Where that may pass, it is tried again.
    Failed(Refused),
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such trigger.
    #[error("there is no trigger {0:?}")]
    Unknown(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
    /// It could not be put on record.
    #[error("{0}")]
    Store(#[from] store::Error),
}

#[derive(Debug)]
enum Message {
    /// Something happened.
    Told(Box<Told>, oneshot::Sender<Result<Answer, Error>>),
    /// Nothing happened up to there.
    Mark { trigger: String, mark: String, reply: oneshot::Sender<Result<(), Error>> },
}

/// How sources and callers reach the triggers.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Shared {
    triggers: Vec<(Trigger, Access)>,
    store: Store,
    desk: Arc<OnceLock<Desk>>,
    /// Wakes those that look at issues.
    looks: BTreeMap<String, Notify>,
    /// How sources stand, in words.
    sources: Mutex<BTreeMap<String, String>>,
}

/// The attendant.
#[derive(Debug)]
pub struct Attendant {
    shared: Arc<Shared>,
    folder: PathBuf,
    keep: u32,
    owns: HashMap<String, Own>,
    courses: HashMap<String, Course>,
    /// The courses whose marker files are not as they stand.
    unmarked: BTreeSet<String>,
    inbox: mpsc::Receiver<Message>,
}

/// What the attendant is made of.
#[derive(Debug)]
pub struct Settings {
    /// The triggers, and who may call them.
    pub triggers: Vec<(Trigger, Access)>,
    /// The memory.
    pub store: Store,
    /// Who takes submissions.
    pub desk: Arc<OnceLock<Desk>>,
    /// Where markers are that have no place of their own.
    pub folder: PathBuf,
    /// How many events of each trigger are kept.
    pub keep: u32,
}

impl Handle {
    /// Tells of an event; answered when what became of it is on record.
    pub async fn tell(&self, told: Told) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Message::Told(Box::new(told), reply)).await.map_err(|_| Error::Ending)?;
        answer.await.map_err(|_| Error::Ending)?
    }

    /// Puts on record up to where a source has looked and found nothing to tell.
    pub async fn set_mark(&self, trigger: &str, mark: String) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Mark { trigger: trigger.to_owned(), mark, reply };
        self.sender.send(message).await.map_err(|_| Error::Ending)?;
        answer.await.map_err(|_| Error::Ending)?
    }

    /// The trigger of this name, and who may call it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&Trigger, &Access)> {
        let found = self.shared.triggers.iter().find(|(trigger, _)| trigger.name == name);
        found.map(|(trigger, access)| (trigger, access))
    }

    /// The trigger that has this path of its own.
    #[must_use]
    pub fn at_path(&self, path: &str) -> Option<&str> {
        let own = |trigger: &Trigger| match &trigger.source {
            Source::Webhook(Webhook { path: own, .. }) => own.as_deref() == Some(path),
            _ => false,
        };
        self.shared
            .triggers
            .iter()
            .find(|(trigger, _)| own(trigger))
            .map(|(trigger, _)| trigger.name.as_str())
    }

    /// Every trigger.
    pub fn triggers(&self) -> impl Iterator<Item = &Trigger> {
        self.shared.triggers.iter().map(|(trigger, _)| trigger)
    }

    /// Up to where a trigger's source has told.
    pub async fn mark(&self, trigger: &str) -> Result<Option<String>, store::Error> {
        Ok(self.shared.store.trigger_own(trigger).await?.mark)
    }

    /// The triggers by the issues of a forge, and who may tell of them.
    pub fn of_forges(&self) -> impl Iterator<Item = (&Trigger, &Access)> {
        let triggers = self.shared.triggers.iter().map(|(trigger, access)| (trigger, access));
        triggers.filter(|(trigger, _)| matches!(trigger.source, Source::Forge(_)))
    }

    /// Makes a trigger look at its issues now.
    pub fn look(&self, trigger: &str) {
        self.shared.look(trigger);
    }

    /// Where everything is on record.
    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Submits what runs for the event of an issue; the same event gives the same job.
    pub(super) async fn submit(&self, trigger: &Trigger, case: &Case) -> Result<JobId, Refused> {
        let issue = case.issue.to_string();
        self.shared.submit(trigger, case.event, case.by.as_deref(), Some(&issue)).await
    }

    /// Waits until somebody makes a trigger look at its issues.
    pub async fn asked_to_look(&self, trigger: &str) {
        match self.shared.looks.get(trigger) {
            Some(look) => look.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Says how a trigger's source stands.
    pub fn source_stands(&self, trigger: &str, words: String) {
        let mut sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.insert(trigger.to_owned(), words);
    }

    /// What is told of a trigger.
    pub async fn summary(&self, trigger: &Trigger, now: Timestamp) -> Result<Summary, store::Error> {
        let own = self.shared.store.trigger_own(&trigger.name).await?;
        let course = self.shared.store.trigger_course(&trigger.course()).await?;
        let source = {
            let sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources.get(&trigger.name).cloned()
        };
        Ok(Summary::of(trigger, &own, &course, source, now))
    }
}

impl Shared {
    fn look(&self, trigger: &str) {
        if let Some(look) = self.looks.get(trigger) {
            look.notify_one();
        }
    }

    fn trigger(&self, name: &str) -> Result<&Trigger, Error> {
        let found = self.triggers.iter().map(|(trigger, _)| trigger).find(|trigger| trigger.name == name);
        found.ok_or_else(|| Error::Unknown(name.to_owned()))
    }
}

impl Attendant {
    /// An attendant with everything that the store knows, and how it is reached.
    pub async fn load(settings: Settings) -> Result<(Self, Handle), store::Error> {
        let Settings { triggers, store, desk, folder, keep } = settings;
        let (mut owns, mut courses) = (HashMap::new(), HashMap::new());
        for (trigger, _) in &triggers {
            owns.insert(trigger.name.clone(), store.trigger_own(&trigger.name).await?);
            courses.insert(trigger.course(), store.trigger_course(&trigger.course()).await?);
        }
        let looks = triggers.iter().map(|(trigger, _)| (trigger.name.clone(), Notify::new())).collect();
        let shared = Arc::new(Shared { triggers, store, desk, looks, sources: Mutex::default() });
        let (sender, inbox) = mpsc::channel(INBOX);
        let handle = Handle { shared: Arc::clone(&shared), sender };
        let unmarked = courses.keys().cloned().collect();
        let mut attendant = Self { shared, folder, keep, owns, courses, unmarked, inbox };
        // Ended jobs are forgotten after a while: their ends are read before that.
        attendant.follow(Timestamp::now()).await?;
        attendant.forget_abandoned().await?;
        Ok((attendant, handle))
    }

    /// Attends until `ending`.
    pub async fn run(mut self, ending: CancellationToken) {
        let mut pruned = Instant::now();
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                if let Err(error) = self.advance().await {
                    tracing::warn!(error = chain(&error), "a trigger's state cannot be put on record");
                }
                if pruned.elapsed() >= GLANCE {
                    pruned = Instant::now();
                    self.prune().await;
                }
                next = Instant::now() + self.pause();
            }
            // A file system may take its time: whoever told of an event has been answered.
            self.leave_markers();
            tokio::select! {
                () = ending.cancelled() => return,
                message = self.inbox.recv() => {
                    // Whoever told may be gone.
                    match message {
                        Some(Message::Told(told, reply)) => drop(reply.send(self.hear(*told).await)),
                        Some(Message::Mark { trigger, mark, reply }) => {
                            drop(reply.send(self.mark(&trigger, mark).await));
                        }
                        None => return,
                    }
                    next = next.min(Instant::now() + self.pause());
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// How long nothing is due. It is never long, so that a clock that was set is noticed.
    fn pause(&self) -> Duration {
        let now = Timestamp::now();
        let due = self.shared.triggers.iter().filter_map(|(trigger, _)| {
            let pending = self.owns.get(&trigger.name)?.pending.as_ref()?;
            match trigger.rules.decide(self.courses.get(&trigger.course())?, pending, now) {
                Decision::Wait(wait) => wait.until(),
                // What could not be put on record is tried again.
                Decision::Run | Decision::Skip(_) => Some(state::later(now, FOLLOW)),
            }
        });
        let left = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let running = self.courses.values().any(|course| course.run.is_some());
        due.min().map_or(GLANCE, left).min(if running { FOLLOW } else { GLANCE })
    }

    /// Reads how runs ended, and decides about what waits.
    async fn advance(&mut self) -> Result<(), Error> {
        let now = Timestamp::now();
        self.follow(now).await?;
        let unsubmitted = |course: &Course| course.run.as_ref().is_some_and(|run| run.job_id.is_none());
        let unsubmitted: Vec<String> = self
            .courses
            .iter()
            .filter(|(_, course)| unsubmitted(course))
            .map(|(name, _)| name.clone())
            .collect();
        for course in unsubmitted {
            if let Err(refused) = self.submit(&course).await? {
                tracing::warn!(error = chain(&refused), "a trigger's run cannot be submitted");
            }
        }
        for index in 0..self.shared.triggers.len() {
            let shared = Arc::clone(&self.shared);
            let (trigger, _) = &shared.triggers[index];
            if self.owns.get(&trigger.name).is_some_and(|own| own.pending.is_some()) {
                self.reconsider(trigger, now).await?;
            }
        }
        Ok(())
    }

    async fn prune(&self) {
        for (trigger, _) in &self.shared.triggers {
            if let Err(error) = self.shared.store.prune_trigger(&trigger.name, self.keep).await {
                tracing::warn!(error = chain(&error), "old events of a trigger cannot be forgotten");
            }
        }
    }

    fn leave_markers(&mut self) {
        for course in std::mem::take(&mut self.unmarked) {
            let Some(state) = self.courses.get(&course) else { continue };
            for (trigger, _) in self.shared.triggers.iter().filter(|(trigger, _)| trigger.course() == course)
            {
                let marker = Marker::of(trigger, &self.folder);
                if let Err(error) = marker.leave(trigger.rules.last(state), state.run.as_ref()) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        trigger = trigger.name,
                        error = chain(error),
                        "its marker file cannot be written"
                    );
                }
            }
        }
    }
}

/// A line of the ledger for an event that has just arrived.
fn entry(told: &Told, event_id: Ulid, at: Timestamp) -> Event {
    Event {
        event_id,
        trigger: told.trigger.clone(),
        at,
        origin: told.origin,
        caller: told.caller.clone(),
        forced: told.forced,
        content: told.content.clone(),
        fate: Fate::Pending,
        reason: None,
        merged_into: None,
        job_id: None,
    }
}

/// Puts a refused caller on record.
pub async fn record_refused(store: &Store, told: &Told, reason: &str) -> Result<(), store::Error> {
    let event = Event {
        fate: Fate::Refused,
        reason: Some(reason.to_owned()),
        content: None,
        ..entry(told, Ulid::generate(), Timestamp::now())
    };
    store.save_trigger(&TriggerChange { events: vec![event], ..TriggerChange::default() }).await
}

/// The folder of the markers in the agent's folder.
#[must_use]
pub fn marker_folder(store: &Path) -> PathBuf {
    store.join("triggers")
}
