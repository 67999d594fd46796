//! What the agent's identities are refused.

use std::fs;

use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{AgentJob, PATIENCE};
use crate::support::{NomadApi, World, wait_for};

/// Asks for all that the agent does not need, with the agent's own identity.
pub(super) async fn everything_else_is_refused(world: &World, agent: &AgentJob) {
    let identity = fs::read_to_string(agent.secret_file("nomad_consign.jwt").await).unwrap();
    let nomad = NomadApi::new(&world.servers.nomad_address, &world.name, Some(identity.clone().into()));
    // It is the identity that the agent works with.
    let jobs = nomad.get("/v1/jobs?namespace=*").await.unwrap();
    let ids: Vec<&str> = jobs.as_array().unwrap().iter().filter_map(|job| job["ID"].as_str()).collect();
    assert!(ids.contains(&"runner") && !ids.contains(&"consign"), "{ids:?}");
    // Lists that it may not see are empty, or hold its own alone.
    let foreign = json!({ "Path": "nomad/jobs/foreign", "Items": { "a": "b" } });
    world.nomad.request(Method::PUT, "/v1/var/nomad/jobs/foreign", Some(foreign)).await.unwrap();
    let variables = nomad.get("/v1/vars?namespace=*").await.unwrap();
    let paths: Vec<&Value> = variables.as_array().unwrap().iter().map(|one| &one["Path"]).collect();
    assert_eq!(paths, ["nomad/jobs/consign"]);
    assert_eq!(nomad.get("/v1/volumes?type=csi&namespace=*").await.unwrap(), json!([]));
    let policies = nomad.get("/v1/acl/policies").await.unwrap();
    assert_eq!(policies.as_array().unwrap().len(), 1, "{policies}");

    world.nomad.run_script("foreign", "sleep 1000").await;
    let allocation = wait_for("a foreign allocation", PATIENCE, async || {
        let allocations = world.nomad.get("/v1/job/foreign/allocations").await?;
        let running =
            allocations.as_array().into_iter().flatten().find(|one| one["ClientStatus"] == "running");
        running.and_then(|one| one["ID"].as_str().map(str::to_owned)).ok_or_else(|| allocations.to_string())
    })
    .await;
    let node = agent.node().await;
    let own = &agent.nomad.namespace;
    let mut allowed = Vec::new();
    for (method, path, body) in requests(own, &node, &allocation) {
        let answer = nomad.answer(method.clone(), &path, body).await.unwrap();
        if answer.0 != StatusCode::FORBIDDEN {
            allowed.push(format!("{method} {path}: {} {}", answer.0, answer.1));
        }
    }
    assert_eq!(allowed, Vec::<String>::new());

    let namespace = format!("-namespace={}", world.name);
    let exec = ["alloc", "exec", &namespace, "-i=false", "-t=false", &allocation, "true"];
    let output = super::job::nomad_command(world, &identity).args(exec).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("Permission denied"), "{said}");
}

/// The requests, of which each is one that a token with the right would have answered otherwise.
fn requests(own: &str, node: &str, allocation: &str) -> Vec<(Method, String, Option<Value>)> {
    let (get, put, delete) = (Method::GET, Method::PUT, Method::DELETE);
    let job = json!({ "Job": { "ID": "intruder", "Name": "intruder", "Type": "batch", "Datacenters": ["*"],
        "TaskGroups": [{ "Name": "g", "Tasks": [{ "Name": "t", "Driver": "raw_exec",
            "Config": { "command": "/bin/true" } }] }] } });
    let texts = [
        // Other namespaces, its own job's among them.
        (&get, format!("/v1/jobs?namespace={own}"), None),
        (&get, format!("/v1/job/consign?namespace={own}"), None),
        (&get, "/v1/jobs?namespace=default".to_owned(), None),
        (&put, format!("/v1/jobs?namespace={own}"), Some(job.clone())),
        (&put, "/v1/jobs?namespace=default".to_owned(), Some(job.clone())),
        (&delete, format!("/v1/job/consign?namespace={own}"), None),
        (&put, "/v1/namespace".to_owned(), Some(json!({ "Name": "mine" }))),
        (&delete, "/v1/namespace/default".to_owned(), None),
        // More of a job than registering, dispatching and stopping it.
        (&delete, "/v1/job/foreign?purge=true".to_owned(), None),
        (&put, "/v1/job/intruder/plan".to_owned(), Some(json!({ "Job": job["Job"], "Diff": true }))),
        (&put, "/v1/job/foreign/evaluate".to_owned(), Some(json!({ "JobID": "foreign" }))),
        (&put, "/v1/job/foreign/revert".to_owned(), Some(json!({ "JobID": "foreign", "JobVersion": 0 }))),
        (&put, "/v1/job/foreign/stable".to_owned(), Some(json!({ "JobID": "foreign", "Stable": true }))),
        (&put, "/v1/job/foreign/scale".to_owned(), Some(json!({ "Count": 2, "Target": { "Group": "g" } }))),
        // Allocations beyond reading.
        (&put, format!("/v1/allocation/{allocation}/stop"), None),
        (&put, format!("/v1/client/allocation/{allocation}/restart"), Some(json!({ "AllTasks": true }))),
        (&put, format!("/v1/client/allocation/{allocation}/signal"), Some(json!({ "Signal": "SIGKILL" }))),
        (&get, format!("/v1/client/allocation/{allocation}/gc"), None),
        // The cluster.
        (&put, "/v1/system/gc".to_owned(), None),
        (&put, "/v1/system/reconcile/summaries".to_owned(), None),
        (&put, format!("/v1/node/{node}/drain"), Some(json!({ "DrainSpec": null, "MarkEligible": true }))),
        (&put, format!("/v1/node/{node}/eligibility"), Some(json!({ "Eligibility": "ineligible" }))),
        (&put, format!("/v1/node/{node}/purge"), None),
        (&put, "/v1/node/pool/mine".to_owned(), Some(json!({ "Name": "mine" }))),
        (&get, format!("/v1/client/gc?node_id={node}"), None),
        (&get, "/v1/agent/self".to_owned(), None),
        (&put, "/v1/agent/force-leave?node=x".to_owned(), None),
        (&get, "/v1/operator/raft/configuration".to_owned(), None),
        (&get, "/v1/operator/scheduler/configuration".to_owned(), None),
        (&put, "/v1/operator/scheduler/configuration".to_owned(), Some(json!({ "PauseEvalBroker": true }))),
        (&put, "/v1/operator/keyring/rotate".to_owned(), None),
        (&get, "/v1/operator/snapshot".to_owned(), None),
        // ACLs.
        (&get, "/v1/acl/tokens".to_owned(), None),
        (&put, "/v1/acl/token".to_owned(), Some(json!({ "Name": "mine", "Type": "management" }))),
        (
            &put,
            "/v1/acl/policy/mine".to_owned(),
            Some(json!({ "Name": "mine", "Rules": "node { policy = \"write\" }" })),
        ),
        (&put, "/v1/acl/role".to_owned(), Some(json!({ "Name": "mine", "Policies": [{ "Name": "mine" }] }))),
        // Variables and volumes.
        (&get, "/v1/var/nomad/jobs/foreign".to_owned(), None),
        (
            &put,
            format!("/v1/var/nomad/jobs/consign?namespace={own}"),
            Some(json!({ "Path": "nomad/jobs/consign", "Items": { "a": "b" } })),
        ),
        (&put, "/v1/var/consign".to_owned(), Some(json!({ "Path": "consign", "Items": { "a": "b" } }))),
        (
            &put,
            "/v1/volume/host/create".to_owned(),
            Some(json!({ "Volume": { "Name": "mine", "PluginID": "mkdir" } })),
        ),
    ];
    texts.map(|(method, path, body)| (method.clone(), path, body)).to_vec()
}

/// Another task of the agent's own namespace cannot log in with the agent's role, nor as the agent in Nomad.
pub(super) async fn nobody_else_logs_in_as_the_agent(world: &World, agent: &AgentJob) {
    let job = json!({ "Job": { "ID": "other", "Name": "other", "Type": "batch", "Datacenters": ["*"],
        "TaskGroups": [{ "Name": "consign", "Tasks": [{ "Name": "consign", "Driver": "raw_exec",
            "Config": { "command": "/bin/sh", "args": ["-c", "cat $NOMAD_SECRETS_DIR/nomad_vault.jwt"] },
            "Identities": [{ "Name": "vault", "Audience": ["vault.io"], "File": true }] }] }] } });
    agent.nomad.request(Method::PUT, "/v1/jobs", Some(job)).await.unwrap();
    let identity = wait_for("the identity of another task", PATIENCE, async || {
        let allocations = agent.nomad.get("/v1/job/other/allocations").await?;
        let done = allocations.as_array().into_iter().flatten().find(|one| one["ClientStatus"] == "complete");
        let id = done.and_then(|one| one["ID"].as_str()).ok_or_else(|| allocations.to_string())?;
        let logs = format!("/v1/client/fs/logs/{id}?task=consign&type=stdout&plain=true");
        match agent.nomad.get(&logs).await? {
            Value::String(text) if !text.is_empty() => Ok(text),
            other => Err(other.to_string()),
        }
    })
    .await;
    let login = |role: String| {
        let url = format!("{}/v1/auth/jwt-nomad/login", world.servers.vault_address);
        let body = json!({ "jwt": identity.trim(), "role": role });
        async move { crate::support::http().put(url).json(&body).send().await.unwrap() }
    };
    let answer = login(agent.vault_role.clone()).await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_client_error() && text.contains("nomad_job_id"), "{status}: {text}");

    // The agent's own token has the two Vault policies and not Vault's default one.
    let token = fs::read_to_string(agent.secret_file("vault_token").await).unwrap();
    let url = format!("{}/v1/auth/token/lookup-self", world.servers.vault_address);
    let facts = crate::support::http().get(url).header("X-Vault-Token", token.trim()).send().await.unwrap();
    let facts: Value = serde_json::from_str(&facts.text().await.unwrap()).unwrap();
    let expected = json!([format!("{}-agent", world.gate()), format!("{}-task", world.gate())]);
    assert_eq!(facts["data"]["policies"], expected, "{facts}");
    assert!(facts["data"]["period"].as_u64().is_some_and(|period| period <= 1800), "{facts}");
    assert_ne!(token.trim(), world.servers.vault_token.expose_secret());
}
