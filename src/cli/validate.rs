//! `consign validate`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;

use super::{Failure, Outcome, Surroundings, output};
use crate::{
    agent,
    config::{self, Config},
    diagnostic::Located,
    dispatch::{
        base_job::BaseJob,
        launch::BaseJobs,
        shape::{self, Allowed},
    },
    intake,
    validation::{
        Valid, disk,
        tree::{FileKind, FileReport},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Work trees of ops repos, action or formula files, base jobs (*.nomad.hcl), configurations
    /// (consign.toml). Without any, the present folder.
    paths: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What one file amounts to.
struct Report {
    file: String,
    kind: &'static str,
    problems: Vec<Located>,
    rendered: String,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> Outcome {
    let here = [PathBuf::from(".")];
    let paths = if arguments.paths.is_empty() { &here[..] } else { &arguments.paths };
    let is_config = |path: &PathBuf| path.file_name().is_some_and(|name| name == "consign.toml");
    let is_job = |path: &PathBuf| path.to_string_lossy().ends_with(".nomad.hcl");
    let mut reports = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        if is_config(path) {
            reports.push(configuration(path, surroundings)?);
        } else if is_job(path) {
            reports.push(base_job(path)?);
        } else {
            files.push(path.clone());
        }
    }
    // The folders' names and what may be asked for are the configuration's where it is sound, and else the
    // defaults.
    let (config, configured) = match surroundings.config() {
        Ok(config) => (config, config::find(surroundings.config_path.as_deref()).is_some()),
        Err(_) => (config::read("defaults", "", &config::Environment::new())?, false),
    };
    let agent = Agent::new(&config, configured)?;
    let colour = output::colour() && !arguments.json;
    for mut report in disk::validate_paths(&files, &config.ops.actions, &config.ops.formulas)? {
        agent.check(&mut report);
        let kind = match report.kind {
            FileKind::Action => "action",
            FileKind::Formula => "formula",
        };
        let rendered = report.render(colour);
        reports.push(Report { file: report.path, kind, problems: report.problems, rendered });
    }
    print(&reports, arguments.json)?;
    let sound = reports.iter().all(|report| report.problems.is_empty());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the agent knows and an ops repo does not say.
struct Agent {
    base_jobs: BaseJobs,
    /// What may be asked for; `None` where there is no configuration to say so.
    allowed: Option<Allowed>,
}

impl Agent {
    fn new(config: &Config, configured: bool) -> Result<Self, Failure> {
        let allowed = configured.then(|| agent::allowed(config));
        Ok(Self { base_jobs: agent::base_jobs(config)?, allowed })
    }

    /// Takes down what the agent would refuse although the files are valid.
    fn check(&self, report: &mut FileReport) {
        let Some(Valid { action, formula, args, .. }) = report.valid.as_deref().cloned() else { return };
        if let Some(allowed) = &self.allowed
            && let Err(refused) = shape::decide(&action, &formula, allowed)
        {
            report.refuse(refused.key, refused.message);
        }
        let declared = self.base_jobs.declared(&intake::base_job(&action, &formula));
        if let Err(error) = declared.bot(&action.formula, &args) {
            report.refuse("args", error.to_string());
        }
    }
}

fn configuration(path: &Path, surroundings: &Surroundings) -> Result<Report, Failure> {
    let file = path.display().to_string();
    let checked = config::load(Some(path), &surroundings.environment);
    let problem = match &checked {
        Ok(config) => agent::base_jobs(config)
            .map(drop)
            .and_then(|()| agent::triggers::read(config).map(drop))
            .err()
            .map(|error| error.to_string()),
        Err(config::Error::Invalid { rendered }) => Some(rendered.clone()),
        Err(error) => return Err(Failure(crate::telemetry::chain(error))),
    };
    let problems = problem.iter().map(|message| Located {
        file: file.clone(),
        line: 1,
        column: 1,
        message: message.clone(),
        help: None,
    });
    Ok(Report {
        problems: problems.collect(),
        kind: "configuration",
        rendered: problem.unwrap_or_default(),
        file,
    })
}

fn base_job(path: &Path) -> Result<Report, Failure> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure(format!("cannot read {}: {error}", path.display())))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let problems = BaseJob::read(name.trim_end_matches(".nomad.hcl"), &text).err().unwrap_or_default();
    let rendered: Vec<String> =
        problems.iter().map(|problem| problem.render(&file, &text, output::colour())).collect();
    let problems = problems.iter().map(|problem| problem.locate(&file, &text)).collect();
    Ok(Report { problems, kind: "base job", rendered: rendered.join("\n\n"), file })
}

fn print(reports: &[Report], as_json: bool) -> Result<(), Failure> {
    let bad = reports.iter().filter(|report| !report.problems.is_empty()).count();
    if as_json {
        let files: Vec<_> = reports
            .iter()
            .map(|report| json!({ "file": report.file, "kind": report.kind, "valid": report.problems.is_empty(), "problems": report.problems }))
            .collect();
        output::line(&serde_json::to_string_pretty(&json!({ "valid": bad == 0, "files": files }))?);
        return Ok(());
    }
    for report in reports.iter().filter(|report| !report.problems.is_empty()) {
        output::line(&report.rendered);
        output::line("");
    }
    if reports.is_empty() {
        output::line("nothing to check: there are no actions or formulas here");
    } else if bad == 0 {
        output::line(&format!("{} files are valid", reports.len()));
    } else {
        output::line(&format!("{bad} of {} files are not valid", reports.len()));
    }
    Ok(())
}
