//! What people do: commit, submit, approve, cancel, retry, pause, and dispatch by hand.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{
    super::{
        Message,
        operate::{Order, Wish},
        pause::PauseOrder,
    },
    schedule::{SECRETS, Schedule, path},
};
use crate::{
    action::{self, Action, BlastRadius, Concurrency, WhenFull},
    formula::Body,
    ids::{ActionId, FormulaName, JobId, SecretName},
    intake::Verdict,
    lifecycle::{Job, Origin, Stage, Work},
    outcome::Cause,
    queue::Paused,
    store::Submission,
};

/// How many actions there are.
const ACTIONS: u64 = 4;
/// The group that some of the work is in; one of it works at a time.
pub(super) const GROUP: &str = "group";

impl Schedule<'_> {
    /// Somebody commits: an action more, another version of one, or one less.
    pub(super) fn commit(&self) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let mut files = world.commits.last().cloned().unwrap_or_default();
        let id = format!("action-{}", world.random.below(ACTIONS));
        let told = match files.get(&id).copied() {
            Some(_) if world.random.chance(300) => {
                files.remove(&id);
                format!("{id} is deleted")
            }
            Some(version) => {
                files.insert(id.clone(), version + 1);
                format!("{id} is changed")
            }
            None => {
                let version = next_version(&world.commits, &id);
                files.insert(id.clone(), version);
                format!("{id} is committed")
            }
        };
        world.tell(|| told);
        world.commits.push(files);
    }

    /// Commits what other actions wait for: they would wait for ever.
    pub(super) fn commit_what_is_waited_for(&self) {
        let mut world = self.world.borrow_mut();
        let mut files = world.commits.last().cloned().unwrap_or_default();
        let known = files.len();
        for number in (0..ACTIONS).rev() {
            let id = format!("action-{number}");
            let awaited = files.iter().any(|(other, version)| awaited(other, *version).as_ref() == Some(&id));
            if awaited && !files.contains_key(&id) {
                files.insert(id.clone(), next_version(&world.commits, &id));
            }
        }
        if files.len() > known {
            world.tell(|| "what is waited for is committed".to_owned());
            world.commits.push(files);
        }
    }

    /// Somebody wants something of the agent.
    pub(super) async fn operate(&mut self) {
        match self.below(10) {
            0 => {
                let mut world = self.world.borrow_mut();
                let world = &mut *world;
                world.tell(|| "somebody dispatches by hand".to_owned());
                world.nomad.dispatch_by_hand(world.now, &mut world.random);
            }
            1..4 => self.submit().await,
            4..6 => self.decide().await,
            6 => self.pause(self.chance(300)).await,
            _ => self.cancel_or_retry().await,
        }
    }

    /// Somebody submits work over HTTP, which needs somebody else's word or none.
    async fn submit(&mut self) {
        let Some(revision) = self.bench.store.revision() else { return };
        let kind = self.below(6);
        let mut work = work(kind);
        let needs_approval = kind.is_multiple_of(2);
        work.blast_radius = Some(if needs_approval { BlastRadius::High } else { BlastRadius::Low });
        let origin = Origin::Submitted { by: "somebody".to_owned(), revision };
        let now = crate::ambient::now();
        let mut job = Job::new(origin, work, now);
        let decided = self.agent.rooms.decided(&job);
        job.apply(decided, now).unwrap();
        let submission = Submission { job: Box::new(job.clone()), action: String::new(), key: None };
        let taken = self.bench.store.submit(&[submission], now).await;
        self.tell(|| format!("{} is submitted: {taken:?}", job.job_id));
        if taken.is_ok() {
            self.world.borrow_mut().submitted.insert(job.job_id, needs_approval);
            self.agent.driver.hear(Message::Submitted(vec![job])).await;
        }
    }

    /// Somebody else says of submitted work that it may run, or that it may not.
    pub(super) async fn decide(&mut self) {
        let Some(job_id) = (if self.calm { self.undecided() } else { self.any_submitted() }) else { return };
        let wish = if self.chance(700) {
            self.world.borrow_mut().approved.insert(job_id);
            Wish::Approve { digest: None }
        } else {
            Wish::Reject { reason: "no".to_owned() }
        };
        self.order(job_id, "somebody else", wish).await;
    }

    /// Somebody wants a job to end or to run again.
    async fn cancel_or_retry(&mut self) {
        let job_id = if self.chance(300) {
            self.any_submitted()
        } else {
            let path = path(&format!("action-{}", self.below(ACTIONS)));
            self.bench.store.jobs_at(&path).await.unwrap().first().map(|job| job.job_id)
        };
        let Some(job_id) = job_id else { return };
        let wish = if self.chance(500) { Wish::Cancel } else { Wish::Retry { from_step: None } };
        self.order(job_id, "somebody", wish).await;
    }

    /// Somebody stops the queue, or lets it go on.
    pub(super) async fn pause(&mut self, stops: bool) {
        let paused = stops.then(|| Paused {
            by: "somebody".to_owned(),
            since: crate::ambient::now(),
            reason: "a pause".to_owned(),
        });
        self.tell(|| format!("the queue is stopped: {stops}"));
        let (reply, _) = oneshot::channel();
        self.agent.driver.hear(Message::Pause(PauseOrder { paused, reply })).await;
    }

    async fn order(&mut self, job_id: JobId, by: &str, wish: Wish) {
        self.tell(|| format!("{job_id}: {wish:?}"));
        let (reply, _) = oneshot::channel();
        let order = Order { job_id, by: by.to_owned(), wish, reply };
        self.agent.driver.hear(Message::Operate(order)).await;
    }

    /// Submitted work that waits.
    fn undecided(&self) -> Option<JobId> {
        let mut jobs = self.agent.driver.slots.values().map(|slot| &slot.job);
        let is_undecided = |job: &&Job| {
            job.stage == Stage::Waiting && self.world.borrow().submitted.contains_key(&job.job_id)
        };
        jobs.find(is_undecided).map(|job| job.job_id)
    }

    fn any_submitted(&self) -> Option<JobId> {
        let mut world = self.world.borrow_mut();
        let ids: Vec<JobId> = world.submitted.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[world.random.index(ids.len())])
    }
}

/// The version of an action that is committed anew.
fn next_version(commits: &[BTreeMap<String, u64>], id: &str) -> u64 {
    let ever = commits.iter().filter_map(|files| files.get(id)).max();
    ever.map_or(0, |version| version + 1)
}

/// The action that a version of another waits for.
fn awaited(id: &str, version: u64) -> Option<String> {
    let number: u64 = id.strip_prefix("action-")?.parse().ok()?;
    (version % 3 == 1).then(|| number.checked_sub(1)).flatten().map(|number| format!("action-{number}"))
}

/// An action: what it asks for follows from its id and version.
pub(super) fn verdict(id: &str, version: u64) -> Verdict {
    let text = format!("id = \"{id}\"\nformula = \"f\"\ncontext = \"c\"\nsecrets = []\n");
    let action: Action = crate::validation::check_action(&path(id), text.as_bytes()).unwrap();
    let mut work = work(u64::from(id.as_bytes()[id.len() - 1]) + version);
    work.after = awaited(id, version).iter().map(|id| ActionId::parse(id).unwrap()).collect();
    Verdict::Sound { action: Box::new(action), work: Box::new(work) }
}

/// Work of one of several kinds.
fn work(kind: u64) -> Work {
    let secrets = SECRETS.iter().take(usize::try_from(kind % 3).unwrap());
    let when_full =
        [WhenFull::Queue, WhenFull::Skip, WhenFull::CancelOlder][usize::try_from(kind % 3).unwrap()];
    Work {
        base_job: super::nomad::PARENT.to_owned(),
        formula: Some(FormulaName::parse("f").unwrap()),
        body: Some(Body::Program("exit 0".to_owned())),
        blast_radius: Some(BlastRadius::Low),
        secrets: secrets.map(|name| SecretName::parse(name).unwrap()).collect(),
        timeout: Some("1m".parse().unwrap()),
        priority: u8::try_from(kind * 37 % 101).unwrap(),
        concurrency: kind.is_multiple_of(4).then(|| Concurrency {
            group: GROUP.to_owned(),
            limit: 1,
            when_full,
        }),
        retry: kind
            .is_multiple_of(2)
            .then(|| action::Retry { attempts: 2, on: vec![Cause::Lost, Cause::ExitCode] }),
        ..Work::default()
    }
}
