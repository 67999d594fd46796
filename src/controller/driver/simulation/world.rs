//! Everything around the agent: servers, branch, clock and chance.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{nomad::Nomad, random::Random, vault::Vault};
use crate::{
    ambient::simulated::{Reply, Request, Server, Surroundings},
    ids::JobId,
};

/// When every schedule begins, in milliseconds since 1970.
const BEGIN: i64 = 1_800_000_000_000;

#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    /// The true time, in milliseconds since 1970.
    pub(super) now: i64,
    /// How far the agent's clock is ahead of it, in milliseconds.
    pub(super) skew: i64,
    pub(super) nomad: Nomad,
    pub(super) vault: Vault,
    /// The action files of each commit of the branch, by action id: their versions.
    pub(super) commits: Vec<BTreeMap<String, u64>>,
    /// Work that was submitted and taken, and whether it needs somebody's word.
    pub(super) submitted: BTreeMap<JobId, bool>,
    /// What somebody said yes to.
    pub(super) approved: BTreeSet<JobId>,
    /// The result files on the branch, by path.
    pub(super) results: BTreeMap<String, Value>,
    /// How many times in a thousand a request fails, before or after what it asks for was done.
    pub(super) failures: u64,
    /// How many requests are answered before the agent dies.
    pub(super) death_in: Option<u64>,
    /// Whether it is dead.
    pub(super) dead: bool,
    /// Told when it dies.
    pub(super) death: Arc<Notify>,
    /// What happened, where somebody wants to know.
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, marker: String, secrets: &[&str]) -> Self {
        Self {
            random: Random::new(seed),
            now: BEGIN,
            skew: 0,
            nomad: Nomad::new(marker),
            vault: Vault::with_secrets(secrets),
            commits: vec![BTreeMap::new()],
            submitted: BTreeMap::new(),
            approved: BTreeSet::new(),
            results: BTreeMap::new(),
            failures: 0,
            death_in: None,
            dead: false,
            death: Arc::default(),
            trace: None,
        }
    }

    /// How long the schedule has gone on, in milliseconds.
    pub(super) fn age(&self) -> i64 {
        self.now - BEGIN
    }

    /// Lets milliseconds pass.
    pub(super) fn pass(&mut self, milliseconds: i64) {
        self.now += milliseconds;
        self.nomad.pass(self.now, milliseconds, &mut self.vault, &mut self.random);
    }

    /// Writes down what happens.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let age = self.age();
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>9.3} s  {}",
                Timestamp::from_millisecond(age).unwrap().duration_since(Timestamp::UNIX_EPOCH).as_secs_f64(),
                what()
            ));
        }
    }

    fn die(&mut self) -> Reply {
        self.dead = true;
        self.death.notify_one();
        Reply::Death
    }

    fn done(&mut self, request: &Request) -> Reply {
        let (status, body) = match request.server {
            Server::Nomad => self.nomad.answer(request, self.now, &mut self.random),
            Server::Vault => self.vault.answer(request, &mut self.random),
        };
        // Nomad gives errors, and logs, as plain text.
        let text = match body {
            Value::Null => String::new(),
            Value::String(text) => text,
            body => body.to_string(),
        };
        Reply::Answer(status, text)
    }
}

impl Surroundings for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now + self.skew).unwrap()
    }

    fn random_bits(&mut self) -> u128 {
        u128::from(self.random.next()) << 64 | u128::from(self.random.next())
    }

    fn answer(&mut self, request: Request) -> Reply {
        if self.dead {
            return Reply::Death;
        }
        let took = self.random.between(1, 30);
        self.pass(took);
        let dies = self.death_in == Some(0);
        self.death_in = self.death_in.map(|left| left.saturating_sub(1));
        // Where a log is not to be had for another reason, it is asked for again after a pause that nobody simulates.
        let fails = self.random.chance(self.failures) && request.path[0] != "client";
        // Half of what fails was done all the same.
        let undone = (dies || fails) && self.random.chance(500);
        let reply = if request.server == Server::Nomad && self.nomad.down_until > self.now {
            Reply::Nobody
        } else if undone {
            Reply::Answer(500, json!({ "errors": ["internal error"] }).to_string())
        } else {
            let reply = self.done(&request);
            let broken = Reply::Answer(502, "<html>Bad Gateway</html>".to_owned());
            if fails { broken } else { reply }
        };
        self.tell(|| {
            format!(
                "{} {} -> {reply:?}{}",
                request.method,
                request.path.join("/"),
                if dies { ", and dies" } else { "" }
            )
        });
        if dies { self.die() } else { reply }
    }
}
