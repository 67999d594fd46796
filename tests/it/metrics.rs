//! What Prometheus reads, and what a job's log lines have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{LIMIT, World, wait_for};

/// Every series with its value.
type Series = BTreeMap<String, f64>;

/// Reads an exposition as `OpenMetrics` 1.0 has it; anything else is a fault.
fn read(text: &str) -> Result<Series, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end in # EOF")?;
    let mut series = Series::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = ("", "");
    for line in body.lines() {
        let fault = |what: &str| format!("{what}: {line}");
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (word, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
            match word {
                Some("HELP") => {
                    (family, kind) = (name, "");
                    if !families.insert(name) {
                        return Err(fault("a family twice"));
                    }
                }
                Some("TYPE") if name == family && kind.is_empty() => kind = rest,
                Some("UNIT") if name == family && name.ends_with(&format!("_{rest}")) => {}
                _ => return Err(fault("no comment is legal but HELP, TYPE and UNIT")),
            }
            continue;
        }
        let name_end = line.find(['{', ' ']).ok_or_else(|| fault("no value"))?;
        let (name, rest) = line.split_at(name_end);
        let suffix = name.strip_prefix(family).ok_or_else(|| fault("a sample of another family"))?;
        let legal: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            _ => return Err(fault("an unknown type")),
        };
        if !legal.contains(&suffix) {
            return Err(fault("no such sample in a family of its type"));
        }
        let value =
            if rest.starts_with('{') { after_labels(rest).ok_or_else(|| fault("bad labels"))? } else { rest };
        let number = value.strip_prefix(' ').and_then(|value| value.parse::<f64>().ok());
        let number = number.filter(|number| number.is_finite()).ok_or_else(|| fault("no number"))?;
        let id = &line[..line.len() - value.len()];
        if series.insert(id.to_owned(), number).is_some() {
            return Err(fault("a series twice"));
        }
    }
    histograms_add_up(body)?;
    Ok(series)
}

/// What follows a set of labels.
fn after_labels(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('{')?;
    loop {
        let (name, quoted) = rest.split_once("=\"")?;
        let first = name.chars().next()?;
        let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if !(first.is_ascii_lowercase() && name.chars().all(legal)) {
            return None;
        }
        let mut escaped = false;
        let end = quoted.find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        })?;
        let next = &quoted[end + 1..];
        match next.strip_prefix(',') {
            Some(more) => rest = more,
            None => return next.strip_prefix('}'),
        }
    }
}

/// Buckets hold those before them, and the last one everything.
fn histograms_add_up(body: &str) -> Result<(), String> {
    let mut last: Option<f64> = None;
    let mut count = None;
    for line in body.lines() {
        let value =
            || line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN);
        if line.contains("_count") && !line.starts_with('#') {
            count = Some(value());
        } else if line.contains("_bucket{") {
            if last.is_some_and(|before| value() < before) {
                return Err(format!("a bucket holds less than the one before: {line}"));
            }
            last = Some(value());
            if line.contains("le=\"+Inf\"") {
                if count != last {
                    return Err(format!("the last bucket does not hold everything: {line}"));
                }
                last = None;
            }
        }
    }
    last.map_or(Ok(()), |_| Err("a histogram has no +Inf bucket".to_owned()))
}

async fn scrape(address: &str) -> (String, Series) {
    let response = crate::support::http().get(format!("{address}/metrics")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text().await.unwrap();
    let series = read(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    (text, series)
}

#[test]
fn the_reader_takes_nothing_else() {
    let family = "# HELP a b.\n# TYPE a counter\n";
    assert_eq!(read(&format!("{family}a_total{{x=\"\\\"}},\"}} 1\n# EOF\n")).unwrap().len(), 1);
    for wrong in [
        "a_total 1\n",
        "a 1\n# EOF\n",
        "a_total one\n# EOF\n",
        "a_total 1\na_total 1\n# EOF\n",
        "b_total 1\n# EOF\n",
        "a_total{x=1} 1\n# EOF\n",
    ] {
        assert!(read(&format!("{family}{wrong}")).is_err(), "{wrong}");
    }
    let buckets = |second: u8, count: u8| {
        format!(
            "# HELP a b.\n# TYPE a histogram\na_sum 1\na_count {count}\na_bucket{{le=\"1\"}} 1\na_bucket{{le=\"+Inf\"}} {second}\n# EOF\n"
        )
    };
    assert!(read(&buckets(2, 2)).is_ok() && read(&buckets(0, 0)).is_err() && read(&buckets(2, 3)).is_err());
}

#[tokio::test]
async fn a_success_and_a_failure_are_counted_and_logged_by_one_id() {
    let world = World::new("metrics").await;
    world.bootstrap("");
    let secret = world.secret("COUNTED");
    world.put_secret(&secret, b"value");
    let agent = world.agent().await;
    let (_, before) = scrape(&agent.address).await;
    assert_eq!(before.get("consign_outcomes_total{outcome=\"succeeded\"}"), Some(&0.0));
    assert!(!before.contains_key("consign_last_ended_timestamp_seconds"));
    world.ops.commit(
        "formulas",
        &[("formulas/fine.sh", Some("echo fine\n")), ("formulas/three.sh", Some("exit 3\n"))],
    );
    let revision = world.commit_action("succeeds", "fine", &format!("secrets = [\"{secret}\"]\n"));
    world.commit_action("fails", "three", "");
    world.commit_action("unknown", "tree", "");
    let mut job_ids = BTreeMap::new();
    for id in ["succeeds", "fails", "unknown"] {
        let result = world.result(id, LIMIT).await;
        job_ids.insert(id, result["job_id"].as_str().unwrap().to_owned());
    }
    let expected = [
        ("consign_jobs_ended_total{formula=\"fine\",outcome=\"succeeded\",cause=\"success\"}", 1.0),
        ("consign_jobs_ended_total{formula=\"three\",outcome=\"failed\",cause=\"exit_code\"}", 1.0),
        ("consign_jobs_ended_total{formula=\"_none\",outcome=\"rejected\",cause=\"unknown_formula\"}", 1.0),
        ("consign_outcomes_total{outcome=\"succeeded\"}", 1.0),
        ("consign_outcomes_total{outcome=\"failed\"}", 1.0),
        ("consign_outcomes_total{outcome=\"rejected\"}", 1.0),
        ("consign_jobs{phase=\"done\"}", 1.0),
        ("consign_jobs{phase=\"failed\"}", 2.0),
        ("consign_jobs{phase=\"working\"}", 0.0),
        ("consign_job_duration_seconds_count{formula=\"fine\",outcome=\"succeeded\"}", 1.0),
        ("consign_job_duration_seconds_count{formula=\"three\",outcome=\"failed\"}", 1.0),
        ("consign_queue_wait_seconds_count", 2.0),
        ("consign_dispatch_latency_seconds_count", 2.0),
        ("consign_grant_latency_seconds_count", 2.0),
        ("consign_results_pushed_total", 3.0),
        ("consign_results_pending", 0.0),
        ("consign_result_push_failures_total", 0.0),
        ("consign_degraded{subject=\"vault\"}", 0.0),
    ];
    // The last result is in the ops repo before that is on record.
    let (text, series) = wait_for("the counts", LIMIT, async || {
        let (text, series) = scrape(&agent.address).await;
        let wrong = expected.iter().find(|(name, count)| series.get(*name) != Some(count));
        wrong.map_or(Ok((text.clone(), series)), |wrong| Err(format!("{wrong:?}\n{text}")))
    })
    .await;
    assert!(series["consign_grant_latency_seconds_sum"] > 0.0);
    assert!(series["consign_dispatch_latency_seconds_sum"] >= series["consign_queue_wait_seconds_sum"]);
    assert!(series["consign_result_push_seconds_count"] >= 1.0);
    let last_ended = series["consign_last_ended_timestamp_seconds"];
    assert!(last_ended >= series["process_start_time_seconds"].floor());
    for secret_or_id in [&secret, &revision, &job_ids["succeeds"], &"succeeds".to_owned()] {
        assert!(!text.contains(secret_or_id.as_str()), "{secret_or_id} stands in\n{text}");
    }

    let log = agent.log();
    for (id, job_id) in &job_ids {
        let carried = format!("job{{job_id={job_id}}}: ");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("job=\"{id}\""))).collect();
        assert!(
            lines.iter().all(|line| line.matches(job_id.as_str()).count() == 1 && line.contains(&carried)),
            "{lines:#?}"
        );
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(has("event=\"seen\"") && has("result committed"), "{lines:#?}");
    }
    let seen = log.lines().find(|line| line.contains("job=\"succeeds\" event=\"seen\"")).unwrap();
    // It names the commit that was looked at, which may be a later one than the action's own.
    let commits = world.ops.bare(&["rev-list", "main"]);
    let named = seen.split("actions/succeeds.toml at ").nth(1).unwrap().trim_end_matches('"');
    assert!(commits.lines().any(|commit| commit == named), "{seen}");

    assert!(agent.terminate().await.success());
    let agent = world.agent().await;
    let (_, anew) = scrape(&agent.address).await;
    assert_eq!(anew.get("consign_outcomes_total{outcome=\"succeeded\"}"), Some(&0.0), "counters begin anew");
    assert_eq!(anew.get("consign_jobs{phase=\"done\"}"), Some(&1.0), "what there is is there");
    assert!((anew["consign_last_ended_timestamp_seconds"] - last_ended).abs() <= 1.0);
}
