//! The keys of `[[trigger]]`, and what they mean.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    globs::Globs,
    labels::Issues,
    schedule::{Missed, Schedule},
    state::{CooldownOn, Overlap, Rules},
};
use crate::{action, diagnostic::sentences, duration::Span, ids::ActionId};

/// The first parts of the paths that the agent's HTTP server answers itself.
pub const TAKEN: [&str; 13] = [
    "events",
    "formulas",
    "health",
    "healthz",
    "hooks",
    "jobs",
    "livez",
    "metrics",
    "openapi.json",
    "pause",
    "readyz",
    "resume",
    "triggers",
];

/// What stands after a trigger's name in the names of its further marker files.
pub(super) const MARKERS: (&str, &str) = (".running", ".new");

/// The debounce of sources that tell of files.
const DEBOUNCE: Span = Span::from_secs(5 * 60);
/// The argument that gets an issue's number.
const ISSUE_ARGUMENT: &str = "issue_number";
/// How often a first event is put off at most, in debounces, where no `max_wait` is given.
const WAITS: u32 = 6;

/// What starts a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An HTTP request with the trigger's own token or signature.
    Webhook,
    /// Files that change in folders of the agent's machine.
    Watch,
    /// A cron expression.
    Schedule,
    /// Files that change on a branch of a repository.
    Git,
    /// Issues that get a label.
    Forge,
}

/// How a tree is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By inotify, and where that does not work by polling.
    #[default]
    Auto,
    /// By inotify alone.
    Inotify,
    /// By looking at every file again and again.
    Poll,
}

/// The keys of one `[[trigger]]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What starts it.
    pub kind: Kind,
    /// webhook: a path of its own, besides `/triggers/<name>`.
    pub path: Option<String>,
    /// webhook: a file with its bearer token, for its owner alone to read (mode 0600).
    pub token_file: Option<PathBuf>,
    /// webhook: a file with the key of its callers' signatures; forge: with the secret of the forge's webhook, which
    /// is taken from loopback only without one. Mode 0600.
    pub hmac_file: Option<PathBuf>,
    /// watch: absolute globs; git: globs from the repository's root. After `!` what they leave out.
    #[serde(default)]
    pub paths: Vec<String>,
    /// watch: how it watches.
    pub method: Option<Method>,
    /// watch: how long files must have been left alone before a change is told; default 500ms.
    #[schemars(with = "Option<String>")]
    pub settle: Option<Span>,
    /// watch: how often it looks where it polls, default 5s; git and forge: how often it looks, default 1m.
    #[schemars(with = "Option<String>")]
    pub poll: Option<Span>,
    /// watch: how many files it may be for; default 100000.
    pub max_files: Option<usize>,
    /// git: the repository, a path or an ssh or https URL; forge: the repository of the issues, as `owner/name`.
    pub repo: Option<String>,
    /// forge: which one of `[forge.<name>]`.
    pub forge: Option<String>,
    /// forge: the label that starts a run for an issue; it is taken from the issue then.
    pub label: Option<String>,
    /// forge: the label that an issue has while its run goes on; default `<label>-running`.
    pub label_running: Option<String>,
    /// forge: the label that it has when that succeeded; default `<label>-done`.
    pub label_done: Option<String>,
    /// forge: the label that it has when it did not; default `<label>-failed`.
    pub label_failed: Option<String>,
    /// git: the branch; default `main`.
    pub branch: Option<String>,
    /// schedule: minute, hour, day of month, month and weekday.
    pub cron: Option<String>,
    /// schedule: the time zone of `cron`; default UTC.
    pub time_zone: Option<String>,
    /// schedule: what becomes of times that passed while the agent was away.
    pub missed: Option<Missed>,
    /// How long after a run the next may begin; default 0s.
    #[schemars(with = "Option<String>")]
    pub cooldown: Option<Span>,
    /// What a cooldown begins with.
    #[serde(default)]
    pub cooldown_on: CooldownOn,
    /// Triggers with one group share run and cooldown.
    pub cooldown_group: Option<String>,
    /// How long it must have been quiet; default 5m for watch and git, else 0s.
    #[schemars(with = "Option<String>")]
    pub debounce: Option<Span>,
    /// How long a first event waits for quiet at most; default six times the debounce.
    #[schemars(with = "Option<String>")]
    pub max_wait: Option<Span>,
    /// What becomes of events while a run goes on.
    #[serde(default)]
    pub overlap: Overlap,
    /// Whether the cooldown may be passed over by those who ask for it.
    #[serde(default)]
    pub allow_force: bool,
    /// A file that holds the time of the last run's end, for scripts; default in `[store] path`.
    pub marker_file: Option<PathBuf>,
    /// The formula's argument that gets what came with the event, as JSON; forge: the issue's number, default
    /// `issue_number`.
    pub event_argument: Option<String>,
    /// What runs: the keys of an action without `id`.
    pub action: Map<String, Value>,
}

/// One trigger, with every default filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// What starts it.
    pub source: Source,
    /// What it decides by.
    pub rules: Rules,
    /// The group that it shares run and cooldown with.
    pub group: Option<String>,
    /// Whether the cooldown may be passed over.
    pub allow_force: bool,
    /// Where it leaves the time of the last end; `None` is in the agent's folder.
    pub marker_file: Option<PathBuf>,
    /// The argument that gets what came with the event.
    pub event_argument: Option<String>,
    /// What runs.
    pub action: Map<String, Value>,
}

/// What starts a trigger, and what belongs to that alone.
#[derive(Debug, Clone)]
pub enum Source {
    /// An HTTP request.
    Webhook(Webhook),
    /// Files of the agent's machine.
    Watch(Watch),
    /// A time.
    Schedule(Schedule),
    /// Files on a branch.
    Git(Git),
    /// Issues.
    Forge(Issues),
}

/// How a webhook is called.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The path of its own.
    pub path: Option<String>,
    /// The file of its bearer token.
    pub token_file: Option<PathBuf>,
    /// The file of the key of its signatures.
    pub hmac_file: Option<PathBuf>,
}

/// What is watched, and how.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The files.
    pub globs: Globs,
    /// How it watches.
    pub method: Method,
    /// How long files must have been left alone.
    pub settle: Duration,
    /// How often it looks where it polls.
    pub poll: Duration,
    /// How many files it may be for.
    pub max_files: usize,
}

/// Which branch is followed.
#[derive(Debug, Clone)]
pub struct Git {
    /// The repository.
    pub repo: String,
    /// The branch.
    pub branch: String,
    /// The files.
    pub globs: Globs,
    /// How often it looks.
    pub poll: Duration,
}

impl Trigger {
    /// The name that its state is shared under.
    #[must_use]
    pub fn course(&self) -> String {
        self.group.as_ref().map_or_else(|| format!("trigger/{}", self.name), |group| format!("group/{group}"))
    }

    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.source {
            Source::Webhook(_) => "webhook",
            Source::Watch(_) => "watch",
            Source::Schedule(_) => "schedule",
            Source::Git(_) => "git",
            Source::Forge(_) => "forge",
        }
    }

    /// What is submitted for an event with this content.
    #[must_use]
    pub fn body(&self, content: Option<&str>) -> Map<String, Value> {
        let mut body = self.action.clone();
        body.entry("context").or_insert_with(|| self.name.clone().into());
        if let (Some(argument), Some(content)) = (&self.event_argument, content) {
            let args = body.entry("args").or_insert_with(|| Map::new().into());
            if let Value::Object(args) = args {
                args.insert(argument.clone(), content.into());
            }
        }
        body
    }
}

impl TryFrom<Keys> for Trigger {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let name = keys.name.clone();
        read(keys).map_err(|problem| format!("trigger {name:?}: {problem}"))
    }
}

fn read(keys: Keys) -> Result<Trigger, String> {
    for name in std::iter::once(&keys.name).chain(&keys.cooldown_group) {
        ActionId::parse(name).map_err(|error| format!("{name:?} is no name: {}", error.rule))?;
    }
    if keys.name.ends_with(MARKERS.0) || keys.name.ends_with(MARKERS.1) {
        return Err(format!("a name may not end in `{}` or `{}`: marker files do", MARKERS.0, MARKERS.1));
    }
    foreign(&keys)?;
    let of_files = matches!(keys.kind, Kind::Watch | Kind::Git);
    let debounce = keys.debounce.unwrap_or(if of_files { DEBOUNCE } else { Span::from_secs(0) }).0;
    let max_wait = keys.max_wait.map_or(debounce * WAITS, |span| span.0);
    if max_wait < debounce {
        return Err("`max_wait` is shorter than `debounce`".to_owned());
    }
    if keys.kind == Kind::Schedule && !debounce.is_zero() {
        return Err("`debounce` makes no sense for a schedule: its times come one by one".to_owned());
    }
    let of_issues = keys.kind == Kind::Forge;
    let rules = Rules {
        cooldown: keys.cooldown.map_or(Duration::ZERO, |span| span.0),
        cooldown_on: keys.cooldown_on,
        debounce,
        max_wait,
        overlap: keys.overlap,
    };
    let trigger = Trigger {
        source: source(&keys)?,
        name: keys.name,
        rules,
        group: keys.cooldown_group,
        allow_force: keys.allow_force,
        marker_file: keys.marker_file,
        event_argument: keys.event_argument.or_else(|| of_issues.then(|| ISSUE_ARGUMENT.to_owned())),
        action: keys.action,
    };
    check_action(&trigger)?;
    Ok(trigger)
}

/// The kinds whose events share one run.
const TIMED: [Kind; 4] = [Kind::Webhook, Kind::Watch, Kind::Schedule, Kind::Git];

/// Refuses keys that belong to another kind.
fn foreign(keys: &Keys) -> Result<(), String> {
    let given = [
        ("path", keys.path.is_some(), &[Kind::Webhook][..]),
        ("token_file", keys.token_file.is_some(), &[Kind::Webhook]),
        ("hmac_file", keys.hmac_file.is_some(), &[Kind::Webhook, Kind::Forge]),
        ("paths", !keys.paths.is_empty(), &[Kind::Watch, Kind::Git]),
        ("method", keys.method.is_some(), &[Kind::Watch]),
        ("settle", keys.settle.is_some(), &[Kind::Watch]),
        ("max_files", keys.max_files.is_some(), &[Kind::Watch]),
        ("poll", keys.poll.is_some(), &[Kind::Watch, Kind::Git, Kind::Forge]),
        ("repo", keys.repo.is_some(), &[Kind::Git, Kind::Forge]),
        ("forge", keys.forge.is_some(), &[Kind::Forge]),
        ("label", keys.label.is_some(), &[Kind::Forge]),
        ("label_running", keys.label_running.is_some(), &[Kind::Forge]),
        ("label_done", keys.label_done.is_some(), &[Kind::Forge]),
        ("label_failed", keys.label_failed.is_some(), &[Kind::Forge]),
        ("branch", keys.branch.is_some(), &[Kind::Git]),
        ("cron", keys.cron.is_some(), &[Kind::Schedule]),
        ("time_zone", keys.time_zone.is_some(), &[Kind::Schedule]),
        ("missed", keys.missed.is_some(), &[Kind::Schedule]),
        // Each issue has a run of its own, and its label stays until that has begun.
        ("cooldown", keys.cooldown.is_some(), &TIMED),
        ("cooldown_on", keys.cooldown_on != CooldownOn::default(), &TIMED),
        ("cooldown_group", keys.cooldown_group.is_some(), &TIMED),
        ("debounce", keys.debounce.is_some(), &TIMED),
        ("max_wait", keys.max_wait.is_some(), &TIMED),
        ("overlap", keys.overlap != Overlap::default(), &TIMED),
        ("allow_force", keys.allow_force, &TIMED),
        ("marker_file", keys.marker_file.is_some(), &TIMED),
    ];
    match given.iter().find(|(_, given, kinds)| *given && !kinds.contains(&keys.kind)) {
        Some((key, ..)) => Err(format!("`{key}` does not belong to a trigger of this kind")),
        None => Ok(()),
    }
}

fn source(keys: &Keys) -> Result<Source, String> {
    let required = |key: &str| format!("`{key}` is missing");
    let poll = |usual: u64| match keys.poll {
        Some(span) if span.0 < Duration::from_millis(100) => Err("`poll` is 100ms at least".to_owned()),
        poll => Ok(poll.map_or(Duration::from_secs(usual), |span| span.0)),
    };
    Ok(match keys.kind {
        Kind::Webhook => {
            if keys.token_file.is_none() && keys.hmac_file.is_none() {
                return Err("a webhook needs `token_file` or `hmac_file`".to_owned());
            }
            if let Some(path) = &keys.path {
                check_path(path)?;
            }
            Source::Webhook(Webhook {
                path: keys.path.clone(),
                token_file: keys.token_file.clone(),
                hmac_file: keys.hmac_file.clone(),
            })
        }
        Kind::Watch => Source::Watch(Watch {
            globs: Globs::new(&keys.paths, true)?,
            method: keys.method.unwrap_or_default(),
            settle: keys.settle.map_or(Duration::from_millis(500), |span| span.0),
            poll: poll(5)?,
            max_files: keys.max_files.unwrap_or(100_000),
        }),
        Kind::Schedule => {
            let cron = keys.cron.as_ref().ok_or_else(|| required("cron"))?;
            let zone = keys.time_zone.as_deref().unwrap_or("UTC");
            Source::Schedule(Schedule::new(cron, zone, keys.missed.unwrap_or_default())?)
        }
        Kind::Git => Source::Git(Git {
            repo: keys.repo.clone().ok_or_else(|| required("repo"))?,
            branch: keys.branch.clone().unwrap_or_else(|| "main".to_owned()),
            globs: Globs::new(&keys.paths, false)?,
            poll: poll(60)?,
        }),
        Kind::Forge => Source::Forge(Issues::read(keys, poll(60)?)?),
    })
}

fn check_path(path: &str) -> Result<(), String> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let parts: Vec<&str> = path.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/')).collect();
    if parts.is_empty() || !parts.iter().all(|part| plain(part)) {
        return Err(format!("`path`: {path:?} is no path such as \"/trigger-training\""));
    }
    if TAKEN.contains(&parts[0]) {
        return Err(format!("`path`: {path:?} is the agent's own: choose one that begins otherwise"));
    }
    Ok(())
}

/// Reads the action as the reader of action files will.
fn check_action(trigger: &Trigger) -> Result<(), String> {
    let mut body = trigger.body(Some("1"));
    if body.contains_key("id") {
        return Err("`action.id` is for action files: leave it out".to_owned());
    }
    body.insert("id".to_owned(), "trigger".into());
    body.entry("secrets").or_insert_with(|| Value::Array(Vec::new()));
    let text = toml::to_string(&body).map_err(|error| format!("`action`: {error}"))?;
    action::file::read("trigger.toml", text.as_bytes())
        .map(drop)
        .map_err(|problems| format!("`action`: {}", sentences(&problems)))
}

/// All triggers; their names and paths are their own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<Trigger>")]
pub struct Triggers(pub Vec<Trigger>);

impl TryFrom<Vec<Trigger>> for Triggers {
    type Error = String;

    fn try_from(triggers: Vec<Trigger>) -> Result<Self, String> {
        let (mut names, mut paths, mut labels) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for trigger in &triggers {
            if !names.insert(trigger.name.to_ascii_lowercase()) {
                return Err(format!("two triggers are called {:?}", trigger.name));
            }
            if let Source::Webhook(Webhook { path: Some(path), .. }) = &trigger.source
                && !paths.insert(path.clone())
            {
                return Err(format!("two triggers have the path {path:?}"));
            }
            if let Source::Forge(issues) = &trigger.source
                && !labels.insert((issues.repository_key(), issues.label.to_lowercase()))
            {
                return Err(format!(
                    "two triggers have the label {:?} of {}",
                    issues.label, issues.repository
                ));
            }
        }
        Ok(Self(triggers))
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
