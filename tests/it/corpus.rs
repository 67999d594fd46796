//! The corpus of bad input, `tests/corpus`: each case has the verdict that stands with it, and none a panic. Its actions
//! in `actions/` are refused one by one beside their reader, and all at once in `invalid`; the fuzz targets begin with all
//! of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use consign::{
    artifact::{glob, name::is_legal_part},
    config::{self, Environment},
    dispatch::{
        base_job::Declared,
        request::{Request, Run},
        shape::Allowed,
    },
    duration::Span,
    formula::Body,
    ids::{ActionId, BotName, DispatchId, FormulaName, JobId, Revision, SecretName},
    intake::{Rules, Verdict},
    ops_repo::RemoteUrl,
    outcome::Cause,
    page::Printable,
    tokens::bearer,
    track::log::excerpt,
    trigger::schedule::{Missed, Schedule},
    validation::{self, Formulas, SourceFile},
    webhook::{Policy, Refused},
};
use serde::{Deserialize, de::DeserializeOwned};

mod http;
mod repository;
mod server;

/// Whether a text is taken.
type Reader = fn(&str) -> bool;
/// A text, and how often it stands there.
type Parts = Vec<(String, usize)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases<Case> {
    case: Vec<Case>,
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    toml::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn cases<Case: DeserializeOwned>(name: &str) -> Vec<Case> {
    read::<Cases<Case>>(name).case
}

fn joined(parts: &Parts) -> String {
    parts.iter().map(|(text, count)| text.repeat(*count)).collect()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(digits).collect()
}

/// Whether what was refused, if anything, is what should be.
fn is_expected(refused: Option<&str>, expected: Option<&str>) -> bool {
    match (refused, expected) {
        (Some(refused), Some(expected)) => refused.contains(expected),
        (refused, expected) => refused.is_none() && expected.is_none(),
    }
}

fn rules() -> Rules {
    let config = config::read("consign.toml", "", &Environment::default()).unwrap();
    let allowed = Allowed { limits: config.shapes, mounts: config.mounts, driver: config.nomad.driver };
    Rules { allowed, receivers: Policy::default() }
}

struct Hello;

impl Formulas for Hello {
    fn files(&self, name: &FormulaName) -> Vec<SourceFile> {
        let content =
            b"description = \"d\"\n[args]\ntext = {}\nraw = {}\n[[steps]]\nname = \"a\"\nrun = \"true\"\n"
                .to_vec();
        vec![SourceFile { path: format!("formulas/{name}.toml"), content }]
    }

    fn names(&self) -> Vec<String> {
        vec!["hello".to_owned()]
    }
}

/// Why an action is not dispatched; `None` where it would be.
fn problem(path: &str, content: &[u8]) -> Option<String> {
    let checked = validation::check(path, content, &Hello);
    match Verdict::new(path, content, checked, &rules().allowed, &BTreeMap::new()) {
        Verdict::Sound { .. } => None,
        Verdict::Unsound { message, .. } => Some(message),
    }
}

#[test]
fn every_action_is_taken_that_should_be() {
    let mut count = 0;
    for entry in fs::read_dir(path("taken")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(problem(&format!("actions/{name}"), &fs::read(&path).unwrap()), None, "{name}");
        count += 1;
    }
    assert!(count >= 14, "{count}");
}

#[test]
fn what_is_too_large_to_lie_here_has_its_verdict_too() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        parts: Parts,
        refused: Option<String>,
    }
    for case in cases::<Case>("generated.toml") {
        let problem = problem("actions/x.toml", joined(&case.parts).as_bytes());
        let expected = is_expected(problem.as_deref(), case.refused.as_deref());
        let problem = problem.map(|problem| problem.chars().take(500).collect::<String>());
        assert!(expected, "{}: {problem:?}", case.name);
    }
}

#[test]
fn names_keep_to_their_rules() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Names {
        taken: Vec<String>,
        refused: Vec<String>,
    }
    let readers: [(&str, Reader); 13] = [
        ("action id", |text| ActionId::parse(text).is_ok()),
        ("formula name", |text| FormulaName::parse(text).is_ok()),
        ("secret name", |text| SecretName::parse(text).is_ok()),
        ("bot name", |text| BotName::parse(text).is_ok()),
        ("revision", |text| Revision::parse(text).is_ok()),
        ("job id", |text| text.parse::<JobId>().is_ok() && text.parse::<DispatchId>().is_ok()),
        ("span", |text| text.parse::<Span>().is_ok()),
        ("schedule", |text| Schedule::new(text, "UTC", Missed::Once).is_ok()),
        ("bearer", |text| bearer(text).is_some()),
        ("glob", |text| glob::check(text).is_ok()),
        ("remote", |text| RemoteUrl::parse(text).is_ok()),
        ("artifact", is_legal_part),
        ("cause", |text| text.parse::<Cause>().is_ok()),
    ];
    let names: BTreeMap<String, Names> = read("names.toml");
    assert_eq!(names.len(), readers.len());
    let mut wrong = Vec::new();
    for (kind, is_taken) in readers {
        let Names { taken, refused } = &names[kind];
        wrong.extend(
            taken.iter().filter(|text| !is_taken(text)).map(|text| format!("{kind} {text:?} is refused")),
        );
        wrong.extend(
            refused.iter().filter(|text| is_taken(text)).map(|text| format!("{kind} {text:?} is taken")),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn webhooks_go_to_public_addresses_alone() {
    let urls: BTreeMap<String, Vec<String>> = read("webhooks.toml");
    let mut wrong = Vec::new();
    for (kind, url) in urls.iter().flat_map(|(kind, urls)| urls.iter().map(move |url| (kind, url))) {
        let found = match Policy::default().check(url) {
            Ok(()) => "Public".to_owned(),
            Err(Refused::NoUrl) => "NoUrl".to_owned(),
            Err(Refused::Address { kind, .. }) => format!("{kind:?}"),
        };
        if found != *kind {
            wrong.push(format!("{url:?} is {found}, not {kind}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(urls.values().map(Vec::len).sum::<usize>() >= 120);
}

#[test]
fn what_a_task_is_told_fits_and_stays_literal() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        script: Option<Parts>,
        #[serde(default)]
        context: Parts,
        #[serde(default)]
        args: BTreeMap<String, String>,
        #[serde(default)]
        env: BTreeMap<String, String>,
        #[serde(default)]
        secrets: Vec<SecretName>,
        refused: Option<String>,
    }
    for case in cases::<Case>("dispatch.toml") {
        let run = Run {
            job_id: JobId::new(),
            dispatch_id: DispatchId::new(),
            attempt: 1,
            action_id: Some("a".to_owned()),
            formula: FormulaName::parse("hello").unwrap(),
            context: joined(&case.context),
            revision: None,
            secrets: case.secrets,
            bot: None,
            args: case.args,
            env: case.env,
            model: None,
            tools: Vec::new(),
            timeout: Span::from_secs(60),
            artifacts: Vec::new(),
            from_step: None,
            unmasked: false,
            body: Body::Program(case.script.as_ref().map_or("exit 0".to_owned(), joined)),
            declared: Declared::default(),
        };
        let request = Request::new(&run);
        let refused = request.as_ref().err().map(ToString::to_string);
        assert!(is_expected(refused.as_deref(), case.refused.as_deref()), "{}: {refused:?}", case.name);
        let meta: BTreeSet<String> =
            request.map(|request| request.meta.into_values().collect()).unwrap_or_default();
        assert!(meta.iter().all(|value| !value.contains("${") && !value.contains("{{")), "{}", case.name);
    }
}

#[test]
fn a_log_is_shown_without_what_a_terminal_would_obey() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        printed: Option<String>,
        hex: Option<String>,
        shown: String,
    }
    let whole = |printed: &[u8]| Printable::default().push(printed);
    for case in cases::<Case>("logs.toml") {
        let printed = case.printed.map_or_else(|| bytes(&case.hex.unwrap()), String::into_bytes);
        assert_eq!(whole(&printed), case.shown, "{printed:?}");
        let mut printable = Printable::default();
        let pieces: String = printed.iter().map(|byte| printable.push(&[*byte])).collect();
        assert_eq!(pieces, case.shown, "{printed:?}");
        assert!(excerpt(&printed, true).text.len() <= 3 * printed.len());
    }
    // One line of 100 MiB.
    let line = vec![b'x'; 100 << 20];
    assert_eq!((whole(&line).len(), excerpt(&line, true).text.len()), (line.len(), line.len()));
}
