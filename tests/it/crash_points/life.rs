//! One world whose agent is killed and started again, and the work that comes in meanwhile.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    rc::Rc,
    time::Duration,
};

use consign::{fail_point, outcome::Outcome};
use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::{
    runtime::Builder,
    task::{JoinSet, LocalSet},
};

use super::{
    plan::{Kind, Plan},
    table::Rows,
};
use crate::{
    support::{Accepted, Breach, Canaries, Ends, World, action, untold, wait_for},
    webhooks::receiver::{Behaviour, Receiver},
};

/// How long the agent may take to come to a point with the first piece of work, until another one comes in. With every
/// piece it may take so much longer: where the machine is slow, work must not pile up.
const NEXT_PIECE: Duration = Duration::from_secs(3);
/// How many pieces of work may come in for one kill.
const PIECES: u32 = 20;
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_mins(10);
const TRIGGER_TOKEN: &str = "a-token-of-its-own";

/// Whoever brings work.
struct Callers {
    world: World,
    http: Client,
    /// Submits, looks and cancels.
    ann: String,
    /// Approves.
    ben: String,
    receiver: Receiver,
    secret: String,
    /// How many shapes of their own jobs were given.
    shapes: Cell<u64>,
}

/// Work that was accepted: its name, how it must end, and the kill that it came in for, where that is known.
type Taken = (String, Ends, Option<u64>);

const SUCCEEDED: Ends = Ends::once(Outcome::Succeeded);
/// What fails twice, is retried by itself after the first time, and by order after its first result.
const RETRIED: Ends = Ends { outcome: Outcome::Succeeded, starts: 3, results: 2 };

/// Goes through the kills, those in a start first, asks the oracles, and gives what came of each point.
pub(super) fn of_agents(plans: Vec<Plan>) -> Rows {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, through(plans))
}

async fn through(mut plans: Vec<Plan>) -> Rows {
    plans.sort_by_key(|plan| plan.in_a_start().map_or((1, None), |place| (0, Some(place))));
    let callers = Rc::new(Callers::new().await);
    let audit = callers.world.audit().await;
    let (mut under_way, mut taken) = (JoinSet::new(), Vec::new());
    let lost = if plans.iter().any(Plan::takes_over) { callers.lose_a_store().await } else { Vec::new() };
    for plan in &plans {
        callers.kill(plan, &mut under_way).await;
        while let Some(brought) = under_way.try_join_next() {
            taken.extend(brought.unwrap());
        }
    }
    let agent = callers.world.agent().await;
    taken.extend(under_way.join_all().await.into_iter().flatten());
    taken.extend(callers.runs_of_the_trigger().await);
    callers.until_told_all(&taken).await;
    let untold = untold(taken.iter().map(|(name, ..)| name), &callers.receiver.bodies());
    // The new store knows of no webhooks for what the lost one had launched.
    taken.extend(lost);
    callers.until_answered(&taken).await;
    agent.kill();

    let accepted = Accepted {
        work: taken.iter().map(|(name, ends, _)| (name.clone(), *ends)).collect(),
        secret: callers.secret.clone(),
        canaries: callers.canaries(),
        webhooks: callers.receiver.got().into_iter().flat_map(|got| got.body).collect(),
    };
    let mut violations = callers.world.violations(&accepted, &audit).await;
    violations.extend(untold);
    audit.stop().await;
    let mut rows = Rows::new();
    for plan in &plans {
        rows.entry(plan.point.clone()).or_default().kills += 1;
    }
    for violation in violations {
        let of = taken.iter().find(|(name, ..)| *name == violation.name);
        let plan = of.and_then(|(_, _, number)| plans.iter().find(|plan| Some(plan.number) == *number));
        let row = rows.entry(plan.map(|plan| plan.point.clone()).unwrap_or_default()).or_default();
        match violation.kind {
            Breach::Lost => row.lost += 1,
            Breach::Doubled => row.doubled += 1,
            Breach::Leaked => row.leaked += 1,
        }
        row.violations.push(violation.to_string());
    }
    rows
}

/// The secret's value, with characters that other forms write otherwise.
fn canary(world: &World) -> String {
    format!("{} sings/+?~ \"\u{e4}\\ $HOME", world.name)
}

impl Callers {
    async fn new() -> Self {
        let world = World::new("points").await;
        let receiver = Receiver::start(Behaviour::Take).await;
        let token = world.path("trigger.token");
        fs::write(&token, TRIGGER_TOKEN).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let secret = world.secret("POINTS");
        let config = format!(
            "{}record = \"repo\"\n\n[webhooks]\nallow_private = true\n\n[[trigger]]\nname = \"again\"\n\
             kind = \"webhook\"\npath = \"/again\"\ntoken_file = \"{}\"\noverlap = \"queue\"\n\n\
             [trigger.action]\nformula = \"note\"\nblast_radius = \"low\"\nsecrets = [{secret:?}]\nnotify = [{:?}]\n",
            world.config_toml().replace("high = \"merged\"", "high = \"review\""),
            token.display(),
            receiver.url("/trigger"),
        );
        world.bootstrap_with(&config);
        world.put_secret(&secret, canary(&world).as_bytes());
        // Each prints its secret, which is masked.
        let begin = format!("{}printf '%s\\n' \"${secret}\"\n", world.ledger_command());
        let note = format!("{begin}echo kept > note.txt\n");
        let hold = format!("{begin}sleep 300\n");
        let starts = format!("{}-$ARG_NAME", world.path("starts").display());
        let third = format!("{begin}echo >> {starts}\n[ $(wc -l < {starts}) -ge 3 ]\n");
        world.ops.commit(
            "formulas",
            &[
                ("formulas/note.sh", Some(note.as_str())),
                ("formulas/hold.sh", Some(&hold)),
                ("formulas/third.sh", Some(&third)),
            ],
        );
        let (ann, ben) = (world.token("ann", "read,submit"), world.token("ben", "read,approve"));
        let http = crate::support::http();
        Self { world, http, ann, ben, receiver, secret, shapes: Cell::new(0) }
    }

    /// Has a store lost that had two jobs running: its agent dies when their secrets are theirs.
    async fn lose_a_store(&self) -> Vec<Taken> {
        let keys = format!("secrets = [{:?}]\n", self.secret);
        let names = ["lost-1", "lost-2"];
        for name in names {
            self.world.commit_action(name, "note", &keys);
        }
        let armed = [(fail_point::POINT, "after granted"), (fail_point::PASSES, "1")];
        let mut agent = self.world.launch_agent_with(&[], &armed);
        assert_eq!(agent.ended().await.signal(), Some(9), "{}", agent.log());
        // The operator's tokens are in the same folder.
        for file in ["consign.db", "consign.db-shm", "consign.db-wal"] {
            fs::remove_file(self.world.path("store").join(file)).unwrap();
        }
        names.map(|name| (name.to_owned(), SUCCEEDED, None)).to_vec()
    }

    /// Has the agent killed at one point, with as much work as it takes to get there.
    async fn kill(self: &Rc<Self>, plan: &Plan, under_way: &mut JoinSet<Vec<Taken>>) {
        let passes = plan.passes.to_string();
        let armed = [(fail_point::POINT, plan.point.as_str()), (fail_point::PASSES, passes.as_str())];
        // The ops repo may have been another store's, and its claim not replaced yet.
        let mut agent = self.world.launch_agent_with(&["--take-over"], &armed);
        for piece in 0..PIECES {
            if plan.in_a_start().is_none() {
                let (callers, brought_for) = (Rc::clone(self), plan.clone());
                under_way.spawn_local(async move { callers.bring(&brought_for, piece.into()).await });
                if u64::from(piece) < plan.passes {
                    continue;
                }
            }
            if let Ok(status) = tokio::time::timeout(NEXT_PIECE * (piece + 1), agent.ended()).await {
                assert_eq!(status.signal(), Some(9), "{}: {}", plan.point, agent.log());
                return;
            }
        }
        panic!("the agent never came to the point {:?}: {}", plan.point, agent.log());
    }

    /// Brings one piece of work, as long as it takes until it is accepted.
    async fn bring(&self, plan: &Plan, piece: u64) -> Vec<Taken> {
        let name = format!("k{}-{piece}", plan.number);
        match plan.kind(piece) {
            Kind::Commit => {
                let cpu = (plan.change == "variant registered").then(|| self.new_cpu());
                self.commit(&name, cpu);
                let names = [name.clone(), format!("{name}-after")];
                names.map(|name| (name, SUCCEEDED, Some(plan.number))).to_vec()
            }
            Kind::Submission => {
                let job_id = self.submit(&name, "note", "high").await;
                self.order(&job_id, "approve", &self.ben).await;
                vec![(job_id, SUCCEEDED, Some(plan.number))]
            }
            Kind::Retried => {
                let job_id = self.submit(&name, "third", "low").await;
                self.until(&job_id, &["failed"]).await;
                self.retry(&job_id).await;
                self.until(&job_id, &["done"]).await;
                vec![(job_id, RETRIED, Some(plan.number))]
            }
            Kind::Cancelled => {
                let job_id = self.submit(&name, "hold", "low").await;
                self.until(&job_id, &["loading", "working"]).await;
                self.order(&job_id, "cancel", &self.ann).await;
                vec![(job_id, Ends::once(Outcome::Cancelled), Some(plan.number))]
            }
            Kind::Event => {
                self.insist("/again", TRIGGER_TOKEN, "", &json!({})).await;
                Vec::new()
            }
        }
    }

    /// What no job of this world has asked for yet, in MHz: little, because worlds share a node.
    fn new_cpu(&self) -> u64 {
        self.shapes.set(self.shapes.get() + 1);
        20 + self.shapes.get()
    }

    /// Commits two actions, the second of which waits for the first; of a shape of their own where `cpu` says so.
    fn commit(&self, name: &str, cpu: Option<u64>) {
        let resources = cpu.map(|cpu| format!("[resources]\ncpu = {cpu}\n")).unwrap_or_default();
        let keys = format!(
            "secrets = [{:?}]\nartifacts = [\"*.txt\"]\nnotify = [{:?}]\n",
            self.secret,
            self.receiver.url("/commit"),
        );
        let second = format!("{name}-after");
        let texts = [
            action(name, "note", &format!("{keys}{resources}")),
            action(&second, "note", &format!("{keys}after = [{name:?}]\n{resources}")),
        ];
        let path = |name: &str| format!("actions/{name}.toml");
        self.world.ops.commit(
            name,
            &[(&path(name), Some(texts[0].as_str())), (&path(&second), Some(texts[1].as_str()))],
        );
    }

    async fn submit(&self, name: &str, formula: &str, blast_radius: &str) -> String {
        let body = json!({
            "formula": formula,
            "blast_radius": blast_radius,
            "secrets": [self.secret],
            "artifacts": ["*.txt"],
            "retry": { "attempts": 2, "on": ["exit_code"] },
            "args": { "name": name },
            "notify": [self.receiver.url("/submission")],
        });
        let answer = self.insist("/jobs", &self.ann, name, &body).await;
        answer["job_id"].as_str().unwrap().to_owned()
    }

    async fn order(&self, job_id: &str, verb: &str, token: &str) {
        self.insist(&format!("/jobs/{job_id}/{verb}"), token, "", &json!({})).await;
    }

    /// Asks for another run until it is on record, which is all that there is to see of it after a crash.
    async fn retry(&self, job_id: &str) {
        let path = format!("/jobs/{job_id}");
        wait_for(&format!("a retry of {job_id}"), PATIENCE, async || {
            let url = format!("{}{path}/retry", self.world.agent_address());
            let request = self.http.post(url).bearer_auth(&self.ann).json(&json!({}));
            let answer = request.send().await.map_err(|error| error.to_string())?;
            let job = self.get(&path).await?;
            let is_asked_for = answer.status().is_success() || job["state"] != "failed";
            if is_asked_for { Ok(()) } else { Err(format!("{answer:?}: {job}")) }
        })
        .await;
    }

    /// Sends one request until it is taken. While the agent is down, or begins, it is sent again.
    async fn insist(&self, path: &str, token: &str, key: &str, body: &Value) -> Value {
        wait_for(&format!("an answer to POST {path}"), PATIENCE, async || {
            let request = self.http.post(format!("{}{path}", self.world.agent_address())).bearer_auth(token);
            let request = if key.is_empty() { request } else { request.header("Idempotency-Key", key) };
            let answer = request.json(body).send().await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if status.is_success() {
                return Ok(serde_json::from_str(&text).unwrap());
            }
            // A formula that the agent has not read yet is none; what waits may have been seen to be queued.
            let passes = status.is_server_error() || status == StatusCode::NOT_FOUND;
            assert!(passes, "POST {path}: {status} {text}");
            Err(text)
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let request = self.http.get(format!("{}{path}", self.world.agent_address())).bearer_auth(&self.ann);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    async fn until(&self, job_id: &str, states: &[&str]) {
        wait_for(&format!("{job_id} to be {states:?}"), PATIENCE, async || {
            let job = self.get(&format!("/jobs/{job_id}")).await?;
            if states.iter().any(|state| job["state"] == *state) { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
    }

    /// The jobs that the trigger has on record, once nothing of it is pending.
    async fn runs_of_the_trigger(&self) -> Vec<Taken> {
        let events = wait_for("the trigger to come to rest", PATIENCE, async || {
            let details = self.get("/triggers/again?events=1000").await?;
            let events = details["events"].as_array().cloned().unwrap_or_default();
            let rests = events.iter().all(|event| event["fate"] != "pending");
            let noted = events.iter().all(|event| event["fate"] != "ran" || event["job_id"].is_string());
            if rests && noted { Ok(events) } else { Err(details.to_string()) }
        })
        .await;
        let ran = events.iter().filter(|event| event["fate"] == "ran");
        let jobs: Vec<Taken> =
            ran.map(|event| (event["job_id"].as_str().unwrap().to_owned(), SUCCEEDED, None)).collect();
        let different: BTreeSet<&String> = jobs.iter().map(|(name, ..)| name).collect();
        assert_eq!(different.len(), jobs.len(), "each event has a job of its own: {events:?}");
        jobs
    }

    /// What nobody may find: the secret's value, and every token.
    fn canaries(&self) -> Canaries {
        let vault_token = fs::read_to_string(self.world.path("agent.token")).unwrap();
        Canaries::new(&[
            ("the secret", &canary(&self.world)),
            ("the agent's Vault token", vault_token.trim()),
            ("the operator's Vault token", self.world.servers.vault_token.expose_secret()),
            ("the submitter's token", &self.ann),
            ("the approver's token", &self.ben),
            ("the trigger's token", TRIGGER_TOKEN),
        ])
    }

    /// Waits until every piece of work has its result.
    async fn until_answered(&self, taken: &[Taken]) {
        wait_for("all results", PATIENCE, async || {
            let paths: BTreeSet<String> = self.world.ops.paths().into_iter().collect();
            let named =
                |name: &String| paths.iter().any(|path| path.ends_with(&format!("/{name}.result.json")));
            let missing: Vec<&String> =
                taken.iter().map(|(name, ..)| name).filter(|name| !named(name)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("no result of {missing:?}")) }
        })
        .await;
        for (name, ..) in taken.iter().filter(|(_, ends, _)| ends.results > 1) {
            wait_for(&format!("the last result of {name}"), PATIENCE, async || {
                let result = self.world.result(name, PATIENCE).await;
                if result["outcome"] == "succeeded" { Ok(()) } else { Err(result.to_string()) }
            })
            .await;
        }
    }

    /// Waits until the outbox is empty.
    async fn until_told_all(&self, taken: &[Taken]) {
        wait_for("all webhooks", PATIENCE, async || {
            let untold = untold(taken.iter().map(|(name, ..)| name), &self.receiver.bodies());
            if untold.is_empty() { Ok(()) } else { Err(untold[0].to_string()) }
        })
        .await;
    }
}
