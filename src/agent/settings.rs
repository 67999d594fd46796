//! The configuration in the words of each room.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;

use super::Error;
use crate::{
    approval,
    artifact::Limits,
    config::{self, Auth, Config, given},
    controller::{adopt, driver::Rules, step::Forges},
    credential::Credential,
    dispatch::{
        base_job::{self, BaseJob},
        launch::{self, BaseJobs},
        shape::Allowed,
    },
    forge,
    http::HookSecret,
    nomad, ops_repo,
    ops_repo::{Keys, RemoteUrl},
    queue,
    telemetry::chain,
    tokens::TokensFile,
    track::artifact::{Archive, Collector},
    vault::{self, Vault},
    webhook,
};

/// A Nomad client as the configuration says.
pub fn nomad_client(config: &Config, token: impl Into<Credential>) -> Result<nomad::Client, nomad::Error> {
    nomad::Client::new(nomad::Settings {
        addr: config.nomad.addr.clone(),
        token: token.into(),
        namespace: config.nomad.namespace.clone(),
        region: Some(config.nomad.region.clone()).filter(|region| !region.is_empty()),
        ca_cert: given(&config.nomad.ca_cert).map(Path::to_path_buf),
    })
}

/// A Vault client as the configuration says.
pub fn vault_client(config: &Config, token: impl Into<Credential>) -> Result<Vault, vault::Error> {
    Vault::new(&vault::Settings {
        address: config.vault.addr.clone(),
        ca_certificate: given(&config.vault.ca_cert).map(Path::to_path_buf),
        namespace: Some(config.vault.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        token: token.into(),
    })
}

/// The base jobs: those that are part of consign, and those of the configured folder.
pub fn base_jobs(config: &Config) -> Result<BaseJobs, Error> {
    let mut jobs = BaseJob::shipped();
    if let Some(folder) = given(&config.nomad.jobs) {
        jobs.extend(jobs_in(folder)?);
    }
    let settings = base_job::Settings {
        driver: config.nomad.driver,
        image: Some(config.nomad.image.clone()).filter(|image| !image.is_empty()),
        role: config.vault.role.clone(),
        audience: config.vault.audience.clone(),
        kv: config.vault.kv.clone(),
        prefix: config.vault.prefix.clone(),
        bots: config.vault.bots.clone(),
        lost_after: config.nomad.lost_after,
    };
    let setting = |error: launch::Error| Error::Setting { key: "[nomad] jobs", problem: chain(&error) };
    BaseJobs::render(&jobs, &settings).map_err(setting)
}

/// Reads every `<name>.nomad.hcl` of a folder.
fn jobs_in(folder: &Path) -> Result<Vec<BaseJob>, Error> {
    let setting = |problem: String| Error::Setting { key: "[nomad] jobs", problem };
    let unreadable =
        |path: &Path, error: &std::io::Error| setting(format!("cannot read {}: {error}", path.display()));
    let mut jobs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".nomad.hcl"));
        let Some(name) = name else { continue };
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        let job = BaseJob::read(name, &text).map_err(|problems| {
            let file = path.display().to_string();
            let rendered: Vec<String> =
                problems.iter().map(|problem| problem.render(&file, &text, false)).collect();
            setting(format!("{file} is no base job:\n{}", rendered.join("\n")))
        })?;
        jobs.push(job);
    }
    Ok(jobs)
}

/// A file that is named relative to where the agent was started: git runs elsewhere.
fn absolute(path: &Path) -> Option<PathBuf> {
    given(path).map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// The settings of the ops repo, with the mirror in `mirror`.
pub fn ops_settings(config: &Config, mirror: PathBuf) -> Result<ops_repo::Settings, Error> {
    if config.ops.repo.is_empty() {
        let problem = "no ops repo is named: give a path, or an ssh or https URL".to_owned();
        return Err(Error::Setting { key: "[ops] repo", problem });
    }
    let setting = |error: ops_repo::Error| Error::Setting { key: "[ops] repo", problem: chain(&error) };
    Ok(ops_repo::Settings {
        remote: RemoteUrl::parse(&config.ops.repo).map_err(setting)?,
        branch: config.ops.branch.clone(),
        mirror,
        actions: config.ops.actions.clone(),
        formulas: config.ops.formulas.clone(),
        author_name: config.ops.author_name.clone(),
        author_email: config.ops.author_email.clone(),
        results_branch: Some(config.results.branch.clone()).filter(|branch| !branch.is_empty()),
        signing_key: given(&config.results.signing_key).map(Path::to_path_buf),
        keys: Keys {
            signers: absolute(&config.approval.signers),
            revoked: absolute(&config.approval.revoked),
            openpgp: absolute(&config.approval.openpgp_keys),
        },
    })
}

/// The token of the environment, or else of the configured file; none where neither gives one.
pub fn token(key: &'static str, environment: Option<SecretString>, file: &Path) -> Result<Credential, Error> {
    if environment.is_some() {
        return Ok(environment.into());
    }
    let Some(file) = given(file) else { return Ok(Credential::default()) };
    Credential::from_file(file)
        .map_err(|error| Error::Setting { key, problem: format!("cannot read {}: {error}", file.display()) })
}

/// The tokens of the API; `None` where none is asked for.
pub(super) fn api_tokens(config: &Config) -> Option<TokensFile> {
    (config.server.auth == Auth::Token).then(|| TokensFile::new(config.tokens_file()))
}

pub(super) fn hook_secret(config: &Config) -> Result<HookSecret, Error> {
    let Some(file) = given(&config.ops.hook_secret_file) else { return Ok(HookSecret::LoopbackOnly) };
    HookSecret::read(file).map_err(|error| Error::Setting {
        key: "[ops] hook_secret_file",
        problem: format!("cannot read {}: {error}", file.display()),
    })
}

pub(super) fn webhook_secret(config: &Config) -> Result<Credential, Error> {
    let Some(file) = given(&config.webhooks.secret_file) else { return Ok(Credential::default()) };
    Credential::from_secret_file(file).map_err(|error| Error::Setting {
        key: "[webhooks] secret_file",
        problem: format!("cannot read {}: {error}", file.display()),
    })
}

/// Where webhooks may go, as the configuration says.
#[must_use]
pub fn receivers(config: &Config) -> webhook::Policy {
    webhook::Policy { allow_private: config.webhooks.allow_private, allow_loopback: false }
}

pub(super) fn collector(config: &Config, nomad: Arc<nomad::Client>, archive: Archive) -> Collector {
    let limits = Limits {
        size: config.store.artifact_size.as_u64(),
        total: config.store.artifact_total.as_u64(),
        count: config.store.artifact_count,
    };
    Collector::new(nomad, archive, limits, config.store.artifact_reserve.as_u64())
}

/// A client for each configured forge. A rule that names another one is an error.
pub fn forges(config: &Config) -> Result<Forges, Error> {
    let setting = |problem| Error::Setting { key: "[forge]", problem };
    if let Some(name) = config
        .approval
        .rule
        .iter()
        .find_map(|rule| rule.forge.as_ref().filter(|name| !config.forge.contains_key(*name)))
    {
        return Err(setting(format!(
            "a rule of [approval] names the forge {name:?}, which there is none of"
        )));
    }
    let client = |(name, settings): (&String, &config::Forge)| {
        let client = forge::Client::new(&forge_settings(settings, &settings.repository)?)
            .map_err(|error| setting(format!("[forge.{name}]: {}", chain(&error))))?;
        Ok((name.clone(), Arc::new(client)))
    };
    config.forge.iter().map(client).collect()
}

/// How a repository of a configured forge is reached.
pub(super) fn forge_settings(settings: &config::Forge, repository: &str) -> Result<forge::Settings, Error> {
    Ok(forge::Settings {
        kind: settings.kind,
        url: settings.url.clone(),
        repository: repository.to_owned(),
        token: token("[forge] token_file", None, &settings.token_file)?,
        ca_cert: given(&settings.ca_cert).map(Path::to_path_buf),
    })
}

/// What actions may ask for, as the configuration says.
#[must_use]
pub fn allowed(config: &Config) -> Allowed {
    Allowed { limits: config.shapes.clone(), mounts: config.mounts.clone(), driver: config.nomad.driver }
}

/// What approvals are needed, as the configuration says.
#[must_use]
pub fn approval_rules(config: &Config) -> approval::Rules {
    approval::Rules {
        low: config.approval.low,
        medium: config.approval.medium,
        high: config.approval.high,
        submitted: config.approval.api,
        rules: config.approval.rule.clone(),
    }
}

pub(super) fn rules(config: &Config) -> Rules {
    Rules {
        adopt: adopt::Rules {
            enabled: config.adopt.enabled,
            secrets: config.adopt.secrets.clone(),
            bots: config.adopt.bots.clone(),
        },
        queue: queue::Rules {
            caps: queue::Caps {
                running: config.limits.running,
                formula: config.limits.formula.clone(),
                model: config.limits.model.clone(),
                group: config.limits.group.clone(),
                pending: queue::PENDING,
            },
            ageing: queue::Ageing { each: config.queue.ageing.0 },
            models: queue::Models {
                loaded: config.queue.models,
                patience: config.queue.model_patience.0,
                minimum: config.queue.model_minimum.0,
            },
        },
        placement: config.limits.placement.0,
        expires: config.approval.expires.0,
    }
}
