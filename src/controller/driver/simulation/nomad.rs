//! A stand-in for Nomad: one parameterized job, its children and their allocations, which misbehave as the real
//! ones were measured to.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    random::Random,
    vault::{Answer, Vault},
};
use crate::{
    ambient::simulated::Request,
    dispatch::base_job::MARKER,
    nomad::{Allocation, Event},
};

/// The parameterized job.
pub(super) const PARENT: &str = "runner";
/// How long a client asks for a secret that it may not read, in milliseconds; five minutes by default.
const PATIENCE: i64 = 300_000;
/// How long a stopped allocation takes to end, in milliseconds.
const KILL: i64 = 4_000;

/// What may go wrong, each so many times in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// A dispatch is answered with a child that was never made.
    pub(super) phantom: u64,
    /// An event is dropped without a word.
    pub(super) gap: u64,
    /// A list lacks what came last.
    pub(super) stale: u64,
    /// A running allocation's node goes away, each second.
    pub(super) node: u64,
    /// What has ended is collected, each second.
    pub(super) collected: u64,
}

#[derive(Debug)]
struct Child {
    id: String,
    token: String,
    meta: BTreeMap<String, String>,
    payload: Value,
    made_at: i64,
    /// When an allocation is placed; `None` once it was.
    placed_at: Option<i64>,
    stopped_at: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Pending,
    Running { from: i64, until: i64, code: i64 },
    Dead { from: Option<i64>, at: i64, code: i64, killed: bool },
}

#[derive(Debug)]
struct Placed {
    id: String,
    child: String,
    state: State,
    made_at: i64,
    login_at: i64,
    desired: &'static str,
    /// What is said of it until when, because its node is away.
    away: Option<(&'static str, i64)>,
    created: u64,
    modified: u64,
    has_log: bool,
}

/// One start of a task, as only the task itself knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) child: String,
    pub(super) allocation: String,
    /// The exit code that it gave by itself.
    pub(super) code: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Nomad {
    children: Vec<Child>,
    allocations: Vec<Placed>,
    index: u64,
    /// The value of the marker in the parameterized job's meta.
    marker: String,
    /// What changed and nobody has heard of: allocations and children, by id.
    changed: Vec<String>,
    /// The independent ledger of the tasks.
    pub(super) starts: Vec<Start>,
    /// The children that were dispatched by hand, unless they are among what was lost.
    pub(super) by_hand: Vec<String>,
    /// Those that nobody has asked for yet.
    unread: BTreeSet<String>,
    pub(super) faults: Faults,
    /// Until when nobody answers at its address.
    pub(super) down_until: i64,
    made: u64,
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).unwrap().to_string()
}

impl Nomad {
    /// A Nomad that has the parameterized job alone, registered with this marker.
    pub(super) fn new(marker: String) -> Self {
        Self { marker, ..Self::default() }
    }

    /// Whether nothing of it may still start or run.
    pub(super) fn is_quiet(&self) -> bool {
        let ended = |placed: &Placed| matches!(placed.state, State::Dead { .. });
        self.allocations.iter().all(ended)
            && self.children.iter().all(|child| child.placed_at.is_none() || child.stopped_at.is_some())
    }

    /// The child that an allocation belongs to, while Nomad knows it.
    pub(super) fn child_of(&self, allocation: &str) -> Option<&str> {
        self.allocations.iter().find(|placed| placed.id == allocation).map(|placed| placed.child.as_str())
    }

    /// Everything is gone, and the index begins anew: its data were lost.
    pub(super) fn forget(&mut self) {
        self.children.clear();
        self.allocations.clear();
        self.by_hand.clear();
        self.unread.clear();
        self.index = 0;
    }

    /// Lets time pass, to `now`.
    pub(super) fn pass(&mut self, now: i64, passed: i64, vault: &mut Vault, random: &mut Random) {
        let due = |child: &&mut Child| child.placed_at.is_some_and(|at| at <= now);
        let mut placed = Vec::new();
        for child in self.children.iter_mut().filter(due) {
            child.placed_at = None;
            if child.stopped_at.is_none() {
                placed.push(child.id.clone());
            }
        }
        for child in placed {
            self.place(child, now, random);
        }
        // What happens so many times in a second happens so many times less in a part of it.
        let happens = |random: &mut Random, each_second: u64| {
            let passed = u64::try_from(passed.clamp(1, 1000)).unwrap();
            random.chance(each_second) && random.below(1000) < passed
        };
        for index in 0..self.allocations.len() {
            self.advance(index, now, vault, random);
            if happens(random, self.faults.node) {
                self.lose(index, now, random);
            }
        }
        if happens(random, self.faults.collected) {
            self.collect(random);
        }
    }

    fn place(&mut self, child: String, now: i64, random: &mut Random) {
        self.made += 1;
        self.index += 1;
        let id = format!("allocation-{}", self.made);
        self.changed.push(id.clone());
        self.allocations.push(Placed {
            id,
            child,
            state: State::Pending,
            made_at: now,
            login_at: now + random.between(0, 1000),
            desired: "run",
            away: None,
            created: self.index,
            modified: self.index,
            has_log: false,
        });
    }

    /// What happens to one allocation on its node.
    fn advance(&mut self, index: usize, now: i64, vault: &mut Vault, random: &mut Random) {
        let placed = &mut self.allocations[index];
        let child = self.children.iter().find(|child| child.id == placed.child);
        let stopped = child.and_then(|child| child.stopped_at);
        let dead = |from, code, killed| State::Dead { from, at: now, code, killed };
        let next = match placed.state {
            State::Pending if stopped.is_some_and(|at| at + KILL <= now) => Some(dead(None, 0, true)),
            // A client that was told to stop it starts nothing.
            State::Pending if stopped.is_some() => None,
            State::Pending if placed.made_at + PATIENCE <= now => Some(dead(None, 1, false)),
            State::Pending => {
                if placed.login_at <= now {
                    vault.log_in(&placed.id);
                }
                let secrets = child.and_then(|child| child.meta.get("secrets")).cloned().unwrap_or_default();
                let secrets: Vec<String> =
                    secrets.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                vault.opens(&placed.id, &secrets).then(|| {
                    let (until, code) = (now + random.between(0, 10_000), i64::from(random.chance(300)));
                    State::Running { from: now, until, code }
                })
            }
            State::Running { from, .. } if stopped.is_some_and(|at| at + KILL <= now) => {
                Some(dead(Some(from), 143, true))
            }
            State::Running { from, until, code } if until <= now => Some(dead(Some(from), code, false)),
            State::Running { .. } | State::Dead { .. } => None,
        };
        let back = placed.away.is_some_and(|(_, until)| until <= now);
        if back {
            placed.away = None;
        }
        if let Some(next) = next {
            match &next {
                State::Running { .. } => {
                    let (child, allocation) = (placed.child.clone(), placed.id.clone());
                    self.starts.push(Start { child, allocation, code: None });
                }
                State::Dead { code, killed: false, from: Some(_), .. } => {
                    let start = self.starts.iter_mut().rfind(|start| start.allocation == placed.id);
                    start.unwrap().code = Some(*code);
                }
                State::Dead { .. } | State::Pending => {}
            }
            placed.has_log = true;
            placed.state = next;
        } else if !back {
            return;
        }
        self.touch(index);
    }

    fn touch(&mut self, index: usize) {
        self.index += 1;
        let placed = &mut self.allocations[index];
        placed.modified = self.index;
        self.changed.push(placed.id.clone());
    }

    /// An allocation's node goes away: it is waited for, or a replacement is placed while the original goes on.
    fn lose(&mut self, index: usize, now: i64, random: &mut Random) {
        let placed = &mut self.allocations[index];
        if placed.away.is_some() || matches!(placed.state, State::Dead { .. }) {
            return;
        }
        let until = now + random.between(1_000, 60_000);
        if random.chance(500) {
            placed.away = Some(("unknown", until));
        } else {
            placed.away = Some(("lost", until));
            placed.desired = "stop";
            let child = placed.child.clone();
            self.place(child, now, random);
        }
        self.touch(index);
    }

    /// Collects what has ended, or the logs of it.
    fn collect(&mut self, random: &mut Random) {
        let ended = |placed: &Placed| matches!(placed.state, State::Dead { .. });
        if random.chance(500) {
            self.allocations
                .iter_mut()
                .filter(|placed| ended(placed))
                .for_each(|placed| placed.has_log = false);
            return;
        }
        let live = |child: &Child| {
            child.placed_at.is_some()
                || self.allocations.iter().any(|placed| placed.child == child.id && !ended(placed))
        };
        let kept: Vec<String> = self.children.iter().filter(|c| live(c)).map(|c| c.id.clone()).collect();
        self.children.retain(|child| kept.contains(&child.id));
        self.allocations.retain(|placed| kept.contains(&placed.child));
    }

    /// What the event stream brings; some of it is lost.
    pub(super) fn events(&mut self, now: i64, random: &mut Random) -> Vec<Event> {
        let mut events = Vec::new();
        for id in std::mem::take(&mut self.changed) {
            if random.chance(self.faults.gap) {
                continue;
            }
            match self.allocations.iter().find(|placed| placed.id == id) {
                Some(placed) => {
                    let allocation: Allocation = serde_json::from_value(view(placed, now)).unwrap();
                    events.push(Event::Allocation(Box::new(allocation)));
                }
                None => events.push(Event::Job { id }),
            }
        }
        events
    }

    /// Somebody dispatches a child by hand.
    pub(super) fn dispatch_by_hand(&mut self, now: i64, random: &mut Random) {
        let body = json!({ "Meta": { "secrets": "" }, "Payload": "c2NyaXB0" });
        let child = self.make(&body, String::new(), now, random);
        self.unread.insert(child.clone());
        self.by_hand.push(child);
    }

    fn make(&mut self, body: &Value, token: String, now: i64, random: &mut Random) -> String {
        let prefix = body["IdPrefixTemplate"].as_str().map(|prefix| format!("{prefix}-")).unwrap_or_default();
        let hexadecimal = random.next() & 0xffff_ffff;
        let id = format!("{PARENT}/dispatch-{prefix}{}-{hexadecimal:08x}", now / 1000);
        let meta = serde_json::from_value(body["Meta"].clone()).unwrap_or_default();
        self.changed.push(id.clone());
        let placed_at =
            now + if random.chance(100) { random.between(0, 60_000) } else { random.between(0, 500) };
        self.children.push(Child {
            id: id.clone(),
            token,
            meta,
            payload: body["Payload"].clone(),
            made_at: now,
            placed_at: Some(placed_at),
            stopped_at: None,
        });
        id
    }

    fn status(&self, child: &Child) -> &'static str {
        let ended = |placed: &Placed| matches!(placed.state, State::Dead { .. }) || is_lost(placed);
        let mut own = self.allocations.iter().filter(|placed| placed.child == child.id);
        match child.placed_at {
            Some(_) if child.stopped_at.is_some() => "dead",
            Some(_) => "pending",
            None if own.all(ended) => "dead",
            None => "running",
        }
    }

    fn record(&self, child: &Child) -> Value {
        json!({
            "ID": child.id, "ParentID": PARENT, "Status": self.status(child), "Stop": child.stopped_at.is_some(),
            "Meta": child.meta, "Payload": child.payload, "DispatchIdempotencyToken": child.token,
            "SubmitTime": child.made_at * 1_000_000,
        })
    }

    pub(super) fn answer(&mut self, request: &Request, now: i64, random: &mut Random) -> Answer {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let of_query =
            |name: &str| request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let filter = of_query("filter").unwrap_or_default();
        // What came in the last seconds may be missing in a list.
        let since = if random.chance(self.faults.stale) { now - 3_000 } else { i64::MAX };
        match (request.method.as_str(), path.as_slice()) {
            ("PUT", ["job", PARENT, "dispatch"]) => {
                let token = of_query("idempotency_token").unwrap_or_default().to_owned();
                let known = self.children.iter().find(|child| !token.is_empty() && child.token == token);
                let child = match known.map(|child| child.id.clone()) {
                    Some(child) => child,
                    None => self.make(&request.body, token, now, random),
                };
                let told = if random.chance(self.faults.phantom) { format!("{child}0") } else { child };
                (200, json!({ "DispatchedJobID": told }))
            }
            ("PUT", ["job", other, "dispatch"]) => {
                (500, json!(format!("parameterized job {other:?} not found")))
            }
            ("GET", ["job", PARENT]) => (
                200,
                json!({ "ID": PARENT, "Meta": { MARKER: self.marker }, "Stop": false, "JobModifyIndex": 1 }),
            ),
            ("GET", ["job", id]) => match self.children.iter().find(|child| child.id == *id) {
                // An event is told before what it tells of can be read.
                Some(_) if self.unread.remove(*id) => (404, json!("job not found")),
                Some(child) => (200, self.record(child)),
                None => (404, json!("job not found")),
            },
            ("DELETE", ["job", id]) => match self.children.iter_mut().find(|child| child.id == *id) {
                Some(child) => {
                    child.stopped_at.get_or_insert(now);
                    self.allocations.iter_mut().filter(|p| p.child == *id).for_each(|p| p.desired = "stop");
                    (200, json!({}))
                }
                None => (404, json!("job not found")),
            },
            ("GET", ["job", id, "allocations"]) => {
                let own = self.allocations.iter().filter(|placed| placed.child == *id);
                (200, own.map(|placed| view(placed, now)).collect())
            }
            ("GET", ["job", _, "evaluations"]) => (200, json!([])),
            ("GET", ["jobs"]) => {
                let prefix = of_query("prefix").unwrap_or_default();
                let listed = self.children.iter().filter(|child| {
                    child.id.starts_with(prefix)
                        && child.made_at < since
                        && (filter.is_empty() || self.status(child) != "dead")
                });
                (200, listed.map(|child| self.record(child)).collect())
            }
            ("GET", ["allocations"]) => {
                let live = |placed: &&Placed| {
                    placed.made_at < since && !matches!(placed.state, State::Dead { .. }) && !is_lost(placed)
                };
                (200, self.allocations.iter().filter(live).map(|placed| view(placed, now)).collect())
            }
            ("GET", ["client", "fs", "logs", id]) => {
                match self.allocations.iter().find(|placed| placed.id == *id && placed.has_log) {
                    Some(_) => (200, json!("what it printed\n")),
                    None => (404, json!(format!("Unknown allocation {id:?}"))),
                }
            }
            ("GET", ["client", "fs", "readat", _]) => (500, json!("open report: no such file or directory")),
            _ => (404, json!(format!("the stand-in does not know {request:?}"))),
        }
    }
}

fn is_lost(placed: &Placed) -> bool {
    matches!(placed.away, Some(("lost", _)))
}

/// An allocation as Nomad tells it.
fn view(placed: &Placed, now: i64) -> Value {
    let never = "0001-01-01T00:00:00Z";
    let (status, state, failed, from, at) = match placed.state {
        State::Pending => ("pending", "pending", false, None, None),
        State::Running { from, .. } => ("running", "running", false, Some(from), None),
        // Killed is complete, and so is what was replaced: complete is not success.
        State::Dead { from, at, killed: true, .. } | State::Dead { from, at, code: 0, .. } => {
            ("complete", "dead", false, from, Some(at))
        }
        State::Dead { from, at, .. } => ("failed", "dead", true, from, Some(at)),
    };
    let status = placed.away.map_or(status, |(status, _)| status);
    let mut events = vec![];
    let event = |kind: &str, words: &str, details: Value| json!({ "Type": kind, "DisplayMessage": words, "Details": details, "Time": now * 1_000_000 });
    if placed.state == State::Pending {
        events.push(event("Template", "Missing: vault.read(secret/data/consign/go)", json!({})));
    }
    if let State::Dead { from, code, killed, .. } = placed.state {
        if killed {
            events.push(event("Killing", "Sent interrupt", json!({})));
        }
        if from.is_some() {
            let details = json!({ "exit_code": code.to_string(), "oom_killed": "false", "signal": "0" });
            events.push(event("Terminated", &format!("Exit Code: {code}"), details));
        } else if !killed {
            events.push(event(
                "Killing",
                "Template failed: vault.read(secret/data/consign/go): 403",
                json!({}),
            ));
        }
    }
    json!({
        "ID": placed.id, "JobID": placed.child, "NodeName": "node", "ClientStatus": status,
        "DesiredStatus": placed.desired, "CreateIndex": placed.created, "ModifyIndex": placed.modified,
        "TaskStates": { PARENT: {
            "State": state, "Failed": failed, "Restarts": 0,
            "StartedAt": from.map_or_else(|| never.to_owned(), time),
            "FinishedAt": at.map_or_else(|| never.to_owned(), time),
            "Events": events,
        } },
    })
}
