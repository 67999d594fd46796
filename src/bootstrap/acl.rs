//! The agent's rights in Nomad, where it is a Nomad job itself: an ACL policy that is bound to the workload
//! identity of its one task, so that no token has to be made.

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use serde_json::Value;

use super::{AgentJob, Error, Settings};
use crate::{
    config::Config,
    dispatch::launch::BaseJobs,
    nomad::{AclPolicy, AclState, Client, JobBinding},
};

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

/// The host volumes that the agent may mount into the jobs that it registers, by name: whether for writing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostVolumes {
    writable: BTreeMap<String, bool>,
}

impl HostVolumes {
    /// Those of `[mounts]` and of the base jobs themselves.
    #[must_use]
    pub fn of(config: &Config, base_jobs: &BaseJobs) -> Self {
        let mut volumes = Self::default();
        for mount in config.mounts.values() {
            volumes.add(mount.volume.as_str(), mount.read_only);
        }
        for volume in base_jobs.volumes() {
            volumes.add(&volume.source, volume.read_only);
        }
        volumes
    }

    /// One more use of a volume; the widest counts.
    fn add(&mut self, name: &str, read_only: bool) {
        *self.writable.entry(name.to_owned()).or_default() |= !read_only;
    }

    fn render(&self) -> Result<String, Error> {
        let mut text = String::new();
        for (name, writable) in &self.writable {
            // Nomad's policies know no other characters in a volume's name, and `*` as a pattern.
            if !is_plain(name) {
                return Err(Error::VolumeName { name: name.clone() });
            }
            let policy = if *writable { "write" } else { "read" };
            let _ = write!(text, "\nhost_volume \"{name}\" {{\n  policy = \"{policy}\"\n}}\n");
        }
        Ok(text)
    }
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
pub async fn plan(
    nomad: &Client,
    settings: &Settings,
    job: &AgentJob,
    volumes: &HostVolumes,
) -> Result<State, Error> {
    let name = policy_name(settings);
    let doing = format!("reading the ACL policy {name} with the operator's NOMAD_TOKEN");
    let present = nomad.acl_policy(&name).await.map_err(Error::nomad(doing))?;
    if present == AclState::Off {
        return Ok(State::Off);
    }
    let versions = nomad.server_versions().await.map_err(Error::nomad("reading the servers' versions"))?;
    let wanted = AclPolicy {
        description: "What the consign agent needs, by the identity of its task".to_owned(),
        rules: render(&settings.nomad_namespace, is_fine_grained(&versions), volumes)?,
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

/// Whether a name means just itself in a Nomad ACL policy.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
}

/// The policy for `namespace`, with these host volumes in place of those that the shipped text has.
fn render(namespace: &str, fine_grained: bool, volumes: &HostVolumes) -> Result<String, Error> {
    if !is_plain(namespace) {
        return Err(Error::Name { value: namespace.to_owned() });
    }
    let lines = POLICY.lines().take_while(|line| !line.starts_with("host_volume "));
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    let text: String = lines.skip_while(|line| line.is_empty()).flat_map(|line| [line, "\n"]).collect();
    let text = format!("{}\n{}", text.trim_end(), volumes.render()?);
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
    use serde_json::json;

    use super::{super::tests::settings, *};
    use crate::{agent, config};

    fn volumes(uses: &[(&str, bool)]) -> HostVolumes {
        let mut volumes = HostVolumes::default();
        for (name, read_only) in uses {
            volumes.add(name, *read_only);
        }
        volumes
    }

    fn capabilities(text: &str, namespace: &str) -> Vec<String> {
        let rules: Value = hcl::from_str(text).unwrap();
        assert_eq!(rules["node"]["policy"], "read");
        let kinds: Vec<&String> = rules.as_object().unwrap().keys().collect();
        assert_eq!(kinds, ["host_volume", "namespace", "node"]);
        assert_eq!(
            rules["host_volume"],
            json!({ "models": { "policy": "write" }, "ssh": { "policy": "read" } })
        );
        let namespaces = rules["namespace"].as_object().unwrap();
        assert_eq!(namespaces.keys().collect::<Vec<_>>(), [namespace]);
        let list = namespaces[namespace]["capabilities"].as_array().unwrap();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_agent_gets_these_rights_and_no_more() {
        let volumes = volumes(&[("ssh", true), ("models", true), ("models", false), ("models", true)]);
        assert_eq!(
            capabilities(&render("runner", true, &volumes).unwrap(), "runner"),
            [
                "list-jobs",
                "read-job",
                "parse-job",
                "register-job",
                "deregister-job",
                "dispatch-job",
                "read-fs"
            ]
        );
        assert_eq!(
            capabilities(&render("default", false, &volumes).unwrap(), "default"),
            ["list-jobs", "read-job", "parse-job", "submit-job", "dispatch-job", "read-fs"]
        );
    }

    #[test]
    fn a_namespace_with_a_second_meaning_is_refused() {
        for bad in ["", "*", "a\"", "a b", "a/b"] {
            assert!(matches!(render(bad, true, &HostVolumes::default()), Err(Error::Name { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_volume_that_no_policy_can_name_is_refused() {
        for bad in ["*", "deploy_keys", "a.b", "a\"b", "${x}"] {
            let refused = render("default", true, &volumes(&[(bad, true)]));
            assert!(matches!(refused, Err(Error::VolumeName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn the_shipped_policy_is_that_of_the_default_configuration() {
        let config = config::read("consign.toml", "", &config::Environment::new()).unwrap();
        let volumes = HostVolumes::of(&config, &agent::base_jobs(&config).unwrap());
        let rendered = render("default", true, &volumes).unwrap();
        assert!(same(&rendered, POLICY), "policies/nomad-agent.hcl has other rights than\n{rendered}");
    }

    #[test]
    fn the_volumes_are_those_of_the_mounts_and_of_the_base_jobs() {
        let text = "[mounts.ssh]\nvolume = \"deploy-keys\"\n\
            [mounts.data]\nvolume = \"models\"\ndestination = \"/data\"\nread_only = false\n";
        let config = config::read("consign.toml", text, &config::Environment::new()).unwrap();
        let found = HostVolumes::of(&config, &agent::base_jobs(&config).unwrap()).writable;
        let writable = |name: &str| found.get(name).copied();
        assert_eq!(
            (writable("deploy-keys"), writable("models"), writable("training"), writable("ssh")),
            (Some(false), Some(true), Some(true), None)
        );
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
