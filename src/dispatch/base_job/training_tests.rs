//! The sample formula that trains, run by the wrapper with every awk that this machine has.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::wrapper_tests::{Ending, Task, shells, write_program};
use crate::{
    dispatch::request::{Request, Run, parse_consign_meta, tests::run},
    formula::{self, Formula},
    program,
};

const PHASES: [&str; 8] = [
    "infrastructure",
    "indexing",
    "feedback",
    "validation",
    "data generation",
    "fine-tuning",
    "conversion",
    "deployment",
];
const AWKS: [&str; 4] = ["mawk", "gawk", "original-awk", "busybox"];
/// How large the payload may grow: what Nomad takes leaves as much again for a formula made of this one.
const PAYLOAD: usize = 8192;

/// The awks of this machine.
fn awks() -> Vec<&'static str> {
    let awks: Vec<&str> = AWKS.into_iter().filter(|awk| program::find(awk).is_some()).collect();
    assert!(!awks.is_empty(), "this machine has none of {AWKS:?}");
    awks
}

fn formula() -> Formula {
    let text = include_bytes!("../../../actions/formulas/train.toml");
    formula::file::read("train.toml", text).expect("a valid formula")
}

/// One run of the formula, and the environment that it gets.
struct Training {
    task: Task,
    env: BTreeMap<String, String>,
}

impl Training {
    /// With the formula's defaults but for `args`.
    fn new(awk: &str, args: &[(&str, &str)]) -> Self {
        let formula = formula();
        let defaults = formula
            .args
            .iter()
            .filter_map(|(name, argument)| Some((name.clone(), argument.default.clone()?)));
        let given = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let run = Run {
            action_id: Some("train".to_owned()),
            formula: formula.name.clone(),
            secrets: Vec::new(),
            args: defaults.chain(given).collect(),
            ..run(formula.body)
        };
        let request = Request::new(&run).unwrap();
        assert!(request.payload.len() <= PAYLOAD, "{} bytes", request.payload.len());
        let env = parse_consign_meta(&request.meta["consign"]).unwrap().env;
        let task = Task::new("kind steps\ntimeout 60\n", &String::from_utf8(request.payload).unwrap());
        fs::create_dir(task.path("bin")).unwrap();
        let applet = if awk == "busybox" { " awk" } else { "" };
        write_program(&task.path("bin/awk"), &format!("#!/bin/sh\nexec {awk}{applet} \"$@\"\n"));
        Self { task, env }
    }

    fn start(&self, checkpoints: Option<&Path>) -> Child {
        let path = format!("{}:{}", self.task.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = self.task.command(&shells()[0]);
        command.envs(&self.env).env("PATH", path).env_remove("CHECKPOINTS");
        command.envs(checkpoints.map(|folder| ("CHECKPOINTS", folder)));
        command.spawn().unwrap()
    }

    fn run(&self, checkpoints: Option<&Path>) -> Ending {
        self.task.end(self.start(checkpoints))
    }

    fn data(&self, name: &str) -> Vec<u8> {
        fs::read(self.task.path("alloc/data").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn succeeded(ending: &Ending) {
    let text = String::from_utf8_lossy(&ending.output);
    assert_eq!(ending.code, Some(0), "{text}");
    let steps: Vec<(&str, i64)> =
        ending.report.steps.iter().map(|step| (step.name.as_str(), step.exit_code)).collect();
    assert_eq!(steps, PHASES.map(|phase| (phase, 0)), "{text}");
}

#[test]
fn it_learns_and_releases_the_same_model_with_every_awk() {
    let mut models = Vec::new();
    for awk in awks() {
        let training = Training::new(awk, &[("epochs", "4")]);
        let ending = training.run(None);
        succeeded(&ending);
        assert!(ending.report.steps[5].seconds > 0.0, "{awk}: {:?}", ending.report.steps);

        let metrics: Value = serde_json::from_slice(&training.data("metrics.json")).unwrap();
        for losses in ["losses", "held_out_losses"] {
            let losses: Vec<f64> =
                metrics[losses].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
            assert_eq!(losses.len(), 4, "{awk}");
            assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{awk}: {losses:?}");
        }
        let (first, last) = (&metrics["losses"][0], &metrics["losses"][3]);
        assert!(last.as_f64().unwrap() < 0.5 * first.as_f64().unwrap(), "{awk}: {metrics}");

        let model = training.data("model/model.txt");
        let manifest: Value = serde_json::from_slice(&training.data("model/manifest.json")).unwrap();
        let digest = crate::hexadecimal::encode(&<sha2::Sha256 as sha2::Digest>::digest(&model));
        assert_eq!((&manifest["sha256"], &manifest["action"]), (&Value::from(digest), &Value::from("train")));
        let text = String::from_utf8_lossy(&ending.output);
        assert!(text.contains("the model says: the "), "{awk}: {text}");
        models.push(model);
    }
    assert!(models.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", awks());

    let other = Training::new(awks()[0], &[("epochs", "4"), ("seed", "2")]);
    other.run(None);
    assert_ne!(other.data("model/model.txt"), models[0], "another seed gives another model");
}

#[test]
fn an_interrupted_training_goes_on_from_its_checkpoint_in_another_allocation() {
    let args = [("epochs", "60")];
    let whole = Training::new(awks()[0], &args);
    succeeded(&whole.run(None));

    let checkpoints = tempfile::tempdir().unwrap();
    let first = Training::new(awks()[0], &args);
    let child = first.start(Some(checkpoints.path()));
    let began = Instant::now();
    while epoch(checkpoints.path()) < 2 {
        assert!(began.elapsed() < Duration::from_mins(1), "no checkpoint");
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ending = first.task.end(child);
    let steps = &ending.report.steps;
    assert!(steps.len() == 6 && steps[5].exit_code != 0 && ending.code != Some(0), "{steps:?}");
    let reached = epoch(checkpoints.path());
    assert!((2..60).contains(&reached), "{reached}");

    let second = Training::new(awks()[0], &args);
    let ending = second.run(Some(checkpoints.path()));
    succeeded(&ending);
    let text = String::from_utf8_lossy(&ending.output);
    assert!(text.contains(&format!("going on after epoch {reached}\nepoch {}: ", reached + 1)), "{text}");
    assert_eq!(second.data("model/model.txt"), whole.data("model/model.txt"), "as without an interruption");
    assert_eq!(second.data("metrics.json"), whole.data("metrics.json"));
}

#[test]
fn a_volume_that_is_not_there_is_noticed() {
    let training = Training::new(awks()[0], &[]);
    let ending = training.run(Some(&training.task.path("no-volume/train")));
    let steps = &ending.report.steps;
    assert!(steps.len() == 1 && steps[0].exit_code != 0 && ending.code != Some(0), "{steps:?}");
    assert!(String::from_utf8_lossy(&ending.output).contains("no-volume/train"));
}

/// The last epoch that has a checkpoint.
fn epoch(checkpoints: &Path) -> u32 {
    let text = fs::read_to_string(checkpoints.join("checkpoint")).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("epoch ").and_then(|epoch| epoch.parse().ok()).unwrap_or_default()
}

#[test]
fn arguments_that_the_shell_could_trip_over_are_refused() {
    let bound = |name: &str, value: &str| {
        let text = format!(
            "id = \"a\"\nformula = \"train\"\ncontext = \"c\"\nsecrets = []\n[args]\n{name} = '{value}'\n"
        );
        let action = crate::action::file::read("a.toml", text.as_bytes()).expect("an action");
        formula::bind::bind(&action, &formula())
    };
    for (name, value) in [("epochs", "0"), ("epochs", "1;ls"), ("learning-rate", "1"), ("seed", "$(id)")] {
        assert!(bound(name, value).is_err(), "{name} {value}");
    }
    let args = bound("epochs", "12").unwrap();
    assert_eq!((args["epochs"].as_str(), args["seed"].as_str()), ("12", "1"));
}
