//! What tells of events by itself: watched trees, schedules, branches.

use consign::{
    store::{Store, TriggerChange},
    trigger::state::Own,
};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::support::Git;

/// Five saves give one run, a restart in between forgets nothing, and a second burst in the cooldown gives none.
async fn five_saves_give_one_run(method: &str, noticed: &str) {
    let keys = format!(
        "paths = [\"{{folder}}/docs/**/*.md\", \"!{{folder}}/docs/drafts/**\"]\nmethod = \"{method}\"\n\
         settle = \"50ms\"\npoll = \"100ms\"\ndebounce = \"10s\"\ncooldown = \"6h\"\nallow_force = true"
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
async fn where_inotify_has_no_watches_left_it_polls_and_says_so() {
    let keys = "paths = [\"{folder}/docs/**\"]\nsettle = \"50ms\"\npoll = \"100ms\"\ndebounce = \"0s\"";
    let mut stage = Stage::new("no-watches", &trigger("docs", "watch", keys)).await;
    stage.agent.take().unwrap().terminate().await;
    fs::create_dir_all(stage.world.path("docs/part")).unwrap();
    // One watch for two folders. The limit is that of a user namespace, which the agent alone is in.
    let limited = "echo 1 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let within = ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh"];
    stage.agent.insert(stage.world.launch_agent_within(&within)).ready().await;
    let source = wait_for("the tree to be watched", LIMIT, async || {
        let source = stage.get("/triggers/docs").await["source"].to_string();
        if source.contains("watched") || source.contains("polled") { Ok(source) } else { Err(source) }
    })
    .await;
    let said = "polled every 100ms: there are no inotify watches left: raise fs.inotify.max_user_watches";
    assert!(source.contains(said), "{source}");
    let agent = stage.agent.as_ref().unwrap();
    assert!(agent.log().contains(said), "{}", agent.log());
    fs::write(stage.world.path("docs/part/a.md"), "1").unwrap();
    wait_for("the save to be noticed", LIMIT, async || {
        let events = stage.ledger("docs").await;
        if events.len() == 1 { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    assert!(stage.ledger("docs").await[0]["content"].as_str().unwrap().contains("by polling"));
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
    // Half an hour ago and half an hour from now something is due.
    let half_past = (Timestamp::now() - SignedDuration::from_mins(30)).strftime("%M").to_string();
    let hourly = |missed: &str| format!("cron = \"{half_past} * * * *\"\nmissed = \"{missed}\"");
    let mut stage = Stage::new(
        "schedule",
        &[
            trigger("once", "schedule", &hourly("once")),
            trigger("skip", "schedule", &hourly("skip")),
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
        let at: Timestamp = at.as_str().unwrap().parse().unwrap();
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
    for trigger in ["weekly", "once", "skip"] {
        assert!(
            stage.fates(trigger).await.is_empty(),
            "{trigger}: nothing is missed from before its first start"
        );
    }

    // The agent was away for two times.
    stage.agent.take().unwrap().terminate().await;
    let told = Timestamp::now() - SignedDuration::from_mins(100);
    let store = Store::open(&stage.world.path("store")).await.unwrap();
    for name in ["once", "skip"] {
        let own = Own { mark: Some(told.to_string()), ..Own::default() };
        let change = TriggerChange { own: Some((name, &own)), ..TriggerChange::default() };
        store.save_trigger(&change).await.unwrap();
    }
    drop(store);
    for _ in 0..2 {
        stage.start().await;
        stage.until_fates("once", &["ran"]).await;
        stage.until_fates("skip", &["suppressed: missed"]).await;
        stage.until_standing("once", "cooldown_expired").await;
        // What was told is not told again.
        stage.agent.take().unwrap().terminate().await;
    }
    stage.start().await;
    for trigger in ["once", "skip"] {
        let [event] = &stage.ledger(trigger).await[..] else { panic!("{trigger} has other events") };
        let content: Value = serde_json::from_str(event["content"].as_str().unwrap()).unwrap();
        let at: Timestamp = content["scheduled_at"].as_str().unwrap().parse().unwrap();
        assert_eq!((&content["missed"], at > told), (&json!(1), true), "{content}");
    }
}

#[tokio::test]
async fn what_changes_on_a_branch_runs_and_other_paths_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let repository = |name: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        Git::new(&folder.path().join(name))
    };
    let (docs, other) = (repository("docs"), repository("other"));
    docs.commit("first", &[("docs/a.md", Some("1"))]);
    other.commit("another first", &[("docs/a.md", Some("3"))]);
    let keys = format!(
        "repo = \"{}\"\npaths = [\"docs/**\", \"!docs/drafts/**\"]\npoll = \"100ms\"\ndebounce = \"0s\"",
        docs.bare.display()
    );
    let mut stage = Stage::new("branch", &trigger("docs", "git", &keys)).await;
    let seen = async |stage: &Stage, docs: &Git| {
        let tip = docs.bare(&["rev-parse", "main"]).trim().to_owned();
        wait_for("the branch's tip to be seen", LIMIT, async || {
            let source = stage.get("/triggers/docs").await["source"].to_string();
            if source.contains(&tip) { Ok(()) } else { Err(source) }
        })
        .await;
    };
    seen(&stage, &docs).await;
    docs.commit("elsewhere", &[("src/a.rs", Some("1")), ("docs/drafts/b.md", Some("1"))]);
    seen(&stage, &docs).await;
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

    // Another repository is another beginning, and a mirror that nobody needs goes.
    let folder = stage.world.path("store/mirrors");
    let mirrors = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let before: Vec<_> = mirrors().collect();
    stage.agent.take().unwrap().terminate().await;
    let config = stage.world.path("consign.toml");
    let text = fs::read_to_string(&config).unwrap();
    let moved = text.replace(docs.bare.to_str().unwrap(), other.bare.to_str().unwrap());
    fs::write(&config, &moved).unwrap();
    stage.start().await;
    seen(&stage, &other).await;
    wait_for("the other mirror alone", LIMIT, async || {
        let after: Vec<_> = mirrors().collect();
        if after.len() == 1 && after != before { Ok(()) } else { Err(format!("{after:?}")) }
    })
    .await;
    assert_eq!(stage.fates("docs").await, ["ran"], "nothing changed there");
    stage.agent.take().unwrap().terminate().await;
    fs::write(&config, text.split_once("[[trigger]]").unwrap().0).unwrap();
    stage.agent = Some(stage.world.agent().await);
    wait_for("no mirror", LIMIT, async || if mirrors().count() == 0 { Ok(()) } else { Err(String::new()) })
        .await;
}
