//! What Nomad is asked for when a run is dispatched: meta and payload, a pure function of the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    base_job::{BOT_KEY, Declared},
    report,
};
use crate::{
    duration::Span,
    formula::{Body, Step},
    ids::{BotName, DispatchId, FormulaName, JobId, Revision, SecretName},
};

/// The largest payload that Nomad accepts, in bytes.
pub const PAYLOAD_LIMIT: usize = 16_384;
/// The most meta in all, names and values together, in bytes.
pub const META_LIMIT: usize = 16_384;
/// The variables in which a task finds what its bot is called, and the bot's token.
const BOT_VARIABLES: [&str; 2] = ["BOT_NAME", "BOT_TOKEN"];
/// The longest that a task can be given, in seconds.
const LONGEST: u64 = 999_999_999;

/// One attempt at a piece of work, with everything that its task is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The piece of work.
    pub job_id: JobId,
    /// The attempt.
    pub dispatch_id: DispatchId,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The action's id; `None` for work that has none.
    pub action_id: Option<String>,
    /// The formula's name.
    pub formula: FormulaName,
    /// Why it runs.
    pub context: String,
    /// The commit that action and formula were read at.
    pub revision: Option<Revision>,
    /// The secrets that it may read.
    pub secrets: Vec<SecretName>,
    /// The bot that it is, with the bot's token.
    pub bot: Option<BotName>,
    /// Arguments, with the formula's defaults filled in.
    pub args: BTreeMap<String, String>,
    /// Further environment variables.
    pub env: BTreeMap<String, String>,
    /// The model that it needs.
    pub model: Option<String>,
    /// Tools that it may use.
    pub tools: Vec<String>,
    /// The longest that it may run, counted from the task's start.
    pub timeout: Span,
    /// Globs of what to keep of its files.
    pub artifacts: Vec<String>,
    /// The first step that runs, counted from 1; `None` runs all.
    pub from_step: Option<u32>,
    /// Whether its log shows the values of its secrets.
    pub unmasked: bool,
    /// What runs.
    pub body: Body,
    /// What its base job declares.
    pub declared: Declared,
}

/// A dispatch as Nomad takes it. The same run gives the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The dispatch's meta.
    pub meta: BTreeMap<String, String>,
    /// The dispatch's payload, uncompressed.
    pub payload: Vec<u8>,
}

/// The meta key `consign`: what the task needs, and what a lost store is rebuilt from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsignMeta {
    /// The piece of work.
    pub job_id: JobId,
    /// The attempt.
    pub dispatch_id: DispatchId,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The action's id.
    pub action_id: Option<String>,
    /// The commit that action and formula were read at.
    pub revision: Option<Revision>,
    /// What the payload is.
    pub kind: Kind,
    /// The longest that the task may run, in seconds.
    pub timeout: u64,
    /// The first step that runs, counted from 1; without it all run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_step: Option<u32>,
    /// Whether its log shows the values of its secrets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmasked: bool,
    /// The task's environment.
    pub env: BTreeMap<String, String>,
    /// Globs of what to keep of its files; the task has no use for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
}

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The program itself.
    Program,
    /// Calls of the wrapper's `consign_step`.
    Steps,
}

/// Why a run cannot be dispatched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The payload is over Nomad's limit.
    #[error(
        "formula {formula} is {size} bytes as a payload, and Nomad carries at most {PAYLOAD_LIMIT}: \
         move part of it into a file that the script fetches, or into the image"
    )]
    PayloadTooLarge {
        /// The formula.
        formula: FormulaName,
        /// The payload's size in bytes.
        size: usize,
    },
    /// Arguments, environment and context together are over the limit.
    #[error(
        "args, env, context, artifacts and names of secrets are {size} bytes as meta, and at most {META_LIMIT} are carried"
    )]
    MetaTooLarge {
        /// The meta's size in bytes.
        size: usize,
    },
    /// The formula is empty.
    #[error("formula {formula} is empty")]
    EmptyFormula {
        /// The formula.
        formula: FormulaName,
    },
    /// The base job cannot be dispatched without an argument.
    #[error("its base job needs the argument {name}, as the meta of the same name")]
    MissingMeta {
        /// The argument.
        name: String,
    },
    /// A name that no environment variable can have.
    #[error("{name:?} cannot name an environment variable: letters, digits and `_`, not a digit first")]
    BadName {
        /// The name.
        name: String,
    },
    /// A name that the task needs for itself.
    #[error("the environment variable {name} is not free: CONSIGN_, NOMAD_ and ARG_ are reserved")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// Two things would be the same environment variable.
    #[error("the environment variable {name} is given twice")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// No environment variable and no script can hold NUL.
    #[error("{place} contains a NUL character")]
    Nul {
        /// Where it stands.
        place: String,
    },
    /// The meta could not be written.
    #[error("cannot write the dispatch's meta")]
    Encode(#[source] serde_json::Error),
}

impl Request {
    /// Works out meta and payload.
    pub fn new(run: &Run) -> Result<Self, Error> {
        let env = environment(run)?;
        let (kind, payload) = payload(run)?;
        let consign = ConsignMeta {
            job_id: run.job_id,
            dispatch_id: run.dispatch_id,
            attempt: run.attempt,
            action_id: run.action_id.clone(),
            revision: run.revision.clone(),
            kind,
            timeout: seconds(run.timeout).max(1),
            from_step: run.from_step,
            unmasked: run.unmasked,
            env,
            artifacts: run.artifacts.clone(),
        };
        let consign = serde_json::to_vec(&consign).map_err(Error::Encode)?;
        let secrets: Vec<&str> = run.secrets.iter().map(SecretName::as_str).collect();
        let mut meta = further_meta(run)?;
        meta.insert("consign".to_owned(), BASE64_STANDARD.encode(consign));
        meta.insert("secrets".to_owned(), secrets.join(","));
        // For whoever looks at the child in Nomad; names alone, so that nothing is interpolated.
        meta.insert("formula".to_owned(), run.formula.to_string());
        if let Some(action_id) = &run.action_id {
            meta.insert("action_id".to_owned(), action_id.clone());
        }
        let size = meta.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > META_LIMIT {
            return Err(Error::MetaTooLarge { size });
        }
        Ok(Self { meta, payload })
    }
}

/// The meta that the run's base job declares: arguments of the same names, and the bot.
fn further_meta(run: &Run) -> Result<BTreeMap<String, String>, Error> {
    let mut meta = BTreeMap::new();
    for key in &run.declared.meta {
        let value = match key.as_str() {
            BOT_KEY => run.bot.as_ref().map(ToString::to_string),
            key => run.args.get(key).cloned(),
        };
        match value {
            Some(value) => drop(meta.insert(key.clone(), value)),
            None if run.declared.required.contains(key) => {
                return Err(Error::MissingMeta { name: key.clone() });
            }
            None => {}
        }
    }
    Ok(meta)
}

/// Reads the meta key `consign` of a child; `None` where consign did not write it.
#[must_use]
pub fn parse_consign_meta(text: &str) -> Option<ConsignMeta> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The name under which a task finds the argument `name`.
#[must_use]
pub fn argument_variable(name: &str) -> String {
    let word = |character: char| match character.to_ascii_uppercase() {
        upper @ ('A'..='Z' | '0'..='9' | '_') => upper,
        _ => '_',
    };
    format!("ARG_{}", name.chars().map(word).collect::<String>())
}

fn environment(run: &Run) -> Result<BTreeMap<String, String>, Error> {
    let mut env = BTreeMap::new();
    for (name, value) in &run.env {
        check_name(name)?;
        if name.starts_with("ARG_") {
            return Err(Error::ReservedName { name: name.clone() });
        }
        env.insert(name.clone(), value.clone());
    }
    for (name, value) in &run.args {
        let name = argument_variable(name);
        if env.insert(name.clone(), value.clone()).is_some() {
            return Err(Error::NameTwice { name });
        }
    }
    let of_bot = run.bot.iter().flat_map(|_| BOT_VARIABLES);
    let mut granted = BTreeSet::new();
    for name in run.secrets.iter().map(SecretName::as_str).chain(of_bot) {
        check_name(name)?;
        if env.contains_key(name) || !granted.insert(name) {
            return Err(Error::NameTwice { name: name.to_owned() });
        }
    }
    let own = [
        ("ACTION_ID", run.action_id.clone().unwrap_or_default()),
        ("ATTEMPT", run.attempt.to_string()),
        ("CONTEXT", run.context.clone()),
        ("DISPATCH_ID", run.dispatch_id.to_string()),
        ("FORMULA", run.formula.to_string()),
        ("MODEL", run.model.clone().unwrap_or_default()),
        ("REVISION", run.revision.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("TOOLS", run.tools.join(",")),
    ];
    env.extend(own.map(|(name, value)| (format!("CONSIGN_{name}"), value)));
    match env.iter().find(|(_, value)| value.contains('\0')) {
        Some((name, _)) => Err(Error::Nul { place: format!("the environment variable {name}") }),
        None => Ok(env),
    }
}

/// The wrapper's own variables begin with `consign_`, the gate depends on Nomad's.
fn check_name(name: &str) -> Result<(), Error> {
    let legal = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    if !legal {
        return Err(Error::BadName { name: name.to_owned() });
    }
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CONSIGN_") || upper.starts_with("NOMAD_") {
        return Err(Error::ReservedName { name: name.to_owned() });
    }
    Ok(())
}

fn payload(run: &Run) -> Result<(Kind, Vec<u8>), Error> {
    let (kind, text) = match &run.body {
        Body::Program(text) => (Kind::Program, text.clone()),
        Body::Steps(steps) => (Kind::Steps, steps.iter().map(call).collect()),
    };
    if text.is_empty() {
        return Err(Error::EmptyFormula { formula: run.formula.clone() });
    }
    if text.contains('\0') {
        return Err(Error::Nul { place: format!("formula {}", run.formula) });
    }
    if text.len() > PAYLOAD_LIMIT {
        return Err(Error::PayloadTooLarge { formula: run.formula.clone(), size: text.len() });
    }
    Ok((kind, text.into_bytes()))
}

/// The call of the wrapper's `consign_step` for one step.
fn call(step: &Step) -> String {
    let delimiter = delimiter(&step.run);
    let limit = step.timeout.map_or(0, |timeout| seconds(timeout).max(1));
    let carry_on = if step.continue_on_error { "yes" } else { "no" };
    let mut text = String::new();
    let name = report::escape(&step.name);
    let _ = writeln!(text, "consign_step '{name}' {limit} {} {carry_on} <<'{delimiter}'", step.retries);
    text.push_str(&step.run);
    if !step.run.is_empty() && !step.run.ends_with('\n') {
        text.push('\n');
    }
    let _ = writeln!(text, "{delimiter}");
    text
}

/// A word that is no line of `text`.
fn delimiter(text: &str) -> String {
    let mut word = "END".to_owned();
    while text.contains(&word) {
        word.push('_');
    }
    word
}

/// Whole seconds, rounded up.
fn seconds(span: Span) -> u64 {
    let more = u64::from(span.0.subsec_nanos() > 0);
    span.0.as_secs().saturating_add(more).min(LONGEST)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::dispatch) fn run(body: Body) -> Run {
        Run {
            job_id: JobId::new(),
            dispatch_id: DispatchId::new(),
            attempt: 1,
            action_id: Some("fix-42".to_owned()),
            formula: FormulaName::parse("fix").unwrap(),
            context: "why".to_owned(),
            revision: None,
            secrets: vec![SecretName::parse("A").unwrap(), SecretName::parse("B").unwrap()],
            bot: None,
            args: BTreeMap::from([("dry-run".to_owned(), "${node.unique.id}".to_owned())]),
            env: BTreeMap::new(),
            model: None,
            tools: vec!["git".to_owned(), "curl".to_owned()],
            timeout: Span::from_secs(3600),
            artifacts: vec!["out/**".to_owned()],
            from_step: None,
            unmasked: false,
            body,
            declared: Declared::default(),
        }
    }

    fn program(size: usize) -> Body {
        Body::Program("x".repeat(size))
    }

    #[test]
    fn the_task_is_told_what_it_runs_for() {
        let given = run(program(1));
        let request = Request::new(&given).unwrap();
        assert_eq!(Request::new(&given).unwrap(), request);
        assert_eq!(request.meta["secrets"], "A,B");
        let meta = parse_consign_meta(&request.meta["consign"]).unwrap();
        assert_eq!((meta.job_id, meta.dispatch_id), (given.job_id, given.dispatch_id));
        assert_eq!(meta.env["ARG_DRY_RUN"], "${node.unique.id}");
        assert_eq!(meta.env["CONSIGN_TOOLS"], "git,curl");
        assert_eq!(meta.artifacts, ["out/**"], "a lost store is rebuilt from it");
        assert_eq!((meta.from_step, parse_consign_meta("no")), (None, None));
        assert!(!meta.unmasked);
        let unmasked = Request::new(&Run { unmasked: true, ..given.clone() }).unwrap();
        assert!(parse_consign_meta(&unmasked.meta["consign"]).unwrap().unmasked);
        let later = Request::new(&Run { from_step: Some(6), ..given }).unwrap();
        assert_eq!(parse_consign_meta(&later.meta["consign"]).unwrap().from_step, Some(6));
    }

    #[test]
    fn arguments_travel_as_the_meta_that_the_base_job_declares_too() {
        let mut given = run(program(1));
        given.declared.meta = ["bot", "issue_number", "project_toml"].map(str::to_owned).into();
        given.bot = Some(BotName::parse("triage").unwrap());
        let args = [("issue_number", "42"), ("bot", "other"), ("else", "x")];
        given.args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let request = Request::new(&given).unwrap();
        let keys: Vec<&str> = request.meta.keys().map(String::as_str).collect();
        assert_eq!(keys, ["action_id", "bot", "consign", "formula", "issue_number", "secrets"]);
        assert_eq!((request.meta["bot"].as_str(), request.meta["issue_number"].as_str()), ("triage", "42"));
        let env = parse_consign_meta(&request.meta["consign"]).unwrap().env;
        assert_eq!((env["ARG_ISSUE_NUMBER"].as_str(), env["ARG_ELSE"].as_str()), ("42", "x"));

        given.args.insert("project_toml".to_owned(), "x".repeat(META_LIMIT / 2));
        assert!(matches!(Request::new(&given), Err(Error::MetaTooLarge { .. })), "it travels twice");
        given.args.clear();
        given.declared.required = ["issue_number".to_owned()].into();
        assert!(matches!(Request::new(&given), Err(Error::MissingMeta { name }) if name == "issue_number"));
    }

    #[test]
    fn nothing_stands_in_for_a_bots_token() {
        let mut given = run(program(1));
        given.env.insert("BOT_TOKEN".to_owned(), "mine".to_owned());
        assert!(Request::new(&given).is_ok());
        given.bot = Some(BotName::parse("triage").unwrap());
        assert!(matches!(Request::new(&given), Err(Error::NameTwice { .. })));
        given.env.clear();
        given.secrets = vec![SecretName::parse("BOT_TOKEN").unwrap()];
        assert!(matches!(Request::new(&given), Err(Error::NameTwice { .. })));
    }

    #[test]
    fn limits_hold_to_the_byte() {
        assert!(Request::new(&run(program(PAYLOAD_LIMIT))).is_ok());
        let error = Request::new(&run(program(PAYLOAD_LIMIT + 1))).unwrap_err().to_string();
        assert!(error.contains("formula fix is 16385 bytes"), "{error}");
        let mut large = run(program(1));
        large.context = "x".repeat(META_LIMIT);
        assert!(matches!(Request::new(&large), Err(Error::MetaTooLarge { .. })));
    }

    #[test]
    fn names_that_the_task_needs_are_refused() {
        for name in ["NOMAD_ALLOC_DIR", "consign_code", "CONSIGN_X", "ARG_X", "A", "a b", "1A", ""] {
            let mut given = run(program(1));
            given.env.insert(name.to_owned(), String::new());
            assert!(Request::new(&given).is_err(), "{name}");
        }
        let mut given = run(program(1));
        given.args.insert("dry.run".to_owned(), String::new());
        assert!(matches!(Request::new(&given), Err(Error::NameTwice { .. })));
    }

    #[test]
    fn steps_become_calls() {
        let step = Step {
            name: "it's".to_owned(),
            run: "echo END".to_owned(),
            timeout: Some("500ms".parse().unwrap()),
            retries: 2,
            continue_on_error: true,
        };
        let request = Request::new(&run(Body::Steps(vec![step]))).unwrap();
        let text = String::from_utf8(request.payload).unwrap();
        assert_eq!(text, "consign_step 'it%27s' 1 2 yes <<'END_'\necho END\nEND_\n");
    }

    proptest! {
        #[test]
        fn env_survives_a_round_trip(values in proptest::collection::btree_map("[A-Z][A-Z0-9]{1,8}", "[^\0]*", 0..8)) {
            let mut given = run(program(1));
            given.env.clone_from(&values);
            let request = Request::new(&given).unwrap();
            let meta = parse_consign_meta(&request.meta["consign"]).unwrap();
            for (name, value) in values {
                prop_assert_eq!(&meta.env[&name], &value);
            }
        }
    }
}
