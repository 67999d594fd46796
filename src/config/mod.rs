//! The agent's configuration: defaults, then `consign.toml`, then the environment.
//!
//! [`Config`] is what was written with every default filled in. Unknown keys are refused, because
//! a misspelt limit is a limit that does not hold.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    action::record::Record,
    approval::{Requirement, Rule},
    diagnostic::{Diagnostic, did_you_mean},
    dispatch::{
        base_job::Driver,
        limits,
        mount::{self, Alias},
    },
    duration::Span,
    forge,
    ids::{BotName, SecretName},
    trigger,
};

mod reference;

pub use reference::reference;

/// The default configuration, with a comment for every key.
pub const DEFAULT: &str = include_str!("default.toml");

/// Where `consign.toml` is looked for when none is named, in this order.
pub const PLACES: [&str; 2] = ["consign.toml", "/etc/consign/consign.toml"];

/// The whole configuration.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "consign configuration")]
#[expect(missing_docs, reason = "each section is described in default.toml")]
pub struct Config {
    pub ops: Ops,
    pub nomad: Nomad,
    pub vault: Vault,
    pub approval: Approval,
    #[serde(default)]
    pub forge: BTreeMap<String, Forge>,
    pub limits: Limits,
    pub queue: Queue,
    pub shapes: limits::Limits,
    #[schemars(with = "BTreeMap<String, mount::Settings>")]
    pub mounts: BTreeMap<Alias, mount::Settings>,
    pub adopt: Adopt,
    pub server: Server,
    pub store: Store,
    pub results: Results,
    pub webhooks: Webhooks,
    pub triggers: Triggers,
    #[serde(default, skip_serializing)]
    #[schemars(with = "Vec<trigger::Keys>")]
    pub trigger: trigger::Triggers,
}

/// The ops repo.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Ops {
    pub repo: String,
    pub branch: String,
    pub actions: String,
    pub formulas: String,
    #[schemars(with = "String")]
    pub poll: Span,
    pub hook_secret_file: PathBuf,
    pub author_name: String,
    pub author_email: String,
}

/// How Nomad is reached, and what base jobs run under.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Nomad {
    pub addr: String,
    pub token_file: PathBuf,
    pub namespace: String,
    pub region: String,
    pub ca_cert: PathBuf,
    pub jobs: PathBuf,
    pub driver: Driver,
    pub image: String,
    #[schemars(with = "String")]
    pub lost_after: Span,
    #[schemars(with = "String")]
    pub variant_keep: Span,
}

/// How Vault is reached, and where things are in it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Vault {
    pub addr: String,
    pub token_file: PathBuf,
    pub namespace: String,
    pub ca_cert: PathBuf,
    pub auth_path: String,
    pub role: String,
    pub audience: String,
    pub jwks_url: String,
    pub kv: String,
    pub prefix: String,
    pub bots: String,
    pub gate: String,
}

/// What actions need before they run.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Approval {
    pub low: Requirement,
    pub medium: Requirement,
    pub high: Requirement,
    pub api: Requirement,
    #[schemars(with = "String")]
    pub expires: Span,
    pub signers: PathBuf,
    pub revoked: PathBuf,
    pub openpgp_keys: PathBuf,
    #[serde(default)]
    pub rule: Vec<Rule>,
}

/// A forge that reviews pull requests of the ops repo; without a default, each is named by whoever has one.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forge {
    /// Whose API it has.
    pub kind: forge::Kind,
    /// Its address; may be left out for github.com.
    #[serde(default)]
    pub url: String,
    /// The repository there that is the ops repo, as `owner/name`.
    pub repository: String,
    /// A file with the token, read again when it changes.
    pub token_file: PathBuf,
    /// A file with the certificate authority.
    #[serde(default)]
    pub ca_cert: PathBuf,
    /// Whether open pull requests and merged commits get commit statuses.
    #[serde(default)]
    pub statuses: bool,
}

/// How much is launched at a time, and how long it may wait.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Limits {
    pub running: usize,
    #[schemars(with = "String")]
    pub placement: Span,
    #[serde(default)]
    pub formula: BTreeMap<String, usize>,
    #[serde(default)]
    pub model: BTreeMap<String, usize>,
    #[serde(default)]
    pub group: BTreeMap<String, usize>,
}

/// In which order jobs are launched.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Queue {
    #[schemars(with = "String")]
    pub ageing: Span,
    pub models: usize,
    #[schemars(with = "String")]
    pub model_patience: Span,
    #[schemars(with = "String")]
    pub model_minimum: Span,
}

/// Which children dispatched by hand are taken over.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Adopt {
    pub enabled: bool,
    #[schemars(with = "Vec<String>")]
    pub secrets: Vec<SecretName>,
    #[schemars(with = "Vec<String>")]
    pub bots: Vec<BotName>,
}

/// Who may use the API and the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Whoever has a bearer token.
    Token,
    /// Whoever is on this machine.
    None,
}

/// The agent's HTTP server.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Server {
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    pub auth: Auth,
    pub tokens_file: PathBuf,
    pub rate: u32,
}

/// The agent's own folder.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Store {
    pub path: PathBuf,
    #[schemars(with = "String")]
    pub keep: Span,
    pub artifacts: PathBuf,
    #[schemars(with = "String")]
    pub artifacts_keep: Span,
    #[schemars(with = "String")]
    pub artifact_size: ByteSize,
    #[schemars(with = "String")]
    pub artifact_total: ByteSize,
    pub artifact_count: usize,
    #[schemars(with = "String")]
    pub artifact_reserve: ByteSize,
}

/// What goes into result files, and how they are committed.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Results {
    #[schemars(with = "String")]
    pub log_tail: ByteSize,
    #[schemars(with = "String")]
    pub push_interval: Span,
    pub record: Record,
    pub branch: String,
    pub signing_key: PathBuf,
}

/// How webhooks are sent.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Webhooks {
    pub secret_file: PathBuf,
    pub allow_private: bool,
}

/// What all triggers share.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in default.toml")]
pub struct Triggers {
    pub keep: u32,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file, or an environment variable over it, does not make sense.
    #[error("{rendered}")]
    Invalid {
        /// The message with file, line, column and caret.
        rendered: String,
    },
    /// The embedded defaults do not parse; a test rules it out.
    #[error("the built-in defaults do not parse")]
    Default(#[source] Box<toml::de::Error>),
}

/// The environment variables that mean here what they mean to Nomad's and Vault's own programs.
const WELL_KNOWN: [(&str, &str, &str); 7] = [
    ("NOMAD_ADDR", "nomad", "addr"),
    ("NOMAD_NAMESPACE", "nomad", "namespace"),
    ("NOMAD_REGION", "nomad", "region"),
    ("NOMAD_CACERT", "nomad", "ca_cert"),
    ("VAULT_ADDR", "vault", "addr"),
    ("VAULT_NAMESPACE", "vault", "namespace"),
    ("VAULT_CACERT", "vault", "ca_cert"),
];

/// The sections that consist of sections.
const GROUPS: [&str; 1] = ["mounts"];

/// A copy of the environment, so that reading a configuration is a function of its inputs.
pub type Environment = BTreeMap<String, String>;

/// Where the configuration is: `path`, or the first of [`PLACES`] that exists.
#[must_use]
pub fn find(path: Option<&Path>) -> Option<PathBuf> {
    path.map(Path::to_path_buf).or_else(|| PLACES.iter().map(PathBuf::from).find(|place| place.exists()))
}

/// Finds and reads the configuration: `path`, or the first of [`PLACES`] that exists, or the
/// defaults alone.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, Error> {
    let (name, text) = match find(path) {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            (path.display().to_string(), text)
        }
        None => ("consign.toml".to_owned(), String::new()),
    };
    read(&name, &text, environment)
}

/// Reads a configuration from the text of a file called `name`, with `environment` over it.
pub fn read(name: &str, text: &str, environment: &Environment) -> Result<Config, Error> {
    let defaults = DeTable::parse(DEFAULT).map_err(|error| Error::Default(Box::new(error)))?;
    let (mut written, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(invalid(name, text, &errors));
    }
    for (variable, path, value) in overrides(defaults.get_ref(), environment) {
        set(written.get_mut(), &path, value).map_err(|section| Error::Invalid {
            rendered: format!("{variable} cannot be set: `{section}` in {name} is not a table"),
        })?;
    }
    fill(written.get_mut(), defaults.get_ref());
    let root_span = 0..text.len();
    let server = written.get_ref().get("server").and_then(|server| server.get_ref().get("auth"));
    let auth_span = server.map_or(0..0, Spanned::span);
    let root = Spanned::new(root_span, written.into_inner());
    let config = Config::deserialize(toml::de::Deserializer::from(root))
        .map_err(|error| invalid(name, text, &[error]))?;
    let Server { auth, listen, .. } = config.server;
    if auth == Auth::None && !listen.ip().to_canonical().is_loopback() {
        let problem = format!("without tokens whoever reaches {listen} could have anything run");
        let help =
            "set [server] listen to a loopback address, such as \"127.0.0.1:8480\", or auth = \"token\"";
        let problem = Diagnostic::new(problem, auth_span).with_help(help);
        return Err(Error::Invalid { rendered: problem.render(name, text, false) });
    }
    Ok(config)
}

fn invalid(name: &str, text: &str, errors: &[toml::de::Error]) -> Error {
    let rendered: Vec<String> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let problem = Diagnostic::new(error.message(), span);
            let problem = match nearest(error.message()) {
                Some(help) => problem.with_help(help),
                None => problem,
            };
            problem.render(name, text, false)
        })
        .collect();
    Error::Invalid { rendered: rendered.join("\n\n") }
}

/// A suggestion for a word that serde does not know. It gives the known ones in its message alone, as in
/// "unknown field `pol`, expected one of `poll`, `repo`".
fn nearest(message: &str) -> Option<String> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (word, known) = rest.split_once('`')?;
    did_you_mean(word, known.split('`').skip(1).step_by(2))
}

/// The values that the environment sets: variable, the key's path, value.
fn overrides<'text>(
    defaults: &DeTable<'_>,
    environment: &'text Environment,
) -> Vec<(String, Vec<String>, DeValue<'text>)> {
    let mut found = Vec::new();
    for (path, default) in keys(defaults, &[]) {
        let own = Config::variable(&path);
        let well_known = WELL_KNOWN.iter().find(|(_, section, key)| path == [*section, *key]);
        let names = well_known.map(|(name, ..)| (*name).to_owned()).into_iter().chain([own]);
        let set = names
            .filter_map(|name| Some((name.clone(), environment.get(&name)?)))
            .find(|(_, value)| !value.is_empty());
        let Some((variable, text)) = set else { continue };
        let value = match default {
            DeValue::String(_) => DeValue::String(text.as_str().into()),
            _ => DeValue::parse(text)
                .map_or_else(|_| DeValue::String(text.as_str().into()), Spanned::into_inner),
        };
        found.push((variable, path, value));
    }
    found
}

/// Every key below `table` by its path. What stands below a section's key is part of its value, but for
/// the sections of [`GROUPS`].
fn keys<'table, 'text>(
    table: &'table DeTable<'text>,
    path: &[String],
) -> Vec<(Vec<String>, &'table DeValue<'text>)> {
    let mut found = Vec::new();
    for (key, value) in table {
        let path: Vec<String> = path.iter().cloned().chain([key.get_ref().to_string()]).collect();
        match value.get_ref() {
            DeValue::Table(table)
                if path.len() == 1 || path.len() == 2 && GROUPS.contains(&path[0].as_str()) =>
            {
                found.extend(keys(table, &path));
            }
            value => found.push((path, value)),
        }
    }
    found
}

/// Gives the key at `path` a value; the section that is no table is the error.
fn set<'text>(root: &mut DeTable<'text>, path: &[String], value: DeValue<'text>) -> Result<(), String> {
    let (key, rest) = match path {
        [] => return Ok(()),
        [key, rest @ ..] => (Spanned::new(0..0, key.clone().into()), rest),
    };
    if rest.is_empty() {
        root.insert(key, Spanned::new(0..0, value));
        return Ok(());
    }
    let name = key.get_ref().to_string();
    let table = root.entry(key).or_insert_with(|| Spanned::new(0..0, DeValue::Table(DeTable::new())));
    let DeValue::Table(table) = table.get_mut() else { return Err(name) };
    set(table, rest, value)
}

/// Puts every default in that `written` does not give.
fn fill<'text>(written: &mut DeTable<'text>, defaults: &DeTable<'text>) {
    for (key, default) in defaults {
        let place = written.entry(key.clone()).or_insert_with(|| default.clone());
        if let (DeValue::Table(place), DeValue::Table(default)) = (place.get_mut(), default.get_ref()) {
            fill(place, default);
        }
    }
}

/// A path from the configuration; the empty one means none.
#[must_use]
pub fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

impl Config {
    /// Where the bearer tokens of the HTTP API are kept.
    #[must_use]
    pub fn tokens_file(&self) -> PathBuf {
        given(&self.server.tokens_file).map_or_else(|| self.store.path.join("tokens.toml"), Path::to_path_buf)
    }

    /// Where Vault finds Nomad's public keys.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        if self.vault.jwks_url.is_empty() {
            format!("{}/.well-known/jwks.json", self.nomad.addr.trim_end_matches('/'))
        } else {
            self.vault.jwks_url.clone()
        }
    }

    /// The folder that artifacts are kept in.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        given(&self.store.artifacts).map_or_else(|| self.store.path.join("artifacts"), Path::to_path_buf)
    }

    /// The environment variable of the key at `path`, section first.
    #[must_use]
    pub fn variable<Part: AsRef<str>>(path: &[Part]) -> String {
        path.iter().fold("CONSIGN".to_owned(), |name, part| name + "_" + &part.as_ref().to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_gets_the_nearest_known_one() {
        for (text, help) in [
            ("[results]\npush_intervall = \"1s\"\n", "did you mean `push_interval`?"),
            ("[nomad]\ndriver = \"rawexec\"\n", "did you mean `raw_exec`?"),
        ] {
            let error = read("consign.toml", text, &Environment::new()).unwrap_err().to_string();
            assert!(error.contains(help), "{error}");
        }
    }

    #[test]
    fn a_mount_keeps_the_keys_that_are_not_given() {
        let text =
            "[mounts.ssh]\nvolume = \"deploy-keys\"\n[mounts.models]\nvolume = \"m\"\ndestination = \"/m\"\n";
        let over = environment(&[
            ("CONSIGN_MOUNTS_GPG_READ_ONLY", "false"),
            ("CONSIGN_MOUNTS_GPG_ENV", "{ A = \"b\" }"),
        ]);
        let mounts = read("consign.toml", text, &over).unwrap().mounts;
        let mount = |alias: &str| mounts.iter().find(|(known, _)| known.as_str() == alias).unwrap().1;
        assert_eq!(
            (mount("ssh").volume.as_str(), mount("ssh").destination.as_str()),
            ("deploy-keys", "/root/.ssh")
        );
        assert!(mount("models").read_only && !mount("gpg").read_only);
        assert_eq!(mount("gpg").env.len(), 1);
    }

    #[test]
    fn a_bad_mount_or_limit_is_refused_with_its_place() {
        for (text, place, words) in [
            ("[mounts.m]\nvolume = \"m\"\ndestination = \"/a/../b\"\n", "consign.toml:3:15", "without `..`"),
            ("[mounts.m]\nvolume = \"m\"\ndestination = \"/${x}\"\n", "consign.toml:3:15", "interpolation"),
            (
                "[mounts.m]\nvolume = \"m\"\ndestination = \"/secrets/x\"\n",
                "consign.toml:3:15",
                "Nomad's own",
            ),
            ("[mounts.\"a b\"]\nvolume = \"m\"\ndestination = \"/m\"\n", "consign.toml:1:", "alias"),
            ("[shapes]\nmemory = \"-1GiB\"\n", "consign.toml:2:10", "-1GiB"),
            ("[shapes]\ngpus = -1\n", "consign.toml:2:8", "-1"),
            ("[[shapes.rule]]\nformula = \"a\"\ngpu = 1\n", "consign.toml:3:1", "did you mean `gpus`?"),
        ] {
            let error = read("consign.toml", text, &Environment::new()).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(words), "{text}{error}");
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_defaults_stand_alone() {
        let config = read("consign.toml", "", &environment(&[])).unwrap();
        assert_eq!(config.ops.branch, "main");
        assert_eq!(config.approval.high, Requirement::Review);
        assert_eq!(config.jwks_url(), "http://127.0.0.1:4646/.well-known/jwks.json");
    }

    #[test]
    fn the_file_wins_over_defaults_and_the_environment_over_the_file() {
        let text = "[ops]\nrepo = \"/srv/ops.git\"\nbranch = \"live\"\n[limits]\nrunning = 3\n";
        let over = environment(&[
            ("CONSIGN_OPS_BRANCH", "42"),
            ("CONSIGN_LIMITS_RUNNING", "7"),
            ("NOMAD_ADDR", "http://nomad:4646"),
            ("CONSIGN_NOMAD_ADDR", "http://other:4646"),
        ]);
        let config = read("consign.toml", text, &over).unwrap();
        assert_eq!(config.ops.repo, "/srv/ops.git");
        assert_eq!(config.ops.branch, "42");
        assert_eq!(config.limits.running, 7);
        assert_eq!(config.nomad.addr, "http://nomad:4646");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let error = read("consign.toml", "[ops]\nbrnach = \"x\"\n", &environment(&[])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("consign.toml:2:1") && text.contains("brnach"), "{text}");
    }

    #[test]
    fn without_tokens_the_agent_listens_on_loopback_alone() {
        let config = |listen: &str| format!("[server]\nlisten = \"{listen}\"\nauth = \"none\"\n");
        for listen in ["127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let read = read("consign.toml", &config(listen), &environment(&[])).unwrap();
            assert_eq!(read.server.auth, Auth::None, "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "128.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let error = read("consign.toml", &config(listen), &environment(&[])).unwrap_err().to_string();
            assert!(error.contains("consign.toml:3:8") && error.contains("loopback"), "{error}");
        }
        let over = environment(&[("CONSIGN_SERVER_AUTH", "none")]);
        assert!(read("consign.toml", "[server]\nlisten = \"0.0.0.0:1\"\n", &over).is_err());
        let over = environment(&[("CONSIGN_SERVER_LISTEN", "127.0.0.1:1")]);
        assert!(read("consign.toml", &config("0.0.0.0:1"), &over).is_ok());
        assert_eq!(read("consign.toml", "", &environment(&[])).unwrap().server.auth, Auth::Token);
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_place() {
        let error = read("consign.toml", "[ops]\npoll = \"soon\"\n", &environment(&[])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("consign.toml:2:8") && text.contains("soon"), "{text}");
    }
}
