//! The agent killed at every named moment, over and over, while work of every kind comes in.
//!
//! `scripts/test` takes two hundred kills; `scripts/chaos` any number, and prints the table of docs/reliability.md.

mod life;
mod plan;
mod table;

use std::{env, path::PathBuf};

use futures_util::{StreamExt as _, stream};
use tokio::task::spawn_blocking;

use self::{plan::Plan, table::Table};
use crate::support::seed;

const KILLS: u64 = 200;
/// How many kills one world goes through before the oracles are asked.
const BATCH: u64 = 25;
/// How many worlds there are at a time.
const WORLDS: usize = 4;

/// Goes through all batches that the table does not have, and gives it to `keep` after each.
async fn fill(table: &mut Table, seed: u64, kills: u64, keep: impl Fn(&Table)) {
    let missing: Vec<u64> = (0..kills.div_ceil(BATCH)).filter(|batch| !table.has(*batch)).collect();
    let batches = missing.into_iter().map(|batch| {
        let numbers = batch * BATCH..kills.min((batch + 1) * BATCH);
        let plans = numbers.map(|number| Plan::new(seed, number)).collect();
        async move { (batch, spawn_blocking(|| life::of_agents(plans)).await.unwrap()) }
    });
    let mut done = stream::iter(batches).buffer_unordered(WORLDS);
    while let Some((batch, rows)) = done.next().await {
        table.add(batch, rows);
        keep(table);
    }
}

#[tokio::test]
async fn kills_at_every_point_lose_double_and_leak_nothing() {
    let mut table = Table::default();
    fill(&mut table, seed(), KILLS, |_| ()).await;
    assert_eq!((table.kills(), table.points()), (KILLS, plan::POINTS), "every point was reached");
    assert_eq!(table.violations(), Vec::<String>::new());
}

/// Any number of kills, as `scripts/chaos` asks for them: the table is in a file, from which another run goes on.
#[tokio::test]
#[ignore = "scripts/chaos runs it"]
async fn chaos() {
    let kills = env::var("CONSIGN_TEST_KILLS").unwrap().parse().unwrap();
    let file = PathBuf::from(env::var_os("CONSIGN_TEST_TABLE").unwrap());
    let mut table = Table::read(&file, seed());
    fill(&mut table, seed(), kills, |table| table.write(&file)).await;
    table.print();
    assert_eq!(table.violations(), Vec::<String>::new());
}
