//! What Nomad and the wrapper say of an attempt: read or refused, judged, and written into a result that reads back equal.

use std::{collections::BTreeMap, time::Duration};

use consign::{
    dispatch::report::{self, Report},
    formula::Body,
    ids::DispatchId,
    lifecycle::{Cancellation, Event, Job, Origin, Work},
    nomad::{Allocation, Child, Evaluation, NodeDetail, placement_reasons},
    outcome::{Cause, result_file::ResultFile},
    track::{
        judge::{self, Evidence, Progress},
        log::excerpt,
    },
};
use jiff::Timestamp;

/// The JSON of an allocation, and behind an empty line the wrapper's report, which is the log as well.
pub(crate) fn check(input: &[u8]) {
    let cut = input.windows(2).position(|pair| pair == b"\n\n");
    let (json, rest) = cut.map_or((input, &[][..]), |at| (&input[..at], &input[at + 2..]));
    let report = report::parse(rest);
    let _ = serde_json::from_slice::<Child>(json).is_ok();
    let _ = serde_json::from_slice::<NodeDetail>(json).is_ok();
    if let Ok(evaluations) = serde_json::from_slice::<Vec<Evaluation>>(json) {
        let _ = placement_reasons(&evaluations);
    }
    let Ok(allocation) = serde_json::from_slice::<Allocation>(json) else { return };
    let progress = judge::progress(&allocation);
    assert!(!matches!(progress, Progress::Running(_)) || judge::has_started(&allocation));
    assert_eq!(judge::task_name(&allocation).is_some(), !allocation.task_states.is_empty());
    for admitted in [false, true] {
        for stopped in [None, Some(Cancellation { cause: Cause::Cancelled, reason: "asked".to_owned() })] {
            judged(&allocation, admitted, &report, stopped.as_ref(), rest);
        }
    }
}

fn judged(
    allocation: &Allocation,
    admitted: bool,
    report: &Report,
    stopped: Option<&Cancellation>,
    log: &[u8],
) {
    let now = Timestamp::UNIX_EPOCH;
    let evidence = Evidence {
        allocation,
        admitted,
        report: Some(report),
        stopped,
        timeout: Duration::from_secs(60),
        now,
    };
    let mut ending = judge::judge(&evidence);
    assert!(!ending.message.is_empty());
    assert!(
        !ending.at_gate || !judge::has_started(allocation),
        "what started is never dispatched again by itself"
    );
    if ending.cause == Cause::Success {
        assert!(judge::has_started(allocation) && ending.exit_code == Some(0), "success is what is proven");
    }
    ending.log = excerpt(log, true);
    let mut job = dispatched();
    job.apply(Event::Concluded(ending), now).expect("a dispatched job can end");
    let result = job.result().expect("what ended has a result");
    let text = result.to_text();
    assert_eq!(serde_json::from_str::<ResultFile>(&text).expect("a result is read"), result);
    let record = serde_json::to_string(&job).expect("a record");
    assert_eq!(serde_json::from_str::<Job>(&record).expect("a record is read"), job);
}

fn dispatched() -> Job {
    let origin =
        Origin::Submitted { by: "fuzz".to_owned(), revision: "a".repeat(40).parse().expect("a revision") };
    let work = Work { body: Some(Body::Program("exit 0".to_owned())), ..Work::default() };
    let mut job = Job::new(origin, work, Timestamp::UNIX_EPOCH);
    let intended = Event::Intended {
        dispatch_id: DispatchId::new(),
        parent: "runner".to_owned(),
        meta: BTreeMap::new(),
        payload: Vec::new(),
    };
    for event in [intended, Event::Dispatched { child: "runner/dispatch-1".to_owned() }] {
        job.apply(event, Timestamp::UNIX_EPOCH).expect("the plain path");
    }
    job
}
