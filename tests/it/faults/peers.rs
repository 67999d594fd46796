//! Others who write to the same branch or believe that the ops repo is theirs, and a Nomad that forgot everything.

use std::thread;

use consign::dev::servers::Role;
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    outages::{commit_formulas, each_once, let_end, works},
    support::{Agent, LIMIT, OwnServers, World, ends, wait_for},
};

const PUSHERS: usize = 4;
/// How much each of them pushes, as fast as it can. Whoever pushes for ever leaves nobody else a turn on a machine
/// that is busy: git's branch goes to whoever is quickest.
const COMMITS: usize = 15;

#[tokio::test]
async fn results_find_their_way_between_four_who_push_all_the_time() {
    let world = World::new("pushers").await;
    world.bootstrap("");
    let agent = world.agent().await;
    commit_formulas(&world);
    let ids: Vec<String> = (0..12).map(|number| format!("action-{number}")).collect();
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|number| {
            let clone = world.ops.another(&world.path(&number.to_string()));
            // Each commit is another one, also where two are made on one tip in the same second.
            thread::spawn(move || {
                (0..COMMITS).for_each(|count| drop(clone.commit(&format!("noise {number} {count}"), &[])));
            })
        })
        .collect();
    for id in &ids {
        world.commit_action(id, "note", "");
    }
    for pusher in pushers {
        tokio::task::spawn_blocking(|| pusher.join().unwrap()).await.unwrap();
    }
    each_once(&world, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let noise = world.ops.bare(&["log", "--format=%s", "--grep=^noise ", "main"]);
    assert_eq!(noise.lines().count(), PUSHERS * COMMITS, "whatever was pushed is still there");
    agent.recovered().await;
}

fn signal(agent: &Agent, signal: Signal) {
    kill_process(Pid::from_raw(agent.pid().try_into().unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn an_agent_that_slept_while_another_took_over_does_nothing_when_it_wakes() {
    let world = World::new("sleeper").await;
    world.bootstrap("");
    let mut sleeper = world.agent().await;
    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    works(&world, "working").await;
    // It is due when nobody but the successor is awake, and long past when the sleeper is.
    let soon = Timestamp::now() + SignedDuration::from_secs(3);
    world.commit_action("later", "note", &format!("not_before = \"{soon:.0}\"\n"));
    wait_for("the sleeper to know it", LIMIT, async || {
        let log = sleeper.log();
        if log.contains("actions/later.toml") { Ok(()) } else { Err(log) }
    })
    .await;
    signal(&sleeper, Signal::STOP);
    world.commit_action("one", "note", "");
    let successor = world.launch_another("other", &["--take-over"]);
    successor.ready().await;
    world.commit_action("two", "wait", "");
    works(&world, "two").await;
    for id in ["one", "later"] {
        assert_eq!(world.result(id, LIMIT).await["outcome"], "succeeded");
    }

    signal(&sleeper, Signal::CONT);
    assert_eq!(sleeper.ended().await.code(), Some(1), "{}", sleeper.log());
    assert!(sleeper.log().contains("was claimed by the store"), "{}", sleeper.log());
    for id in ["working", "two"] {
        let_end(&world, id);
    }
    each_once(&world, &["working", "one", "later", "two"]).await;
    successor.recovered().await;
}

#[tokio::test]
async fn a_nomad_that_forgot_everything_makes_live_work_lost_and_takes_new_work() {
    let mut own = OwnServers::start_with(|options| options.role = Role::Dev).await;
    let world = World::on(own.servers.clone(), "forgot").await;
    world.bootstrap("");
    let agent = world.agent().await;
    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    works(&world, "working").await;
    own.nomad.kill().await.unwrap();
    own.nomad.launch().await.unwrap();
    world.nomad.create_namespace().await;
    let lost = world.result("working", LIMIT * 2).await;
    ends(&lost, "lost", "vanished");
    world.commit_action("new", "note", "");
    assert_eq!(world.result("new", LIMIT * 2).await["outcome"], "succeeded");
    assert_eq!(world.ledger_lines(), ["working", "new"], "what was lost is not run again");
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    let_end(&world, "working");
    agent.recovered().await;
}
