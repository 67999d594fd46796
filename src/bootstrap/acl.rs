//! The agent's rights in Nomad, where it is a Nomad job itself: an ACL policy that is bound to the workload
//! identity of its one task, so that no token has to be made.

use std::fmt;

use serde_json::Value;

use super::{AgentJob, Error, Settings};
use crate::nomad::{AclPolicy, AclState, Client, JobBinding};

/// The agent's ACL policy, for the namespace `default`.
pub const POLICY: &str = include_str!("../../policies/nomad-agent.hcl");

/// The first version of Nomad that tells registering and stopping a job from all else that `submit-job` allows.
const FINE_GRAINED: (u32, u32, u32) = (1, 11, 2);

/// How Nomad stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// ACLs are off: whoever reaches Nomad may do everything.
    Off,
    /// The policy is there.
    Right,
    /// The policy is to be written.
    Missing(PolicyChange),
}

/// The ACL policy to write. Its text is a sentence that is true before and after it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChange {
    policy: AclPolicy,
}

impl fmt::Display for PolicyChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, job) = (&self.policy.name, bound_to(&self.policy));
        write!(formatter, "write Nomad ACL policy {name}, bound to {job}")
    }
}

/// Reads Nomad's present state.
pub async fn plan(nomad: &Client, settings: &Settings, job: &AgentJob) -> Result<State, Error> {
    let name = policy_name(settings);
    let doing = format!("reading the ACL policy {name} with the operator's NOMAD_TOKEN");
    let present = nomad.acl_policy(&name).await.map_err(Error::nomad(doing))?;
    if present == AclState::Off {
        return Ok(State::Off);
    }
    let versions = nomad.server_versions().await.map_err(Error::nomad("reading the servers' versions"))?;
    let wanted = AclPolicy {
        description: "What the consign agent needs, by the identity of its task".to_owned(),
        rules: render(&settings.nomad_namespace, is_fine_grained(&versions))?,
        job: Some(JobBinding {
            namespace: job.namespace.clone(),
            job_id: job.id.clone(),
            group: AgentJob::GROUP.to_owned(),
            task: AgentJob::TASK.to_owned(),
        }),
        name,
    };
    match present {
        AclState::Present(present) if present.job.is_some() && present.job != wanted.job => {
            Err(Error::PolicyTaken { bound_to: bound_to(&present), name: wanted.name })
        }
        AclState::Present(present) if present.job == wanted.job && same(&present.rules, &wanted.rules) => {
            Ok(State::Right)
        }
        _ => Ok(State::Missing(PolicyChange { policy: wanted })),
    }
}

/// Writes the policy that [`plan`] proposed.
pub async fn apply(nomad: &Client, change: &PolicyChange) -> Result<(), Error> {
    let doing = format!("making this change: {change}");
    nomad.write_acl_policy(&change.policy).await.map_err(Error::nomad(doing))
}

/// The policy's name: Nomad allows letters, digits and `-` only.
fn policy_name(settings: &Settings) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    settings.agent_policy().chars().map(plain).collect()
}

fn bound_to(policy: &AclPolicy) -> String {
    policy.job.as_ref().map_or_else(
        || "no job".to_owned(),
        |job| format!("the job {} in Nomad namespace {}", job.job_id, job.namespace),
    )
}

/// Whether every server knows the finer capabilities; one that does not tell its version counts as new.
fn is_fine_grained(versions: &[String]) -> bool {
    versions
        .iter()
        .filter_map(|text| crate::doctor::version::parse(text))
        .all(|version| version >= FINE_GRAINED)
}

/// The policy for `namespace`.
fn render(namespace: &str, fine_grained: bool) -> Result<String, Error> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
    if namespace.is_empty() || !namespace.chars().all(is_plain) {
        return Err(Error::Name { value: namespace.to_owned() });
    }
    let lines = POLICY.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text: String = lines.skip_while(|line| line.is_empty()).flat_map(|line| [line, "\n"]).collect();
    let text = text.replace("namespace \"default\"", &format!("namespace \"{namespace}\""));
    Ok(if fine_grained {
        text
    } else {
        text.replace("    \"deregister-job\",\n", "").replace("\"register-job\"", "\"submit-job\"")
    })
}

/// Whether two texts allow the same, whatever their layout.
fn same(left: &str, right: &str) -> bool {
    let read = |text: &str| hcl::from_str::<Value>(text);
    matches!((read(left), read(right)), (Ok(left), Ok(right)) if left == right)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settings, *};

    fn capabilities(text: &str, namespace: &str) -> Vec<String> {
        let rules: Value = hcl::from_str(text).unwrap();
        assert_eq!(rules["node"]["policy"], "read");
        assert_eq!(rules.as_object().unwrap().len(), 3, "{rules}");
        let volumes = rules["host_volume"].as_object().unwrap().iter();
        let volumes: Vec<(&str, &Value)> =
            volumes.map(|(name, rule)| (name.as_str(), &rule["policy"])).collect();
        let mounts = [("gpg", "read"), ("sops", "read"), ("ssh", "read"), ("training", "write")];
        let helpers = [("agent-data", "write"), ("ops-repo", "read"), ("project-repos", "write")];
        for expected in mounts.iter().chain(&helpers) {
            assert!(
                volumes
                    .iter()
                    .any(|(name, policy)| (*name, policy.as_str()) == (expected.0, Some(expected.1)))
            );
        }
        assert_eq!(volumes.len(), mounts.len() + helpers.len());
        let namespaces = rules["namespace"].as_object().unwrap();
        assert_eq!(namespaces.keys().collect::<Vec<_>>(), [namespace]);
        let list = namespaces[namespace]["capabilities"].as_array().unwrap();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_agent_gets_these_rights_and_no_more() {
        assert_eq!(
            capabilities(&render("runner", true).unwrap(), "runner"),
            [
                "list-jobs",
                "read-job",
                "parse-job",
                "register-job",
                "deregister-job",
                "dispatch-job",
                "read-logs",
                "read-fs"
            ]
        );
        assert_eq!(
            capabilities(&render("default", false).unwrap(), "default"),
            ["list-jobs", "read-job", "parse-job", "submit-job", "dispatch-job", "read-logs", "read-fs"]
        );
    }

    #[test]
    fn a_namespace_with_a_second_meaning_is_refused() {
        for bad in ["", "*", "a\"", "a b", "a/b"] {
            assert!(matches!(render(bad, true), Err(Error::Name { .. })), "{bad:?}");
        }
    }

    #[test]
    fn the_finer_capabilities_need_every_server() {
        let versions =
            |texts: &[&str]| is_fine_grained(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert!(versions(&["1.11.2", "2.0.0"]));
        assert!(!versions(&["1.11.3", "1.11.1+ent"]));
        assert!(versions(&["dev"]));
    }

    #[test]
    fn a_gates_name_becomes_a_policys_name() {
        let settings = Settings { gate: "team_a.go".to_owned(), ..settings() };
        assert_eq!(policy_name(&settings), "team-a-go-agent");
    }
}
