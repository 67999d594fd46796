//! The auth method that allocations log in with, and its roles: one for tasks, one for the agent where it is a
//! Nomad job itself.

use serde_json::{Map, Value, json};

use super::{AgentJob, Change, Error, Settings};
use crate::vault::Vault;

/// The claim that tells allocations apart and that none can forge.
const USER_CLAIM: &str = "nomad_allocation_id";
/// The claim that is the same for every allocation of the agent's job, so that the agent is one entity.
const AGENT_USER_CLAIM: &str = "sub";
/// How long a token lives unless it is renewed, in seconds.
const TOKEN_PERIOD: u64 = 1800;

/// Plans the auth method itself; gives its accessor where it is there.
pub(super) async fn plan_method(
    vault: &Vault,
    settings: &Settings,
    changes: &mut Vec<Change>,
) -> Result<Option<String>, Error> {
    let path = &settings.auth_path;
    let method = vault.auth_method(path).await.map_err(Error::vault("reading the auth methods"))?;
    let trust = Change::ConfigureJwt { path: path.clone(), jwks_url: settings.jwks_url.clone() };
    let Some(method) = method else {
        changes.extend([Change::EnableJwt { path: path.clone() }, trust]);
        return Ok(None);
    };
    if method.kind != "jwt" {
        return Err(Error::NotJwt { path: path.clone(), found: method.kind });
    }
    let present = read_config(vault, path).await?;
    if let Some(present) = &present {
        check_issuer(path, present)?;
    }
    if config(settings, present.as_ref()) != kept(present.as_ref()) {
        changes.push(trust);
    }
    Ok(Some(method.accessor))
}

/// Plans the roles; `enabled` says whether the auth method is there already.
pub(super) async fn plan_roles(
    vault: &Vault,
    settings: &Settings,
    enabled: bool,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    let path = || settings.auth_path.clone();
    let name = settings.role.clone();
    let fields = missing_fields(vault, settings, &name, &role(settings), enabled).await?;
    if !fields.is_empty() {
        changes.push(Change::Role { path: path(), name, fields });
    }
    if let Some(job) = &settings.agent_job {
        let name = settings.agent_policy();
        let fields = missing_fields(vault, settings, &name, &agent_role(settings, job), enabled).await?;
        if !fields.is_empty() {
            changes.push(Change::AgentRole { path: path(), name, job: job.clone(), fields });
        }
    }
    Ok(())
}

/// The fields in which a role differs from the wanted one.
async fn missing_fields(
    vault: &Vault,
    settings: &Settings,
    name: &str,
    wanted: &Value,
    enabled: bool,
) -> Result<Vec<String>, Error> {
    let present = if enabled {
        let role = vault.jwt_role(&settings.auth_path, name).await;
        role.map_err(Error::vault(format!("reading role {name}")))?
    } else {
        None
    };
    Ok(differing(wanted, &present.unwrap_or_default()))
}

/// Tells the auth method where Nomad's keys are; what else it is set to stays.
pub(super) async fn configure(vault: &Vault, settings: &Settings) -> Result<(), Error> {
    let path = &settings.auth_path;
    let present = read_config(vault, path).await?;
    let config = Value::Object(config(settings, present.as_ref()));
    vault.write_jwt_config(path, &config).await.map_err(Error::vault(format!(
        "configuring the auth method {path} (it has to reach {} itself)",
        settings.jwks_url
    )))
}

/// The accessor of the auth method, once it is enabled.
pub(super) async fn accessor(vault: &Vault, settings: &Settings) -> Result<String, Error> {
    let method = vault.auth_method(&settings.auth_path).await;
    let method = method.map_err(Error::vault("reading the auth methods"))?;
    method.map(|method| method.accessor).ok_or_else(|| Error::NoAccessor(settings.auth_path.clone()))
}

async fn read_config(vault: &Vault, path: &str) -> Result<Option<Value>, Error> {
    vault.jwt_config(path).await.map_err(Error::vault(format!("reading the configuration of {path}")))
}

/// An auth method that trusts another kind of issuer is somebody else's: it is never changed.
fn check_issuer(path: &str, present: &Value) -> Result<(), Error> {
    for source_of_keys in ["oidc_discovery_url", "jwt_validation_pubkeys", "jwks_pairs"] {
        if is_set(&present[source_of_keys]) {
            return Err(Error::OtherIssuer { path: path.to_owned(), source_of_keys });
        }
    }
    Ok(())
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// The part of a configuration that is written back: writing replaces the whole.
fn kept(present: Option<&Value>) -> Map<String, Value> {
    ["jwks_url", "jwks_ca_pem", "default_role", "bound_issuer", "jwt_supported_algs"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), present?.get(key)?.clone())))
        .filter(|(_, value)| is_set(value))
        .collect()
}

/// The wanted configuration. A default role that somebody chose stays: other jobs may rely on it,
/// and the base jobs name their role.
fn config(settings: &Settings, present: Option<&Value>) -> Map<String, Value> {
    let mut config = kept(present);
    config.insert("jwks_url".to_owned(), json!(settings.jwks_url));
    if let Some(authority) = &settings.jwks_ca {
        config.insert("jwks_ca_pem".to_owned(), json!(authority));
    }
    config.entry("default_role").or_insert_with(|| json!(settings.role));
    config
}

/// The role of tasks: it names the allocation, and grants nothing but keeping the token alive.
pub(super) fn role(settings: &Settings) -> Value {
    let claims = json!({ "nomad_namespace": settings.nomad_namespace });
    role_with(settings, &claims, USER_CLAIM, &[settings.task_policy()])
}

/// The role of the agent: its one task alone can log in with it.
pub(super) fn agent_role(settings: &Settings, job: &AgentJob) -> Value {
    let claims = json!({
        "nomad_namespace": job.namespace,
        "nomad_job_id": job.id,
        "nomad_task": AgentJob::TASK,
    });
    role_with(settings, &claims, AGENT_USER_CLAIM, &[settings.agent_policy(), settings.task_policy()])
}

fn role_with(settings: &Settings, claims: &Value, user_claim: &str, policies: &[String]) -> Value {
    json!({
        "role_type": "jwt",
        "bound_audiences": [settings.audience],
        "bound_claims": claims,
        "user_claim": user_claim,
        "user_claim_json_pointer": false,
        "token_type": "service",
        "token_period": TOKEN_PERIOD,
        "token_policies": policies,
        "token_no_default_policy": true,
    })
}

/// The fields of `wanted` that `present` has otherwise.
fn differing(wanted: &Value, present: &Value) -> Vec<String> {
    let wanted = wanted.as_object().into_iter().flatten();
    wanted.filter(|(key, value)| present.get(key) != Some(value)).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settings, *};

    #[test]
    fn what_others_configured_stays() {
        let present = json!({ "jwks_url": "http://old", "default_role": "nomad-workloads",
            "bound_issuer": "", "jwt_supported_algs": ["RS256"], "provider_config": {} });
        let config = Value::Object(config(
            &Settings { jwks_url: "http://nomad/keys".to_owned(), ..settings() },
            Some(&present),
        ));
        assert_eq!(
            config,
            json!({ "jwks_url": "http://nomad/keys", "default_role": "nomad-workloads",
                "jwt_supported_algs": ["RS256"] })
        );
    }

    #[test]
    fn another_kind_of_issuer_is_left_alone() {
        let present = json!({ "oidc_discovery_url": "https://login" });
        assert!(matches!(
            check_issuer("x", &present),
            Err(Error::OtherIssuer { source_of_keys: "oidc_discovery_url", .. })
        ));
        assert!(check_issuer("x", &json!({ "jwks_pairs": [], "oidc_discovery_url": "" })).is_ok());
    }

    #[test]
    fn the_agents_role_is_for_its_own_task_alone() {
        let job = AgentJob { namespace: "ops".to_owned(), id: "consign".to_owned() };
        let role = agent_role(&settings(), &job);
        assert_eq!(
            role["bound_claims"],
            json!({ "nomad_namespace": "ops", "nomad_job_id": "consign", "nomad_task": "consign" })
        );
        assert_eq!(role["token_policies"], json!(["consign-agent", "consign-task"]));
        assert_eq!(role["token_no_default_policy"], true);
    }

    #[test]
    fn only_fields_that_differ_are_named() {
        let wanted = role(&settings());
        assert_eq!(differing(&wanted, &wanted), Vec::<String>::new());
        let mut present = wanted.clone();
        present["user_claim"] = json!("nomad_job_id");
        assert_eq!(differing(&wanted, &present), ["user_claim"]);
        assert_eq!(differing(&wanted, &Value::Null).len(), 9);
    }
}
