//! One schedule: what happens, in what order, until all has ended.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use tokio::sync::oneshot;

use super::{
    super::{super::scan, Message, steps::Held},
    agent::{Agent, Bench},
    nomad::Faults,
    oracle, people,
    world::World,
};
use crate::{
    ambient::simulated,
    ids::Revision,
    intake::{Finding, Findings},
};

/// For how long things go wrong, in milliseconds.
const TROUBLE: i64 = 60_000;
/// How long after that everything must have ended, in milliseconds: three attempts, each of which may wait for a
/// node and at the gate.
const CALM: i64 = 3 * 3_600_000;
/// The most turns of a schedule.
const TURNS: usize = 20_000;
/// The secrets that there are.
pub(super) const SECRETS: [&str; 2] = ["A", "B"];
const HOUR: i64 = 3_600_000;
const DECADE: i64 = 10 * 365 * 24 * HOUR;

pub(super) struct Schedule<'bench> {
    pub(super) bench: &'bench Bench,
    pub(super) world: Rc<RefCell<World>>,
    pub(super) agent: Agent,
    /// Steps that were begun and not run yet.
    steps: Vec<Held>,
    deaths: u64,
    pub(super) calm: bool,
}

/// What came of a schedule.
pub(super) struct Outcome {
    /// Which promise was broken, if one was.
    pub(super) result: Result<(), String>,
    pub(super) trace: Vec<String>,
    pub(super) deaths: u64,
    pub(super) starts: usize,
}

impl<'bench> Schedule<'bench> {
    pub(super) async fn new(bench: &'bench Bench, seed: u64, traced: bool) -> Self {
        bench.clear().await;
        let mut world = World::new(seed, bench.marker(), &SECRETS);
        world.trace = traced.then(Vec::new);
        let world = Rc::new(RefCell::new(world));
        simulated::set(Some(Rc::<RefCell<World>>::clone(&world)));
        let agent = bench.start().await;
        Self { bench, world, agent, steps: Vec::new(), deaths: 0, calm: false }
    }

    pub(super) async fn run(mut self) -> Outcome {
        let result = self.play().await;
        simulated::set(None);
        let mut world = self.world.borrow_mut();
        let starts = world.nomad.starts.len();
        Outcome { result, trace: world.trace.take().unwrap_or_default(), deaths: self.deaths, starts }
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        self.world.borrow_mut().tell(what);
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.world.borrow_mut().random.below(end)
    }

    pub(super) fn chance(&self, of: u64) -> bool {
        self.world.borrow_mut().random.chance(of)
    }

    fn pass(&self, milliseconds: i64) {
        self.world.borrow_mut().pass(milliseconds);
    }

    async fn play(&mut self) -> Result<(), String> {
        for _ in 0..TURNS {
            if !self.calm && self.world.borrow().age() > TROUBLE {
                self.calm_down().await;
            }
            match self.below(100) {
                0..35 => self.step().await,
                35..60 => self.deliver().await,
                60..68 => self.hear().await,
                68..72 => self.scan().await,
                72..76 => self.look().await,
                76..80 => self.publish().await,
                80..83 if !self.calm => self.commit(),
                83..86 if !self.calm => self.operate().await,
                83..84 => self.decide().await,
                86..87 if !self.calm => self.die().await,
                87..90 if !self.calm => self.trouble().await,
                _ => self.wait(),
            }
            if self.world.borrow().dead {
                self.die().await;
            }
            self.attend().await;
            oracle::memberships(self.bench, &self.world).await?;
            oracle::groups(&self.agent)?;
            if self.calm && self.is_over().await {
                return oracle::results(self.bench, &self.world).await;
            }
            if self.world.borrow().age() > TROUBLE + CALM {
                break;
            }
        }
        let live: Vec<String> = self
            .bench
            .store
            .live()
            .await
            .unwrap()
            .iter()
            .map(|job| format!("{} in {:?}", job.name(), job.stage))
            .collect();
        Err(format!("after {} s it does not end: {live:?}", self.world.borrow().age() / 1000))
    }

    /// What the driver does between two messages.
    async fn attend(&mut self) {
        let now = crate::ambient::now();
        if self.agent.driver.wake_at().is_some_and(|at| at <= now) {
            self.agent.driver.wake();
        }
        self.agent.driver.attend().await;
        while let Ok(step) = self.agent.begun.try_recv() {
            self.steps.push(step);
        }
    }

    /// Runs one of the steps that were begun, in which the agent may die.
    async fn step(&mut self) {
        if self.steps.is_empty() {
            return self.wait();
        }
        let index = self.world.borrow_mut().random.index(self.steps.len());
        let step = self.steps.remove(index);
        if !self.calm && self.chance(30) {
            let after = self.below(8);
            self.world.borrow_mut().death_in = Some(after);
        }
        let death = std::sync::Arc::clone(&self.world.borrow().death);
        tokio::select! {
            biased;
            () = step => {}
            () = death.notified() => {}
        }
        self.world.borrow_mut().death_in = None;
    }

    /// The driver hears a message.
    async fn deliver(&mut self) {
        match self.agent.driver.inbox.try_recv() {
            Ok(message) => {
                if let Message::Performed(job_id, performed) = &message {
                    let told = match &**performed {
                        Ok(performed) => format!("{:?}", performed.job.stage),
                        Err(error) => error.to_string(),
                    };
                    self.tell(|| format!("{job_id}: {told}"));
                }
                self.agent.driver.hear(message).await;
            }
            Err(_) => self.wait(),
        }
    }

    /// The event stream brings what it does not drop.
    async fn hear(&mut self) {
        let events = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            if world.nomad.down_until > world.now {
                return;
            }
            world.nomad.events(world.now, &mut world.random)
        };
        self.agent.driver.hear(Message::Heard(events)).await;
    }

    async fn scan(&mut self) {
        let scanned = scan::scan(&self.agent.rooms).await;
        if let Ok(scan) = scanned {
            self.agent.driver.hear(Message::Scanned(scan)).await;
        }
    }

    /// Looks at the branch, as the watch does: what differs between the revision on record and the tip.
    async fn look(&mut self) {
        let revision = self.bench.store.revision();
        let (before, after, tip) = {
            let world = self.world.borrow();
            let seen = revision.as_ref().map_or(0, number);
            let tip = world.commits.len() - 1;
            if seen == tip {
                return;
            }
            (world.commits[seen].clone(), world.commits[tip].clone(), tip)
        };
        self.tell(|| format!("the branch is at {tip}"));
        let findings = Findings {
            revision: Revision::parse(&format!("{tip:040x}")).unwrap(),
            rewritten: false,
            files: files(&before, &after),
            past: Vec::new(),
        };
        let (reply, _) = oneshot::channel();
        self.agent.driver.hear(Message::Found(findings, reply)).await;
    }

    /// Pushes the results that wait, as the publisher does; the push may fail, and the agent may die before it has
    /// taken note of it.
    async fn publish(&mut self) {
        let pending = self.bench.store.pending_results(1000).await.unwrap();
        if pending.is_empty() || !self.calm && self.chance(200) {
            return;
        }
        for result in &pending {
            self.tell(|| format!("{} is pushed", result.path));
            let content = serde_json::from_str(&result.content).unwrap();
            self.world.borrow_mut().results.insert(result.path.clone(), content);
        }
        if !self.calm && self.chance(100) {
            return self.die().await;
        }
        // Where the disk refuses it, they are pushed again.
        drop(self.bench.store.results_pushed(&pending, crate::ambient::now()).await);
    }

    /// Something begins to go wrong, or is over.
    async fn trouble(&mut self) {
        let told = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            let random = &mut world.random;
            match random.below(12) {
                0..2 => {
                    world.vault.sealed = !world.vault.sealed;
                    format!("Vault is sealed: {}", world.vault.sealed)
                }
                2 => {
                    world.nomad.down_until = world.now + random.between(0, 30_000);
                    "Nomad is away".to_owned()
                }
                3..6 => {
                    let mut often = |most: u64| random.below(2) * random.below(most);
                    world.nomad.faults = Faults {
                        phantom: often(500),
                        gap: often(800),
                        stale: often(500),
                        node: often(100),
                        collected: often(300),
                    };
                    world.vault.undone = often(300);
                    world.failures = often(200);
                    format!(
                        "{:?}, undone {}, failures {}",
                        world.nomad.faults, world.vault.undone, world.failures
                    )
                }
                6 => {
                    let jumps = [0, HOUR, -HOUR, DECADE, -DECADE];
                    world.skew = jumps[random.index(jumps.len())];
                    format!("the agent's clock is {} s ahead", world.skew / 1000)
                }
                7 if random.chance(200) => {
                    world.nomad.forget();
                    "Nomad's data are lost".to_owned()
                }
                8 => String::new(),
                _ => {
                    world.nomad.faults = Faults::default();
                    (world.vault.sealed, world.vault.undone, world.failures) = (false, 0, 0);
                    "all is well for now".to_owned()
                }
            }
        };
        let full = told.is_empty() && self.chance(500);
        self.set_disk_full(full).await;
        self.tell(|| if told.is_empty() { format!("the disk is full: {full}") } else { told });
    }

    async fn set_disk_full(&self, full: bool) {
        self.bench
            .store
            .execute(if full { "PRAGMA query_only = ON" } else { "PRAGMA query_only = OFF" })
            .await;
    }

    /// From now on nothing goes wrong.
    async fn calm_down(&mut self) {
        self.calm = true;
        self.set_disk_full(false).await;
        self.commit_what_is_waited_for();
        self.pause(false).await;
        let mut world = self.world.borrow_mut();
        world.nomad.faults = Faults::default();
        world.nomad.down_until = 0;
        (world.vault.sealed, world.vault.undone, world.failures) = (false, 0, 0);
        world.tell(|| "nothing goes wrong any more".to_owned());
    }

    /// The agent dies, with all that it had in memory, and starts again.
    async fn die(&mut self) {
        self.deaths += 1;
        self.steps.clear();
        self.tell(|| "the agent starts again".to_owned());
        {
            let mut world = self.world.borrow_mut();
            (world.dead, world.death_in) = (false, None);
            world.death = std::sync::Arc::default();
        }
        self.agent = self.bench.start().await;
    }

    /// Time passes: while there is something to do a little, else until something is due.
    fn wait(&self) {
        let idle = self.steps.is_empty() && self.agent.driver.inbox.is_empty();
        let most = if !idle {
            500
        } else if self.calm {
            10_000
        } else {
            3_000
        };
        let some = self.world.borrow_mut().random.between(1, most);
        self.pass(some);
    }

    /// Whether all has ended and is where it belongs.
    async fn is_over(&self) -> bool {
        if !self.agent.driver.slots.is_empty()
            || !self.steps.is_empty()
            || !self.world.borrow().nomad.is_quiet()
        {
            return false;
        }
        let pending = self.bench.store.pending_results(1).await.unwrap();
        let seen = self.bench.store.revision().as_ref().map_or(0, number);
        pending.is_empty() && seen == self.world.borrow().commits.len() - 1
    }
}

/// The number of a commit.
fn number(revision: &Revision) -> usize {
    usize::from_str_radix(revision.as_str(), 16).unwrap()
}

/// The path of an action file.
pub(super) fn path(id: &str) -> String {
    format!("actions/{id}.toml")
}

/// What differs between two commits, in the order of the paths.
fn files(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<Finding> {
    let gone =
        before.keys().filter(|id| !after.contains_key(*id)).map(|id| Finding::Deleted { path: path(id) });
    let written = after.iter().filter(|(id, version)| before.get(*id) != Some(version));
    let written = written.map(|(id, version)| Finding::Written {
        path: path(id),
        blob: format!("{version:040x}"),
        verdict: people::verdict(id, *version),
    });
    gone.chain(written).collect()
}
