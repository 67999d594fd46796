//! Nomad: reachable, new enough, permitted, and able to run the base jobs.

use super::{
    Finding, Tokens,
    version::{self, Version},
};
use crate::{
    agent,
    config::Config,
    dispatch::base_job::{Driver, MARKER},
    nomad::{Client, Error, Kind, Node},
    telemetry::chain,
};

const SUBJECT: &str = "nomad";
/// The oldest version that works.
const OLDEST: Version = (1, 10, 2);
/// The first version in which concurrent dispatches with one token make one child.
const RELIABLE: Version = (1, 11, 2);
/// The smallest job that Nomad parses.
const PARSED: &str = "job \"consign-doctor\" {\n  group \"group\" {\n    task \"task\" {\n      driver = \"raw_exec\"\n    }\n  }\n}\n";

pub(super) async fn examine(config: &Config, tokens: &Tokens) -> Vec<Finding> {
    let token = match agent::token("[nomad] token_file", tokens.nomad.clone(), &config.nomad.token_file) {
        Ok(token) => token,
        Err(error) => {
            let remedy = "Make the file hold the agent's ACL token, or set [nomad] token_file.";
            return vec![Finding::failure(SUBJECT, error.to_string(), remedy)];
        }
    };
    let client = match agent::nomad_client(config, token) {
        Ok(client) => client,
        Err(error) => {
            return vec![Finding::failure(SUBJECT, chain(&error), "Set [nomad] addr and ca_cert.")];
        }
    };
    let mut findings = Vec::new();
    match client.leader().await {
        Ok(leader) if leader.is_empty() => findings.push(Finding::failure(
            SUBJECT,
            "the cluster has no leader",
            "nomad server members: bring back a majority of the servers.",
        )),
        Ok(leader) => {
            findings.push(Finding::ok(SUBJECT, format!("{} answers, leader {leader}", config.nomad.addr)));
        }
        Err(error) => {
            let remedy = "Set [nomad] addr (NOMAD_ADDR), or start Nomad there.";
            return vec![Finding::failure(SUBJECT, chain(&error), remedy)];
        }
    }
    match client.nodes().await {
        Ok(nodes) => {
            findings.extend(judge_nodes(&nodes, config.nomad.driver.name()));
            findings
                .extend(further_drivers(config).filter_map(|driver| judge_further(&nodes, driver.name())));
        }
        Err(error) => findings.push(refused("reading nodes", &error, "node { policy = \"read\" }")),
    }
    findings.extend(judge_image(config.nomad.driver, &config.nomad.image));
    findings.extend(permissions(&client).await);
    findings.extend(base_jobs(&client, config).await);
    findings
}

async fn permissions(client: &Client) -> Vec<Finding> {
    let namespace = client.namespace();
    let rule = |capability: &str| format!("namespace {namespace:?} {{ capabilities = [{capability:?}] }}");
    let listed = client.live_children("consign-doctor", "^consign-doctor").await.map(drop);
    let parsed = client.parse(PARSED).await.map(drop);
    let asked = [("listing jobs", listed, rule("list-jobs")), ("parsing a job", parsed, rule("parse-job"))];
    let mut findings: Vec<Finding> = asked
        .into_iter()
        .filter_map(|(doing, result, rule)| Some(refused(doing, &result.err()?, &rule)))
        .collect();
    if findings.is_empty() {
        findings
            .push(Finding::ok(SUBJECT, format!("jobs can be listed and parsed in namespace {namespace}")));
    }
    findings
}

async fn base_jobs(client: &Client, config: &Config) -> Vec<Finding> {
    // What is wrong with the files is told where the configuration is examined.
    let Ok(jobs) = agent::base_jobs(config) else { return Vec::new() };
    let mut findings = Vec::new();
    for name in jobs.names() {
        findings.push(match client.job(name).await {
            Ok(None) => Finding::ok(SUBJECT, format!("base job {name} is absent; the agent registers it")),
            Ok(Some(job)) if job["Meta"][MARKER].is_string() => {
                Finding::ok(SUBJECT, format!("base job {name} was registered by consign"))
            }
            Ok(Some(_)) => {
                let message = format!("there is a job {name} that consign did not register");
                let remedy = format!(
                    "nomad job stop -purge {name}, or set [nomad] namespace to one of consign's own."
                );
                Finding::failure(SUBJECT, message, remedy)
            }
            Err(error) => {
                let rule = format!("namespace {:?} {{ capabilities = [\"read-job\"] }}", client.namespace());
                refused("reading a job", &error, &rule)
            }
        });
    }
    findings
}

fn refused(doing: &str, error: &Error, rule: &str) -> Finding {
    let remedy = match error.kind() {
        Kind::Denied => format!("Give the agent's token, in an ACL policy: {rule}"),
        _ => "Look at the log of the Nomad server at [nomad] addr.".to_owned(),
    };
    Finding::failure(SUBJECT, format!("{doing}: {}", chain(error)), remedy)
}

/// The drivers that actions may ask for besides the configured one.
fn further_drivers(config: &Config) -> impl Iterator<Item = Driver> {
    let of_rules = config.shapes.rule.iter().filter_map(|rule| rule.drivers.as_ref()).flatten();
    let mut drivers: Vec<Driver> = config.shapes.drivers.iter().chain(of_rules).copied().collect();
    drivers.sort_by_key(|driver| driver.name());
    drivers.dedup();
    drivers.into_iter().filter(|driver| *driver != config.nomad.driver)
}

/// Whether a driver that actions may ask for works nowhere.
fn judge_further(nodes: &[Node], driver: &str) -> Option<Finding> {
    if able(nodes, driver) > 0 {
        return None;
    }
    let message = format!("[shapes] allows the driver {driver}, and no ready node has it healthy");
    let remedy = format!("Enable {driver} on a Nomad client, or leave it out of [shapes] drivers.");
    Some(Finding::warning(SUBJECT, message, remedy))
}

/// How many nodes take work and run it under `driver`.
fn able(nodes: &[Node], driver: &str) -> usize {
    nodes
        .iter()
        .filter(|node| node.status == "ready" && node.scheduling_eligibility == "eligible")
        .filter(|node| node.drivers.get(driver).is_some_and(|state| state.detected && state.healthy))
        .count()
}

/// What the nodes tell: their versions, and whether any can run the base jobs.
fn judge_nodes(nodes: &[Node], driver: &str) -> Vec<Finding> {
    let live: Vec<&Node> = nodes.iter().filter(|node| node.status != "down").collect();
    let mut findings: Vec<Finding> =
        live.iter().filter_map(|node| judge_version(&node.name, &node.version)).collect();
    let able = able(nodes, driver);
    findings.push(if able == 0 {
        let mut message =
            format!("of {} nodes none is ready, eligible and has a healthy driver {driver}", live.len());
        if let Some((node, words)) = live.iter().find_map(|node| complaint(node, driver)) {
            message = format!("{message}; {node} says: {words}");
        }
        let remedy = format!(
            "Enable {driver} on a Nomad client (nomad node status -verbose NODE), or set [nomad] driver."
        );
        Finding::failure(SUBJECT, message, remedy)
    } else {
        Finding::ok(SUBJECT, format!("{able} of {} nodes can run driver {driver}", live.len()))
    });
    findings
}

/// A node's name and what it says of a driver that it has and that does not work.
fn complaint<'a>(node: &'a Node, driver: &str) -> Option<(&'a str, &'a str)> {
    let state = node.drivers.get(driver).filter(|state| !state.healthy)?;
    (!state.health_description.is_empty()).then_some((&node.name, &state.health_description))
}

/// What stands in the way of an image, as far as its name tells. Nomad has no way to ask nodes for theirs.
fn judge_image(driver: Driver, image: &str) -> Option<Finding> {
    if driver != Driver::Docker || image.is_empty() || image.contains('@') {
        return None;
    }
    let tag = image.rsplit('/').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
    matches!(tag, None | Some("latest")).then(|| {
        let message =
            format!("[nomad] image {image} has no fixed tag: its nodes ask the registry before each run");
        Finding::warning(SUBJECT, message, "Give it a tag other than latest, or a digest.")
    })
}

fn judge_version(node: &str, text: &str) -> Option<Finding> {
    let remedy = "Upgrade Nomad to 1.11.2 or newer.";
    match version::parse(text) {
        None => Some(Finding::warning(
            SUBJECT,
            format!("node {node} does not tell its version: {text:?}"),
            remedy,
        )),
        Some(found) if found < OLDEST => {
            let message = format!("node {node} has Nomad {text}; 1.10.2 or newer is needed");
            Some(Finding::failure(SUBJECT, message, remedy))
        }
        Some(found) if found < RELIABLE => {
            let message = format!(
                "node {node} has Nomad {text}: of concurrent dispatches with one token several may be \
                 made; the launch gate lets one start"
            );
            Some(Finding::warning(SUBJECT, message, remedy))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn versions_too_old_fail_and_racy_ones_warn() {
        let level = |text| judge_version("a", text).map(|finding| finding.level);
        assert_eq!(level("1.10.1"), Some(Level::Failure));
        assert_eq!(level("1.10.2"), Some(Level::Warning));
        assert_eq!(level("1.11.1+ent"), Some(Level::Warning));
        assert_eq!(level("1.11.2"), None);
        assert_eq!(level("2.0.0"), None);
        assert_eq!(level("dev"), Some(Level::Warning));
    }

    #[test]
    fn one_node_must_be_able_to_run_the_base_jobs() {
        let node = |status: &str, eligibility: &str, healthy: bool| -> Node {
            serde_json::from_value(serde_json::json!({
                "Name": "a", "Status": status, "Version": "1.11.3", "SchedulingEligibility": eligibility,
                "Drivers": {"exec": {"Detected": true, "Healthy": healthy}},
            }))
            .unwrap()
        };
        let level = |nodes: &[Node]| judge_nodes(nodes, "exec")[0].level;
        assert_eq!(level(&[node("ready", "eligible", true)]), Level::Ok);
        assert_eq!(level(&[node("ready", "ineligible", true)]), Level::Failure);
        assert_eq!(level(&[node("ready", "eligible", false)]), Level::Failure);
        assert_eq!(level(&[node("down", "eligible", true)]), Level::Failure);
        assert_eq!(level(&[]), Level::Failure);
        assert_eq!(judge_nodes(&[node("ready", "eligible", true)], "docker")[0].level, Level::Failure);
        assert_eq!(judge_further(&[node("ready", "eligible", true)], "exec"), None);
        assert!(judge_further(&[node("ready", "eligible", true)], "raw_exec").is_some());
    }

    #[test]
    fn an_unhealthy_driver_says_why() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "Name": "a", "Status": "ready", "Version": "1.11.3", "SchedulingEligibility": "eligible",
            "Drivers": {"docker": {
                "Detected": true, "Healthy": false, "HealthDescription": "Failed to connect to docker daemon",
            }},
        }))
        .unwrap();
        let message = &judge_nodes(&[node], "docker")[0].message;
        assert!(message.ends_with("; a says: Failed to connect to docker daemon"), "{message}");
    }

    #[test]
    fn an_image_without_a_fixed_tag_is_asked_for_each_time() {
        let warned = |driver, image| judge_image(driver, image).is_some();
        for image in ["debian", "debian:latest", "registry:5000/debian"] {
            assert!(warned(Driver::Docker, image), "{image}");
            assert!(!warned(Driver::Exec, image), "{image}");
        }
        for image in ["debian:stable-slim", "registry:5000/debian:12", "debian@sha256:ab", ""] {
            assert!(!warned(Driver::Docker, image), "{image}");
        }
    }
}
