//! The agent: puts the rooms together, checks that they work, runs them, and lets them end.

mod checks;
mod memory;
mod ownership;
mod settings;
pub mod triggers;

use std::{
    collections::BTreeMap,
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

pub use self::settings::{
    allowed, approval_rules, base_jobs, forges, nomad_client, ops_settings, receivers, token, vault_client,
};
use self::settings::{api_tokens, collector, hook_secret, rules, webhook_secret};
use crate::{
    config::Config,
    controller::{
        awake::Awake,
        driver::{Driver, Inbox},
        health::Health,
        prune,
        publish::Publisher,
        reconcile,
        record::Recorder,
        statuses::Statuses,
        step::{Forges, Permits, Progress, Rooms},
        submit::Desk,
        sweep,
        watch::{self, Watch},
    },
    credential::Credential,
    dispatch::{launch::BaseJobs, nodes::Nodes},
    forge,
    grant::{self, Grants, Upkeep},
    http, intake,
    metrics::Metrics,
    nomad, ops_repo,
    ops_repo::Owner,
    store::{self, Store},
    telemetry::chain,
    tokens::Sessions,
    track::artifact::{self, Archive},
    trigger::{
        Trigger,
        access::Access,
        attend::{self, Attendant},
    },
    vault::Vault,
    webhook::deliver::Deliverer,
};

/// What the agent is started with.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// The Nomad token of the environment, which wins over the configured file.
    pub nomad_token: Option<SecretString>,
    /// The Vault token of the environment, which wins over the configured file.
    pub vault_token: Option<SecretString>,
    /// Whether to claim an ops repo that another store has claimed.
    pub take_over: bool,
    /// What listens at `[server] listen` already, for whoever starts the agent in its own process.
    pub listener: Option<std::net::TcpListener>,
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
    /// What it holds in memory would not stay there.
    #[error("cannot keep core dumps from being written")]
    Memory(#[from] rustix::io::Errno),
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

/// Runs the agent until `ending`, or until it must not go on.
pub async fn run(mut options: Options, ending: CancellationToken) -> Result<(), Error> {
    memory::close()?;
    let listener = options.listener.take();
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
    let issue_forges = triggers::forges(config)?;
    let ops = ops_settings(config, config.store.path.join("mirror.git"))?;
    let store = Store::open(&config.store.path).await?;
    let archive = Archive::open(&config.artifacts()).map_err(|error| setting("[store] artifacts", &error))?;
    let listener = listen(config, listener).await?;

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
        tokens: api_tokens(config),
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
    let running = Running {
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
        issue_forges,
        desk,
        archive,
        triggers,
        trigger_handle,
    };
    // Boxed, because it is large.
    let outcome = Box::pin(running.run(&options, &stopping, &tasks)).await;
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
    store.close().await;
    outcome
}

async fn listen(config: &Config, held: Option<std::net::TcpListener>) -> Result<TcpListener, Error> {
    let address = config.server.listen;
    let listener = match held {
        Some(held) => held.set_nonblocking(true).and_then(|()| TcpListener::from_std(held)),
        None => TcpListener::bind(address).await,
    };
    listener.map_err(|source| Error::Listen { address: address.to_string(), source })
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
    /// The forges whose issues triggers are for, by the triggers' names.
    issue_forges: BTreeMap<String, forge::Client>,
    /// Where it finds who takes submissions.
    desk: Arc<OnceLock<Desk>>,
    archive: Archive,
    triggers: Vec<(Trigger, Access)>,
    /// Where it finds who attends to triggers.
    trigger_handle: Arc<OnceLock<attend::Handle>>,
}

impl Running<'_> {
    async fn run(
        mut self,
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
        self.claim(&repo, options.take_over).await?;
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
            awake: Awake::until(stopping.clone()),
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
            metrics: self.metrics.clone(),
            interval: config.ops.poll.0,
            wake: Arc::clone(&self.wake),
            rules: intake::Rules { allowed: allowed(config), receivers: receivers(config) },
            asked: Arc::new(Notify::new()),
        };
        let desk = Desk {
            rooms: Arc::clone(&rooms),
            submissions: Recorder::start(self.store.clone(), driver.inbox(), tasks, stopping.clone()),
            rules: watch.rules.clone(),
            formulas: intake::Shelf::default(),
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
        if let Some(statuses) = self.statuses(&rooms, &watch) {
            tasks.spawn(statuses.run(stopping.clone()));
        }
        // They are set here alone.
        drop(self.desk.set(desk));
        drop(self.orders.set(driver.inbox()));
        self.attend(stopping, tasks).await?;
        self.ready.store(true, Ordering::Release);
        self.tidy(&rooms, archive, stopping, tasks);
        tasks.spawn(reconcile::run(Arc::clone(&rooms), driver.inbox(), stopping.clone()));
        tasks.spawn(driver.run(stopping.clone()));
        tasks.spawn(publisher.run(stopping.clone()));
        let watched = watch.run(stopping.clone()).await;
        self.ready.store(false, Ordering::Release);
        tracing::info!("agent ending: no new work is taken, running tasks are left to Nomad");
        watched.map_err(Error::Watch)
    }

    /// Starts what lets old things go.
    fn tidy(&self, rooms: &Arc<Rooms>, archive: Archive, stopping: &CancellationToken, tasks: &TaskTracker) {
        let (store, config) = (self.store.clone(), self.config);
        tasks.spawn(prune::run(store, archive.clone(), config.store.keep.0, stopping.clone()));
        tasks.spawn(artifact::sweep(archive, config.store.artifacts_keep.0, stopping.clone()));
        tasks.spawn(sweep::run(Arc::clone(rooms), config.nomad.variant_keep.0, stopping.clone()));
    }

    /// Starts what attends to triggers, and what tells of their events.
    async fn attend(&mut self, stopping: &CancellationToken, tasks: &TaskTracker) -> Result<(), Error> {
        let (attendant, handle) = Attendant::load(attend::Settings {
            triggers: std::mem::take(&mut self.triggers),
            store: self.store.clone(),
            desk: Arc::clone(&self.desk),
            folder: attend::marker_folder(&self.config.store.path),
            keep: self.config.triggers.keep,
        })
        .await?;
        let issue_forges = std::mem::take(&mut self.issue_forges);
        triggers::start_sources(self.config, issue_forges, &handle, stopping, tasks);
        tasks.spawn(attendant.run(stopping.clone()));
        // It is set here alone.
        drop(self.trigger_handle.set(handle));
        Ok(())
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
}
