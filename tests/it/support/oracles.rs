//! What must hold after a run, whatever was done to the agent meanwhile. It is read from the ledger, a fresh
//! clone, the store's file, Nomad and Vault: nothing is taken from what the agent says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
    process::Command,
};

use consign::outcome::{Outcome, result_file::ResultFile};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Canaries, World, audit::Audit};

/// What a run was given to do, and may show nobody.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// How each piece of work must end, by its action's id, or its job's id where it has no action.
    pub(crate) work: BTreeMap<String, Ends>,
    /// The name of the secret that all of it may read.
    pub(crate) secret: String,
    /// Its value, and whatever else nobody may find.
    pub(crate) canaries: Canaries,
    /// Everything that receivers of webhooks got.
    pub(crate) webhooks: Vec<u8>,
}

/// How a piece of work must end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) outcome: Outcome,
    /// How often it starts: exactly so often where it succeeds, else at most.
    pub(crate) starts: usize,
    /// How many results it has, one after the other, at most.
    pub(crate) results: usize,
}

impl Ends {
    /// With this outcome, after it started once and has one result.
    pub(crate) const fn once(outcome: Outcome) -> Self {
        Self { outcome, starts: 1, results: 1 }
    }
}

/// How a promise can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// Accepted work has no result, or not the one that it must have.
    Lost,
    /// Something was done twice, or by nobody's wish.
    Doubled,
    /// Something can be read, or was, that may not.
    Leaked,
}

/// One promise that was broken.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Breach,
    /// The work that it is about; empty where that is not known.
    pub(crate) name: String,
    evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}: {}", self.kind, self.name, self.evidence)
    }
}

/// What is gathered while the oracles are asked.
#[derive(Debug, Default)]
struct Report(Vec<Violation>);

impl Report {
    fn require(&mut self, holds: bool, kind: Breach, name: &str, evidence: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Violation { kind, name: name.to_owned(), evidence: evidence() });
        }
    }
}

/// A result as a fresh clone has it.
struct Found {
    path: String,
    result: ResultFile,
}

/// An allocation, and what it was for.
#[derive(Debug)]
pub(super) struct Allocation {
    /// The work.
    pub(super) name: String,
    /// Whether the launch gate was opened for it.
    pub(super) is_admitted: bool,
}

impl World {
    /// The line of a formula that appends to the ledger: the attempt, its number and the allocation, in one write.
    pub(crate) fn ledger_command(&self) -> String {
        format!("echo $CONSIGN_DISPATCH_ID $CONSIGN_ATTEMPT $NOMAD_ALLOC_ID >> {}\n", self.ledger().display())
    }

    /// Everything that is wrong after a run whose agent has ended.
    pub(crate) async fn violations(&self, accepted: &Accepted, audit: &Audit) -> Vec<Violation> {
        let mut report = Report::default();
        let clone = self.path(&format!("clone-{}", ulid::Ulid::generate()));
        let found = self.results_of_clone(&clone, &mut report);
        self.once_each(accepted, &found, &mut report);
        let written = git(&clone, &["log", "--format=", "--name-only"]);
        for Found { path, result } in &found {
            let commits = written.lines().filter(|line| line == path).count();
            let most = accepted.work.get(&result.id).map_or(1, |ends| ends.results);
            report.require((1..=most).contains(&commits), Breach::Doubled, &result.id, || {
                format!("{path} was written {commits} times")
            });
        }
        let allocations = self.allocations(&found).await;
        self.nothing_readable(accepted, &allocations, &mut report).await;
        audit.reads_were_granted(&self.prefix(), &allocations, |name, evidence| {
            report.require(false, Breach::Leaked, name, || evidence);
        });
        self.store_is_sound(&mut report).await;
        self.nothing_told(accepted, &mut report);
        report.0
    }

    fn results_of_clone(&self, clone: &Path, report: &mut Report) -> Vec<Found> {
        git(&self.path(""), &["clone", "--quiet", self.ops.bare.to_str().unwrap(), clone.to_str().unwrap()]);
        let paths = git(clone, &["ls-files", "*.result.json"]);
        let read = |path: &str| serde_json::from_str(&fs::read_to_string(clone.join(path)).unwrap());
        let mut found = Vec::new();
        for path in paths.lines() {
            match read(path) {
                Ok(result) => found.push(Found { path: path.to_owned(), result }),
                Err(error) => report.require(false, Breach::Lost, path, || error.to_string()),
            }
        }
        found
    }

    /// Every piece of accepted work has one result, and started as often as it must: at most once for each attempt
    /// in any case. Nothing else has a result, or started.
    fn once_each(&self, accepted: &Accepted, found: &[Found], report: &mut Report) {
        let mut starts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.ledger_lines() {
            let words: Vec<&str> = line.split(' ').collect();
            report.require(words.len() == 3, Breach::Doubled, "", || format!("the ledger says {line:?}"));
            starts.entry(words[0].to_owned()).or_default().push(line);
        }
        let mut results: BTreeMap<&str, &ResultFile> = BTreeMap::new();
        for Found { path, result } in found {
            let wanted = accepted.work.contains_key(&result.id);
            report.require(wanted, Breach::Doubled, &result.id, || {
                format!("{path} answers nothing: {result:?}")
            });
            let second = results.insert(&result.id, result);
            report.require(second.is_none(), Breach::Doubled, &result.id, || {
                format!("{path} is a second result")
            });
            let mut ran = 0;
            for attempt in &result.attempts {
                let lines = starts.remove(&attempt.dispatch_id).unwrap_or_default();
                let own = |line: &String| attempt.allocation_id.as_ref().is_some_and(|id| line.ends_with(id));
                let sound = lines.len() <= 1 && lines.iter().all(own);
                report.require(sound, Breach::Doubled, &result.id, || {
                    format!("{attempt:?} started as {lines:?}")
                });
                ran += lines.len();
            }
            let most = accepted.work.get(&result.id).map_or(1, |ends| ends.starts);
            let least = if result.outcome == Outcome::Succeeded { most } else { 0 };
            let starts = || format!("{path}: it started {ran} times");
            report.require(ran >= least, Breach::Lost, &result.id, starts);
            report.require(ran <= most, Breach::Doubled, &result.id, starts);
        }
        for (name, Ends { outcome, .. }) in &accepted.work {
            let ended = results.get(name.as_str());
            let well = ended.is_some_and(|result| result.outcome == *outcome);
            report.require(well, Breach::Lost, name, || {
                ended.map_or_else(
                    || "it has no result".to_owned(),
                    |result| format!("it must have ended {outcome:?}: {}", result.message),
                )
            });
        }
        report.require(starts.is_empty(), Breach::Doubled, "", || format!("started for nobody: {starts:?}"));
    }

    /// Every allocation of this world, by its id.
    async fn allocations(&self, found: &[Found]) -> BTreeMap<String, Allocation> {
        let attempts =
            found.iter().flat_map(|found| found.result.attempts.iter().map(move |one| (found, one)));
        let name_of: BTreeMap<&str, &str> = attempts
            .clone()
            .filter_map(|(found, attempt)| Some((attempt.nomad_job_id.as_deref()?, found.result.id.as_str())))
            .collect();
        let admitted: BTreeSet<&str> =
            attempts.filter_map(|(_, attempt)| attempt.allocation_id.as_deref()).collect();
        let list = self.nomad.get("/v1/allocations").await.unwrap();
        let all = list.as_array().unwrap().iter().map(|one| {
            let (id, child) = (one["ID"].as_str().unwrap(), one["JobID"].as_str().unwrap());
            let name = name_of.get(child).copied().unwrap_or_default().to_owned();
            (id.to_owned(), Allocation { name, is_admitted: admitted.contains(id) })
        });
        all.collect()
    }

    /// No group has a member, and no allocation an identity.
    async fn nothing_readable(
        &self,
        accepted: &Accepted,
        allocations: &BTreeMap<String, Allocation>,
        report: &mut Report,
    ) {
        for group in [self.gate(), format!("{}-{}", self.prefix(), accepted.secret)] {
            let members = self.group_members(&group).await;
            report.require(members.is_empty(), Breach::Leaked, "", || format!("{group} has {members:?}"));
        }
        let url = format!("{}/v1/identity/entity-alias/id?list=true", self.servers.vault_address);
        let token = self.servers.vault_token.expose_secret();
        let answer = crate::support::http().get(url).header("X-Vault-Token", token).send().await.unwrap();
        let aliases: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        for alias in aliases["data"]["key_info"].as_object().into_iter().flatten() {
            let allocation = alias.1["name"].as_str().unwrap_or_default();
            if let Some(Allocation { name, is_admitted }) = allocations.get(allocation) {
                report.require(false, Breach::Leaked, name, || {
                    format!("the alias of {allocation} is left (admitted: {is_admitted})")
                });
            }
        }
    }

    /// The agent's database, of a world whose agent has ended.
    async fn database(&self) -> SqliteConnection {
        let file = SqliteConnectOptions::new().filename(self.path("store/consign.db"));
        SqliteConnection::connect_with(&file).await.unwrap()
    }

    /// What SQLite finds wrong with the agent's database; "ok" alone where that is nothing.
    pub(crate) async fn database_says(&self) -> Vec<String> {
        let mut database = self.database().await;
        let mut rows = Vec::new();
        for pragma in ["PRAGMA integrity_check", "PRAGMA foreign_key_check"] {
            rows.extend(sqlx::query(pragma).fetch_all(&mut database).await.unwrap());
        }
        database.close().await.unwrap();
        rows.iter().map(|row| row.try_get(0).unwrap_or_default()).collect()
    }

    /// The database is whole, and has every child that Nomad has.
    async fn store_is_sound(&self, report: &mut Report) {
        let said = self.database_says().await;
        report.require(said == ["ok"], Breach::Lost, "", || format!("the database is not sound: {said:?}"));
        let mut database = self.database().await;
        let known = sqlx::query_scalar::<_, String>("SELECT child FROM children").fetch_all(&mut database);
        let known: BTreeSet<String> = known.await.unwrap().into_iter().collect();
        let unknown: Vec<String> =
            self.children().await.into_iter().filter(|child| !known.contains(child)).collect();
        report.require(unknown.is_empty(), Breach::Doubled, "", || format!("no record has {unknown:?}"));
        database.close().await.unwrap();
    }

    /// No canary, in any of its forms, stands in an object of the ops repo or of its mirror, in a file of the store, in
    /// the agent's log or in a webhook.
    fn nothing_told(&self, accepted: &Accepted, report: &mut Report) {
        let Accepted { canaries, webhooks, .. } = accepted;
        let log = fs::read(self.path("consign.log")).unwrap();
        let told = [
            canaries.in_repository(&self.ops.bare),
            canaries.in_repository(&self.path("store/mirror.git/repository.git")),
            canaries.in_path(&self.path("store")),
            canaries.in_bytes("the agent's log", &log),
            canaries.in_bytes("webhooks", webhooks),
        ];
        for found in told.concat() {
            report.require(false, Breach::Leaked, "", || found);
        }
    }
}

/// What is wrong with what a receiver of webhooks got about work that has ended: not every phase was told of, or
/// one under two ids. It may have got each more than once.
#[cfg(feature = "fail-points")]
pub(crate) fn untold<'name>(names: impl Iterator<Item = &'name String>, bodies: &[Value]) -> Vec<Violation> {
    let mut report = Report::default();
    for name in names {
        let about = |body: &&Value| body["action_id"] == name.as_str() || body["job_id"] == name.as_str();
        let bodies: Vec<&Value> = bodies.iter().filter(about).collect();
        let mut ids: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        for body in &bodies {
            let sequence = body["sequence"].as_u64().unwrap();
            ids.entry(sequence).or_default().insert(body["id"].as_str().unwrap());
        }
        let last = ids.keys().last().copied().unwrap_or_default();
        let is_end = |body: &&Value| body["state"] == "done" || body["state"] == "failed";
        let ends = bodies.iter().any(|body| body["sequence"] == last && is_end(body));
        let whole = ids.keys().copied().eq(1..=last) && ends;
        report.require(whole, Breach::Lost, name, || format!("it was told of {:?} alone", ids.keys()));
        let once = ids.values().all(|ids| ids.len() == 1);
        report.require(once, Breach::Doubled, name, || format!("webhooks have several ids: {ids:?}"));
    }
    report.0
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
