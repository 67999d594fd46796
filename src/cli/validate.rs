//! `consign validate`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;

use super::{Failure, Outcome, Surroundings, output};
use crate::{
    agent,
    approval::{Need, Rules},
    config::{self, Config},
    diagnostic::Located,
    dispatch::{
        base_job::BaseJob,
        launch::BaseJobs,
        shape::{self, Allowed},
    },
    intake,
    lifecycle::Work,
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
    /// What a valid action will need before it runs, by the configured rules.
    need: Option<Need>,
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
        let need = agent.check(&mut report);
        let kind = match report.kind {
            FileKind::Action => "action",
            FileKind::Formula => "formula",
        };
        let rendered = report.render(colour);
        let need = need.filter(|_| report.is_valid());
        reports.push(Report { file: report.path, kind, problems: report.problems, rendered, need });
    }
    print(&reports, arguments.json)?;
    let sound = reports.iter().all(|report| report.problems.is_empty());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the agent knows and an ops repo does not say.
struct Agent {
    base_jobs: BaseJobs,
    /// What may be asked for, and what approvals are needed; `None` where there is no configuration to say so.
    configured: Option<(Allowed, Rules)>,
}

impl Agent {
    fn new(config: &Config, configured: bool) -> Result<Self, Failure> {
        let configured = configured.then(|| (agent::allowed(config), agent::approval_rules(config)));
        Ok(Self { base_jobs: agent::base_jobs(config)?, configured })
    }

    /// Takes down what the agent would refuse although the files are valid; gives what an action will need, where
    /// the configuration says.
    fn check(&self, report: &mut FileReport) -> Option<Need> {
        let valid = report.valid.as_deref()?.clone();
        let Valid { action, formula, args, .. } = &valid;
        let decided =
            self.configured.as_ref().map(|(allowed, _)| shape::decide(action, formula, allowed)).transpose();
        let decided = decided.unwrap_or_else(|refused| {
            report.refuse(refused.key, refused.message);
            None
        });
        let declared = self.base_jobs.declared(&intake::base_job(action, formula));
        let bot = declared.bot(&action.formula, args).unwrap_or_else(|error| {
            report.refuse("args", error.to_string());
            None
        });
        let (_, rules) = self.configured.as_ref()?;
        Some(rules.classify(&Work { bot, ..intake::work(&valid, decided?) }))
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
        need: None,
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
    Ok(Report { problems, kind: "base job", rendered: rendered.join("\n\n"), file, need: None })
}

fn print(reports: &[Report], as_json: bool) -> Result<(), Failure> {
    let bad = reports.iter().filter(|report| !report.problems.is_empty()).count();
    if as_json {
        let files: Vec<_> = reports
            .iter()
            .map(|Report { file, kind, problems, need, .. }| {
                let approval = need.as_ref().map(|need| {
                    json!({ "blast_radius": need.tier, "require": need.requirement, "rule": need.rule, "direct_refused": need.is_direct })
                });
                json!({ "file": file, "kind": kind, "valid": problems.is_empty(), "problems": problems, "approval": approval })
            })
            .collect();
        output::line(&serde_json::to_string_pretty(&json!({ "valid": bad == 0, "files": files }))?);
        return Ok(());
    }
    for report in reports.iter().filter(|report| !report.problems.is_empty()) {
        output::line(&report.rendered);
        output::line("");
    }
    for report in reports {
        if let Some(need) = &report.need {
            output::line(&format!("{} will need: {}{}", report.file, need.rule, need.objection()));
        }
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
