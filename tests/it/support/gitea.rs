//! A real forge: a Gitea of the test's own, with people, a team and the ops repo.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use consign::{dev::servers::Port, program};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMIT, tell_failures, wait_for};

/// Everybody's password.
const PASSWORD: &str = "correct horse battery";
/// The administrator of the whole forge.
pub(crate) const ROOT: &str = "root1";
/// The account that the agent uses: it administers the ops repo.
pub(crate) const AGENT: &str = "agent";
/// People who may write to the ops repo. Bob and Kim are the team `ops`; Eve is not.
const PEOPLE: [&str; 5] = ["ann", "bob", "kim", "eve", AGENT];
/// The ops repo.
pub(crate) const REPOSITORY: &str = "acme/actions";
/// What the agent's token has to be able to do.
pub(crate) const SCOPES: [&str; 3] = ["write:repository", "read:issue", "read:organization"];

/// The forge; it ends with the value.
#[derive(Debug)]
pub(crate) struct Gitea {
    pub(crate) address: String,
    folder: TempDir,
    child: Option<Child>,
    http: Client,
    /// Where it listens.
    _port: Port,
}

impl Gitea {
    /// Starts a forge where the organization `acme` has the repository `actions`, with a first commit.
    pub(crate) async fn start() -> Self {
        tell_failures();
        let folder = tempfile::Builder::new().prefix("consign-gitea-").tempdir().unwrap();
        let reserved = Port::reserve().unwrap();
        let port = reserved.number();
        fs::write(folder.path().join("app.ini"), configuration(folder.path(), port)).unwrap();
        let http = crate::support::http();
        let address = format!("http://127.0.0.1:{port}");
        let mut gitea = Self { address, folder, child: None, http, _port: reserved };
        gitea.run(&["migrate"]);
        gitea.run(&[
            "admin",
            "user",
            "create",
            "--admin",
            "--username",
            ROOT,
            "--password",
            PASSWORD,
            "--email",
            "root1@example.invalid",
            "--must-change-password=false",
        ]);
        gitea.resume().await;
        gitea.furnish().await;
        gitea
    }

    /// People, the team and the repository.
    async fn furnish(&self) {
        for name in PEOPLE {
            let user = json!({
                "username": name, "email": format!("{name}@example.invalid"), "password": PASSWORD,
                "must_change_password": false,
            });
            self.post(ROOT, "/admin/users", user).await;
        }
        self.post(ROOT, "/orgs", json!({ "username": "acme" })).await;
        let team = json!({
            "name": "ops", "permission": "write", "units": ["repo.code", "repo.pulls", "repo.issues"],
            "includes_all_repositories": true,
        });
        let team = self.post(ROOT, "/orgs/acme/teams", team).await;
        let repo = json!({ "name": "actions", "auto_init": true, "default_branch": "main" });
        self.post(ROOT, "/orgs/acme/repos", repo).await;
        for name in ["bob", "kim", AGENT] {
            self.put(ROOT, &format!("/teams/{}/members/{name}", team["id"]), json!({})).await;
        }
        for (name, permission) in [("ann", "write"), ("eve", "write"), (AGENT, "admin")] {
            let path = format!("/repos/{REPOSITORY}/collaborators/{name}");
            self.put(ROOT, &path, json!({ "permission": permission })).await;
        }
    }

    /// Starts it again after [`Self::halt`].
    pub(crate) async fn resume(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command();
        command.arg("web").stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        self.child = Some(command.spawn().expect("gitea runs: scripts/servers builds it"));
        let url = format!("{}/api/v1/version", self.address);
        wait_for("the forge", LIMIT, async || {
            let answer = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    /// Ends it; what it knows stays.
    pub(crate) fn halt(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("gitea");
        command
            .arg("--config")
            .arg(self.folder.path().join("app.ini"))
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true");
        command
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.command().args(arguments).output().expect("gitea runs: scripts/servers builds it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The ops repo as it lies on the forge's disk.
    pub(crate) fn bare(&self) -> PathBuf {
        self.folder.path().join("repositories").join(format!("{REPOSITORY}.git"))
    }

    /// The ops repo's URL for the agent.
    pub(crate) fn remote(&self) -> String {
        let address = self.address.strip_prefix("http://").unwrap();
        format!("http://{AGENT}:{}@{address}/{REPOSITORY}.git", PASSWORD.replace(' ', "%20"))
    }

    /// Status and content of the answer to a request that `person` makes.
    pub(crate) async fn ask(
        &self,
        person: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}/api/v1{path}", self.address);
        let request = self.http.request(method, url).basic_auth(person, Some(PASSWORD));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn demand(&self, person: &str, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(person, method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path} by {person}: {status} {answer}");
        answer
    }

    pub(crate) async fn get(&self, person: &str, path: &str) -> Value {
        self.demand(person, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, person: &str, path: &str, body: Value) -> Value {
        self.demand(person, Method::POST, path, Some(body)).await
    }

    async fn put(&self, person: &str, path: &str, body: Value) -> Value {
        self.demand(person, Method::PUT, path, Some(body)).await
    }

    /// A token of `person` with these scopes.
    pub(crate) async fn token(&self, person: &str, scopes: &[&str]) -> String {
        let name = ulid::Ulid::generate().to_string();
        let body = json!({ "name": name, "scopes": scopes });
        let token = self.post(person, &format!("/users/{person}/tokens"), body).await;
        token["sha1"].as_str().unwrap().to_owned()
    }

    /// Writes files to a branch as `person`; one that is not there yet begins at `main`. Gives the commit.
    pub(crate) async fn commit(&self, person: &str, branch: &str, files: &[(&str, &str)]) -> String {
        let mut operations = Vec::new();
        let path = format!("/repos/{REPOSITORY}/branches/{branch}");
        let exists = self.ask(person, Method::GET, &path, None).await.0.is_success();
        for (path, content) in files {
            let at = if exists { branch } else { "main" };
            let known = format!("/repos/{REPOSITORY}/contents/{path}?ref={at}");
            let (status, known) = self.ask(person, Method::GET, &known, None).await;
            let content = BASE64_STANDARD.encode(content);
            operations.push(if status.is_success() {
                json!({ "operation": "update", "path": path, "content": content, "sha": known["sha"] })
            } else {
                json!({ "operation": "create", "path": path, "content": content })
            });
        }
        let mut body = json!({ "message": format!("change {branch}"), "files": operations });
        if exists {
            body["branch"] = branch.into();
        } else {
            body["branch"] = "main".into();
            body["new_branch"] = branch.into();
        }
        let made = self.post(person, &format!("/repos/{REPOSITORY}/contents"), body).await;
        made["commit"]["sha"].as_str().unwrap().to_owned()
    }

    /// Opens a pull request of `branch` as `person`, and gives its number.
    pub(crate) async fn open(&self, person: &str, branch: &str) -> u64 {
        let body = json!({ "head": branch, "base": "main", "title": branch });
        let pull = self.post(person, &format!("/repos/{REPOSITORY}/pulls"), body).await;
        pull["number"].as_u64().unwrap()
    }

    /// Files on a branch of their own with a pull request, all by `person`.
    pub(crate) async fn propose(&self, person: &str, branch: &str, files: &[(&str, &str)]) -> u64 {
        self.commit(person, branch, files).await;
        self.open(person, branch).await
    }

    /// Reviews as `person`: `APPROVED` or `REQUEST_CHANGES`. Gives the review's number.
    pub(crate) async fn review(&self, person: &str, number: u64, event: &str) -> u64 {
        let body = json!({ "event": event, "body": "read" });
        let review = self.post(person, &format!("/repos/{REPOSITORY}/pulls/{number}/reviews"), body).await;
        review["id"].as_u64().unwrap()
    }

    /// Dismisses a review, as the administrator.
    pub(crate) async fn dismiss(&self, number: u64, review: u64) {
        let path = format!("/repos/{REPOSITORY}/pulls/{number}/reviews/{review}/dismissals");
        self.post(ROOT, &path, json!({ "message": "no" })).await;
    }

    /// Merges as `person`: `merge`, `rebase`, `squash` or `fast-forward-only`.
    pub(crate) async fn merge(&self, person: &str, number: u64, style: &str) {
        let path = format!("/repos/{REPOSITORY}/pulls/{number}/merge");
        // Whether it can be merged is worked out in the background.
        wait_for("the merge", LIMIT, async || {
            let (status, answer) = self.ask(person, Method::POST, &path, Some(json!({ "Do": style }))).await;
            // A merge whose answer went wrong is a merge.
            if status.is_success() || self.pull(person, number).await["merged"] == true {
                return Ok(());
            }
            Err(format!("{status}: {answer}"))
        })
        .await;
        let pull = self.pull(person, number).await;
        let commit = pull["merge_commit_sha"].as_str().unwrap();
        let path = format!("/repos/{REPOSITORY}/commits/{commit}/pull");
        wait_for("the commit to be known as the pull request's", LIMIT, async || {
            let (status, answer) = self.ask(person, Method::GET, &path, None).await;
            if status.is_success() { Ok(()) } else { Err(format!("{status}: {answer}")) }
        })
        .await;
    }

    async fn pull(&self, person: &str, number: u64) -> Value {
        self.get(person, &format!("/repos/{REPOSITORY}/pulls/{number}")).await
    }

    /// Makes the forge itself tell `url` of these events, signed with `secret`.
    pub(crate) async fn tell(&self, url: &str, secret: &str, events: &[&str]) {
        let config = json!({ "url": url, "content_type": "json", "secret": secret });
        let hook = json!({ "type": "gitea", "config": config, "events": events, "active": true });
        self.post(ROOT, &format!("/repos/{REPOSITORY}/hooks"), hook).await;
    }

    /// Makes a label that issues can have.
    pub(crate) async fn make_label(&self, name: &str) {
        let label = json!({ "name": name, "color": "#aabbcc" });
        self.post(ROOT, &format!("/repos/{REPOSITORY}/labels"), label).await;
    }

    /// Opens an issue as `person`, whose text wants to be run, and gives its number.
    pub(crate) async fn open_issue(&self, person: &str) -> u64 {
        let text = "`$(reboot)` ${node.unique.id} {{ env \"HOME\" }}; @root1";
        let issue = json!({ "title": text, "body": text });
        let issue = self.post(person, &format!("/repos/{REPOSITORY}/issues"), issue).await;
        issue["number"].as_u64().unwrap()
    }

    /// Gives an issue a label that is there, as one who may.
    pub(crate) async fn label(&self, number: u64, label: &str) {
        let path = format!("/repos/{REPOSITORY}/issues/{number}/labels");
        self.post("kim", &path, json!({ "labels": [label] })).await;
    }

    /// The labels of an issue, by name.
    pub(crate) async fn labels(&self, number: u64) -> Vec<String> {
        let labels = self.get(ROOT, &format!("/repos/{REPOSITORY}/issues/{number}/labels")).await;
        let mut names: Vec<String> = texts(&labels, "name");
        names.sort();
        names
    }

    /// The comments on an issue, the earliest first.
    pub(crate) async fn comments(&self, number: u64) -> Vec<String> {
        texts(&self.get(ROOT, &format!("/repos/{REPOSITORY}/issues/{number}/comments")).await, "body")
    }
}

fn texts(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

impl Drop for Gitea {
    fn drop(&mut self) {
        self.halt();
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let gitea = program::find("gitea").expect("gitea is on PATH: scripts/servers builds it");
    // Templates and translations lie beside the program.
    let files = gitea.parent().and_then(Path::parent).unwrap().join("static");
    format!(
        "RUN_MODE = prod\nWORK_PATH = {folder}\n\
         [server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = http://127.0.0.1:{port}/\n\
         STATIC_ROOT_PATH = {files}\nDISABLE_SSH = true\nOFFLINE_MODE = true\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {folder}/gitea.db\nSQLITE_JOURNAL_MODE = WAL\nSQLITE_TIMEOUT = 60000\n\
         [repository]\nROOT = {folder}/repositories\n\
         [security]\nINSTALL_LOCK = true\nPASSWORD_HASH_ALGO = pbkdf2_v1\nSECRET_KEY = of no worth\n\
         [webhook]\nALLOWED_HOST_LIST = loopback\n\
         [indexer]\nISSUE_INDEXER_TYPE = db\n\
         [cron]\nENABLED = false\n\
         [log]\nMODE = console\nLEVEL = Warn\n",
        folder = folder.display(),
        files = files.display(),
    )
}
