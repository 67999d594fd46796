use std::time::Duration;

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
        place: "".into(),
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

#[test]
fn a_loaded_model_makes_room_for_one_that_was_waited_for_long_enough() {
    let rules = Rules {
        models: Models { loaded: 1, patience: Duration::from_mins(5), minimum: Duration::from_mins(1) },
        ..Rules::default()
    };
    let (first, second, other) = (with_model(0, "a"), with_model(1, "a"), with_model(2, "b"));
    let (late, free) = (with_model(400, "a"), candidate(50, 401));
    let urgent = Candidate { priority: 100, ..with_model(402, "a") };
    let mut load = Load::default();
    load.insert(first.job_id, Running::of(&first, at(0)), 1);
    let mut queue = queue(&[second.clone(), other.clone()]);
    assert_eq!(queue.next(&load, &rules, at(200)), Some(second.job_id), "there is patience left");
    for new in [&late, &free, &urgent] {
        queue.push(new.clone());
    }
    let order = drain(&mut queue, &load, &rules, at(403));
    assert_eq!(order, ids(&[&urgent, &free]), "what comes first and what needs no model go on");
    let yields = Hold::Yields { to: "b".to_owned() };
    let hold = Hold::Model { loaded: vec!["a".to_owned()], until: None };
    assert_eq!(queue.explain(&load, &rules, at(403)), [(other.job_id, hold), (late.job_id, yields)]);
    load.remove(first.job_id);
    assert_eq!(queue.next(&load, &rules, at(403)), Some(other.job_id));
}

#[test]
fn what_does_not_start_holds_up_its_like_alone() {
    let of = |second, place: &str| Candidate { place: place.into(), ..candidate(50, second) };
    let all = [of(0, "gpu"), of(1, "gpu"), of(2, "gpu"), of(3, "plain")];
    let rules = Rules { caps: Caps { pending: 2, ..Caps::default() }, ..Rules::default() };
    let (mut queue, mut load) = (queue(&all), Load::default());
    let pending =
        |one: &Candidate| Running { place: Some(Arc::clone(&one.place)), ..Running::of(one, at(9)) };
    for next in [0, 1, 3] {
        assert_eq!(queue.next(&load, &rules, at(9)), Some(all[next].job_id));
        load.insert(all[next].job_id, pending(&all[next]), 0);
    }
    assert_eq!(queue.next(&load, &rules, at(9)), None);
    let mut holders: Vec<String> = all[..2].iter().map(|one| one.job_id.to_string()).collect();
    holders.sort();
    let full = Full { scope: Scope::Place("gpu".into()), limit: 2, holders };
    assert_eq!(queue.explain(&load, &rules, at(9)), [(all[2].job_id, Hold::Full(Arc::new(full)))]);
    load.insert(all[1].job_id, Running::of(&all[1], at(10)), 0);
    assert_eq!(queue.next(&load, &rules, at(10)), Some(all[2].job_id), "one has started");
}

#[test]
fn so_many_launches_are_under_way_and_no_more() {
    let all: Vec<Candidate> = (0..20).map(|second| candidate(50, second)).collect();
    let (mut queue, mut load, rules) = (queue(&all), Load::default(), Rules::default());
    let launching = |candidate: &Candidate| Running { launching: true, ..Running::of(candidate, at(20)) };
    for one in &all[..LAUNCHES] {
        assert_eq!(queue.next(&load, &rules, at(20)), Some(one.job_id));
        load.insert(one.job_id, launching(one), 0);
    }
    assert_eq!(queue.next(&load, &rules, at(20)), None);
    load.insert(all[3].job_id, Running::of(&all[3], at(20)), 0);
    assert_eq!(queue.next(&load, &rules, at(20)), Some(all[LAUNCHES].job_id), "one got through, and works");
}
