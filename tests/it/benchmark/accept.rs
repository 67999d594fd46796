//! How many jobs a second are taken over HTTP, each on disk before its answer, beside what SQLite commits.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{
    figure::{Aim, Figure, number},
    stage::Stage,
};
use crate::support::World;

const CONNECTIONS: usize = 8;
/// How often the two sides take turns.
const TURNS: u32 = 3;

pub(super) async fn measure(quick: bool) -> Vec<Figure> {
    let turn = Duration::from_secs(if quick { 1 } else { 4 });
    let stage = Stage::new("accept", |config| config).await;
    let _agent = stage.agent().await;
    // What is accepted stays in the queue: launching it is another measurement.
    let (status, answer) =
        stage.send(Method::POST, "/pause", &json!({ "reason": "a measurement" })).await.unwrap();
    assert!(status.is_success(), "{answer}");
    let request = stage.submission(&json!({ "formula": "note", "job": "mock", "blast_radius": "low" }));
    let (mut accepted, mut committed) = (0.0, 0.0);
    for _ in 0..TURNS {
        committed += commits(&stage.world, turn).await;
        let count = AtomicU32::new(0);
        let end = Instant::now() + turn;
        join_all((0..CONNECTIONS).map(|_| submit(&stage.world, &request, end, &count))).await;
        accepted += f64::from(count.into_inner()) / turn.as_secs_f64();
    }
    let (accepted, committed) = (accepted / f64::from(TURNS), committed / f64::from(TURNS));
    let floor = format!("{} durable commits of one row a second", number(committed));
    vec![
        Figure::new("http_accept_per_s", "jobs taken over HTTP with 8 connections", accepted).beside(&floor),
        Figure::new("http_accept_ratio", "jobs taken over HTTP to commits", accepted / committed)
            .aiming(Aim::AtLeast(1.0)),
    ]
}

/// Submits over one connection until `end`, with as little work on this side as can be.
async fn submit(world: &World, request: &str, end: Instant, count: &AtomicU32) {
    let address = world.agent_address();
    let stream = TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut body = [0; 1024];
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("HTTP/1.1 202"), "{line}");
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        stream.read_exact(&mut body[..length]).await.unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many rows a second SQLite commits on the disk of the store, one by one, with the store's settings.
async fn commits(world: &World, turn: Duration) -> f64 {
    let path = world.path("commits.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS rows (text TEXT)").execute(&mut connection).await.unwrap();
    let (mut count, begun) = (0_u32, Instant::now());
    while begun.elapsed() < turn {
        sqlx::query("INSERT INTO rows VALUES ($1)").bind("a row").execute(&mut connection).await.unwrap();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}
