//! The agent of a schedule, and what all schedules of a thread share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::{
    super::{adopt, health::Health},
    Driver, Rules,
    steps::{Held, Steps},
};
use crate::{
    action::record::Record,
    approval::{self, Requirement},
    artifact::Limits,
    controller::{
        awake::Awake,
        step::{Permits, Rooms},
    },
    credential::Credential,
    dispatch::{
        base_job::{self, BaseJob},
        launch::BaseJobs,
        nodes::Nodes,
        shape::Shape,
    },
    grant::{self, Grants, Upkeep},
    metrics::Metrics,
    nomad,
    ops_repo::{self, OpsRepo},
    queue,
    store::Store,
    track::artifact::{Archive, Collector},
    vault,
};

/// Where nobody listens. What a stand-in does not answer is asked there.
const NOBODY: &str = "http://127.0.0.1:1";

/// What all schedules of a thread share, because it is slow to make and none of them leaves anything in it.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) store: Store,
    repo: Arc<OpsRepo>,
    base_jobs: BaseJobs,
    archive: Archive,
    nomad: Arc<nomad::Client>,
    pub(super) vault: vault::Vault,
    _folder: tempfile::TempDir,
}

/// One life of the agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) rooms: Arc<Rooms>,
    pub(super) driver: Driver,
    /// Steps that were begun and not run yet.
    pub(super) begun: mpsc::UnboundedReceiver<Held>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = Store::open(&path("store")).await.unwrap();
        // Only a host that dies would show the difference.
        store.execute("PRAGMA synchronous = OFF").await;
        let repo =
            OpsRepo::open(ops_repo::Settings::plain(path("none.git").to_str().unwrap(), path("mirror")));
        let settings = base_job::Settings {
            driver: crate::action::Driver::RawExec,
            image: None,
            role: "consign-runner".to_owned(),
            audience: "vault.io".to_owned(),
            kv: "secret".to_owned(),
            prefix: "runner".to_owned(),
            bots: "bots".to_owned(),
            lost_after: "10m".parse().unwrap(),
        };
        let runner: Vec<BaseJob> =
            BaseJob::shipped().into_iter().filter(|job| job.name() == super::nomad::PARENT).collect();
        let nomad = nomad::Client::new(nomad::Settings {
            addr: NOBODY.to_owned(),
            token: Credential::default(),
            namespace: "default".to_owned(),
            region: None,
            ca_cert: None,
        });
        let vault = vault::Vault::new(&vault::Settings {
            address: NOBODY.to_owned(),
            ca_certificate: None,
            namespace: None,
            token: SecretString::from("none").into(),
        });
        Self {
            store,
            repo: Arc::new(repo.await.unwrap()),
            base_jobs: BaseJobs::render(&runner, &settings).unwrap(),
            archive: Archive::open(&path("artifacts")).unwrap(),
            nomad: Arc::new(nomad.unwrap()),
            vault: vault.unwrap(),
            _folder: folder,
        }
    }

    /// The marker of the base job's registration.
    pub(super) fn marker(&self) -> String {
        let parent = self.base_jobs.parent(super::nomad::PARENT, &Shape::default());
        parent.unwrap().unwrap().rendered.marker.clone()
    }

    /// Forgets the schedule before.
    pub(super) async fn clear(&self) {
        for statement in [
            "PRAGMA query_only = OFF",
            "DELETE FROM jobs",
            "DELETE FROM journal",
            "DELETE FROM children",
            "DELETE FROM admissions",
            "DELETE FROM results",
            "DELETE FROM durations",
            "DELETE FROM submissions",
            "DELETE FROM events",
            "DELETE FROM settings WHERE name IN ('revision', 'paused')",
        ] {
            self.store.execute(statement).await;
        }
        self.store.forget_revision();
    }

    /// Starts the agent on what the store has.
    pub(super) async fn start(&self) -> Agent {
        let settings = grant::Settings {
            kv: "secret".to_owned(),
            prefix: "runner".to_owned(),
            bots: "bots".to_owned(),
            gate: super::vault::GATE.to_owned(),
            accessor: "accessor".to_owned(),
        };
        let ended = CancellationToken::new();
        ended.cancel();
        let limits = Limits { size: 0, total: 0, count: 0 };
        let rooms = Arc::new(Rooms {
            store: self.store.clone(),
            repo: Arc::clone(&self.repo),
            approval: approval::Rules {
                low: Requirement::Merged,
                medium: Requirement::Merged,
                high: Requirement::Review,
                submitted: Requirement::Merged,
                rules: Vec::new(),
            },
            forges: BTreeMap::new(),
            nomad: Arc::clone(&self.nomad),
            grants: Grants::spawn(self.vault.clone(), settings),
            base_jobs: self.base_jobs.clone(),
            health: Health::default(),
            actions: "actions".to_owned(),
            record: Record::Repo,
            log_tail: 1024,
            artifacts: Collector::new(Arc::clone(&self.nomad), self.archive.clone(), limits, 0),
            // The token's life is not simulated.
            upkeep: Upkeep::spawn(self.vault.clone(), ended),
            progress: broadcast::Sender::new(1),
            results_ready: Arc::new(Notify::new()),
            nodes: Nodes::default(),
            permits: Permits::default(),
            awake: Awake::default(),
            metrics: Metrics::new(crate::ambient::now()),
        });
        let rules = Rules {
            adopt: adopt::Rules { enabled: true, ..adopt::Rules::default() },
            queue: queue::Rules {
                caps: queue::Caps { running: 3, ..queue::Caps::default() },
                ageing: queue::Ageing { each: Duration::from_mins(1) },
                models: queue::Models::default(),
            },
            placement: Duration::from_mins(15),
            expires: Duration::ZERO,
        };
        let mut driver = Driver::load(Arc::clone(&rooms), rules).await.unwrap();
        let (sender, begun) = mpsc::unbounded_channel();
        driver.steps = Steps::hold(sender);
        driver.withdraw_outdated().await;
        driver.consider_all();
        Agent { rooms, driver, begun }
    }
}
