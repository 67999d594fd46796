//! The agent: puts the rooms together, checks that they work, runs them, and lets them end.

mod checks;
pub mod triggers;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use secrecy::SecretString;
use tokio::{
    net::TcpListener,
    sync::{Notify, broadcast},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    approval,
    artifact::Limits,
    config::{self, Config, given},
    controller::{
        adopt,
        driver::{Driver, Inbox, Rules},
        health::Health,
        prune,
        publish::Publisher,
        recover::{Ground, recover},
        statuses::Statuses,
        step::{Forges, Permits, Progress, Rooms},
        submit::Desk,
        sweep,
        watch::{self, Watch},
    },
    credential::Credential,
    dispatch::{
        base_job::{self, BaseJob},
        launch::{self, BaseJobs},
        nodes::Nodes,
        shape::Allowed,
    },
    forge,
    grant::{self, Grants, Upkeep},
    http::{self, HookSecret},
    ids::Revision,
    intake,
    metrics::Metrics,
    nomad, ops_repo,
    ops_repo::{ClaimError, Keys, OpsRepo, Owner, RemoteUrl},
    queue,
    store::{self, Store},
    telemetry::chain,
    tokens::{Sessions, TokensFile},
    track::artifact::{self, Archive, Collector},
    trigger::{
        Trigger,
        access::Access,
        attend::{self, Attendant},
    },
    vault::{self, Vault},
    webhook::{self, deliver::Deliverer},
};

/// The setting of the store that says that a take-over is under way.
const TAKING_OVER: &str = "taking_over";

/// What the agent is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// The Nomad token of the environment, which wins over the configured file.
    pub nomad_token: Option<SecretString>,
    /// The Vault token of the environment, which wins over the configured file.
    pub vault_token: Option<SecretString>,
    /// Whether to claim an ops repo that another store has claimed.
    pub take_over: bool,
    /// Where progress is told, for whoever starts the agent in its own process.
    pub progress: Option<broadcast::Sender<Progress>>,
}

/// Why the agent cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting does not work.
    #[error("{key}: {problem}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The store.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// It cannot listen.
    #[error("cannot listen on {address} ([server] listen)")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something that is needed does not answer, or says no.
    #[error("{what}\n{remedy}")]
    Check {
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Another store has the ops repo.
    #[error(
        "the ops repo is owned by the store {} on {} since {}: two agents on one repo would run everything twice.\n\
         Stop that agent, or, where its store is lost for good, start this one with --take-over",
        .0.store_id, .0.host, .0.claimed_at
    )]
    Held(Owner),
    /// The claim failed.
    #[error("cannot claim the ops repo")]
    Claim(#[source] Box<ops_repo::Error>),
    /// A take-over failed.
    #[error("cannot recover what was launched before")]
    Recover(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The claim was lost while running.
    #[error(transparent)]
    Watch(#[from] watch::Error),
}

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

fn hook_secret(config: &Config) -> Result<HookSecret, Error> {
    let Some(file) = given(&config.ops.hook_secret_file) else { return Ok(HookSecret::LoopbackOnly) };
    HookSecret::read(file).map_err(|error| Error::Setting {
        key: "[ops] hook_secret_file",
        problem: format!("cannot read {}: {error}", file.display()),
    })
}

fn webhook_secret(config: &Config) -> Result<Credential, Error> {
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

/// Runs the agent until `ending`, or until it must not go on.
pub async fn run(options: Options, ending: CancellationToken) -> Result<(), Error> {
    let config = &options.config;
    let nomad_token = token("[nomad] token_file", options.nomad_token.clone(), &config.nomad.token_file)?;
    let vault_token = token("[vault] token_file", options.vault_token.clone(), &config.vault.token_file)?;
    let setting = |key, error: &dyn std::error::Error| Error::Setting { key, problem: chain(error) };
    let nomad = nomad_client(config, nomad_token).map_err(|error| setting("[nomad]", &error))?;
    let vault = vault_client(config, vault_token).map_err(|error| setting("[vault]", &error))?;
    let base_jobs = base_jobs(config)?;
    let secret = hook_secret(config)?;
    let webhook_secret = webhook_secret(config)?;
    let forges = forges(config)?;
    let triggers = triggers::read(config)?;
    let ops = ops_settings(config, config.store.path.join("mirror.git"))?;
    let store = Store::open(&config.store.path).await?;
    let archive = Archive::open(&config.artifacts()).map_err(|error| setting("[store] artifacts", &error))?;
    let listen = |source| Error::Listen { address: config.server.listen.to_string(), source };
    let listener = TcpListener::bind(config.server.listen).await.map_err(listen)?;

    let metrics = Metrics::new(jiff::Timestamp::now());
    if let Some(at) = store.last_end().await? {
        metrics.last_ended(at);
    }
    let health = Health::default();
    let wake = Arc::new(Notify::new());
    let ready = Arc::new(AtomicBool::new(false));
    let stopping = ending.child_token();
    let tasks = TaskTracker::new();
    let driver = Arc::new(OnceLock::new());
    let desk = Arc::new(OnceLock::new());
    let trigger_handle = Arc::new(OnceLock::new());
    let nomad = Arc::new(nomad);
    let rooms = http::Rooms {
        health: health.clone(),
        wake: Arc::clone(&wake),
        ready: Arc::clone(&ready),
        secret,
        tokens: TokensFile::new(config.tokens_file()),
        limits: http::Limits::new(config.server.rate),
        sessions: Sessions::new().map_err(|error| setting("[server] tokens_file", &error))?,
        store: store.clone(),
        nomad: Arc::clone(&nomad),
        live: http::Live::new(Arc::clone(&nomad)),
        driver: Arc::clone(&driver),
        scrape: http::Scrape::new(metrics.clone()),
        desk: Arc::clone(&desk),
        archive: archive.clone(),
        audience: http::Audience::default(),
        triggers: Arc::clone(&trigger_handle),
        ending: stopping.clone(),
    };
    tasks.spawn(http::serve(listener, Arc::new(rooms)));
    let outcome = Running {
        config,
        nomad,
        vault,
        base_jobs,
        ops,
        store: store.clone(),
        health,
        wake,
        ready,
        metrics,
        orders: driver,
        webhook_secret,
        forges,
        desk,
        archive,
        triggers,
        trigger_handle,
    }
    .run(&options, &stopping, &tasks)
    .await;
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
    store.close().await;
    outcome
}

/// Everything that the agent is made of before it has been checked.
struct Running<'config> {
    config: &'config Config,
    nomad: Arc<nomad::Client>,
    vault: Vault,
    base_jobs: BaseJobs,
    ops: ops_repo::Settings,
    store: Store,
    health: Health,
    wake: Arc<Notify>,
    ready: Arc<AtomicBool>,
    metrics: Metrics,
    /// Where the HTTP API finds the driver.
    orders: Arc<OnceLock<Inbox>>,
    webhook_secret: Credential,
    forges: Forges,
    /// Where it finds who takes submissions.
    desk: Arc<OnceLock<Desk>>,
    archive: Archive,
    triggers: Vec<(Trigger, Access)>,
    /// Where it finds who attends to triggers.
    trigger_handle: Arc<OnceLock<attend::Handle>>,
}

impl Running<'_> {
    async fn run(
        self,
        options: &Options,
        stopping: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(), Error> {
        let config = self.config;
        let archive = self.archive.clone();
        let deliverer = Deliverer::new(
            self.store.clone(),
            archive.clone(),
            self.webhook_secret.clone(),
            receivers(config),
            self.metrics.clone(),
        )
        .map_err(|error| Error::Setting { key: "[webhooks]", problem: chain(&error) })?;
        tasks.spawn(deliverer.run(stopping.clone()));
        // With live work or unpushed results on record the agent stays and waits, as in any later outage.
        let live = !self.store.live().await?.is_empty();
        let patient = live || !self.store.pending_results(1).await?.is_empty();
        let check = checks::Checks { health: &self.health, patient, stopping };
        let Some(repo) = check.ops_repo(&self.ops).await? else { return Ok(()) };
        let Some(accessor) = check.vault(&self.vault, &config.vault).await? else { return Ok(()) };
        let Some(()) = check.nomad(&self.nomad, &config.nomad.addr, &self.base_jobs).await? else {
            return Ok(());
        };
        let repo = Arc::new(repo);
        let claim = self.claim(&repo, options.take_over).await?;
        let settings = grant::Settings {
            kv: config.vault.kv.clone(),
            prefix: config.vault.prefix.clone(),
            bots: config.vault.bots.clone(),
            gate: config.vault.gate.clone(),
            accessor,
        };
        let upkeep = Upkeep::spawn(self.vault.clone(), stopping.clone());
        let rooms = Arc::new(Rooms {
            store: self.store.clone(),
            repo: Arc::clone(&repo),
            approval: approval_rules(config),
            forges: self.forges.clone(),
            nomad: Arc::clone(&self.nomad),
            grants: Grants::spawn(self.vault.clone(), settings),
            base_jobs: self.base_jobs.clone(),
            health: self.health.clone(),
            actions: config.ops.actions.clone(),
            record: config.results.record,
            log_tail: usize::try_from(config.results.log_tail.as_u64()).unwrap_or(usize::MAX),
            artifacts: collector(config, Arc::clone(&self.nomad), archive.clone()),
            upkeep,
            progress: options.progress.clone().unwrap_or_else(|| broadcast::Sender::new(1)),
            results_ready: Arc::new(Notify::new()),
            nodes: Nodes::default(),
            permits: Permits::default(),
            metrics: self.metrics.clone(),
        });
        self.recover(&rooms, &repo, config).await?;
        let driver = Driver::load(Arc::clone(&rooms), rules(config)).await?;
        tracing::info!(store = self.store.id(), live = driver.live(), listen = %config.server.listen, "agent started");
        let watch = Watch {
            repo: Arc::clone(&repo),
            store: self.store.clone(),
            inbox: driver.inbox(),
            health: self.health.clone(),
            interval: config.ops.poll.0,
            wake: Arc::clone(&self.wake),
            rules: intake::Rules { allowed: allowed(config), receivers: receivers(config) },
            asked: Arc::new(Notify::new()),
            claim,
        };
        let desk = Desk {
            repo: Arc::clone(&repo),
            store: self.store.clone(),
            inbox: driver.inbox(),
            rules: watch.rules.clone(),
            base_jobs: self.base_jobs.clone(),
        };
        let publisher = Publisher {
            repo,
            store: self.store.clone(),
            health: self.health.clone(),
            interval: config.results.push_interval.0,
            ready: Arc::clone(&rooms.results_ready),
            progress: rooms.progress.clone(),
            metrics: self.metrics.clone(),
        };
        // They are set here alone.
        drop(self.desk.set(desk));
        drop(self.orders.set(driver.inbox()));
        let (attendant, handle) = Attendant::load(attend::Settings {
            triggers: self.triggers,
            store: self.store.clone(),
            desk: Arc::clone(&self.desk),
            folder: attend::marker_folder(&config.store.path),
            keep: config.triggers.keep,
        })
        .await?;
        triggers::start_sources(config, &handle, stopping, tasks);
        tasks.spawn(attendant.run(stopping.clone()));
        drop(self.trigger_handle.set(handle));
        self.ready.store(true, Ordering::Release);
        tasks.spawn(prune::run(self.store.clone(), archive.clone(), config.store.keep.0, stopping.clone()));
        tasks.spawn(artifact::sweep(archive, config.store.artifacts_keep.0, stopping.clone()));
        tasks.spawn(sweep::run(Arc::clone(&rooms), config.nomad.variant_keep.0, stopping.clone()));
        if let Some(statuses) = self.statuses(&rooms, &watch) {
            tasks.spawn(statuses.run(stopping.clone()));
        }
        tasks.spawn(driver.run(stopping.clone()));
        tasks.spawn(publisher.run(stopping.clone()));
        let watched = watch.run(stopping.clone()).await;
        self.ready.store(false, Ordering::Release);
        tracing::info!("agent ending: no new work is taken, running tasks are left to Nomad");
        watched.map_err(Error::Watch)
    }

    /// Who writes commit statuses, where a forge takes some.
    fn statuses(&self, rooms: &Arc<Rooms>, watch: &Watch) -> Option<Statuses> {
        let takes = |name: &String| self.config.forge.get(name).is_some_and(|settings| settings.statuses);
        let forges = self.forges.iter().filter(|(name, _)| takes(name)).map(|(_, forge)| Arc::clone(forge));
        let forges: Vec<_> = forges.collect();
        (!forges.is_empty()).then(|| Statuses {
            rooms: Arc::clone(rooms),
            forges,
            rules: watch.rules.clone(),
            wake: Arc::clone(&watch.asked),
        })
    }

    /// Claims the ops repo for this store.
    async fn claim(&self, repo: &OpsRepo, take_over: bool) -> Result<Revision, Error> {
        let failed = |error| Error::Claim(Box::new(error));
        let expected = match repo.owner().await.map_err(failed)? {
            Some((revision, owner)) if owner.store_id == self.store.id() => return Ok(revision),
            Some((_, owner)) if !take_over => return Err(Error::Held(owner)),
            Some((revision, owner)) => {
                tracing::warn!(store = owner.store_id, host = owner.host, "taking the ops repo over");
                self.store.set(TAKING_OVER, "yes").await?;
                Some(revision)
            }
            None => None,
        };
        let owner =
            Owner { store_id: self.store.id().to_owned(), host: host(), claimed_at: jiff::Timestamp::now() };
        repo.claim_owner(&owner, expected.as_ref()).await.map_err(|error| match error {
            ClaimError::Held { owner, .. } => Error::Held(owner),
            ClaimError::Failed(error) => failed(error),
        })
    }

    /// Recovers what a lost store had launched, where a take-over is under way.
    async fn recover(&self, rooms: &Rooms, repo: &OpsRepo, config: &Config) -> Result<(), Error> {
        if self.store.get(TAKING_OVER).await?.as_deref() != Some("yes") {
            return Ok(());
        }
        let failed = |error: ops_repo::Error| Error::Recover(Box::new(error));
        let tips = repo.tips().await.map_err(failed)?;
        repo.fetch(&tips).await.map_err(failed)?;
        let mut entries = Vec::new();
        for tip in [&tips.branch, &tips.results].into_iter().flatten() {
            entries.extend(repo.snapshot(tip).await.map_err(failed)?);
        }
        let recovered = recover(rooms, &Ground::new(&entries), &config.ops.actions)
            .await
            .map_err(|error| Error::Recover(Box::new(error)))?;
        tracing::info!(recovered, "took over what was launched before");
        self.store.set(TAKING_OVER, "no").await?;
        Ok(())
    }
}

fn collector(config: &Config, nomad: Arc<nomad::Client>, archive: Archive) -> Collector {
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
        let token = token("[forge] token_file", None, &settings.token_file)?;
        let settings = forge::Settings {
            kind: settings.kind,
            url: settings.url.clone(),
            repository: settings.repository.clone(),
            token,
            ca_cert: given(&settings.ca_cert).map(Path::to_path_buf),
        };
        let client = forge::Client::new(&settings)
            .map_err(|error| setting(format!("[forge.{name}]: {}", chain(&error))))?;
        Ok((name.clone(), Arc::new(client)))
    };
    config.forge.iter().map(client).collect()
}

/// What actions may ask for, as the configuration says.
#[must_use]
pub fn allowed(config: &Config) -> Allowed {
    Allowed { limits: config.shapes.clone(), mounts: config.mounts.clone(), driver: config.nomad.driver }
}

fn approval_rules(config: &Config) -> approval::Rules {
    approval::Rules {
        low: config.approval.low,
        medium: config.approval.medium,
        high: config.approval.high,
        submitted: config.approval.api,
        rules: config.approval.rule.clone(),
    }
}

fn rules(config: &Config) -> Rules {
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

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
