//! Each right of the agent's Nomad ACL policy is needed: without it, a request of consign's is refused.

use consign::bootstrap::acl::POLICY;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{NomadApi, OwnServers, World};

/// A job that mounts a host volume, as a variant does.
fn job(volume: Option<(&str, bool)>) -> Value {
    let volumes = volume.map_or(json!({}), |(name, read_only)| {
        json!({ "v": { "Name": "v", "Type": "host", "Source": name, "ReadOnly": read_only } })
    });
    json!({ "Job": { "ID": "made", "Name": "made", "Type": "batch", "Datacenters": ["nowhere"],
        "TaskGroups": [{ "Name": "g", "Volumes": volumes, "Tasks": [{ "Name": "t", "Driver": "raw_exec",
            "Config": { "command": "/bin/true" } }] }] } })
}

/// What consign asks of Nomad, each by the right that it takes.
fn requests(allocation: &str) -> Vec<(String, Method, String, Option<Value>)> {
    let volume = |name: &str, read_only| {
        (
            format!("host_volume {name}"),
            Method::PUT,
            "/v1/jobs".to_owned(),
            Some(job(Some((name, read_only)))),
        )
    };
    let mut requests: Vec<_> = [
        ("list-jobs", Method::GET, "/v1/jobs".to_owned(), None),
        ("read-job", Method::GET, "/v1/job/there".to_owned(), None),
        ("parse-job", Method::PUT, "/v1/jobs/parse".to_owned(), Some(json!({ "JobHCL": "job \"a\" {}" }))),
        ("register-job", Method::PUT, "/v1/jobs".to_owned(), Some(job(None))),
        ("dispatch-job", Method::PUT, "/v1/job/there/dispatch".to_owned(), Some(json!({}))),
        ("deregister-job", Method::DELETE, "/v1/job/made".to_owned(), None),
        ("read-fs", Method::GET, format!("/v1/client/fs/ls/{allocation}?path=/"), None),
        ("read-fs", Method::GET, format!("/v1/client/fs/logs/{allocation}?task=task&type=stdout"), None),
        ("node", Method::GET, "/v1/nodes".to_owned(), None),
    ]
    .map(|(right, method, path, body)| (right.to_owned(), method, path, body))
    .into();
    requests.extend(["ssh", "gpg", "sops", "ops-repo"].map(|name| volume(name, true)));
    requests.extend(["training", "project-repos", "agent-data"].map(|name| volume(name, false)));
    requests
}

/// The rights of the policy, and what is left without each.
fn without_each(policy: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for capability in policy["namespace"]["default"]["capabilities"].as_array().unwrap() {
        let mut left = policy.clone();
        let capabilities = left["namespace"]["default"]["capabilities"].as_array_mut().unwrap();
        capabilities.retain(|one| one != capability);
        found.push((capability.as_str().unwrap().to_owned(), left));
    }
    for (name, rule) in policy["host_volume"].as_object().unwrap() {
        let mut left = policy.clone();
        // What only reads may not do without; what writes may not do with reading alone.
        left["host_volume"][name]["policy"] = if rule["policy"] == "write" { "read" } else { "deny" }.into();
        found.push((format!("host_volume {name}"), left));
    }
    let mut left = policy.clone();
    left["node"]["policy"] = "deny".into();
    found.push(("node".to_owned(), left));
    found
}

/// A client with a token that has this policy. A Nomad client keeps policies by name for a while.
async fn client(world: &World, number: usize, policy: &Value) -> NomadApi {
    let name = format!("{}-{number}", world.name);
    let mut rules = policy.clone();
    rules["namespace"] = json!({ (world.name.as_str()): policy["namespace"]["default"] });
    let body = json!({ "Name": name, "Rules": rules.to_string() });
    world.nomad.request(Method::PUT, &format!("/v1/acl/policy/{name}"), Some(body)).await.unwrap();
    let body = json!({ "Name": name, "Type": "client", "Policies": [name] });
    let token = world.nomad.request(Method::PUT, "/v1/acl/token", Some(body)).await.unwrap();
    NomadApi::new(&world.nomad.address, &world.name, Some(token["SecretID"].as_str().unwrap().into()))
}

#[tokio::test]
async fn each_right_of_the_agents_acl_policy_is_needed() {
    let own = OwnServers::start_with_acls().await;
    let world = World::on(own.servers.clone(), "needed").await;
    world.nomad.run_script("there", "echo there").await;
    let allocation = world.nomad.allocation("there", "complete").await["ID"].as_str().unwrap().to_owned();
    let policy: Value = hcl::from_str(POLICY).unwrap();
    let rights = without_each(&policy);
    let whole = client(&world, rights.len(), &policy).await;
    let mut wrong = Vec::new();
    for (right, method, path, body) in requests(&allocation) {
        let answer = whole.answer(method, &path, body).await.unwrap();
        if answer.0 == StatusCode::FORBIDDEN {
            wrong.push(format!("{right} is not enough for {path}: {}", answer.1));
        }
    }
    for (number, (right, left)) in rights.iter().enumerate() {
        let client = client(&world, number, left).await;
        let mut known = false;
        for (_, method, path, body) in requests(&allocation).into_iter().filter(|request| request.0 == *right)
        {
            known = true;
            let answer = client.answer(method, &path, body).await.unwrap();
            if answer.0 != StatusCode::FORBIDDEN {
                wrong.push(format!("{path} without {right}: {} {}", answer.0, answer.1));
            }
        }
        if !known {
            wrong.push(format!("nothing needs {right}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    own.nomad.stop().await.unwrap();
}
