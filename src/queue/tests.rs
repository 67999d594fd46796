use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::action::WhenFull;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn candidate(priority: u8, second: i64) -> Candidate {
    Candidate {
        job_id: JobId::new(),
        submitted_at: at(second),
        priority,
        formula: None,
        model: None,
        concurrency: None,
    }
}

fn with_model(second: i64, model: &str) -> Candidate {
    Candidate { model: Some(model.to_owned()), ..candidate(50, second) }
}

fn of_group(second: i64, limit: u32) -> Candidate {
    let concurrency = Concurrency { group: "deploy".to_owned(), limit, when_full: WhenFull::Queue };
    Candidate { concurrency: Some(concurrency), ..candidate(50, second) }
}

fn queue(candidates: &[Candidate]) -> Queue {
    let mut queue = Queue::default();
    for candidate in candidates {
        queue.push(candidate.clone());
    }
    queue
}

/// Launches all that is free, and gives the order.
fn drain(queue: &mut Queue, load: &Load, rules: &Rules, now: Timestamp) -> Vec<JobId> {
    std::iter::from_fn(|| queue.next(load, rules, now)).collect()
}

fn ids(candidates: &[&Candidate]) -> Vec<JobId> {
    candidates.iter().map(|candidate| candidate.job_id).collect()
}

#[test]
fn priority_comes_first_then_first_come() {
    let (low, late, early) = (candidate(10, 1), candidate(50, 3), candidate(50, 2));
    let mut queue = queue(&[low.clone(), late.clone(), early.clone()]);
    let order = drain(&mut queue, &Load::default(), &Rules::default(), at(4));
    assert_eq!(order, ids(&[&early, &late, &low]));
}

#[test]
fn waiting_raises_the_priority() {
    let (old, new) = (candidate(40, 0), candidate(49, 600));
    let mut queue = queue(&[old.clone(), new.clone()]);
    assert_eq!(
        drain(&mut queue, &Load::default(), &Rules::default(), at(600)),
        ids(&[&old, &new]),
        "ten minutes are ten points"
    );
}

#[test]
fn a_mixed_list_is_drained_by_model() {
    let list = [with_model(1, "a"), with_model(2, "b"), with_model(3, "a"), with_model(4, "b")];
    let rules = Rules {
        models: Models { loaded: 1, patience: Duration::from_mins(30), minimum: Duration::ZERO },
        ..Rules::default()
    };
    let (mut queue, mut load, mut order) = (queue(&list), Load::default(), Vec::new());
    while let Some(job_id) = queue.next(&load, &rules, at(10)) {
        let next = list.iter().find(|candidate| candidate.job_id == job_id).unwrap();
        load.insert(job_id, Running::of(next, at(10)), 1);
        load.remove(job_id);
        order.push(job_id);
    }
    assert_eq!(order, ids(&[&list[0], &list[2], &list[1], &list[3]]));
}

#[test]
fn another_model_waits_while_the_loaded_one_is_used_and_for_its_least_time() {
    let (first, other) = (with_model(0, "a"), with_model(1, "b"));
    let rules = Rules {
        models: Models { loaded: 1, patience: Duration::ZERO, minimum: Duration::from_mins(1) },
        ..Rules::default()
    };
    let (mut queue, mut load) = (queue(std::slice::from_ref(&other)), Load::default());
    load.insert(first.job_id, Running::of(&first, at(0)), 1);
    let hold = |until| Hold::Model { loaded: vec!["a".to_owned()], until };
    assert_eq!(queue.next(&load, &rules, at(300)), None);
    assert_eq!(queue.explain(&load, &rules, at(300)), [(other.job_id, hold(None))]);
    load.remove(first.job_id);
    assert_eq!(queue.next(&load, &rules, at(30)), None);
    assert_eq!(queue.explain(&load, &rules, at(30)), [(other.job_id, hold(Some(at(60))))]);
    assert_eq!(queue.wake_at(&load, &rules, at(30)), Some(at(60)));
    assert_eq!(queue.next(&load, &rules, at(60)), Some(other.job_id));
}

#[test]
fn nobody_is_passed_over_for_the_loaded_model_for_ever() {
    let rules = Rules {
        models: Models { loaded: 1, patience: Duration::from_mins(5), minimum: Duration::ZERO },
        ageing: Ageing { each: Duration::ZERO },
        ..Rules::default()
    };
    let (used, other, new) = (with_model(0, "a"), with_model(1, "b"), with_model(400, "a"));
    let (mut queue, mut load) = (queue(&[other.clone(), new.clone()]), Load::default());
    load.insert(used.job_id, Running::of(&used, at(0)), 1);
    load.remove(used.job_id);
    let order = [queue.next(&load, &rules, at(200)), queue.next(&load, &rules, at(200))];
    assert_eq!(order, [Some(new.job_id), Some(other.job_id)]);
    queue.push(other.clone());
    queue.push(new.clone());
    assert_eq!(queue.next(&load, &rules, at(401)), Some(other.job_id));
}

#[test]
fn a_full_limit_names_who_holds_it_and_holds_nobody_else() {
    let (first, second, free) = (of_group(0, 1), of_group(1, 1), candidate(0, 2));
    let (mut queue, mut load) = (queue(&[second.clone(), free.clone()]), Load::default());
    load.insert(first.job_id, Running::of(&first, at(0)), 0);
    let full =
        Full { scope: Scope::Group("deploy".to_owned()), limit: 1, holders: vec![first.job_id.to_string()] };
    let rules = Rules::default();
    assert_eq!(
        queue.explain(&load, &rules, at(3)),
        [(second.job_id, Hold::Full(Arc::new(full))), (free.job_id, Hold::Turn)]
    );
    assert_eq!(queue.next(&load, &rules, at(3)), Some(free.job_id));
    assert_eq!(queue.next(&load, &rules, at(3)), None);
    assert_eq!(queue.of_group("deploy"), [second.job_id]);
    assert_eq!(load.holders(&Scope::Group("deploy".to_owned())), [first.job_id]);
    load.remove(first.job_id);
    assert_eq!(queue.next(&load, &rules, at(3)), Some(second.job_id));
}

#[test]
fn nothing_is_launched_while_an_operator_paused_it_and_all_say_so() {
    let job = candidate(50, 0);
    let (mut queue, rules, load) = (queue(std::slice::from_ref(&job)), Rules::default(), Load::default());
    let paused = Paused { by: "ann".to_owned(), since: at(0), reason: "an upgrade".to_owned() };
    queue.pause(Some(paused.clone()));
    assert_eq!(queue.next(&load, &rules, at(1)), None);
    assert_eq!(queue.explain(&load, &rules, at(1)), [(job.job_id, Hold::Paused(Arc::new(paused.clone())))]);
    assert_eq!(paused.to_string(), "paused by ann since 1970-01-12T13:46:40Z: an upgrade");
    queue.pause(None);
    assert_eq!(queue.next(&load, &rules, at(1)), Some(job.job_id));
}

#[test]
fn a_star_limits_every_name_without_a_limit_of_its_own() {
    let limits = |pairs: &[(&str, usize)]| {
        pairs.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect::<BTreeMap<_, _>>()
    };
    let caps = Caps { formula: limits(&[("*", 1), ("train", 2)]), ..Caps::default() };
    let rules = Rules { caps, ..Rules::default() };
    let of = |formula: &str| Candidate { formula: Some(formula.to_owned()), ..candidate(50, 0) };
    let mut load = Load::default();
    for formula in ["train", "build"] {
        load.insert(JobId::new(), Running::of(&of(formula), at(0)), 0);
    }
    let (train, build) = (of("train"), of("build"));
    let mut queue = queue(&[build, train.clone()]);
    assert_eq!(drain(&mut queue, &load, &rules, at(0)), [train.job_id]);
}

#[derive(Debug, Clone)]
struct Arrival {
    priority: u8,
    model: Option<u8>,
    formula: u8,
    group: bool,
    work: u8,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (0_u8..=100, proptest::option::of(0_u8..3), 0_u8..3, any::<bool>(), 1_u8..5)
        .prop_map(|(priority, model, formula, group, work)| Arrival { priority, model, formula, group, work })
}

proptest! {
    /// Arrivals, launches and ends in a random order: no limit is ever exceeded, whoever could run and is
    /// not behind a limit is launched in the order of the priorities, and all run in the end.
    #[test]
    fn limits_hold_priorities_are_kept_and_all_run(
        arrivals in proptest::collection::vec(arrival(), 1..60),
        overall in 0_usize..4,
        of_formula in 0_usize..3,
        models in 0_usize..3,
    ) {
        let rules = Rules {
            caps: Caps {
                running: overall,
                formula: BTreeMap::from([("*".to_owned(), of_formula)]),
                ..Caps::default()
            },
            ageing: Ageing::default(),
            models: Models { loaded: models, patience: Duration::from_mins(1), minimum: Duration::from_secs(5) },
        };
        let (mut queue, mut load) = (Queue::default(), Load::default());
        let mut known: BTreeMap<JobId, (Candidate, u8)> = BTreeMap::new();
        let mut working: BTreeMap<JobId, u8> = BTreeMap::new();
        let mut arrivals = arrivals.into_iter();
        let mut done = 0;
        for second in 0.. {
            if let Some(arrival) = arrivals.next() {
                let mut new = candidate(arrival.priority, second);
                new.model = arrival.model.map(|model| model.to_string());
                new.formula = Some(arrival.formula.to_string());
                if arrival.group {
                    new.concurrency = of_group(0, 2).concurrency;
                }
                queue.push(new.clone());
                known.insert(new.job_id, (new, arrival.work));
            }
            let now = at(second);
            loop {
                let free: Vec<JobId> = queue
                    .explain(&load, &rules, now)
                    .into_iter()
                    .filter(|(_, hold)| *hold == Hold::Turn)
                    .map(|(job_id, _)| job_id)
                    .collect();
                let next = queue.next(&load, &rules, now);
                prop_assert_eq!(next, free.first().copied());
                let Some(job_id) = next else { break };
                let (candidate, work) = &known[&job_id];
                for (other, _) in free.iter().map(|id| &known[id]) {
                    let priority = |one: &Candidate| rules.ageing.priority(one.priority, one.submitted_at, now);
                    prop_assert!(priority(candidate) >= priority(other));
                }
                load.insert(job_id, Running::of(candidate, now), models);
                working.insert(job_id, *work);
            }
            prop_assert!(overall == 0 || load.running() <= overall);
            prop_assert!(load.count(&Scope::Group("deploy".to_owned())) <= 2);
            let mut in_use = std::collections::BTreeSet::new();
            for job_id in working.keys() {
                let (candidate, _) = &known[job_id];
                let formula = Scope::Formula(candidate.formula.clone().unwrap());
                prop_assert!(of_formula == 0 || load.count(&formula) <= of_formula);
                in_use.extend(candidate.model.clone());
            }
            prop_assert!(models == 0 || in_use.len() <= models);
            working.retain(|job_id, left| {
                *left -= 1;
                if *left == 0 {
                    load.remove(*job_id);
                    done += 1;
                }
                *left > 0
            });
            if done == known.len() && arrivals.len() == 0 {
                break;
            }
            prop_assert!(second < 2_000, "{} of {} ran", done, known.len());
        }
    }

    /// However much of a higher priority keeps coming, a job that waits is launched.
    #[test]
    fn nobody_starves(priority in 0_u8..=100, model in any::<bool>()) {
        let rules = Rules {
            caps: Caps { running: 1, ..Caps::default() },
            ageing: Ageing { each: Duration::from_secs(10) },
            models: Models { loaded: 1, patience: Duration::from_mins(1), minimum: Duration::ZERO },
        };
        let mut patient = candidate(priority, 0);
        patient.model = model.then(|| "other".to_owned());
        let mut queue = queue(std::slice::from_ref(&patient));
        let mut load = Load::default();
        for second in 0..2_000 {
            let rival = Candidate { priority: 100, ..with_model(second, "loaded") };
            queue.push(rival.clone());
            let next = queue.next(&load, &rules, at(second)).unwrap();
            if next == patient.job_id {
                return Ok(());
            }
            load.insert(next, Running::of(&rival, at(second)), 1);
            load.remove(next);
        }
        prop_assert!(false, "it never ran");
    }
}
