//! Vault, bootstrap, secrets and grants against a real Vault server.

mod rights;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use consign::{
    bootstrap::{self, Change},
    config,
    credential::{Credential, read_token_file},
    dev::servers::{Vault as Process, VaultOptions},
    grant::{self, Grantable, Grants, Upkeep},
    secret::{self, Done, Listed, Secrets},
    vault::{Kind, Method, Settings, Vault},
};
use futures_util::future;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Servers, World, servers, wait_for};

/// A Vault server of one test: the names that the tests use are the default ones, once in each Vault.
struct Server {
    vault: Process,
    address: String,
    folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("consign-vault-").tempdir().unwrap();
        let options =
            VaultOptions { folder: folder.path().join("server"), remove_folder: true, persistent: false };
        let vault = Process::start(&options).await.unwrap();
        Self { address: vault.address(), vault, folder }
    }

    fn root_token(&self) -> &str {
        self.vault.root_token().expose_secret()
    }

    fn root(&self) -> Vault {
        connect(&self.address, self.root_token())
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("agent-token")
    }

    /// Settings in which Vault's own key set stands for Nomad's: both sign JWTs in the same way.
    fn bootstrap_settings(&self) -> bootstrap::Settings {
        let config = config::read("consign.toml", "", &config::Environment::new()).unwrap();
        bootstrap::Settings {
            jwks_url: format!("{}/v1/identity/oidc/.well-known/keys", self.address),
            ..bootstrap::Settings::of(&config, Some(self.token_file())).unwrap()
        }
    }

    /// Sets Vault up; gives the agent's connection, with the restricted token, and its grants.
    async fn ready(&self) -> (Vault, Grants) {
        let settings = self.bootstrap_settings();
        bootstrap_all(&self.root(), &settings).await;
        let token = read_token_file(&self.token_file()).unwrap();
        let agent = connect(&self.address, token.expose_secret());
        let accessor = grant::mount_accessor(&agent, &settings.gate).await.unwrap();
        let grants = Grants::spawn(
            agent.clone(),
            grant::Settings {
                kv: settings.kv.clone(),
                prefix: settings.prefix.clone(),
                bots: settings.bots.clone(),
                gate: settings.gate.clone(),
                accessor,
            },
        );
        (agent, grants)
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(self.root(), "secret", "runner", "bots")
    }
}

fn settings(address: &str, token: impl Into<Credential>) -> Settings {
    Settings { address: address.to_owned(), ca_certificate: None, namespace: None, token: token.into() }
}

fn connect(address: &str, token: &str) -> Vault {
    Vault::new(&settings(address, SecretString::from(token))).unwrap()
}

async fn bootstrap_all(vault: &Vault, settings: &bootstrap::Settings) -> Vec<Change> {
    let changes = bootstrap::plan(vault, settings).await.unwrap();
    for change in &changes {
        bootstrap::apply(vault, settings, change).await.unwrap();
    }
    changes
}

fn name(text: &str) -> Grantable {
    Grantable::Secret(text.parse().unwrap())
}

fn bot(text: &str) -> Grantable {
    Grantable::Bot(text.parse().unwrap())
}

fn names(texts: &[&str]) -> Vec<Grantable> {
    texts.iter().map(|text| name(text)).collect()
}

/// Signs identities as Nomad does, with Vault's own OIDC keys, and logs in with them.
struct Signer {
    root: Vault,
    userpass: String,
}

impl Signer {
    async fn new(root: Vault) -> Self {
        root.write("sys/auth/userpass", &json!({ "type": "userpass" })).await.unwrap();
        root.write("identity/oidc/key/test", &json!({ "allowed_client_ids": "*" })).await.unwrap();
        let template = r#"{"nomad_allocation_id": {{identity.entity.metadata.allocation}},
            "nomad_namespace": {{identity.entity.metadata.namespace}}}"#;
        let role = json!({ "key": "test", "client_id": "vault.io", "template": template });
        root.write("identity/oidc/role/test", &role).await.unwrap();
        root.write_policy("sign", "path \"identity/oidc/token/test\" { capabilities = [\"read\"] }")
            .await
            .unwrap();
        let userpass = root.auth_method("userpass").await.unwrap().unwrap().accessor;
        Self { root, userpass }
    }

    async fn identity(&self, allocation: &str, namespace: &str) -> String {
        let metadata = json!({ "allocation": allocation, "namespace": namespace });
        let entity = json!({ "name": format!("signer-{allocation}"), "metadata": metadata });
        let id = self.root.write("identity/entity", &entity).await.unwrap().data()["id"].clone();
        let alias = json!({ "name": allocation, "canonical_id": id, "mount_accessor": self.userpass });
        self.root.write("identity/entity-alias", &alias).await.unwrap();
        let user = json!({ "password": "p", "token_policies": ["sign"] });
        self.root.write(&format!("auth/userpass/users/{allocation}"), &user).await.unwrap();
        let login = format!("auth/userpass/login/{allocation}");
        let login = self.root.write(&login, &json!({ "password": "p" })).await.unwrap();
        let token = SecretString::from(login.body["auth"]["client_token"].as_str().unwrap());
        let signed = self.root.with_token(&token).read("identity/oidc/token/test").await.unwrap().unwrap();
        signed["token"].as_str().unwrap().to_owned()
    }

    /// Logs an allocation in, as Nomad's client does for it.
    async fn login(&self, identity: &str) -> Result<Vault, consign::vault::Error> {
        let body = json!({ "role": "consign-runner", "jwt": identity });
        let answer = self.root.write("auth/jwt-nomad/login", &body).await?;
        let token = SecretString::from(answer.body["auth"]["client_token"].as_str().unwrap());
        Ok(self.root.with_token(&token))
    }
}

async fn value(task: &Vault, path: &str) -> Result<Value, Option<Kind>> {
    let read = task.read(path).await.map_err(|error| error.kind())?;
    Ok(read.unwrap()["data"]["value"].clone())
}

#[tokio::test]
async fn bootstrap_changes_only_what_is_missing() {
    let server = Server::start().await;
    let (root, settings) = (server.root(), server.bootstrap_settings());

    let planned = bootstrap::plan(&root, &settings).await.unwrap();
    assert_eq!(planned.len(), 9, "{planned:?}");
    assert_eq!(planned, bootstrap::plan(&root, &settings).await.unwrap(), "planning changes nothing");
    assert!(!server.token_file().exists());

    assert_eq!(bootstrap_all(&root, &settings).await, planned);
    assert_eq!(bootstrap_all(&root, &settings).await, []);

    let facts = root.with_token(&read_token_file(&server.token_file()).unwrap());
    let facts = facts.lookup_self().await.unwrap();
    assert_eq!(facts.policies, ["consign-agent", "default"]);
    assert_eq!((facts.period, facts.orphan, facts.renewable), (Duration::from_hours(24), true, true));

    // Drift is found part by part.
    root.write_policy("consign-task", "path \"secret/*\" { capabilities = [\"read\"] }").await.unwrap();
    let role = json!({ "role_type": "jwt", "user_claim": "nomad_job_id", "bound_audiences": "vault.io" });
    root.write_jwt_role("jwt-nomad", "consign-runner", &role).await.unwrap();
    let drift: Vec<String> = bootstrap_all(&root, &settings).await.iter().map(ToString::to_string).collect();
    assert_eq!(drift.len(), 2, "{drift:?}");
    assert!(drift[0].contains("consign-task") && drift[1].contains("user_claim"), "{drift:?}");
    assert_eq!(bootstrap_all(&root, &settings).await, []);
}

#[tokio::test]
async fn two_installations_share_a_vault() {
    let server = Server::start().await;
    let root = server.root();
    let first = server.bootstrap_settings();
    let second = bootstrap::Settings {
        kv: "second".to_owned(),
        gate: "second-go".to_owned(),
        auth_path: "jwt-second".to_owned(),
        role: "second".to_owned(),
        token_out: None,
        ..first.clone()
    };
    assert_eq!(bootstrap_all(&root, &first).await.len(), 9);
    assert_eq!(bootstrap_all(&root, &second).await.len(), 9);
    assert_eq!(bootstrap_all(&root, &first).await, []);
    assert_eq!(bootstrap_all(&root, &second).await, []);
}

#[tokio::test]
async fn bootstrap_leaves_what_is_not_its_own() {
    let server = Server::start().await;
    let (root, settings) = (server.root(), server.bootstrap_settings());
    root.write("sys/auth/other", &json!({ "type": "userpass" })).await.unwrap();
    root.write("sys/mounts/one", &json!({ "type": "kv", "options": { "version": "1" } })).await.unwrap();
    for (wrong, words) in [
        (bootstrap::Settings { auth_path: "other".to_owned(), ..settings.clone() }, "userpass"),
        (bootstrap::Settings { kv: "one".to_owned(), ..settings.clone() }, "KV version 1"),
        (bootstrap::Settings { kv: "identity".to_owned(), ..settings.clone() }, "identity"),
        (bootstrap::Settings { prefix: "*".to_owned(), ..settings.clone() }, "prefix"),
    ] {
        let error = bootstrap::plan(&root, &wrong).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_token_file_is_kept_closed_and_never_lost() {
    let server = Server::start().await;
    let (root, settings, path) = (server.root(), server.bootstrap_settings(), server.token_file());
    bootstrap_all(&root, &settings).await;
    assert_eq!(mode(&path), 0o600);
    let first = std::fs::read_to_string(&path).unwrap();

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let changes = bootstrap_all(&root, &settings).await;
    assert_eq!(changes, [Change::TokenFileMode { path: path.clone() }]);
    assert_eq!((mode(&path), std::fs::read_to_string(&path).unwrap()), (0o600, first.clone()));

    let token = read_token_file(&path).unwrap();
    root.with_token(&token).revoke_self().await.unwrap();
    assert_eq!(bootstrap_all(&root, &settings).await.len(), 1);
    assert_ne!(std::fs::read_to_string(&path).unwrap(), first);
    assert_eq!(mode(&path), 0o600);

    let operators = root.create_orphan_token(&["root".to_owned()], Duration::from_hours(1), "x").await;
    for kept in ["my diary\n", "word\n", operators.unwrap().expose_secret()] {
        std::fs::write(&path, kept).unwrap();
        let error = bootstrap::plan(&root, &settings).await.unwrap_err();
        assert!(matches!(error, bootstrap::Error::TokenFileTaken { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }
}

#[tokio::test]
async fn secrets_are_put_listed_linked_and_removed() {
    let server = Server::start().await;
    let (root, secrets) = (server.root(), server.secrets());
    let (_, grants) = server.ready().await;
    assert_eq!(secrets.list(secret::Kind::Secrets).await.unwrap(), []);

    let text = "first \"line\"\nzweite Zeile: ä 🚀 \\n $HOME {{ . }}\n\n";
    let done = secrets.put(&name("KEY"), text.as_bytes()).await.unwrap();
    assert_eq!(
        done,
        [
            Done::EntryWritten { path: "secret/runner/KEY".to_owned(), version: 1 },
            Done::PolicyWritten("runner-key".to_owned()),
            Done::GroupWritten("runner-KEY".to_owned()),
        ]
    );
    assert_eq!(value(&root, "secret/data/runner/KEY").await, Ok(json!(text)));

    // Rotation keeps the members.
    grants.issue("alloc-1", &names(&["KEY"])).await.unwrap();
    let again = secrets.put(&name("KEY"), b"new").await.unwrap();
    assert_eq!(again, [Done::EntryWritten { path: "secret/runner/KEY".to_owned(), version: 2 }]);
    assert_eq!(grants.members("runner-KEY").await.unwrap().len(), 1);

    assert!(secrets.link(&name("LINKED")).await.unwrap_err().to_string().contains("secret/runner/LINKED"));
    let other = SecretString::from("x");
    root.write_entry("secret", "runner/LINKED", "password", &other).await.unwrap();
    assert!(secrets.link(&name("LINKED")).await.is_err(), "an entry without the field `value`");
    root.write_entry("secret", "runner/LINKED", "value", &other).await.unwrap();
    let listed = secrets.list(secret::Kind::Secrets).await.unwrap();
    let complete: Vec<_> = listed.iter().map(|item| (item.name.name(), item.is_complete())).collect();
    assert_eq!(complete, [("KEY", true), ("LINKED", false)]);
    assert_eq!(secrets.link(&name("LINKED")).await.unwrap().len(), 2);
    assert_eq!(secrets.link(&name("LINKED")).await.unwrap(), []);

    // What others called the same is left alone.
    root.write_policy("runner-taken", "path \"other/*\" { capabilities = [\"read\"] }").await.unwrap();
    assert!(secrets.put(&name("TAKEN"), b"x").await.unwrap_err().to_string().contains("runner-taken"));
    assert_eq!(root.entry("secret", "runner/TAKEN").await.unwrap(), None);

    assert_eq!(secrets.rm(&name("KEY")).await.unwrap().len(), 3);
    assert_eq!(secrets.rm(&name("KEY")).await.unwrap(), []);
    assert_eq!(secrets.list(secret::Kind::Secrets).await.unwrap().len(), 1);
}

#[tokio::test]
async fn bots_are_put_granted_and_removed_apart_from_secrets() {
    let server = Server::start().await;
    let (root, secrets) = (server.root(), server.secrets());
    let (_, grants) = server.ready().await;
    let done = secrets.put(&bot("triage"), b"a token\n").await.unwrap();
    assert_eq!(
        done,
        [
            Done::EntryWritten { path: "secret/bots/triage".to_owned(), version: 1 },
            Done::PolicyWritten("bot-triage".to_owned()),
            Done::GroupWritten("bot-triage".to_owned()),
        ]
    );
    secrets.put(&bot("verify"), b"another").await.unwrap();
    secrets.put(&name("KEY"), b"a value").await.unwrap();
    let listed = secrets.list(secret::Kind::Bots).await.unwrap();
    let complete: Vec<_> = listed.iter().map(|item| (item.name.name(), item.is_complete())).collect();
    assert_eq!(complete, [("triage", true), ("verify", true)]);
    assert_eq!(secrets.list(secret::Kind::Secrets).await.unwrap().len(), 1);

    let unknown = grants.unknown_secrets(&[bot("triage"), bot("nobody"), name("KEY")]).await.unwrap();
    assert_eq!(unknown, [bot("nobody")]);
    let error = grants.issue("alloc-1", &[bot("nobody")]).await.unwrap_err();
    assert!(error.to_string().contains("consign secret put --bot nobody"), "{error}");

    let signer = Signer::new(server.root()).await;
    let task = signer.login(&signer.identity("alloc-2", "default").await).await.unwrap();
    grants.issue("alloc-2", &[bot("triage")]).await.unwrap();
    assert_eq!(value(&task, "secret/data/bots/triage").await, Ok(json!("a token\n")));
    for other in ["secret/data/bots/verify", "secret/data/runner/KEY"] {
        assert_eq!(value(&task, other).await, Err(Some(Kind::Denied)), "{other}");
    }
    grants.withdraw("alloc-2").await.unwrap();
    assert_eq!(value(&task, "secret/data/bots/triage").await, Err(Some(Kind::Denied)));
    assert_eq!(grants.members("bot-triage").await.unwrap(), Vec::<String>::new());

    assert_eq!(secrets.rm(&bot("triage")).await.unwrap().len(), 3);
    assert_eq!(root.entry("secret", "bots/triage").await.unwrap(), None);
    assert!(secrets.link(&bot("triage")).await.unwrap_err().to_string().contains("secret/bots/triage"));
}

#[tokio::test]
async fn only_the_secrets_of_this_installation_are_listed() {
    let server = Server::start().await;
    let (root, secrets) = (server.root(), server.secrets());
    let other = Secrets::new(server.root(), "secret", "other", "others");
    secrets.put(&name("OWN"), b"x").await.unwrap();
    secrets.put(&name("HALF"), b"x").await.unwrap();
    root.delete_entry("secret", "runner/HALF").await.unwrap();
    other.put(&name("FOREIGN"), b"x").await.unwrap();
    // Both have an entry of this name, and the Vault policy is the other's.
    other.put(&name("BOTH"), b"x").await.unwrap();
    let value = SecretString::from("x");
    root.write_entry("secret", "runner/BOTH", "value", &value).await.unwrap();

    let parts = |listed: Vec<Listed>| -> Vec<(String, bool, bool, bool)> {
        listed.into_iter().map(|one| (one.name.name().to_owned(), one.entry, one.policy, one.group)).collect()
    };
    assert_eq!(
        parts(secrets.list(secret::Kind::Secrets).await.unwrap()),
        [
            ("BOTH".to_owned(), true, false, true),
            ("HALF".to_owned(), false, true, true),
            ("OWN".to_owned(), true, true, true),
        ]
    );
    let names: Vec<String> =
        parts(other.list(secret::Kind::Secrets).await.unwrap()).into_iter().map(|one| one.0).collect();
    assert_eq!(names, ["BOTH", "FOREIGN"]);
}

#[tokio::test]
async fn unknown_secrets_are_named_and_their_groups_not_made() {
    let server = Server::start().await;
    let (root, secrets) = (server.root(), server.secrets());
    let (_, grants) = server.ready().await;
    for known in ["A", "B", "NO_GROUP", "NO_ENTRY", "DELETED", "NO_RIGHTS"] {
        secrets.put(&name(known), b"x").await.unwrap();
    }
    root.delete_group("runner-NO_GROUP").await.unwrap();
    root.delete_entry("secret", "runner/NO_ENTRY").await.unwrap();
    root.delete("secret/data/runner/DELETED").await.unwrap();
    root.write_group("runner-NO_RIGHTS", &[], &std::collections::BTreeMap::new()).await.unwrap();

    let asked = names(&["A", "NO_GROUP", "NO_ENTRY", "B", "DELETED", "NO_RIGHTS", "NEVER"]);
    let unknown = grants.unknown_secrets(&asked).await.unwrap();
    assert_eq!(unknown, names(&["NO_GROUP", "NO_ENTRY", "DELETED", "NO_RIGHTS", "NEVER"]));

    let error = grants.issue("alloc-1", &names(&["A", "NEVER"])).await.unwrap_err();
    assert!(matches!(&error, grant::Error::UnknownSecret(secret) if secret.name() == "NEVER"), "{error}");
    assert_eq!(root.group("runner-NEVER").await.unwrap(), None);
    assert_eq!(grants.members("consign-go").await.unwrap(), Vec::<String>::new(), "the gate stays shut");
    grants.withdraw("alloc-1").await.unwrap();
    assert_eq!(grants.members("runner-A").await.unwrap(), Vec::<String>::new());

    assert_eq!(grants.unknown_secrets(&[]).await.unwrap(), []);
    server.vault.stop().await.unwrap();
    assert!(grants.unknown_secrets(&[]).await.is_err(), "Vault is asked also where nothing is wanted");
}

#[tokio::test]
async fn fifty_grants_at_once_lose_none() {
    let server = Server::start().await;
    let (_, grants) = server.ready().await;
    let all = names(&["S1", "S2", "S3", "S4", "S5"]);
    for secret in &all {
        server.secrets().put(secret, b"x").await.unwrap();
    }
    let allocations: Vec<String> = (0..50).map(|number| format!("alloc-{number}")).collect();
    let issued =
        future::try_join_all(allocations.iter().map(|allocation| grants.issue(allocation, &all))).await;
    let mut issued = issued.unwrap();
    issued.sort();
    let groups = ["consign-go", "runner-S1", "runner-S2", "runner-S3", "runner-S4", "runner-S5"];
    for group in groups {
        let mut members = grants.members(group).await.unwrap();
        members.sort();
        assert_eq!(members, issued, "{group}");
    }

    // New grants while old ones are withdrawn: no stale member list makes one fail.
    let later: Vec<String> = (50..100).map(|number| format!("alloc-{number}")).collect();
    let (withdrawn, added) = future::join(
        future::try_join_all(allocations.iter().map(|allocation| grants.withdraw(allocation))),
        future::try_join_all(later.iter().map(|allocation| grants.issue(allocation, &all))),
    )
    .await;
    withdrawn.unwrap();
    let mut added = added.unwrap();
    added.sort();
    for group in groups {
        let mut members = grants.members(group).await.unwrap();
        members.sort();
        assert_eq!(members, added, "{group}");
    }
    future::try_join_all(later.iter().map(|allocation| grants.withdraw(allocation))).await.unwrap();
    for group in groups {
        assert_eq!(grants.members(group).await.unwrap(), Vec::<String>::new(), "{group}");
    }
}

#[tokio::test]
async fn entities_deleted_by_others_do_not_stop_a_grant() {
    let server = Server::start().await;
    let root = server.root();
    let (agent, grants) = server.ready().await;
    server.secrets().put(&name("A"), b"x").await.unwrap();
    let accessor = grant::mount_accessor(&agent, "consign-go").await.unwrap();
    let deleting = async {
        for number in 0..40 {
            let allocation = format!("deleted-{number}");
            let entity = grants.issue(&allocation, &names(&["A"])).await;
            let found = root.entity_by_alias(&allocation, &accessor).await.unwrap().unwrap();
            assert_eq!(entity.unwrap(), found.id);
            root.delete_entity(&found.name).await.unwrap();
        }
    };
    let granting = async {
        let mut issued = Vec::new();
        for number in 0..40 {
            issued.push(grants.issue(&format!("kept-{number}"), &names(&["A"])).await.unwrap());
        }
        issued.sort();
        issued
    };
    let ((), issued) = future::join(deleting, granting).await;
    for group in ["runner-A", "consign-go"] {
        let mut members = grants.members(group).await.unwrap();
        members.sort();
        assert_eq!(members, issued, "{group}");
    }
}

#[tokio::test]
async fn an_allocation_reads_what_it_was_granted_until_it_is_withdrawn() {
    let server = Server::start().await;
    let (_, grants) = server.ready().await;
    for secret in ["GRANTED", "OTHER"] {
        server.secrets().put(&name(secret), secret.as_bytes()).await.unwrap();
    }
    let signer = Signer::new(server.root()).await;
    let (granted, other, gate) =
        ("secret/data/runner/GRANTED", "secret/data/runner/OTHER", "secret/data/consign/go");

    // One allocation logs in before its grant, the other after it.
    let early = signer.login(&signer.identity("early", "default").await).await.unwrap();
    for path in [granted, other, gate, "auth/token/lookup-accessor", "cubbyhole/x", "sys/mounts"] {
        assert_eq!(value(&early, path).await, Err(Some(Kind::Denied)), "{path}");
    }
    early.lookup_self().await.unwrap();
    early.renew_self().await.unwrap();
    for allocation in ["early", "late"] {
        let entity = grants.issue(allocation, &names(&["GRANTED"])).await.unwrap();
        assert_eq!(grants.issue(allocation, &names(&["GRANTED"])).await.unwrap(), entity, "repeated");
    }
    let late_identity = signer.identity("late", "default").await;
    let late = signer.login(&late_identity).await.unwrap();
    for task in [&early, &late] {
        assert_eq!(value(task, granted).await, Ok(json!("GRANTED")));
        assert_eq!(value(task, gate).await, Ok(json!("go")));
        assert_eq!(value(task, other).await, Err(Some(Kind::Denied)));
    }

    grants.withdraw("late").await.unwrap();
    grants.withdraw("late").await.unwrap();
    assert_eq!(value(&late, granted).await, Err(Some(Kind::Denied)));
    assert_eq!(late.lookup_self().await.unwrap_err().kind(), Some(Kind::Denied));
    assert_eq!(value(&early, granted).await, Ok(json!("GRANTED")), "another allocation's grant stays");

    // A withdrawn allocation may log in again, and has nothing.
    let again = signer.login(&late_identity).await.unwrap();
    assert_eq!(value(&again, granted).await, Err(Some(Kind::Denied)));
    assert_eq!(value(&again, gate).await, Err(Some(Kind::Denied)));

    let foreign = signer.identity("foreign", "other").await;
    assert_eq!(signer.login(&foreign).await.unwrap_err().kind(), Some(Kind::Invalid));
}

use Method::{Delete, Get, List, Post};

/// A name, and a request: method, path, body.
type Row = (&'static str, Method, &'static str, Value);

/// What the agent must not do with other allocations' and people's identities, and with secrets.
fn forbidden(entity: &str, person: &Value, accessor: &str, userpass: &str) -> Vec<Row> {
    let none = Value::Null;
    vec![
        ("read a secret", Get, "secret/data/runner/A", none.clone()),
        ("read a secret's keys", Get, "secret/subkeys/runner/A", none.clone()),
        ("write a secret", Post, "secret/data/runner/A", json!({ "data": { "value": "y" } })),
        ("write a secret's metadata", Post, "secret/metadata/runner/A", json!({ "max_versions": 1 })),
        ("delete a secret", Delete, "secret/metadata/runner/A", none.clone()),
        ("delete a version", Delete, "secret/data/runner/A", none.clone()),
        ("destroy versions", Post, "secret/destroy/runner/A", json!({ "versions": [1] })),
        ("read a bot's token", Get, "secret/data/bots/a", none.clone()),
        ("write a bot's token", Post, "secret/data/bots/a", json!({ "data": { "value": "y" } })),
        ("read the gate's entry", Get, "secret/data/consign/go", none.clone()),
        ("list other secrets", List, "secret/metadata", none.clone()),
        ("set a group's policies", Post, "identity/group/name/runner-A", json!({ "policies": ["root"] })),
        ("set a group's metadata", Post, "identity/group/name/runner-A", json!({ "metadata": { "a": "b" } })),
        ("nest groups", Post, "identity/group/name/runner-A", json!({ "member_group_ids": ["x"] })),
        (
            "set members and policies",
            Post,
            "identity/group/name/consign-go",
            json!({ "member_entity_ids": [entity], "policies": ["root"] }),
        ),
        ("delete a group", Delete, "identity/group/name/runner-A", none.clone()),
        ("read another group", Get, "identity/group/name/people", none.clone()),
        ("join another group", Post, "identity/group/name/people", json!({ "member_entity_ids": [entity] })),
        ("write a group by id", Post, "identity/group", json!({ "name": "runner-A", "policies": ["root"] })),
        ("list groups", List, "identity/group/name", none.clone()),
        ("make an entity", Post, "identity/entity", json!({ "name": "new" })),
        ("set an entity's policies", Post, "identity/entity/name/person", json!({ "policies": ["root"] })),
        (
            "set an automatic entity's policies",
            Post,
            "identity/entity/name/entity_1",
            json!({ "policies": ["root"] }),
        ),
        ("delete a person", Delete, "identity/entity/name/person", none.clone()),
        ("delete an entity by id", Delete, "identity/entity/id/x", none.clone()),
        ("list entities by id", List, "identity/entity/id", none.clone()),
        ("list entities by name", List, "identity/entity/name", none.clone()),
        ("read an entity", Get, "identity/entity/name/person", none.clone()),
        (
            "merge entities",
            Post,
            "identity/entity/merge",
            json!({ "from_entity_ids": [entity], "to_entity_id": person }),
        ),
        (
            "alias an existing entity",
            Post,
            "identity/entity-alias",
            json!({ "name": "alloc-2", "mount_accessor": accessor, "canonical_id": person }),
        ),
        (
            "alias by id",
            Post,
            "identity/entity-alias",
            json!({ "name": "alloc-2", "mount_accessor": accessor, "id": "x" }),
        ),
        (
            "alias of another auth method",
            Post,
            "identity/entity-alias",
            json!({ "name": "me", "mount_accessor": userpass }),
        ),
    ]
}

/// What the agent must not look up, and what it must not do to Vault itself.
fn forbidden_elsewhere(person: &Value, userpass: &str, root_token: &str) -> Vec<Row> {
    let none = Value::Null;
    vec![
        ("look up by entity id", Post, "identity/lookup/entity", json!({ "id": person })),
        ("look up by entity name", Post, "identity/lookup/entity", json!({ "name": "person" })),
        (
            "look up another auth method's alias",
            Post,
            "identity/lookup/entity",
            json!({ "alias_name": "me", "alias_mount_accessor": userpass }),
        ),
        ("look up a group", Post, "identity/lookup/group", json!({ "name": "people" })),
        ("read a Vault policy", Get, "sys/policies/acl/runner-a", none.clone()),
        ("write a Vault policy", Post, "sys/policies/acl/consign-agent", json!({ "policy": "" })),
        ("delete a Vault policy", Delete, "sys/policies/acl/runner-a", none.clone()),
        ("list Vault policies", List, "sys/policies/acl", none.clone()),
        ("list mounts", Get, "sys/mounts", none.clone()),
        ("mount an engine", Post, "sys/mounts/new", json!({ "type": "kv" })),
        ("list auth methods", Get, "sys/auth", none.clone()),
        ("enable an auth method", Post, "sys/auth/new", json!({ "type": "userpass" })),
        ("seal Vault", Post, "sys/seal", json!({})),
        ("read the audit devices", Get, "sys/audit", none.clone()),
        ("read the auth configuration", Get, "auth/jwt-nomad/config", none.clone()),
        ("change the auth configuration", Post, "auth/jwt-nomad/config", json!({ "jwks_url": "http://x" })),
        ("read the role", Get, "auth/jwt-nomad/role/consign-runner", none.clone()),
        (
            "change the role",
            Post,
            "auth/jwt-nomad/role/consign-runner",
            json!({ "token_policies": ["root"] }),
        ),
        ("make a token", Post, "auth/token/create", json!({})),
        ("make an orphan token", Post, "auth/token/create-orphan", json!({})),
        ("revoke another's token", Post, "auth/token/revoke", json!({ "token": root_token })),
        ("list token accessors", List, "auth/token/accessors", none.clone()),
    ]
}

/// The agent's connection with the token that `consign bootstrap --token-out` writes, and its grants.
async fn bootstrapped(server: &Server) -> (Vault, Grants) {
    let own = Servers {
        vault_address: server.address.clone(),
        vault_pid: server.vault.pid().unwrap_or_default(),
        vault_token: SecretString::from(server.root_token()),
        ..servers()
    };
    let world = World::on(own, "agent-token").await;
    let config = world
        .config_toml()
        .replace(&world.role(), "consign-runner")
        .replace(&world.prefix(), "runner")
        .replace(&world.gate(), "consign-go");
    world.bootstrap_with(&config);
    let path = world.path("agent.token");
    assert_eq!(mode(&path), 0o600);
    let agent = connect(&server.address, read_token_file(&path).unwrap().expose_secret());
    let accessor = grant::mount_accessor(&agent, "consign-go").await.unwrap();
    let settings = grant::Settings {
        kv: "secret".to_owned(),
        prefix: "runner".to_owned(),
        bots: "bots".to_owned(),
        gate: "consign-go".to_owned(),
        accessor,
    };
    (agent.clone(), Grants::spawn(agent, settings))
}

#[tokio::test]
async fn the_agents_token_can_do_its_task_and_nothing_else() {
    let server = Server::start().await;
    let root = server.root();
    let (agent, grants) = bootstrapped(&server).await;
    server.secrets().put(&name("A"), b"x").await.unwrap();
    let entity = grants.issue("alloc-1", &names(&["A"])).await.unwrap();
    let person = json!({ "name": "person", "policies": [] });
    let person = root.write("identity/entity", &person).await.unwrap().data()["id"].clone();
    root.write_group("people", &[], &std::collections::BTreeMap::new()).await.unwrap();
    let userpass = {
        root.write("sys/auth/userpass", &json!({ "type": "userpass" })).await.unwrap();
        root.auth_method("userpass").await.unwrap().unwrap().accessor
    };
    let accessor = grant::mount_accessor(&agent, "consign-go").await.unwrap();
    let mut rows = forbidden(&entity, &person, &accessor, &userpass);
    rows.extend(forbidden_elsewhere(&person, &userpass, server.root_token()));
    let mut allowed = Vec::new();
    for (what, method, path, body) in rows {
        let body = (!body.is_null()).then_some(&body);
        let answer = agent.request(method, path, body).await;
        if answer.as_ref().err().and_then(consign::vault::Error::kind) != Some(Kind::Denied) {
            allowed.push(format!("{what}: {answer:?}"));
        }
    }
    assert_eq!(allowed, Vec::<String>::new());
    assert_eq!(root.group("runner-A").await.unwrap().unwrap().member_entity_ids, [entity]);
    grants.withdraw("alloc-1").await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_read_anew_from_its_file() {
    let server = Server::start().await;
    server.ready().await;
    let credential = Credential::from_file(&server.token_file()).unwrap();
    let agent = Vault::new(&settings(&server.address, credential)).unwrap();
    agent.revoke_self().await.unwrap();
    assert_eq!(agent.lookup_self().await.unwrap_err().kind(), Some(Kind::Denied));
    let ending = CancellationToken::new();
    let upkeep = Upkeep::spawn(agent.clone(), ending.clone());
    wait_for("the refusal to be told", Duration::from_secs(10), async || match upkeep.trouble() {
        Some(trouble) if trouble.contains("Vault refuses the token") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // The file still holds the token that was revoked; a bootstrap replaces it.
    bootstrap_all(&server.root(), &server.bootstrap_settings()).await;
    agent.lookup_self().await.unwrap();
    ending.cancel();
}

#[tokio::test]
async fn a_sealed_or_absent_vault_is_told_apart() {
    let server = Server::start().await;
    let root = server.root();
    let health = root.health().await.unwrap();
    assert!(health.initialized && !health.sealed && !health.standby && !health.version.is_empty());
    root.write("sys/seal", &json!({})).await.unwrap();
    assert!(root.health().await.unwrap().sealed);
    let error = root.group("x").await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::Sealed));
    assert!(error.is_temporary());
    assert!(error.to_string().contains("GET identity/group/name/x"), "{error}");

    let address = server.address.clone();
    server.vault.stop().await.unwrap();
    let error = connect(&address, "t").health().await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::Unavailable));
}
