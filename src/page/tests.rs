//! What the views say, as HTML, and that nothing that came from outside is obeyed.

use jiff::{SignedDuration, Timestamp};

use super::{Home, Offer, Section, Viewer, fault, home, job, login};
use crate::{
    http::view::{JobDetails, JobSummary},
    lifecycle::Phase,
    outcome::{
        Cause,
        result_file::{Artifact, Attempt, LogStatus, ResultFile, StepResult},
    },
};

/// What no browser may obey.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn before(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn viewer(may_submit: bool) -> Viewer {
    Viewer { name: "ann".to_owned(), may_submit }
}

fn summary(id: &str, state: Phase) -> JobSummary {
    JobSummary {
        job_id: "01KAJ3T5B6N0W8Y9M2QX4CZ7DE".to_owned(),
        action_id: Some(id.to_owned()),
        state,
        outcome: None,
        cause: None,
        exit_code: None,
        error: None,
        waits_for: None,
        formula: Some("train".to_owned()),
        attempt: 0,
        submitted_at: before(90),
        started_at: None,
        finished_at: None,
    }
}

/// A job that failed in its second step, with `text` wherever somebody else chose the words.
fn failed(text: &str) -> JobDetails {
    let attempt = Attempt {
        dispatch_id: "01KAJ3T5C0V7R1S3KD5F8GH2JM".to_owned(),
        nomad_job_id: Some("runner/dispatch-01KAJ3T5C0V7R1S3KD5F8GH2JM-1795252442-5d0c9a1e".to_owned()),
        allocation_id: None,
        node: Some("worker-3".to_owned()),
        exit_code: Some(1),
        cause: Some(Cause::ExitCode),
        dispatched_at: Some(before(80)),
        started_at: Some(before(75)),
        finished_at: Some(before(10)),
    };
    let step = |name: &str, exit_code, seconds| StepResult { name: name.to_owned(), exit_code, seconds };
    let artifact =
        Artifact { name: format!("report{text}.txt"), size: 2048, sha256: "ab".repeat(32), url: None };
    let summary = JobSummary {
        outcome: Some(Cause::ExitCode.outcome()),
        cause: Some(Cause::ExitCode),
        exit_code: Some(1),
        error: Some(format!("the task ended with exit code 1 in the step \"check\" {text}")),
        attempt: 1,
        started_at: Some(before(75)),
        finished_at: Some(before(10)),
        ..summary("reindex-42", Phase::Failed)
    };
    let (steps, secrets) =
        (vec![step("rebuild", 0, 57.21), step("check", 1, 8.0)], vec!["SEARCH_TOKEN".to_owned()]);
    let result = ResultFile {
        id: "reindex-42".to_owned(),
        job_id: summary.job_id.clone(),
        outcome: Cause::ExitCode.outcome(),
        cause: Cause::ExitCode,
        message: summary.error.clone().unwrap(),
        exit_code: 1,
        timestamp: before(10),
        logs: text.to_owned(),
        log_status: LogStatus::Truncated,
        submitted_at: before(90),
        dispatched_at: Some(before(80)),
        started_at: Some(before(75)),
        finished_at: before(10),
        revision: None,
        approved_by: None,
        secrets: secrets.clone(),
        attempts: vec![attempt.clone()],
        steps: steps.clone(),
        artifacts: vec![artifact.clone()],
        usage: None,
    };
    JobDetails {
        summary,
        context: format!("The November import left the search index stale {text}"),
        priority: 50,
        secrets,
        path: Some("actions/2026/11/reindex-42.toml".to_owned()),
        revision: Some("6f1c2b7a90d4e3385c1f0be9a4d27c5e8b613f02".to_owned()),
        submitted_by: None,
        approved_by: Some("merged (medium blast radius)".to_owned()),
        cancelled: None,
        retried_by: None,
        attempts: vec![attempt],
        steps,
        running_step: None,
        artifacts: vec![artifact],
        result: Some(result),
    }
}

/// The document with a line for each tag, so that a difference can be read.
fn lines(document: &str) -> String {
    document.replace("><", ">\n<")
}

fn jobs() -> Home {
    let queued = JobSummary {
        waits_for: Some(
            "place 1 of 1 in the queue: 2 may run at a time of the formula train, held by train-1, train-2"
                .to_owned(),
        ),
        ..summary("train-3", Phase::Queued)
    };
    let working = JobSummary {
        job_id: "01KAJ3T5B6N0W8Y9M2QX4CZ7DF".to_owned(),
        attempt: 2,
        started_at: Some(before(60)),
        ..summary("train-2", Phase::Working)
    };
    Home {
        troubles: Vec::new(),
        waiting: Section { jobs: vec![queued], more: false },
        steps: [(working.job_id.clone(), "rebuild".to_owned())].into(),
        working: Section { jobs: vec![working], more: false },
        ended: Section { jobs: vec![failed("").summary], more: true },
        older: false,
    }
}

#[test]
fn all_jobs() {
    insta::assert_snapshot!(lines(&home(&jobs(), &viewer(true), now())));
}

#[test]
fn older_jobs_are_shown_alone() {
    let document = home(&Home { older: true, ..jobs() }, &viewer(true), now());
    assert!(document.contains("reindex-42") && document.contains("Newest"), "{document}");
    assert!(!document.contains("train-3") && !document.contains("script.js"), "{document}");
}

#[test]
fn nothing_yet_says_what_to_do_first() {
    let home_of = |troubles| home(&Home { troubles, ..Home::default() }, &viewer(false), now());
    let document = home_of(vec!["nomad: it does not answer".to_owned()]);
    for words in ["consign init", "actions/hello.toml", "nomad: it does not answer", "ann (read-only)"] {
        assert!(document.contains(words), "{words}: {document}");
    }
    assert!(!home_of(Vec::new()).contains("In trouble"));
}

#[test]
fn the_example_of_an_action_is_one() {
    let document = home(&Home::default(), &viewer(false), now()).replace("&quot;", "\"");
    let (_, rest) = document.split_once("# actions/hello.toml\n").unwrap();
    let (text, _) = rest.split_once("</code>").unwrap();
    let found = crate::action::file::read("actions/hello.toml", text.as_bytes());
    assert!(found.is_ok(), "{found:?}");
}

#[test]
fn a_failed_job() {
    let offer = Offer { cancel: false, retry: true, from_steps: vec!["check".to_owned()] };
    let log = "{\"status\":\"accepted\"}\n\u{1b}[31mnot ready\u{1b}[0m\n";
    insta::assert_snapshot!(lines(&job(&failed(""), log, &offer, &viewer(true), now())));
}

#[test]
fn a_job_that_works_follows_its_log_and_can_be_cancelled() {
    let details = JobDetails {
        summary: JobSummary { started_at: Some(before(60)), ..summary("train-2", Phase::Working) },
        running_step: Some("check".to_owned()),
        result: None,
        ..failed("")
    };
    let offer = Offer { cancel: true, ..Offer::default() };
    let document = job(&details, "", &offer, &viewer(true), now());
    assert!(document.contains("data-follow=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE/log\""), "{document}");
    assert!(
        document.contains("action=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE/cancel\"")
            && document.contains("runs now")
    );
}

#[test]
fn who_may_only_read_is_offered_nothing() {
    let offer = Offer { cancel: true, retry: true, from_steps: Vec::new() };
    let document = job(&failed(""), "", &offer, &viewer(false), now());
    assert!(!document.contains("/cancel") && !document.contains("/retry"), "{document}");
}

#[test]
fn nothing_that_came_from_outside_becomes_markup() {
    let hostile = failed(HOSTILE);
    let list = Section {
        jobs: vec![JobSummary { waits_for: Some(HOSTILE.to_owned()), ..hostile.summary.clone() }],
        more: false,
    };
    let offer = Offer { cancel: true, retry: true, from_steps: vec![HOSTILE.to_owned()] };
    let all = Home {
        troubles: vec![HOSTILE.to_owned()],
        waiting: list.clone(),
        steps: [(hostile.summary.job_id.clone(), HOSTILE.to_owned())].into(),
        working: list.clone(),
        ended: list,
        older: false,
    };
    for document in [
        job(&hostile, HOSTILE, &offer, &viewer(true), now()),
        home(&all, &viewer(true), now()),
        login(HOSTILE, Some(HOSTILE)),
        fault("Not Found", HOSTILE),
    ] {
        assert!(!document.contains("<script>") && !document.contains("<img"), "{document}");
        assert!(document.contains("&lt;script&gt;alert(1)"), "{document}");
        assert!(!document.contains(" onerror=alert(2)>"), "{document}");
    }
}

#[test]
fn the_login() {
    insta::assert_snapshot!(lines(&login("/ui/jobs/x", Some("the token has expired"))));
}
