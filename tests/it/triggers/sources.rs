//! What tells of events by itself: watched trees, schedules, branches.

use super::*;
use crate::support::Git;

/// A trigger of a kind with these further keys.
fn trigger(name: &str, kind: &str, keys: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nkind = \"{kind}\"\n{keys}\n\
         [trigger.action]\nformula = \"train\"\nblast_radius = \"low\"\n"
    )
}

/// Five saves give one run, a restart in between forgets nothing, and a second burst in the cooldown gives none.
async fn five_saves_give_one_run(method: &str, noticed: &str) {
    let keys = format!(
        "paths = [\"{{folder}}/docs/**/*.md\", \"!{{folder}}/docs/drafts/**\"]\nmethod = \"{method}\"\n\
         settle = \"50ms\"\npoll = \"100ms\"\ndebounce = \"3s\"\ncooldown = \"6h\"\nallow_force = true"
    );
    let mut stage = Stage::new(&format!("watch-{method}"), &trigger("docs", "watch", &keys)).await;
    let save = |path: &str, text: &str| {
        let path = stage.world.path("docs").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    wait_for("the tree to be watched", LIMIT, async || {
        let source = stage.get("/triggers/docs").await["source"].clone();
        if source.as_str().is_some_and(|source| source.contains(noticed)) {
            Ok(())
        } else {
            Err(source.to_string())
        }
    })
    .await;
    // None of these is meant.
    save("drafts/a.md", "1");
    save("a.txt", "1");
    for number in 0..4 {
        save(&format!("part-{number}/a.md"), "1");
        wait_for("the save to be noticed", LIMIT, async || {
            let events = stage.fates("docs").await;
            if events.len() == number + 1 { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
    }
    stage.agent.take().unwrap().kill();
    let save = |path: &str, text: &str| fs::write(stage.world.path("docs").join(path), text).unwrap();
    save("part-1/a.md", "changed while nobody watched");
    stage.start().await;
    stage.until_fates("docs", &["ran", "merged", "merged", "merged", "merged"]).await;
    stage.until_standing("docs", "cooldown_active").await;
    assert_eq!(stage.runs(), 1);
    let ledger = stage.ledger("docs").await;
    assert!(ledger[0]["content"].as_str().unwrap().contains("part-0/a.md"), "{}", ledger[0]);
    fs::remove_file(stage.world.path("docs/part-2/a.md")).unwrap();
    wait_for("the second burst to be suppressed", LIMIT, async || {
        let fates = stage.fates("docs").await;
        if fates.last().unwrap() == "suppressed: cooldown_active" {
            Ok(())
        } else {
            Err(format!("{fates:?}"))
        }
    })
    .await;
    let (code, job, said) = stage.command(&["trigger", "fire", "docs", "--force"]);
    assert_eq!((code, job.trim().len()), (Some(0), 26), "{said}");
    wait_for(
        "the forced run",
        LIMIT,
        async || if stage.runs() == 2 { Ok(()) } else { Err(stage.runs().to_string()) },
    )
    .await;
}

#[tokio::test]
async fn five_saves_give_one_run_by_inotify() {
    five_saves_give_one_run("auto", "inotify").await;
}

#[tokio::test]
async fn five_saves_give_one_run_by_polling() {
    five_saves_give_one_run("poll", "polled").await;
}

#[tokio::test]
async fn fifty_thousand_files_cost_next_to_nothing_while_they_rest() {
    let keys = "paths = [\"{folder}/docs/**\"]\nmethod = \"inotify\"\nsettle = \"50ms\"\ndebounce = \"0s\"";
    let mut stage = Stage::new("many", &trigger("docs", "watch", keys)).await;
    stage.agent.take().unwrap().terminate().await;
    for folder in 0..500 {
        let folder = stage.world.path("docs").join(folder.to_string());
        fs::create_dir_all(&folder).unwrap();
        for file in 0..100 {
            fs::write(folder.join(format!("{file}.md")), "").unwrap();
        }
    }
    stage.start().await;
    // What came while nobody watched runs first.
    stage.until_fates("docs", &["ran"]).await;
    stage.until_standing("docs", "cooldown_expired").await;
    let pid = stage.agent.as_ref().unwrap().pid();
    let usage = || {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let stat = read("stat");
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        (fields[11] + fields[12], resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap())
    };
    let before = usage();
    let begun = std::time::Instant::now();
    fs::write(stage.world.path("docs/250/50.md"), "changed").unwrap();
    wait_for("the change to be noticed", LIMIT, async || {
        let count = stage.fates("docs").await.len();
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let noticed = begun.elapsed();
    let after = usage();
    figure(&format!(
        "50,000 files: noticed after {noticed:?}, {} ticks of CPU (10 ms each) meanwhile, {} KiB resident",
        after.0 - before.0,
        after.1
    ));
    assert!(noticed < Duration::from_secs(1), "{noticed:?}");
    assert!(after.1 < 300 * 1024, "{} KiB", after.1);
}

#[tokio::test]
async fn a_schedule_comes_in_time_and_what_was_missed_by_its_rule() {
    let stage = Stage::new(
        "schedule",
        &[
            trigger("weekly", "schedule", "cron = \"0 3 * * SUN\"\ntime_zone = \"Europe/Berlin\""),
            trigger("minutes", "schedule", "cron = \"* * * * *\"\noverlap = \"queue\""),
        ]
        .concat(),
    )
    .await;
    let weekly = stage.get("/triggers/weekly").await;
    let next = weekly["next_runs"].as_array().unwrap();
    assert_eq!(next.len(), 3);
    for at in next {
        let at: jiff::Timestamp = at.as_str().unwrap().parse().unwrap();
        let local = at.in_tz("Europe/Berlin").unwrap();
        assert_eq!((local.hour(), local.weekday()), (3, jiff::civil::Weekday::Sunday));
    }
    let (_, out, _) = stage.command(&["trigger", "show", "weekly"]);
    assert!(out.contains("next runs"), "{out}");
    wait_for("the minute to come", LIMIT + LIMIT, async || {
        let fates = stage.fates("minutes").await;
        if fates.iter().any(|fate| fate == "ran") { Ok(()) } else { Err(format!("{fates:?}")) }
    })
    .await;
    let event = stage.ledger("minutes").await.remove(0);
    let content: Value = serde_json::from_str(event["content"].as_str().unwrap()).unwrap();
    assert!(content["scheduled_at"].as_str().unwrap().ends_with(":00Z"), "{content}");
    assert!(stage.fates("weekly").await.is_empty());
}

#[tokio::test]
async fn what_changes_on_a_branch_runs_and_other_paths_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let docs = Git::new(folder.path());
    docs.commit("first", &[("docs/a.md", Some("1"))]);
    let keys = format!(
        "repo = \"{}\"\npaths = [\"docs/**\", \"!docs/drafts/**\"]\npoll = \"100ms\"\ndebounce = \"0s\"",
        docs.bare.display()
    );
    let mut stage = Stage::new("branch", &trigger("docs", "git", &keys)).await;
    let seen = async |stage: &Stage| {
        let tip = docs.bare(&["rev-parse", "main"]).trim().to_owned();
        wait_for("the branch's tip to be seen", LIMIT, async || {
            let source = stage.get("/triggers/docs").await["source"].to_string();
            if source.contains(&tip) { Ok(()) } else { Err(source) }
        })
        .await;
    };
    seen(&stage).await;
    docs.commit("elsewhere", &[("src/a.rs", Some("1")), ("docs/drafts/b.md", Some("1"))]);
    seen(&stage).await;
    assert!(stage.fates("docs").await.is_empty());
    stage.agent.take().unwrap().kill();
    docs.commit("docs", &[("docs/a.md", Some("2"))]);
    stage.start().await;
    wait_for("the change to run", LIMIT, async || {
        let details = stage.get("/triggers/docs").await;
        if details["events"][0]["fate"] == "ran" { Ok(()) } else { Err(details.to_string()) }
    })
    .await;
    assert!(stage.ledger("docs").await[0]["content"].as_str().unwrap().contains("docs/a.md"));
}
