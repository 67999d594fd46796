//! What Nomad and Vault take for gated jobs without consign: a bare loop that makes the calls that consign makes for
//! a job (dispatch, confirm, admit, read the log, delete the entity), with no queue, no store and no git.

use std::{
    collections::{BTreeMap, HashSet},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use consign::{
    credential::Credential,
    grant::{self, Grants},
    ids::DispatchId,
    nomad::{self, Allocation, Client},
    track::judge::{self, Progress},
    vault::{self, Vault},
};
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{process::Command, sync::Semaphore};

use crate::support::World;

/// How many requests are made at a time.
const CONNECTIONS: usize = 8;
/// How often is listed what the event stream may have left out.
const SCAN: Duration = Duration::from_secs(2);

/// How the bare loop dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dispatching {
    /// Over Nomad's API, several at a time.
    Api,
    /// With `nomad job dispatch`, one after the other.
    CommandLine,
}

/// Nomad and Vault, as the bare loop uses them.
struct Servers {
    nomad: Client,
    grants: Grants,
    requests: Semaphore,
}

/// Dispatches the base job `job` so many times, as its child `model` was, and admits each; gives how long it took
/// until the last had ended and its rights were withdrawn. No agent may run meanwhile, and nobody may have dispatched
/// the job before: Nomad tells again of what is past.
pub(crate) async fn time(
    world: &World,
    job: &str,
    model: &Value,
    count: usize,
    dispatching: Dispatching,
) -> Duration {
    let servers = Servers::new(world).await;
    let mut events = servers.nomad.events().await.unwrap();
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let dispatch = async || {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            match dispatching {
                Dispatching::Api => servers.dispatch(job, model).await,
                Dispatching::CommandLine => command_line(world, job, model).await,
            }
        }
    };
    let at_once = if dispatching == Dispatching::Api { CONNECTIONS } else { 1 };
    let follow = async {
        let pattern = format!("^{job}/dispatch-");
        let (mut admitted, mut ended) = (HashSet::new(), HashSet::new());
        let mut work = FuturesUnordered::new();
        let mut scan = tokio::time::interval(SCAN);
        while ended.len() < count || !work.is_empty() {
            let seen: Vec<Allocation> = tokio::select! {
                events = events.next() => events.unwrap().expect("Nomad tells of its events").into_iter()
                    .filter_map(|event| match event {
                        nomad::Event::Allocation(allocation) => Some(*allocation),
                        nomad::Event::Job { .. } => None,
                    })
                    .collect(),
                _ = scan.tick() => servers.nomad.live_allocations(&pattern).await.unwrap(),
                Some(()) = work.next() => continue,
            };
            for allocation in seen.into_iter().filter(|one| one.job_id.starts_with(&format!("{job}/"))) {
                let over = judge::progress(&allocation) == Progress::Terminal;
                let known = if over { &mut ended } else { &mut admitted };
                if known.insert(allocation.id.clone()) {
                    work.push(servers.attend(allocation, over));
                }
            }
        }
    };
    tokio::join!(join_all((0..at_once).map(|_| dispatch())), follow);
    begun.elapsed()
}

impl Servers {
    async fn new(world: &World) -> Self {
        let nomad = Client::new(nomad::Settings {
            addr: world.servers.nomad_address.clone(),
            token: Credential::default(),
            namespace: world.name.clone(),
            region: None,
            ca_cert: None,
        });
        let vault = Vault::new(&vault::Settings {
            address: world.servers.vault_address.clone(),
            token: Credential::from_file(&world.path("agent.token")).unwrap(),
            namespace: None,
            ca_certificate: None,
        })
        .unwrap();
        let settings = grant::Settings {
            kv: "secret".to_owned(),
            prefix: world.prefix(),
            bots: format!("{}-bots", world.name),
            accessor: grant::mount_accessor(&vault, &world.gate()).await.unwrap(),
            gate: world.gate(),
        };
        let grants = Grants::spawn(vault, settings);
        Self { nomad: nomad.unwrap(), grants, requests: Semaphore::new(CONNECTIONS) }
    }

    /// Dispatches one child and reads it back.
    async fn dispatch(&self, job: &str, model: &Value) {
        let payload = BASE64_STANDARD.decode(model["Payload"].as_str().unwrap()).unwrap();
        let token = DispatchId::new().to_string();
        let child = self.nomad.dispatch(job, &token, &meta(model), &payload).await.unwrap();
        self.nomad.child(&child).await.unwrap().expect("the child is there");
    }

    /// Admits an allocation, or takes what is left of one that has ended.
    async fn attend(&self, allocation: Allocation, over: bool) {
        let _permit = self.requests.acquire().await.unwrap();
        if over {
            assert!(allocation.task_states.values().all(|task| !task.failed), "{allocation:#?}");
            // Tasks of the mock driver have none; the request is the same.
            drop(self.nomad.log_tail(&allocation.id, "runner", 16 * 1024).await.unwrap());
            self.grants.withdraw(&allocation.id).await.unwrap();
        } else {
            self.grants.issue(&allocation.id, &[]).await.unwrap();
        }
    }
}

/// The meta that the dispatch gave; the rest is the base job's own.
fn meta(model: &Value) -> BTreeMap<String, String> {
    let meta = model["Meta"].as_object().unwrap().iter();
    let given = meta.filter(|(key, _)| ["secrets", "args", "consign"].contains(&key.as_str()));
    given.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
}

async fn command_line(world: &World, job: &str, model: &Value) {
    let mut command = Command::new("nomad");
    command.args(["job", "dispatch", "-detach"]).arg(format!("-id-prefix-template={}", DispatchId::new()));
    for (key, value) in meta(model) {
        command.arg("-meta").arg(format!("{key}={value}"));
    }
    let ended = command
        .arg(job)
        .env("NOMAD_ADDR", &world.servers.nomad_address)
        .env("NOMAD_NAMESPACE", &world.name)
        .stdout(Stdio::null())
        .status();
    assert!(ended.await.unwrap().success());
}
