//! Many jobs over HTTP while the agent is killed: each that was taken starts once and ends once.
//!
//! Their tasks are Nomad's mock driver's, behind the launch gate as all are: nearly all that they cost is what
//! Nomad and consign do for them. That each started once is read from Nomad's own record of its allocations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::{
    benchmark::{self, floor},
    support::{Random, World, wait_for},
};

/// How many jobs there are, unless `CONSIGN_TEST_JOBS` says otherwise.
const JOBS: usize = 300;
const KILLS: usize = 10;
/// How many jobs the raw API is measured with, where that was asked for.
const FLOOR: usize = 1000;
/// How many submit at a time.
const SUBMITTERS: usize = 8;
/// How long after its last sign of life the whole thing counts as stuck.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whoever submits, and what it knows.
struct Flood<'world> {
    world: &'world World,
    http: Client,
    token: String,
    jobs: usize,
    /// The number of the next job.
    next: AtomicUsize,
    /// How many tasks have started.
    started: AtomicUsize,
}

impl<'world> Flood<'world> {
    fn new(world: &'world World, jobs: usize) -> Self {
        let http = crate::support::http();
        let token = world.token("flood", "read,submit");
        Self { world, http, token, jobs, next: AtomicUsize::new(0), started: AtomicUsize::new(0) }
    }

    /// Submits one job after the other, and gives their ids by number. It runs ahead of the tasks by a fifth
    /// of all jobs: there are some to submit, some that wait and some that work until the last kill.
    async fn submit(&self) -> Vec<(usize, String)> {
        let mut taken = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.jobs {
                return taken;
            }
            while number > self.started.load(Ordering::Relaxed) + self.jobs / 5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            taken.push((number, self.insist(number).await));
        }
    }

    /// Sends one request until it is answered.
    async fn insist(&self, number: usize) -> String {
        let args = json!({ "number": number.to_string() });
        let body = json!({ "formula": "note", "args": args, "job": "mock", "blast_radius": "low" });
        let what = format!("an answer about job {number}");
        wait_for(&what, PATIENCE, async || {
            let request = self.http.post(format!("{}/jobs", self.world.agent_address()));
            let request = request.bearer_auth(&self.token).header("Idempotency-Key", number).json(&body);
            let answer = request.send().await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| error.to_string())?;
            match status {
                StatusCode::ACCEPTED => {
                    let answer: Value = serde_json::from_str(&text).unwrap();
                    Ok(answer["job_id"].as_str().unwrap().to_owned())
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Err(text),
                _ => panic!("job {number}: {status}: {text}"),
            }
        })
        .await
    }

    /// Kills the agent in regular parts of the work, at a random moment of each, and starts it again at once.
    async fn kill(&self) {
        let mut random = Random::new();
        for kill in 0..=KILLS {
            let agent = self.world.launch_agent(&[]);
            self.until_started(self.jobs * (kill + 1) / (KILLS + 1)).await;
            if kill == KILLS {
                self.until_ended().await;
            } else {
                tokio::time::sleep(Duration::from_millis(random.between(0, 500))).await;
            }
            agent.kill();
        }
    }

    /// Waits until so many tasks have started.
    async fn until_started(&self, enough: usize) {
        let mut changed_at = Instant::now();
        loop {
            let started = started(self.world).await;
            if self.started.swap(started, Ordering::Relaxed) != started {
                changed_at = Instant::now();
            }
            if started >= enough {
                return;
            }
            assert!(
                changed_at.elapsed() < PATIENCE,
                "no task starts; {started} have, and the latest job is {:?}",
                self.page("limit=1").await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until no job is live.
    async fn until_ended(&self) {
        wait_for("all jobs to end", PATIENCE, async || {
            for phase in ["waiting", "queued", "loading", "working"] {
                let page = self.page(&format!("phase={phase}&limit=1")).await?;
                if page["jobs"] != json!([]) {
                    return Err(page.to_string());
                }
            }
            Ok(())
        })
        .await;
    }

    async fn page(&self, query: &str) -> Result<Value, String> {
        let request = self.http.get(format!("{}/jobs?{query}", self.world.agent_address()));
        let answer = request.bearer_auth(&self.token).send().await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Every job that the agent knows, by its id.
    async fn all(&self) -> BTreeMap<String, Value> {
        let mut jobs = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let page = self.page(&format!("limit=200{cursor}")).await.unwrap();
            for job in page["jobs"].as_array().unwrap() {
                jobs.insert(job["job_id"].as_str().unwrap().to_owned(), job.clone());
            }
            let Some(next) = page["next"].as_str() else { return jobs };
            cursor = format!("&cursor={next}");
        }
    }
}

/// How many children have begun, as Nomad counts them.
async fn started(world: &World) -> usize {
    let Ok(summary) = world.nomad.get("/v1/job/mock/summary").await else { return 0 };
    let count = |name: &str| summary["Children"][name].as_u64().unwrap_or_default();
    usize::try_from(count("Running") + count("Dead")).unwrap()
}

/// The jobs whose tasks started, once for each start.
async fn starts(world: &World) -> Vec<String> {
    let children = world.nomad.get("/v1/jobs?prefix=mock%2Fdispatch-&meta=true").await.unwrap();
    let job_of: BTreeMap<&str, String> = children
        .as_array()
        .unwrap()
        .iter()
        .map(|child| {
            let meta = BASE64_STANDARD.decode(child["Meta"]["consign"].as_str().unwrap()).unwrap();
            let meta: Value = serde_json::from_slice(&meta).unwrap();
            (child["ID"].as_str().unwrap(), meta["job_id"].as_str().unwrap().to_owned())
        })
        .collect();
    let allocations = world.nomad.get("/v1/allocations").await.unwrap();
    let mut starts = Vec::new();
    for allocation in allocations.as_array().unwrap() {
        let events = allocation["TaskStates"]["runner"]["Events"].as_array().cloned().unwrap_or_default();
        let job = &job_of[allocation["JobID"].as_str().unwrap()];
        starts.extend(events.iter().filter(|event| event["Type"] == "Started").map(|_| job.clone()));
    }
    starts
}

#[tokio::test]
async fn every_job_taken_over_http_ends_once_though_the_agent_is_killed_ten_times() {
    let asked = std::env::var("CONSIGN_TEST_JOBS");
    let (measured, jobs) = (asked.is_ok(), asked.map_or(JOBS, |text| text.parse().unwrap()));
    let world = World::new("flood").await;
    let base_jobs = world.path("jobs");
    fs::create_dir(&base_jobs).unwrap();
    fs::write(base_jobs.join("mock.nomad.hcl"), benchmark::mock_job("mock", "1ms")).unwrap();
    let own = format!("[nomad]\njobs = {:?}\n", base_jobs.to_str().unwrap());
    world.bootstrap_with(&world.config_toml().replace("[nomad]\n", &own));
    world.ops.commit("a formula", &[("formulas/note.sh", Some("true\n"))]);
    // The store's folder is made by the first agent.
    world.agent().await.kill();
    let flood = Flood::new(&world, jobs);
    let begun = Instant::now();
    let submitters = futures_util::future::join_all((0..SUBMITTERS).map(|_| flood.submit()));
    let (taken, ()) = tokio::join!(submitters, flood.kill());
    let took = begun.elapsed();
    let taken: BTreeMap<usize, String> = taken.into_iter().flatten().collect();

    let agent = world.agent().await;
    let known = flood.all().await;
    let ids: BTreeSet<&String> = taken.values().collect();
    assert_eq!((taken.len(), ids.len()), (jobs, jobs), "each was taken as a job of its own");
    assert!(known.keys().eq(ids.iter().copied()), "there are {} jobs, and {jobs} were taken", known.len());
    for job in known.values() {
        assert_eq!((&job["state"], &job["outcome"]), (&json!("done"), &json!("succeeded")), "{job}");
    }
    let mut ran = starts(&world).await;
    ran.sort_unstable();
    assert!(ran.iter().eq(ids), "{} tasks started for {jobs} jobs", ran.len());
    assert_eq!(world.group_members(&world.gate()).await, Vec::<String>::new());
    assert!(agent.terminate().await.success());
    benchmark::say(format_args!("{jobs} jobs over HTTP with {KILLS} kills: {}", a_second(jobs, took)));
    if measured {
        let child = world.nomad.get("/v1/jobs?prefix=mock%2Fdispatch-&per_page=1").await.unwrap();
        let path = format!("/v1/job/{}", child[0]["ID"].as_str().unwrap().replace('/', "%2F"));
        let model = world.nomad.get(&path).await.unwrap();
        let bare = floor::time(&world, "mock", &model, FLOOR, floor::Dispatching::Api).await;
        benchmark::say(format_args!("{FLOOR} of them through the raw API: {}", a_second(FLOOR, bare)));
    }
}

fn a_second(jobs: usize, took: Duration) -> String {
    let rate = f64::from(u32::try_from(jobs).unwrap()) / took.as_secs_f64();
    format!("{:.1} s, {rate:.1} a second", took.as_secs_f64())
}
