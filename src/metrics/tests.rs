use std::{collections::BTreeSet, path::PathBuf};

use super::*;
use crate::{
    ids::{DispatchId, FormulaName},
    lifecycle::{Ending, Event, Origin, Work},
    outcome::{Cause, result_file::Approval},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn job(formula: &str) -> Job {
    let formula = Some(formula.parse::<FormulaName>().unwrap());
    Job::new(Origin::Hand { child: "c".to_owned(), note: None }, Work { formula, ..Work::default() }, at(100))
}

fn ended(formula: &str, cause: Cause, started_at: Option<i64>) -> Job {
    let mut job = job(formula);
    let ending = Ending { started_at: started_at.map(at), ..Ending::without_task(cause, "over", at(200)) };
    for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
        job.apply(event, at(200)).unwrap();
    }
    job
}

/// Metrics in which everything was counted once.
fn all() -> Metrics {
    let metrics = Metrics::new(at(1));
    metrics.ended(&ended("train", Cause::Success, Some(150)), at(200));
    metrics.count(Measure::QueueWait(Duration::from_secs(1)));
    metrics.count(Measure::DispatchLatency(Duration::from_secs(1)));
    metrics.looked(Duration::from_secs(1));
    metrics.gate_opened(at(1), at(2));
    metrics.pushed(Duration::from_secs(1), Some(3));
    metrics.pushed(Duration::from_secs(1), None);
    for delivery in [Delivery::Delivered, Delivery::Failed, Delivery::Failed, Delivery::GivenUp] {
        metrics.webhook(delivery);
    }
    metrics
}

fn present() -> Present {
    Present {
        jobs: vec![(Phase::Done, 1)],
        results_pending: 2,
        paused: true,
        degraded: vec![("vault", true)],
    }
}

fn value(exposition: &str, series: &str) -> Option<f64> {
    let line = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// The names of all series of an exposition.
fn names(exposition: &str) -> BTreeSet<&str> {
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

fn document(path: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names of metrics in a text, by their beginnings.
fn mentioned(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("consign_") || word.starts_with("process_")).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let exposition = all().exposition(&present());
    let known = names(&exposition);
    for path in ["docs/monitoring/alerts.yaml", "docs/monitoring/dashboard.json"] {
        let text = document(path);
        let unknown: Vec<&str> = mentioned(&text).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{path} asks for {unknown:?}");
        assert!(mentioned(&text).len() > 5, "{path}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&document("docs/monitoring/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            assert!(!mentioned(target["expr"].as_str().unwrap()).is_empty(), "{panel}");
        }
    }
}

#[test]
fn every_metric_is_told_of() {
    let exposition = all().exposition(&present());
    let guide = document("docs/operate.md");
    let told = mentioned(&guide);
    for name in names(&exposition) {
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(told.contains(family.unwrap_or(name)), "docs/operate.md does not tell of {name}");
    }
}

#[test]
fn what_happened_is_counted_by_its_labels() {
    let metrics = all();
    metrics.ended(&ended("train", Cause::Oom, Some(190)), at(300));
    metrics.ended(&ended("train", Cause::Oom, None), at(300));
    let exposition = metrics.exposition(&present());
    for (series, expected) in [
        ("consign_jobs{phase=\"done\"}", 1.0),
        ("consign_jobs{phase=\"queued\"}", 0.0),
        ("consign_jobs_ended_total{formula=\"train\",outcome=\"succeeded\",cause=\"success\"}", 1.0),
        ("consign_jobs_ended_total{formula=\"train\",outcome=\"failed\",cause=\"oom\"}", 2.0),
        ("consign_outcomes_total{outcome=\"failed\"}", 2.0),
        ("consign_outcomes_total{outcome=\"rejected\"}", 0.0),
        ("consign_job_duration_seconds_sum{formula=\"train\",outcome=\"succeeded\"}", 50.0),
        ("consign_job_duration_seconds_count{formula=\"train\",outcome=\"failed\"}", 1.0),
        ("consign_last_ended_timestamp_seconds", 300.0),
        ("consign_queue_wait_seconds_count", 1.0),
        ("consign_grant_latency_seconds_sum", 1.0),
        ("consign_result_push_seconds_count", 2.0),
        ("consign_result_push_failures_total", 1.0),
        ("consign_results_pushed_total", 3.0),
        ("consign_results_pending", 2.0),
        ("consign_webhooks_delivered_total", 1.0),
        ("consign_webhook_request_failures_total", 2.0),
        ("consign_webhooks_given_up_total", 1.0),
        ("consign_degraded{subject=\"vault\"}", 1.0),
        ("process_start_time_seconds", 1.0),
    ] {
        assert_eq!(value(&exposition, series), Some(expected), "{series}\n{exposition}");
    }
    let later = metrics.exposition(&Present { degraded: vec![("vault", false)], ..Present::default() });
    assert_eq!(value(&later, "consign_jobs{phase=\"done\"}"), Some(0.0));
    assert_eq!(value(&later, "consign_degraded{subject=\"vault\"}"), Some(0.0));
    let fresh = Metrics::new(at(1)).exposition(&Present::default());
    assert!(!fresh.contains("consign_last_ended"), "{fresh}");
}

#[test]
fn however_many_formulas_there_are_the_labels_are_few() {
    let metrics = Metrics::new(at(1));
    for number in 0..FORMULA_LIMIT + 50 {
        metrics.ended(&ended(&format!("tpyo-{number}"), Cause::UnknownFormula, None), at(200));
        metrics.ended(&ended(&format!("formula-{number}"), Cause::Success, Some(150)), at(200));
    }
    metrics.ended(&ended("formula-0", Cause::Success, None), at(200));
    let exposition = metrics.exposition(&Present::default());
    let series = exposition.lines().filter(|line| line.starts_with("consign_jobs_ended_total{")).count();
    assert_eq!(series, FORMULA_LIMIT + 2);
    let success = "outcome=\"succeeded\",cause=\"success\"}";
    let of = |formula: &str| {
        value(&exposition, &format!("consign_jobs_ended_total{{formula=\"{formula}\",{success}"))
    };
    assert_eq!((of("formula-0"), of("_other")), (Some(2.0), Some(50.0)));
    let unknown =
        "consign_jobs_ended_total{formula=\"_none\",outcome=\"rejected\",cause=\"unknown_formula\"}";
    assert_eq!(value(&exposition, unknown), Some(150.0));
}

#[test]
fn waits_are_counted_from_the_queue_and_acceptance_once() {
    let seconds = Duration::from_secs;
    let mut job = job("train");
    let awaits = Event::Awaits { what: "review".to_owned() };
    let rule = "reviewed".to_owned();
    let approval = Approval { rule, by: vec![], digest: String::new(), evidence: vec![] };
    for event in [awaits, Event::Approved(approval.clone())] {
        assert_eq!(Measure::of(&job, &event, at(110)), None);
        job.apply(event, at(110)).unwrap();
    }
    job.apply(Event::Approved(approval), at(112)).unwrap();
    let intended = Event::Intended {
        dispatch_id: DispatchId::new(),
        parent: "runner".to_owned(),
        meta: std::collections::BTreeMap::new(),
        payload: vec![],
    };
    assert_eq!(Measure::of(&job, &intended, at(115)), Some(Measure::QueueWait(seconds(5))));
    job.apply(intended, at(115)).unwrap();
    let dispatched = Event::Dispatched { child: "runner/dispatch-1".to_owned() };
    let accepted = Measure::of(&job, &dispatched, at(117));
    assert_eq!(accepted, Some(Measure::DispatchLatency(seconds(7))));
    job.apply(dispatched.clone(), at(117)).unwrap();
    job.apply(Event::NotFound, at(118)).unwrap();
    assert_eq!(Measure::of(&job, &dispatched, at(119)), None);
    assert_eq!(measure::between(at(9), at(3)), Duration::ZERO, "a clock that was set back");
}
