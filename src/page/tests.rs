//! What the views say, as HTML, and that nothing that came from outside is obeyed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Home, Offer, Section, Viewer, fault, home, job, login, trigger, triggers};
use crate::{
    http::{
        triggers::TriggerDetails,
        view::{JobDetails, JobSummary},
    },
    ids::ActionId,
    lifecycle::{self, Ending, Event, Excerpt, Job, Origin, Stage, Work},
    outcome::{
        Cause,
        result_file::{Approval, Artifact, Evidence, LogStatus, StepResult},
    },
    trigger::{
        Trigger, ledger,
        state::{Course, Own},
        view::Summary,
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
    Viewer { name: Some("ann".to_owned()), may_submit, may_approve: false }
}

/// A job that was just submitted by a commit.
fn queued(id: &str, job_id: &str, context: &str) -> Job {
    let work = Work {
        formula: Some("reindex".parse().unwrap()),
        context: context.to_owned(),
        secrets: vec!["SEARCH_TOKEN".parse().unwrap()],
        priority: 50,
        ..Work::default()
    };
    let origin = Origin::Action {
        id: ActionId::parse(id).unwrap(),
        path: format!("actions/2026/11/{id}.toml"),
        blob: String::new(),
        revision: "6f1c2b7a90d4e3385c1f0be9a4d27c5e8b613f02".parse().unwrap(),
    };
    Job { job_id: job_id.parse().unwrap(), ..Job::new(origin, work, before(90)) }
}

/// A job whose task has started.
fn working(id: &str, job_id: &str, context: &str) -> Job {
    let mut job = queued(id, job_id, context);
    let dispatch_id = "01KAJ3T5C0V7R1S3KD5F8GH2JM".parse().unwrap();
    job.attempts.push(lifecycle::Attempt {
        child: Some("runner/dispatch-01KAJ3T5C0V7R1S3KD5F8GH2JM-1795252442-5d0c9a1e".to_owned()),
        node: Some("worker-3".to_owned()),
        dispatched_at: Some(before(80)),
        started_at: Some(before(75)),
        ..lifecycle::Attempt::intended(dispatch_id, "runner".to_owned(), BTreeMap::new(), Vec::new())
    });
    job.approved_by = Some("merged (medium blast radius)".to_owned());
    job.stage = Stage::Working;
    job
}

/// A job that failed in its second step, with `text` wherever somebody else chose the words.
fn failed(text: &str) -> Job {
    let context = format!("The November import left the search index stale {text}");
    let mut job = working("reindex-42", "01KAJ3T5B6N0W8Y9M2QX4CZ7DE", &context);
    let step = |name: &str, exit_code, seconds| StepResult { name: name.to_owned(), exit_code, seconds };
    let artifact =
        Artifact { name: format!("report{text}.txt"), size: 2048, sha256: "ab".repeat(32), url: None };
    let message = format!("the task ended with exit code 1 in the step \"check\" {text}");
    job.ending = Some(Ending {
        exit_code: Some(1),
        log: Excerpt { text: text.to_owned(), status: LogStatus::Truncated },
        steps: vec![step("rebuild", 0, 57.21), step("check", 1, 8.0)],
        artifacts: vec![artifact],
        ..Ending::without_task(Cause::ExitCode, message, before(10))
    });
    for attempt in &mut job.attempts {
        attempt.finished_at = Some(before(10));
        attempt.exit_code = Some(1);
        attempt.cause = Some(Cause::ExitCode);
    }
    job.stage = Stage::Ended;
    job
}

fn details(job: &Job) -> JobDetails {
    JobDetails::of(job, Vec::new())
}

/// The document with a line for each tag, so that a difference can be read.
fn lines(document: &str) -> String {
    document.replace("><", ">\n<")
}

fn jobs() -> Home {
    let mut third = queued("train-3", "01KAJ3T5B6N0W8Y9M2QX4CZ7DG", "");
    third.waits_for = Some(
        "place 1 of 1 in the queue: 2 may run at a time of the formula train, held by train-1, train-2"
            .to_owned(),
    );
    let mut second = working("train-2", "01KAJ3T5B6N0W8Y9M2QX4CZ7DF", "");
    second.attempts.insert(0, second.attempts[0].clone());
    let section = |job: &Job, more| Section { jobs: vec![JobSummary::of(job)], more };
    Home {
        waiting: section(&third, false),
        steps: [(second.job_id.to_string(), "rebuild".to_owned())].into(),
        working: section(&second, false),
        ended: section(&failed(""), true),
        ..Home::default()
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
    let offer = Offer { retry: true, from_steps: vec!["check".to_owned()], ..Offer::default() };
    let log = "{\"status\":\"accepted\"}\n\u{1b}[31mnot ready\u{1b}[0m\n";
    insta::assert_snapshot!(lines(&job(&details(&failed("")), log, &offer, &viewer(true), now())));
}

#[test]
fn a_job_that_works_follows_its_log_and_can_be_cancelled() {
    let works = details(&working("train-2", "01KAJ3T5B6N0W8Y9M2QX4CZ7DE", ""));
    let works = JobDetails { running_step: Some("check".to_owned()), ..works };
    let offer = Offer { cancel: true, ..Offer::default() };
    let document = job(&works, "", &offer, &viewer(true), now());
    assert!(document.contains("data-follow=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE/log\""), "{document}");
    assert!(document.contains("action=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE/cancel\""), "{document}");
    assert!(document.contains("runs now"), "{document}");
}

#[test]
fn who_may_only_read_is_offered_nothing() {
    let offer = Offer { cancel: true, retry: true, from_steps: Vec::new(), approval: true };
    let waits = JobDetails { digest: Some("5d41".to_owned()), ..details(&failed("")) };
    let document = job(&waits, "", &offer, &viewer(false), now());
    assert!(!document.contains("<form method=\"post\" action=\"/ui/jobs/"), "{document}");
}

#[test]
fn who_may_approve_does_so_for_the_digest_that_is_shown() {
    let waits = queued("deploy-7", "01KAJ3T5B6N0W8Y9M2QX4CZ7DE", "");
    let action = Some("formula = \"deploy\"\nargs.site = \"<north>\"\n".to_owned());
    let waits = JobDetails { digest: Some("5d41".to_owned()), action, ..details(&waits) };
    let approver = Viewer { may_approve: true, ..viewer(false) };
    let shown = |approval| job(&waits, "", &Offer { approval, ..Offer::default() }, &approver, now());
    let document = shown(true);
    for words in [
        "action=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE/approve\"",
        "action=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE/reject\"",
        "<input type=\"hidden\" name=\"digest\" value=\"5d41\">",
        "<code>5d41</code>",
        "args.site = &quot;&lt;north&gt;&quot;",
    ] {
        assert!(document.contains(words), "{words}: {document}");
    }
    assert!(!document.contains("read-only") && !document.contains("/cancel"), "{document}");
    assert!(!shown(false).contains("/approve\""), "nothing waits for this viewer");
}

#[test]
fn an_approval_is_shown_with_what_shows_that_it_was_given() {
    let evidence = vec![
        Evidence::Merged { revision: "6f1c".to_owned() },
        Evidence::Person { name: "ben".to_owned(), at: before(30) },
        Evidence::Signature {
            path: "actions/a.toml".to_owned(),
            commit: "c0ffee".to_owned(),
            signer: "cat@acme.example".to_owned(),
            key: "SHA256:abc".to_owned(),
        },
        Evidence::Review {
            url: "https://forge.example/pulls/7".to_owned(),
            head: "beef".to_owned(),
            by: vec!["dora".to_owned(), "eve".to_owned()],
        },
        Evidence::Review { url: "javascript:alert(1)".to_owned(), head: String::new(), by: Vec::new() },
    ];
    let mut approved = queued("deploy-7", "01KAJ3T5B6N0W8Y9M2QX4CZ7DE", "");
    let rule = "review (high blast radius)".to_owned();
    let approval = Approval { rule, by: vec!["ben".to_owned()], digest: "5d41".to_owned(), evidence };
    approved.apply(Event::Approved(approval), before(30)).unwrap();
    let document = job(&details(&approved), "", &Offer::default(), &viewer(false), now());
    for words in [
        "ben: review (high blast radius)",
        "<code>5d41</code>",
        "on the branch at <code>6f1c</code>",
        "ben said so <time",
        "<code>c0ffee</code> is signed by cat@acme.example, key <code>SHA256:abc</code>",
        "<a href=\"https://forge.example/pulls/7\">https://forge.example/pulls/7</a> was approved by dora, eve at",
    ] {
        assert!(document.contains(words), "{words}: {document}");
    }
    assert!(!document.contains("href=\"javascript"), "{document}");
}

/// A trigger in its cooldown, with an event that ran and one that was merged into it; `text` is what others chose.
fn cooling(text: &str) -> TriggerDetails {
    let keys = "name = \"docs\"\nkind = \"schedule\"\ncron = \"0 3 * * *\"\ncooldown = \"6h\"\nallow_force = true\n\
                action = { formula = \"train\" }\n";
    let configured: Trigger = toml::from_str(keys).unwrap();
    let course = Course { ended_at: Some(before(1800)), ..Course::default() };
    let summary = Summary::of(&configured, &Own::default(), &course, Some(text.to_owned()), now());
    let ran = ledger::Event {
        event_id: ulid::Ulid::from_parts(before(7200).as_millisecond().cast_unsigned(), 1),
        trigger: "docs".to_owned(),
        at: before(7200),
        origin: ledger::Origin::Schedule,
        caller: None,
        forced: false,
        content: Some(text.to_owned()),
        fate: ledger::Fate::Ran,
        reason: None,
        merged_into: None,
        job_id: Some("01KAJ3T5B6N0W8Y9M2QX4CZ7DE".to_owned()),
    };
    let merged = ledger::Event {
        event_id: ulid::Ulid::from_parts(before(7190).as_millisecond().cast_unsigned(), 2),
        at: before(7190),
        origin: ledger::Origin::Fired,
        caller: Some(format!("ann from {text}")),
        forced: true,
        content: None,
        fate: ledger::Fate::Merged,
        reason: Some(text.to_owned()),
        merged_into: Some(ran.event_id),
        job_id: None,
        ..ran.clone()
    };
    TriggerDetails { summary, events: vec![merged, ran] }
}

#[test]
fn a_trigger_says_whether_it_may_run_and_what_became_of_what_arrived() {
    let details = cooling("");
    let document = trigger(&details, &viewer(true), now());
    for words in [
        "<span class=\"badge\" data-state=\"waiting\">cooldown</span>",
        "in 5 h 30 min",
        "in 15 h 0 min",
        "<a href=\"/ui/jobs/01KAJ3T5B6N0W8Y9M2QX4CZ7DE\">",
        &format!("<a href=\"#event-{}\">the one of <time", details.events[1].event_id),
        "ann from , forced",
        "action=\"/ui/triggers/docs/fire\"",
        "name=\"force\"",
    ] {
        assert!(document.contains(words), "{words}: {document}");
    }
    let list = triggers(std::slice::from_ref(&details.summary), &viewer(false), now());
    assert!(list.contains("href=\"/ui/triggers/docs\"") && list.contains("cooldown"), "{list}");
    assert!(!trigger(&details, &viewer(false), now()).contains("/fire"), "it is for those who may submit");
    let summary = Summary { allow_force: false, ..details.summary.clone() };
    let unforced = TriggerDetails { summary, ..details };
    assert!(!trigger(&unforced, &viewer(true), now()).contains("name=\"force\""));
}

#[test]
fn nothing_that_came_from_outside_becomes_markup() {
    let hostile = details(&failed(HOSTILE));
    let summary = JobSummary { waits_for: Some(HOSTILE.to_owned()), ..hostile.summary.clone() };
    let list = Section { jobs: vec![summary], more: false };
    let offer = Offer { cancel: true, retry: true, from_steps: vec![HOSTILE.to_owned()], approval: true };
    let all =
        Home { troubles: vec![HOSTILE.to_owned()], waiting: list.clone(), ended: list, ..Home::default() };
    for document in [
        job(&hostile, HOSTILE, &offer, &viewer(true), now()),
        home(&all, &viewer(true), now()),
        trigger(&cooling(HOSTILE), &viewer(true), now()),
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
