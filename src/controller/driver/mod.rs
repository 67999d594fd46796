//! The one task that owns every live job.

mod approve;
mod explain;
mod findings;
mod hear;
pub mod operate;
pub mod pause;
#[cfg(test)]
mod simulation;
mod steps;
mod take_in;
mod troubles;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    explain::{Explained, Explanation},
    findings::TakenOver,
};
use self::{
    steps::Steps,
    troubles::{Held, Troubles},
};
use super::{
    adopt,
    meet::Met,
    plan::{self, Context, Judgement, Next, Rights, Seen, Step},
    scan::{self, Scan},
    step::{self, Performed, Rooms},
    stopwatch::Stopwatch,
};
use crate::{
    fail_point,
    ids::{ActionId, DispatchId, JobId},
    intake::Findings,
    lifecycle::{Event, Job, Stage},
    nomad,
    queue::{self, Load, Queue, estimate::Past},
    retry::Pause,
    store,
};

/// How many messages may wait. Whoever sends more is held up, so that nothing piles up in memory.
const INBOX: usize = 1024;
/// How many messages are heard at once.
const MESSAGES_AT_ONCE: usize = 64;
/// How long after it failed a change to a record is saved again.
const SAVE_PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// How long steps in hand may take to end when the agent ends.
const DRAIN: Duration = Duration::from_secs(10);

/// What the driver hears.
#[derive(Debug)]
pub enum Message {
    /// A look at the ops repo; answered when it is on record.
    Found(Findings, oneshot::Sender<Result<TakenOver, store::Error>>),
    /// Evidence of approvals may have changed: keys, or reviews.
    EvidenceChanged,
    /// Nomad's events.
    Heard(Vec<nomad::Event>),
    /// A scan of Nomad.
    #[expect(private_interfaces, reason = "only this room makes scans")]
    Scanned(Scan),
    /// A step is over.
    Performed(JobId, Box<Result<Performed, step::Error>>),
    /// Jobs whose grants Vault forgot.
    Forgotten(Vec<JobId>),
    /// Work that has no action file, and is on record.
    Submitted(Vec<Job>),
    /// An operator's wish about a job.
    Operate(operate::Order),
    /// An operator's wish that nothing more is launched, or that it goes on.
    Pause(pause::PauseOrder),
    /// Somebody wants to know what jobs wait for.
    Explain(oneshot::Sender<Explanation>),
    /// A child that no job knew has been met.
    #[expect(private_interfaces, reason = "only this room meets children")]
    Met(String, Box<Result<Met, step::Error>>),
}

/// What the driver decides by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which children dispatched by hand are taken over.
    pub adopt: adopt::Rules,
    /// Whose turn it is.
    pub queue: queue::Rules,
    /// How long a job may wait for a node.
    pub placement: Duration,
    /// How long a job may wait for its approval; zero is for ever.
    pub expires: Duration,
}

/// How the other tasks reach the driver.
pub type Inbox = mpsc::Sender<Message>;

/// One live job.
#[derive(Debug)]
struct Slot {
    job: Job,
    seen: Seen,
    /// Whether a step is under way.
    busy: bool,
    /// What came in while a step was under way.
    deferred: Vec<Event>,
    /// Whether an action that it waits for ended, or evidence of its approval changed, while a step was under way.
    told: bool,
    /// Whether it has a place in the queue, or had one: what `when_full` says is decided once.
    lined_up: bool,
    /// The time before which no step is tried again.
    held_until: Option<Timestamp>,
    pause: Pause,
    stopwatch: Stopwatch,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    rooms: Arc<Rooms>,
    rules: Rules,
    slots: BTreeMap<JobId, Slot>,
    by_attempt: HashMap<DispatchId, JobId>,
    by_child: HashMap<String, JobId>,
    queue: Queue,
    /// What counts against the limits.
    load: Load,
    /// How long earlier runs took.
    past: Past,
    /// Whether somebody's turn may have come.
    stirred: bool,
    /// Jobs to look at: something was left for them while no step was under way, or their time has come.
    unsettled: Vec<JobId>,
    /// When somebody's turn may come by time alone.
    turn_at: Option<Timestamp>,
    /// When it was last attended to jobs.
    attended_at: Timestamp,
    due: BTreeSet<(Timestamp, JobId)>,
    meeting: HashSet<String>,
    troubles: Troubles,
    recent: VecDeque<String>,
    recent_set: HashSet<String>,
    inbox: mpsc::Receiver<Message>,
    sender: Inbox,
    steps: Steps,
}

impl Driver {
    /// A driver with every live job of the store.
    pub async fn load(rooms: Arc<Rooms>, rules: Rules) -> Result<Self, store::Error> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let mut driver = Self {
            slots: BTreeMap::new(),
            by_attempt: HashMap::new(),
            by_child: HashMap::new(),
            queue: Queue::default(),
            load: Load::default(),
            past: Past::default(),
            stirred: false,
            unsettled: Vec::new(),
            turn_at: None,
            attended_at: super::now(),
            due: BTreeSet::new(),
            meeting: HashSet::new(),
            troubles: Troubles::default(),
            recent: VecDeque::new(),
            recent_set: HashSet::new(),
            inbox,
            sender,
            steps: Steps::default(),
            rules,
            rooms,
        };
        for (formula, took) in driver.rooms.store.durations().await? {
            driver.past.add(&formula, took);
        }
        driver.pause(driver.rooms.store.paused().await?);
        for job in driver.rooms.store.live().await? {
            let job_id = job.job_id;
            driver.insert(job);
            if let Some(slot) = driver.slots.get_mut(&job_id) {
                slot.lined_up = slot.job.stage > Stage::Queued || !slot.job.attempts.is_empty();
            }
        }
        Ok(driver)
    }

    /// Where messages to the driver go.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.sender.clone()
    }

    /// How many jobs are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.slots.len()
    }

    /// Drives until `ending`, then lets the steps in hand end.
    pub async fn run(mut self, ending: CancellationToken) {
        let following =
            tokio::spawn(scan::follow(Arc::clone(&self.rooms), self.sender.clone(), ending.clone()));
        self.withdraw_outdated().await;
        self.consider_all();
        let mut messages = Vec::new();
        loop {
            self.attend().await;
            let wake = self.wake_at();
            tokio::select! {
                () = ending.cancelled() => break,
                count = self.inbox.recv_many(&mut messages, MESSAGES_AT_ONCE) => {
                    if count == 0 {
                        break;
                    }
                    for message in messages.drain(..) {
                        self.hear(message).await;
                    }
                }
                () = until(wake) => self.wake(),
            }
        }
        if tokio::time::timeout(DRAIN, self.drain()).await.is_err() {
            tracing::warn!("some steps did not end in time; they are taken up again at the next start");
        }
        // It ends with the same token.
        drop(following.await);
    }

    /// Takes up what was left for jobs, and launches what may be.
    async fn attend(&mut self) {
        let now = super::now();
        if now < self.attended_at {
            self.clock_set_back();
        }
        self.attended_at = now;
        while let Some(job_id) = self.unsettled.pop() {
            self.settle(job_id).await;
        }
        self.launch();
    }

    /// Every time that was waited for would come too late: all jobs are looked at now.
    fn clock_set_back(&mut self) {
        self.due.clear();
        self.stirred = true;
        for (job_id, slot) in &mut self.slots {
            slot.held_until = None;
            self.unsettled.push(*job_id);
        }
    }

    /// When a job has to be looked at next, whatever is heard.
    fn wake_at(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at).into_iter().chain(self.turn_at).min()
    }

    async fn drain(&mut self) {
        // A step in hand reports to the inbox, which must be read for it to end.
        let steps = self.steps.clone();
        let mut waiting = std::pin::pin!(steps.drained());
        loop {
            tokio::select! {
                () = &mut waiting => return,
                message = self.inbox.recv() => drop(message),
            }
        }
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Found(findings, reply) => {
                // Results alone change no evidence.
                let changed = findings.rewritten || !findings.files.is_empty();
                let taken = self.take_over(findings).await;
                if changed {
                    self.evidence_changed();
                }
                // Whoever asked may be gone.
                drop(reply.send(taken));
            }
            Message::EvidenceChanged => self.evidence_changed(),
            Message::Heard(events) => {
                for event in events {
                    match event {
                        nomad::Event::Allocation(allocation) => self.heard_allocation(*allocation),
                        nomad::Event::Job { id } => self.heard_child(&id),
                    }
                }
            }
            Message::Scanned(scan) => self.scanned(scan),
            Message::Performed(job_id, result) => self.performed(job_id, *result).await,
            Message::Forgotten(jobs) => {
                for job_id in jobs {
                    if let Some(slot) = self.slots.get_mut(&job_id) {
                        slot.seen.rights = Rights::Forgotten;
                        self.consider(job_id);
                    }
                }
            }
            Message::Submitted(jobs) => {
                for job in jobs {
                    self.taken(job, "submitted", false).await;
                }
            }
            Message::Operate(order) => self.operate(order).await,
            Message::Pause(order) => self.pause_as_ordered(order).await,
            // Whoever asked may be gone.
            Message::Explain(reply) => drop(reply.send(self.explain())),
            Message::Met(child, result) => self.met(child, *result),
        }
    }

    /// Takes down what a failed step holds up.
    fn hold(&mut self, held: Held, error: &step::Error) {
        self.rooms.trouble(error);
        if let Some(over) = self.troubles.began(held, error.subject()) {
            self.rooms.health.clear(over);
        }
    }

    /// Something goes on, or is gone.
    fn unhold(&mut self, held: &Held) {
        if let Some(over) = self.troubles.passed(held) {
            self.rooms.health.clear(over);
        }
    }

    /// Puts a job in a slot and its names in the indices.
    fn insert(&mut self, job: Job) {
        let slot = Slot {
            seen: Seen::default(),
            busy: false,
            deferred: Vec::new(),
            told: false,
            lined_up: false,
            held_until: None,
            pause: Pause::new(Duration::from_millis(200), Duration::from_secs(10)),
            stopwatch: Stopwatch::default(),
            job,
        };
        let job_id = slot.job.job_id;
        self.slots.insert(job_id, slot);
        self.index(job_id);
    }

    /// Brings the indices in line with a job's record.
    fn index(&mut self, job_id: JobId) {
        let Some(slot) = self.slots.get(&job_id) else { return };
        for attempt in &slot.job.attempts {
            self.by_attempt.insert(attempt.dispatch_id, job_id);
            if let Some(child) = &attempt.child {
                self.by_child.insert(child.clone(), job_id);
            }
        }
        self.weigh(job_id);
    }

    /// Considers every job, in the order in which they came: what `when_full` says is decided in it.
    fn consider_all(&mut self) {
        let mut jobs: Vec<(Timestamp, JobId)> =
            self.slots.iter().map(|(job_id, slot)| (slot.job.asked_at(), *job_id)).collect();
        jobs.sort_unstable();
        for (_, job_id) in jobs {
            self.consider(job_id);
        }
    }

    /// Decides what comes next for a job, and begins it.
    fn consider(&mut self, job_id: JobId) {
        let now = super::now();
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        if slot.busy {
            return;
        }
        if let Some(until) = slot.held_until {
            if until > now {
                self.due.insert((until, job_id));
                return;
            }
            slot.held_until = None;
        }
        let Rules { placement, expires, .. } = self.rules;
        let elapsed = slot.stopwatch.look(&slot.job, now, Instant::now());
        let context = Context { now, elapsed, placement, expires };
        match plan::next(&slot.job, &slot.seen, context) {
            Next::Do(step) => {
                self.queue.remove(job_id);
                self.begin(job_id, step);
            }
            Next::Turn => self.line_up(job_id),
            Next::Wait(Some(at)) => {
                self.due.insert((at, job_id));
            }
            Next::Wait(None) => {}
        }
    }

    fn begin(&mut self, job_id: JobId, step: Step) {
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        slot.busy = true;
        let (job, seen) = (slot.job.clone(), slot.seen.clone());
        self.index(job_id);
        let (rooms, sender) = (Arc::clone(&self.rooms), self.sender.clone());
        self.steps.spawn(async move {
            let result = rooms.perform(job, seen, step).await;
            // The driver may have ended; the record is in the store.
            drop(sender.send(Message::Performed(job_id, Box::new(result))).await);
        });
    }

    async fn performed(&mut self, job_id: JobId, result: Result<Performed, step::Error>) {
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        slot.busy = false;
        match &result {
            Ok(_) => self.unhold(&Held::Job(job_id)),
            Err(error) => self.hold(Held::Job(job_id), error),
        }
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        match result {
            Ok(Performed { job, seen }) => {
                slot.pause.reset();
                slot.job = job;
                // What was heard while the step was under way is newer than what the step knew.
                let heard = std::mem::replace(&mut slot.seen, seen);
                for allocation in heard.allocations.into_values() {
                    slot.seen.take(allocation);
                }
                if std::mem::take(&mut slot.told) {
                    slot.seen.consulted = false;
                    slot.seen.judgement = Judgement::Due;
                }
            }
            Err(error) => {
                let (name, told) = (slot.job.name(), crate::telemetry::chain(&error));
                super::span(job_id).in_scope(|| tracing::debug!(job = name, error = told, "step failed"));
                let wait = jiff::SignedDuration::try_from(slot.pause.wait()).unwrap_or_default();
                slot.held_until = Some(super::now() + wait);
                // An effect may have been recorded before the step failed.
                if let Ok(Some(job)) = self.rooms.store.job(job_id).await
                    && let Some(slot) = self.slots.get_mut(&job_id)
                {
                    slot.job = job;
                }
            }
        }
        self.index(job_id);
        self.settle(job_id).await;
    }

    /// Applies an event to a live job: at once, or after the step that is under way.
    async fn tell_slot(&mut self, job_id: JobId, event: Event) {
        let Some(slot) = self.slots.get_mut(&job_id) else { return };
        slot.deferred.push(event);
        if !slot.busy {
            self.settle(job_id).await;
        }
    }

    /// Takes up what waited for the slot; lets an ended job go.
    async fn settle(&mut self, job_id: JobId) {
        // A step hands back the record that it began with: nothing is applied meanwhile.
        let Some(slot) = self.slots.get_mut(&job_id).filter(|slot| !slot.busy) else { return };
        let mut unsaved = None;
        for event in std::mem::take(&mut slot.deferred) {
            if slot.job.apply(event.clone(), super::now()).is_ok() {
                fail_point::before(event.name());
                if let Err(error) = self.rooms.store.save(&slot.job, event.name(), super::now()).await {
                    unsaved = Some(error);
                    slot.deferred.push(event);
                    continue;
                }
                fail_point::after(event.name());
            }
        }
        let ended = slot.job.stage == Stage::Ended;
        if let Some(error) = unsaved {
            self.hold(Held::Job(job_id), &error.into());
            self.due.insert((super::now() + SAVE_PAUSE, job_id));
        }
        if ended {
            self.release(job_id);
        } else {
            self.consider(job_id);
        }
    }

    fn release(&mut self, job_id: JobId) {
        let Some(slot) = self.slots.remove(&job_id) else { return };
        self.unhold(&Held::Job(job_id));
        // Work without an action goes by its job id.
        if let Ok(id) = ActionId::parse(&slot.job.name()) {
            self.told_of_end(&id);
        }
        self.queue.remove(job_id);
        self.load.remove(job_id);
        self.stirred = true;
        if let Some((formula, took)) = slot.job.successful_run() {
            self.past.add(formula.as_str(), took);
        }
        for attempt in slot.job.attempts {
            self.by_attempt.remove(&attempt.dispatch_id);
            if let Some(child) = attempt.child {
                self.by_child.remove(&child);
                self.remember(child);
            }
        }
    }

    /// Lets the jobs that wait for what has this id look how it ended.
    fn told_of_end(&mut self, id: &ActionId) {
        let key = id.key();
        let waits = |slot: &Slot| {
            slot.job.stage == Stage::Waiting && slot.job.work.after.iter().any(|other| other.key() == key)
        };
        let waiting: Vec<JobId> =
            self.slots.iter().filter(|(_, slot)| waits(slot)).map(|(job_id, _)| *job_id).collect();
        for job_id in waiting {
            if let Some(slot) = self.slots.get_mut(&job_id) {
                slot.seen.consulted = false;
                // A look that is under way may be too early.
                slot.told |= slot.busy;
            }
            self.consider(job_id);
        }
    }

    /// Takes approvals away that the present rules and base jobs would not give: both may be others than at the last
    /// start.
    async fn withdraw_outdated(&mut self) {
        let approved = |slot: &Slot| slot.job.stage <= Stage::Queued && slot.job.approved_by.is_some();
        let outdated = self.slots.iter().filter(|(_, slot)| approved(slot));
        let outdated: Vec<(JobId, Event)> =
            outdated.filter_map(|(job_id, slot)| Some((*job_id, self.rooms.withdrawn(&slot.job)?))).collect();
        for (job_id, event) in outdated {
            self.tell_slot(job_id, event).await;
        }
    }

    /// Has everything decided anew that is not approved: the branch or the keys changed.
    fn evidence_changed(&mut self) {
        let unapproved = |slot: &Slot| slot.job.stage == Stage::Waiting && slot.job.approved_by.is_none();
        let waiting: Vec<JobId> =
            self.slots.iter().filter(|(_, slot)| unapproved(slot)).map(|(job_id, _)| *job_id).collect();
        for job_id in waiting {
            if let Some(slot) = self.slots.get_mut(&job_id) {
                slot.seen.judgement = Judgement::Due;
                // A look that is under way may be too early.
                slot.told |= slot.busy;
            }
            self.consider(job_id);
        }
    }

    /// Looks at the jobs whose time has come.
    fn wake(&mut self) {
        let now = super::now();
        self.stirred |= self.turn_at.is_some_and(|at| at <= now);
        while let Some((at, job_id)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            self.unsettled.push(job_id);
        }
    }
}

/// Sleeps until a time of day; for ever without one.
async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(left).await;
        }
        None => std::future::pending().await,
    }
}
