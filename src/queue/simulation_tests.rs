//! Random arrivals, launches and ends, beside a plain model of what may run, which shares no code with the queue.

use std::{collections::BTreeSet, time::Duration};

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::action::WhenFull;

/// How long a dispatch is under way, in seconds.
const LAUNCHING: u32 = 2;
/// How long a job is launched before it starts, in seconds.
const PENDING: u32 = 4;
/// The longest time that a task works, in seconds.
const WORK: u32 = 6;

fn at(second: u32) -> Timestamp {
    Timestamp::from_second(1_000_000 + i64::from(second)).unwrap()
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

fn waited(candidate: &Candidate, now: Timestamp) -> Duration {
    now.duration_since(candidate.submitted_at).unsigned_abs()
}

/// A job that comes some seconds after the one before it, and what its task takes.
#[derive(Debug, Clone)]
struct Arrival {
    after: u32,
    priority: u8,
    model: Option<u8>,
    formula: u8,
    place: u8,
    /// The limit of its group that it asks for.
    group: Option<u32>,
    work: u32,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let what = (0..3_u32, 0..=100_u8, option::of(0..4_u8), 0..3_u8, 0..2_u8, option::of(1..4_u32), 1..=WORK);
    what.prop_map(|(after, priority, model, formula, place, group, work)| Arrival {
        after,
        priority,
        model,
        formula,
        place,
        group,
        work,
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let table = |name: &'static str| {
        (0..3_usize, 0..4_usize)
            .prop_map(move |(every, one)| BTreeMap::from([("*".to_owned(), every), (name.to_owned(), one)]))
    };
    let caps = (0..6_usize, table("1"), table("1"), table("shared"), 0..4_usize);
    let times = (0..20_u32, 0..30_u32, 0..10_u32);
    (caps, times, 0..3_usize).prop_map(
        |((running, formula, model, group, pending), (each, patience, minimum), loaded)| Rules {
            caps: Caps { running, formula, model, group, pending },
            ageing: Ageing { each: seconds(each) },
            models: Models { loaded, patience: seconds(patience), minimum: seconds(minimum) },
        },
    )
}

fn candidate(arrival: &Arrival, second: u32) -> Candidate {
    let group = |limit| Concurrency { group: "shared".to_owned(), limit, when_full: WhenFull::Queue };
    Candidate {
        job_id: JobId::new(),
        submitted_at: at(second),
        priority: arrival.priority,
        formula: Some(arrival.formula.to_string()),
        model: arrival.model.map(|model| model.to_string()),
        concurrency: arrival.group.map(group),
        place: arrival.place.to_string().into(),
    }
}

/// A job that runs, and for how many more seconds.
#[derive(Debug, Clone)]
struct Working {
    candidate: Candidate,
    age: u32,
    left: u32,
}

/// The plain model: lists, and what the documentation says about them.
struct Plain<'rules> {
    rules: &'rules Rules,
    waiting: Vec<(Candidate, u32)>,
    working: Vec<Working>,
    loaded: Vec<(String, Timestamp)>,
    now: Timestamp,
}

impl Plain<'_> {
    fn count(&self, counts: impl Fn(&Candidate) -> bool) -> usize {
        self.working.iter().filter(|working| counts(&working.candidate)).count()
    }

    fn in_use(&self, model: &str) -> bool {
        self.count(|other| other.model.as_deref() == Some(model)) > 0
    }

    /// For each limit that a job counts against: the limit, and how many hold it.
    fn limits(&self, candidate: &Candidate) -> Vec<(usize, usize)> {
        let caps = &self.rules.caps;
        let limit = |table: &BTreeMap<String, usize>, name: &str| *table.get(name).unwrap_or(&table["*"]);
        let formula = candidate.formula.as_ref().unwrap();
        let mut limits = vec![
            (caps.running, self.working.len()),
            (limit(&caps.formula, formula), self.count(|other| other.formula.as_ref() == Some(formula))),
        ];
        if let Some(model) = &candidate.model {
            limits.push((limit(&caps.model, model), self.count(|other| other.model.as_ref() == Some(model))));
        }
        if let Some(group) = &candidate.concurrency {
            let held = self.count(|other| other.concurrency.is_some());
            limits.push((limit(&caps.group, &group.group), held));
            limits.push((usize::try_from(group.limit).unwrap(), held));
        }
        let pending = self.working.iter().filter(|working| working.age < PENDING);
        limits.push((
            caps.pending,
            pending.filter(|working| working.candidate.place == candidate.place).count(),
        ));
        limits.retain(|(limit, _)| *limit != 0);
        limits
    }

    fn is_loaded(&self, candidate: &Candidate) -> bool {
        candidate.model.as_ref().is_none_or(|model| self.loaded.iter().any(|(known, _)| known == model))
    }

    /// Whether a loaded model may make room now.
    fn may_go(&self, model: &str, since: Timestamp) -> bool {
        let loaded_for = self.now.duration_since(since).unsigned_abs();
        !self.in_use(model) && loaded_for >= self.rules.models.minimum
    }

    /// Whether neither a limit nor its model holds a job up.
    fn is_free(&self, candidate: &Candidate) -> bool {
        let models = &self.rules.models;
        let room = models.loaded == 0
            || self.loaded.len() < models.loaded
            || self.is_loaded(candidate)
            || self.loaded.iter().any(|(model, since)| self.may_go(model, *since));
        room && self.limits(candidate).iter().all(|(limit, held)| held < limit)
    }

    fn is_patient(&self, candidate: &Candidate) -> bool {
        waited(candidate, self.now) < self.rules.models.patience
    }

    /// Whether a job may have to let others go first for whose model it was waited long enough.
    fn may_yield(&self, candidate: &Candidate) -> bool {
        let claims = |other: &Candidate| !self.is_loaded(other) && !self.is_patient(other);
        candidate.model.is_some()
            && self
                .waiting
                .iter()
                .any(|(other, _)| claims(other) && self.place(other) < self.place(candidate))
    }

    /// The least is first.
    fn place(&self, candidate: &Candidate) -> (u64, bool, Timestamp, JobId) {
        let each = self.rules.ageing.each.as_secs();
        let aged = waited(candidate, self.now).as_secs().checked_div(each).unwrap_or(0);
        let below = 100 - (u64::from(candidate.priority) + aged).min(100);
        let swaps = self.is_patient(candidate) && !self.is_loaded(candidate) && !self.loaded.is_empty();
        (below, swaps, candidate.submitted_at, candidate.job_id)
    }

    /// The jobs that the queue must not pass over, the first of them first.
    fn owed(&self) -> Option<&Candidate> {
        let all = self.waiting.iter().map(|(candidate, _)| candidate);
        all.filter(|candidate| self.is_free(candidate) && !self.may_yield(candidate))
            .min_by_key(|candidate| self.place(candidate))
    }

    fn launching(&self) -> usize {
        self.working.iter().filter(|working| working.age < LAUNCHING).count()
    }
}

/// Launches `job_id` in the model and in the load, after it was looked at that it may be.
fn launch(plain: &mut Plain<'_>, load: &mut Load, job_id: JobId) -> Result<(), TestCaseError> {
    let index = plain.waiting.iter().position(|(candidate, _)| candidate.job_id == job_id).unwrap();
    let owed = plain.owed().map(|candidate| plain.place(candidate));
    let (candidate, work) = plain.waiting[index].clone();
    prop_assert!(plain.is_free(&candidate), "a limit is exceeded: {:?}", plain.limits(&candidate));
    prop_assert!(plain.launching() < LAUNCHES);
    prop_assert!(owed.is_none_or(|owed| plain.place(&candidate) <= owed), "somebody is passed over");
    plain.waiting.remove(index);
    let place = Some(Arc::clone(&candidate.place));
    let running = Running { launching: true, place, ..Running::of(&candidate, plain.now) };
    load.insert(job_id, running, plain.rules.models.loaded);
    let present: Vec<(String, Timestamp)> =
        load.loaded().iter().map(|known| (known.model.clone(), known.since)).collect();
    let counted = plain.rules.models.loaded != 0;
    for (model, since) in plain.loaded.iter().filter(|known| counted && !present.contains(known)) {
        prop_assert!(plain.may_go(model, *since), "{model} makes room too soon");
    }
    prop_assert!(!counted || present.len() <= plain.rules.models.loaded);
    plain.loaded = present;
    plain.working.push(Working { candidate, age: 0, left: work });
    prop_assert!(plain.working.iter().all(|working| plain.is_loaded(&working.candidate)));
    Ok(())
}

/// Lets a second pass for what runs.
fn pass(plain: &mut Plain<'_>, load: &mut Load) {
    for working in &mut plain.working {
        working.age += 1;
        working.left -= 1;
        let candidate = &working.candidate;
        if working.left == 0 {
            load.remove(candidate.job_id);
        } else if working.age == LAUNCHING || working.age == PENDING {
            let place = (working.age < PENDING).then(|| Arc::clone(&candidate.place));
            let running = Running { place, ..Running::of(candidate, plain.now) };
            load.insert(candidate.job_id, running, plain.rules.models.loaded);
        }
    }
    plain.working.retain(|working| working.left > 0);
}

proptest! {
    /// No limit is ever exceeded, no model makes room too soon, nobody who could run waits or is passed over by
    /// somebody with a later place, what is told of the holds is what holds, and all run in the end.
    #[test]
    fn limits_hold_places_are_kept_and_all_run(arrivals in vec(arrival(), 1..80), rules in rules()) {
        let mut plain =
            Plain { rules: &rules, waiting: Vec::new(), working: Vec::new(), loaded: Vec::new(), now: at(0) };
        let (mut queue, mut load) = (Queue::default(), Load::default());
        let mut arrivals = arrivals.into_iter().scan(0, |second, arrival| {
            *second += arrival.after;
            Some((*second, arrival))
        }).peekable();
        for second in 0.. {
            plain.now = at(second);
            while let Some((_, arrival)) = arrivals.next_if(|(comes, _)| *comes <= second) {
                let new = candidate(&arrival, second);
                queue.push(new.clone());
                plain.waiting.push((new, arrival.work));
            }
            loop {
                let explained = queue.explain(&load, &rules, plain.now);
                prop_assert_eq!(explained.len(), plain.waiting.len());
                let turn = explained.iter().find(|(_, hold)| *hold == Hold::Turn).map(|(job_id, _)| *job_id);
                let Some(next) = queue.next(&load, &rules, plain.now) else { break };
                prop_assert_eq!(Some(next), turn);
                launch(&mut plain, &mut load, next)?;
            }
            if plain.launching() < LAUNCHES {
                prop_assert!(plain.owed().is_none(), "{:?} waits for nothing", plain.owed());
            }
            pass(&mut plain, &mut load);
            if plain.waiting.is_empty() && plain.working.is_empty() && arrivals.peek().is_none() {
                break;
            }
            // Every ended task leaves room for another, and a model is swapped at least once in its least time.
            prop_assert!(second < 80 * (WORK + 10 + 3), "{} wait for ever", plain.waiting.len());
        }
    }

    /// However much of the highest priority and of other models keeps coming: whoever waits has its turn once it
    /// has aged to the highest priority and out of patience, as soon as a model has had its least time and what
    /// ran then has ended.
    #[test]
    fn nobody_starves(
        priority in 0..=100_u8,
        model in any::<bool>(),
        cap in 0..4_usize,
        loaded in 1..3_usize,
        rivals in vec((1..3_usize, 0..2_u8, 1..=WORK), 1..40),
    ) {
        let (each, patience, minimum) = (3, 60, 20);
        let rules = Rules {
            caps: Caps { running: cap, ..Caps::default() },
            ageing: Ageing { each: seconds(each) },
            models: Models { loaded, patience: seconds(patience), minimum: seconds(minimum) },
        };
        let bound = (u32::from(100 - priority) * each).max(patience) + minimum + 2 * WORK + 1;
        let of = |priority, model: Option<String>, second| Candidate {
            job_id: JobId::new(), submitted_at: at(second), priority, formula: None, model, concurrency: None,
            place: "".into(),
        };
        let (mut queue, mut load) = (Queue::default(), Load::default());
        let mut ends: BTreeMap<u32, Vec<JobId>> = BTreeMap::new();
        let mut known: BTreeMap<JobId, (Candidate, u32)> = BTreeMap::new();
        // They have all that there is before it comes.
        let patient = of(priority, model.then(|| "wanted".to_owned()), 2);
        let mut launched = BTreeSet::new();
        for (second, (count, model, work)) in (0..=bound + 2).zip(rivals.iter().cycle()) {
            if second == 2 {
                queue.push(patient.clone());
                known.insert(patient.job_id, (patient.clone(), 1));
            }
            // Those from before it count as waiting longer: there are no more than run at once.
            for _ in 0..*count {
                let rival = of(100, Some(model.to_string()), second.max(3));
                queue.push(rival.clone());
                known.insert(rival.job_id, (rival, *work));
            }
            for ended in ends.remove(&second).unwrap_or_default() {
                load.remove(ended);
            }
            while let Some(next) = queue.next(&load, &rules, at(second)) {
                let (candidate, work) = &known[&next];
                load.insert(next, Running::of(candidate, at(second)), loaded);
                ends.entry(second + work).or_default().push(next);
                launched.insert(next);
            }
            if launched.contains(&patient.job_id) {
                return Ok(());
            }
        }
        prop_assert!(false, "it waited {bound} s");
    }
}
