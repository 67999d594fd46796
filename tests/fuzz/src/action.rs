//! An action file and its formula: refused with a place for each problem, or work that its record keeps as it is and
//! that fits into a dispatch.

use std::{collections::BTreeMap, sync::LazyLock};

use consign::{
    action::FILE_LIMIT,
    config::{self, Environment},
    dispatch::{
        request::{META_LIMIT, PAYLOAD_LIMIT, Request, Run, parse_consign_meta},
        shape::Allowed,
    },
    ids::{DispatchId, FormulaName, JobId},
    intake::Verdict,
    lifecycle::Work,
    validation::{self, Checked, Formulas, SourceFile},
};

const PATH: &str = "actions/fuzz.toml";

static ALLOWED: LazyLock<Allowed> = LazyLock::new(|| {
    let config = config::read("consign.toml", "", &Environment::default()).expect("the defaults are sound");
    Allowed { limits: config.shapes, mounts: config.mounts, driver: config.nomad.driver }
});

/// Every name has the same formula.
struct One(Option<SourceFile>);

impl Formulas for One {
    fn files(&self, name: &FormulaName) -> Vec<SourceFile> {
        let named =
            |file: &SourceFile| SourceFile { path: format!("formulas/{name}{}", file.path), ..file.clone() };
        self.0.iter().map(named).collect()
    }

    fn names(&self) -> Vec<String> {
        vec!["hello".to_owned()]
    }
}

/// The action, and behind a line `===` its formula: a program where it begins with `#`, else steps.
fn parts(input: &[u8]) -> (&[u8], One) {
    const LINE: &[u8] = b"\n===\n";
    let at = input.windows(LINE.len()).position(|window| window == LINE);
    let Some(at) = at else {
        let program = SourceFile { path: ".sh".to_owned(), content: b"exit 0\n".to_vec() };
        return (input, One(Some(program)));
    };
    let content = input[at + LINE.len()..].to_vec();
    let path = if content.starts_with(b"#") { ".sh" } else { ".toml" }.to_owned();
    (&input[..at], One(Some(SourceFile { path, content })))
}

pub(crate) fn check(input: &[u8]) {
    let (content, formulas) = parts(input);
    let checked = validation::check(PATH, content, &formulas);
    if let Checked::Invalid(invalid) = &checked {
        assert!(!invalid.problems.is_empty() && !invalid.message.is_empty());
        let text = String::from_utf8_lossy(content);
        for problem in &invalid.problems {
            assert!(!problem.message.is_empty());
            assert!(problem.locate(PATH, &text).line >= 1);
            assert!(!problem.render(PATH, &text, false).is_empty());
        }
        return;
    }
    assert!(content.len() <= FILE_LIMIT);
    let Verdict::Sound { action, work } = Verdict::new(PATH, content, checked, &ALLOWED, &BTreeMap::new())
    else {
        return;
    };
    assert_eq!(action.id.as_str(), "fuzz");
    let record = serde_json::to_string(&work).expect("a record");
    assert_eq!(serde_json::from_str::<Work>(&record).expect("a record is read"), *work);
    dispatched(action.id.as_str(), &work);
}

fn dispatched(id: &str, work: &Work) {
    let run = Run {
        job_id: JobId::new(),
        dispatch_id: DispatchId::new(),
        attempt: 1,
        action_id: Some(id.to_owned()),
        formula: work.formula.clone().expect("an action has a formula"),
        context: work.context.clone(),
        revision: None,
        secrets: work.secrets.clone(),
        unmasked: work.unmasked,
        bot: None,
        args: work.args.clone(),
        env: work.env.clone(),
        model: work.model.clone(),
        tools: work.tools.clone(),
        timeout: work.timeout.unwrap_or(consign::duration::Span::from_secs(1)),
        artifacts: work.artifacts.clone(),
        from_step: None,
        body: work.body.clone().expect("work has a body"),
        declared: consign::dispatch::base_job::Declared::default(),
    };
    let Ok(request) = Request::new(&run) else { return };
    let size: usize = request.meta.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(size <= META_LIMIT && request.payload.len() <= PAYLOAD_LIMIT);
    assert!(request.meta.values().all(|value| !value.contains("${")), "Nomad would interpolate it");
    let told = parse_consign_meta(&request.meta["consign"]).expect("consign reads what it wrote");
    assert_eq!(
        (told.job_id, told.dispatch_id, &told.artifacts),
        (run.job_id, run.dispatch_id, &run.artifacts)
    );
    assert!(run.env.iter().all(|(name, value)| told.env.get(name) == Some(value)));
    assert!(run.args.values().all(|value| told.env.values().any(|told| told == value)));
    assert_eq!(told.env["CONSIGN_CONTEXT"], run.context);
}
