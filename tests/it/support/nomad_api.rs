//! Nomad's HTTP API, as plainly as the tests need it.

use reqwest::{Client, Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{LIMIT, wait_for};

/// One namespace of one Nomad.
#[derive(Debug, Clone)]
pub(crate) struct NomadApi {
    pub(crate) address: String,
    pub(crate) namespace: String,
    token: Option<SecretString>,
    http: Client,
}

impl NomadApi {
    pub(crate) fn new(address: &str, namespace: &str, token: Option<SecretString>) -> Self {
        let http = crate::support::http();
        Self { address: address.to_owned(), namespace: namespace.to_owned(), token, http }
    }

    /// Makes the namespace.
    pub(crate) async fn create_namespace(&self) {
        self.request(Method::PUT, "/v1/namespace", Some(json!({"Name": self.namespace}))).await.unwrap();
    }

    /// A GET of `path`, such as `/v1/jobs`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        self.request(Method::GET, path, None).await
    }

    /// A request in this namespace; an error says what Nomad said.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, String> {
        let (status, text) = self.answer(method, path, body).await?;
        if !status.is_success() {
            return Err(format!("{path}: {status}: {text}"));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Status and text of the answer to a request in this namespace, unless `path` names another one.
    pub(crate) async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, String), String> {
        let mut request = self.http.request(method, format!("{}{path}", self.address));
        if !path.contains("namespace=") {
            request = request.query(&[("namespace", &self.namespace)]);
        }
        if let Some(token) = &self.token {
            request = request.header("X-Nomad-Token", token.expose_secret());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        Ok((status, text))
    }

    /// Registers a batch job with one `raw_exec` task that runs `script`.
    pub(crate) async fn run_script(&self, id: &str, script: &str) {
        let job = json!({"Job": {
            "ID": id, "Name": id, "Type": "batch", "Namespace": self.namespace, "Datacenters": ["*"],
            "TaskGroups": [{
                "Name": "group",
                "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
                "ReschedulePolicy": {"Attempts": 0, "Unlimited": false},
                "Tasks": [{
                    "Name": "task", "Driver": "raw_exec",
                    "Config": {"command": "/bin/sh", "args": ["-c", script]},
                    "Resources": {"CPU": 20, "MemoryMB": 32},
                }],
            }],
        }});
        self.request(Method::PUT, "/v1/jobs", Some(job)).await.unwrap();
    }

    /// Waits until the job's one allocation has this client status, and gives it.
    pub(crate) async fn allocation(&self, job: &str, status: &str) -> Value {
        wait_for(&format!("the allocation of {job} to be {status}"), LIMIT, async || {
            let list = self.get(&format!("/v1/job/{job}/allocations")).await?;
            match &list[0] {
                found if found["ClientStatus"] == status => Ok(found.clone()),
                other => Err(other["ClientStatus"].to_string()),
            }
        })
        .await
    }
}
