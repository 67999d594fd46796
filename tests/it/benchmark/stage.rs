//! What every measurement stands on: a world whose base jobs cost Nomad as little as they can, its agent, its API.

use std::{fs, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::LIMIT;
use crate::support::{Agent, World, look_every};

/// How often is looked where milliseconds count.
pub(super) const SOON: Duration = Duration::from_millis(1);

pub(super) struct Stage {
    pub(super) world: World,
    http: Client,
    token: String,
}

impl Stage {
    /// A world with the base jobs `mock`, whose tasks end at once, and `mock-live`, whose tasks last, and the
    /// formula `note`. The agent is told of commits and looks by itself once in a minute; what `change` makes of
    /// its configuration counts.
    pub(super) async fn new(name: &str, change: impl FnOnce(String) -> String) -> Self {
        let world = World::new(name).await;
        let jobs = world.path("jobs");
        fs::create_dir(&jobs).unwrap();
        for (name, run_for) in [("mock", "1ms"), ("mock-live", "1h")] {
            fs::write(jobs.join(format!("{name}.nomad.hcl")), mock_job(name, run_for)).unwrap();
        }
        let config = world
            .config_toml()
            .replace("poll = \"1s\"", "poll = \"1m\"")
            .replace("push_interval = \"100ms\"\n", "")
            .replace("[nomad]\n", &format!("[nomad]\njobs = \"{}\"\n", jobs.display()))
            // Outside the store's folder, which some measurements remove.
            .replace(
                "[server]\n",
                &format!("[server]\nrate = 0\ntokens_file = \"{}\"\n", world.path("tokens").display()),
            );
        world.bootstrap_with(&change(config));
        world.ops.commit(
            "formulas",
            &[("formulas/note.sh", Some("true\n")), ("formulas/nap.sh", Some("sleep 3600\n"))],
        );
        let token = world.token("bench", "admin");
        Self { world, http: crate::support::http(), token }
    }

    /// Starts the agent as an operator does, without the log that tests want, and waits until it takes work.
    pub(super) async fn agent(&self) -> Agent {
        let agent = self.launch();
        self.is_read().await;
        agent
    }

    pub(super) fn launch(&self) -> Agent {
        self.world.launch_agent_with(&[], &[("RUST_LOG", "warn")])
    }

    /// Waits until the agent has read the ops repo.
    async fn is_read(&self) {
        look_every(SOON, "the agent to have read the ops repo", LIMIT, async || {
            let answer = self.send(Method::POST, "/jobs", &json!({ "formula": "nothing" })).await?;
            if answer.0 == StatusCode::NOT_FOUND { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        let url = format!("{}{path}", self.world.agent_address());
        let request = self.http.request(method, url).bearer_auth(&self.token).json(body);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The HTTP request that submits this.
    pub(super) fn submission(&self, body: &Value) -> String {
        let body = body.to_string();
        format!(
            "POST /jobs HTTP/1.1\r\nHost: consign\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
    }

    /// Submits a job that needs no approval, of which `body` says more; gives its id.
    pub(super) async fn submit(&self, formula: &str, mut body: Value) -> String {
        body["formula"] = formula.into();
        body["blast_radius"] = "low".into();
        let (status, answer) = self.send(Method::POST, "/jobs", &body).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        answer["job_id"].as_str().unwrap().to_owned()
    }

    /// Waits until the job is in this state, and gives it.
    pub(super) async fn until(&self, id: &str, state: &str) -> Value {
        look_every(SOON * 5, &format!("{id} to be {state}"), LIMIT, async || {
            let (_, job) = self.send(Method::GET, &format!("/jobs/{id}"), &json!({})).await?;
            if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
        })
        .await
    }

    /// How many jobs are in a state, as the agent counts them.
    pub(super) async fn count(&self, state: &str) -> f64 {
        self.metric(&format!("consign_jobs{{phase=\"{state}\"}}")).await
    }

    /// One series of the agent's metrics.
    pub(super) async fn metric(&self, series: &str) -> f64 {
        let url = format!("{}/metrics", self.world.agent_address());
        let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    }

    /// Tells the agent that something was pushed, as a forge does.
    pub(super) async fn tell(&self) {
        let (status, answer) = self.send(Method::POST, "/hooks/git", &json!({})).await.unwrap();
        assert!(status.is_success(), "{answer}");
    }

    /// Has one job of the base job `mock` run to its end, and gives the child of Nomad's that it became. The agent
    /// must run.
    pub(super) async fn model(&self) -> Value {
        let id = self.submit("note", json!({ "job": "mock" })).await;
        let job = self.until(&id, "done").await;
        let child = job["attempts"][0]["nomad_job_id"].as_str().unwrap().replace('/', "%2F");
        self.world.nomad.get(&format!("/v1/job/{child}")).await.unwrap()
    }

    /// Registers a copy of the base job `mock` that consign knows nothing of.
    pub(super) async fn register_copy(&self, name: &str) {
        let mut job = self.world.nomad.get("/v1/job/mock").await.unwrap();
        job["ID"] = name.into();
        job["Name"] = name.into();
        self.world.nomad.request(Method::PUT, "/v1/jobs", Some(json!({ "Job": job }))).await.unwrap();
    }
}

/// The runner with tasks that do nothing for so long, in no process of their own.
pub(crate) fn mock_job(name: &str, run_for: &str) -> String {
    let text = include_str!("../../../jobs/runner.nomad.hcl");
    let (before, config) = text.split_once("      config {\n").unwrap();
    let (_, after) = config.split_once("      resources {\n").unwrap();
    format!(
        "{before}      config {{\n        run_for = \"{run_for}\"\n      }}\n\n      resources {{\n{after}"
    )
    .replace("job \"runner\"", &format!("job \"{name}\""))
    .replace("\"docker\"", "\"mock_driver\"")
    .replace("cpu    = 100", "cpu    = 1")
    .replace("memory = 256", "memory = 10")
    .replace("size = 500", "size = 10")
    .replace("max_files     = 5", "disabled      = true\n        max_files     = 1")
    .replace("max_file_size = 20", "max_file_size = 1")
}
