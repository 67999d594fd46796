//! A disk that fails calls of the database: the first one of a start, a later one, and many while work goes on.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::Command,
};

use crate::{
    outages::{commit_formulas, each_once, let_end, works},
    support::{LIMIT, World, is_ready, wait_for},
};

/// How many actions meet failing calls. Each takes about a hundred calls where none fails.
const ACTIONS: usize = 24;
/// At most how many calls after one that failed the next one does.
const GAP: i64 = 60;
/// How many calls have failed in the end, at least.
const FAILED: i64 = 30;

/// Fails calls of an agent that was started with its environment.
struct Faults {
    library: PathBuf,
    orders: PathBuf,
    file: File,
}

impl Faults {
    fn of(world: &World) -> Self {
        let library = world.path("faults.so");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &PathBuf::from("tests/it/faults/database.c")])
            .arg("-ldl")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(status.expect("whoever links Rust programs has a C compiler").success());
        let orders = world.path("faults");
        fs::write(&orders, [0; 24]).unwrap();
        let file = File::options().read(true).write(true).open(&orders).unwrap();
        Self { library, orders, file }
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", self.library.to_str().unwrap()), ("DATABASE_FAULTS", self.orders.to_str().unwrap())]
    }

    /// The call `next` from now on fails, and then one at most `again` later; 0 is none.
    fn order(&self, next: i64, again: i64) {
        self.file.write_all_at(&again.to_ne_bytes(), 8).unwrap();
        self.file.write_all_at(&next.to_ne_bytes(), 0).unwrap();
    }

    /// How many calls have failed so far.
    fn failed(&self) -> i64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 16).unwrap();
        i64::from_ne_bytes(bytes)
    }
}

#[tokio::test]
async fn calls_of_the_database_fail_and_each_action_starts_once_and_is_answered() {
    let world = World::new("calls").await;
    world.bootstrap("");
    let faults = Faults::of(&world);

    // A start on a new store ends with the reason, or the call did not matter to it; the next one goes on.
    let mut call = 1;
    let agent = loop {
        faults.order(call, 0);
        let before = faults.failed();
        let mut agent = world.launch_agent_with(&[], &faults.environment());
        let address = agent.address.clone();
        let ready = wait_for("the agent to be ready", LIMIT, async || is_ready(&address).await);
        let code = tokio::select! {
            status = agent.ended() => status.code(),
            () = ready => break agent,
        };
        assert_eq!((code, faults.failed()), (Some(1), before + 1));
        assert!(agent.log().contains("disk I/O error"), "{}", agent.log());
        call = call * 3 / 2 + 1;
    };
    assert!(faults.failed() > 1, "the first calls of a start matter to it");

    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    works(&world, "working").await;
    let mut ids = vec!["working".to_owned()];
    faults.order(1, GAP);
    for number in 0..ACTIONS {
        let id = format!("call-{number}");
        world.commit_action(&id, "note", "");
        ids.push(id);
    }
    wait_for("half of the actions to start", LIMIT, async || {
        let started = world.ledger_lines().len();
        if started > ACTIONS / 2 { Ok(()) } else { Err(format!("{started} have started")) }
    })
    .await;
    // What it could not write is not what the next one finds half written.
    agent.kill();
    faults.order(0, 0);
    let agent = world.launch_agent_with(&[], &faults.environment());
    agent.ready().await;
    faults.order(1, GAP);
    for id in &ids[1..] {
        world.result(id, LIMIT).await;
    }
    assert!(faults.failed() > FAILED, "{} calls failed", faults.failed());
    faults.order(0, 0);
    let_end(&world, "working");
    each_once(&world, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    agent.recovered().await;
    assert_eq!(agent.terminate().await.code(), Some(0));
    assert_eq!(world.database_says().await, ["ok"]);
}
