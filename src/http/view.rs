//! What the API takes and gives: jobs and problems.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::Described,
    formula::{self, Body},
    ids::Revision,
    intake::Listed,
    lifecycle::{Job, Origin, Phase},
    outcome::{
        Cause, Outcome,
        result_file::{self, Approval, ResultFile, StepResult},
    },
    queue::{Paused, estimate::Estimate},
};

/// A job as lists have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobSummary {
    /// Its ULID.
    pub job_id: String,
    /// The id of its action; null for work that has none.
    pub action_id: Option<String>,
    /// Its phase.
    pub state: Phase,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    pub cause: Option<Cause>,
    /// The exit code, as the result file has it.
    pub exit_code: Option<i64>,
    /// What went wrong, in a sentence with the evidence; null unless it ended without success.
    pub error: Option<String>,
    /// What it waits for, in words: an approval, other actions, a time, its place in the queue and who holds
    /// the limit before it, or a node.
    pub waits_for: Option<String>,
    /// When it may start and end, from how long the latest successful runs of its formula took; null where
    /// nothing is known. Of what waits in line the next 100 are looked ahead for.
    pub estimate: Option<Estimate>,
    /// The formula's name; null where consign was not told.
    pub formula: Option<String>,
    /// How many attempts there were, the present one included.
    pub attempt: usize,
    /// When consign first saw it, RFC 3339.
    #[schemars(with = "String")]
    pub submitted_at: Timestamp,
    /// When the last attempt's task started.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schemars(with = "Option<String>")]
    pub finished_at: Option<Timestamp>,
}

/// A job with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDetails {
    /// What lists have of it.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// Why it runs, as its action says.
    pub context: String,
    /// 0 to 100, the highest first.
    pub priority: u8,
    /// The names of the secrets that it may read.
    pub secrets: Vec<String>,
    /// Its action file.
    pub path: Option<String>,
    /// The action that was submitted, as the text of a file without `notify`; null for other work, and in answers to
    /// orders.
    pub action: Option<String>,
    /// The commit that action and formula were read at.
    pub revision: Option<String>,
    /// Who submitted it over HTTP; null for work that came otherwise.
    pub submitted_by: Option<String>,
    /// The rule that approved it, and where a rule asks for one the person.
    pub approved_by: Option<String>,
    /// The approval with its evidence.
    pub approval: Option<Approval>,
    /// The SHA-256 over all that decides what runs: what it is approved for, or an approval would be for.
    pub digest: Option<String>,
    /// Why it shall end, where somebody or a rule wants that.
    pub cancelled: Option<String>,
    /// Who asked for its latest retry.
    pub retried_by: Option<String>,
    /// Its attempts, the last one last.
    pub attempts: Vec<result_file::Attempt>,
    /// The steps that ended, in order; while it works, as of a second ago at most.
    pub steps: Vec<StepResult>,
    /// The step that runs now.
    pub running_step: Option<String>,
    /// What was kept of its files.
    pub artifacts: Vec<Described>,
    /// The result file's content, once it has ended.
    pub result: Option<ResultFile>,
}

/// A page of jobs, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobSummary>,
    /// The `cursor` of the next page; null where this is the last one.
    pub next: Option<String>,
}

/// What `POST /jobs/{id}/retry` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// The name of the step that it begins from; without it all steps run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_step: Option<String>,
}

/// The formulas of the ops repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormulaList {
    /// The commit that they were read at.
    pub revision: String,
    /// The formulas, in the order of their files.
    pub formulas: Vec<FormulaSummary>,
}

/// One formula.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormulaSummary {
    /// Its name, as an action gives it.
    pub name: String,
    /// Its file.
    pub path: String,
    /// What it does, in a sentence.
    pub description: String,
    /// The arguments that it takes; a program declares none and takes any.
    pub args: Vec<FormulaArgument>,
    /// The names of the secrets that it cannot do without.
    pub secrets: Vec<String>,
    /// Why it cannot be used; null where it can.
    pub problem: Option<String>,
}

/// An argument of a formula.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormulaArgument {
    /// Its name.
    pub name: String,
    /// Whether an action must give it.
    pub required: bool,
    /// Its value where an action gives none.
    pub default: Option<String>,
    /// The regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// What it is for.
    pub help: Option<String>,
}

/// What `POST /pause` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Why, in a sentence for whoever waits; 500 bytes at most.
    pub reason: String,
}

/// What `POST /pause` and `POST /resume` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PauseState {
    /// Who paused the launching, since when and why; null where it goes on.
    pub paused: Option<Paused>,
}

/// What `POST /jobs/{id}/approve` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// The job's `digest` as it was looked at: where something else would run by now, nothing is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// The longest reason of a rejection, in characters: it is one sentence of the result.
pub const REASON_LIMIT: usize = 1000;

/// What `POST /jobs/{id}/reject` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    /// Why it may not run; white space is made one line.
    #[schemars(length(min = 1, max = 1000), regex(pattern = r"\S"))]
    pub reason: String,
}

/// What `POST /jobs` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// The job's ULID, by which it is shown, followed and cancelled.
    pub job_id: String,
}

/// A problem document, RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ProblemDocument {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what to do about it.
    pub detail: String,
}

impl JobSummary {
    /// What lists have of a job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        let ending = job.ending.as_ref().filter(|_| job.outcome().is_some());
        let succeeded = job.outcome() == Some(Outcome::Succeeded);
        Self {
            job_id: job.job_id.to_string(),
            action_id: match &job.origin {
                Origin::Action { id, .. } => Some(id.to_string()),
                Origin::Submitted { .. } | Origin::Hand { .. } => None,
            },
            state: job.phase(),
            outcome: job.outcome(),
            cause: ending.map(|ending| ending.cause),
            exit_code: ending.map(|ending| ending.exit_code.unwrap_or(ending.cause.exit_code())),
            error: ending.filter(|_| !succeeded).map(|ending| ending.message.clone()),
            // The record keeps what a job that never ran waited for last.
            waits_for: job.waits_for.clone().filter(|_| job.outcome().is_none()),
            estimate: None,
            formula: job.work.formula.as_ref().map(ToString::to_string),
            attempt: job.attempts.len(),
            submitted_at: job.submitted_at,
            started_at: job.attempt().and_then(|attempt| attempt.started_at),
            finished_at: ending.map(|ending| ending.finished_at),
        }
    }
}

impl JobDetails {
    /// All that is known of a job; `live` are the steps that its present attempt has ended so far.
    #[must_use]
    pub fn of(job: &Job, live: Vec<StepResult>) -> Self {
        let (path, revision) = match &job.origin {
            Origin::Action { path, revision, .. } => (Some(path.clone()), Some(revision.to_string())),
            Origin::Submitted { revision, .. } => (None, Some(revision.to_string())),
            Origin::Hand { .. } => (None, None),
        };
        let submitted_by = match &job.origin {
            Origin::Submitted { by, .. } => Some(by.clone()),
            Origin::Action { .. } | Origin::Hand { .. } => None,
        };
        let result = job.result().filter(|_| job.outcome().is_some());
        let mut steps = job.steps();
        steps.extend(live);
        Self {
            summary: JobSummary::of(job),
            context: job.work.context.clone(),
            priority: job.work.priority,
            secrets: job.work.secrets.iter().map(ToString::to_string).collect(),
            path,
            action: None,
            revision,
            submitted_by,
            approved_by: job.approved_by.clone(),
            approval: job.approval.clone(),
            digest: job.digest().map(ToOwned::to_owned),
            cancelled: job.cancelled.as_ref().map(|cancellation| cancellation.reason.clone()),
            retried_by: job.retry.as_ref().map(|retry| retry.by.clone()),
            attempts: job.attempts.iter().map(result_file::Attempt::from).collect(),
            running_step: running_step(job, steps.len()),
            steps,
            artifacts: result
                .iter()
                .flat_map(|result| &result.artifacts)
                .map(|artifact| Described::of(&job.job_id.to_string(), artifact))
                .collect(),
            result,
        }
    }
}

impl FormulaList {
    /// The formulas of a revision.
    #[must_use]
    pub fn of(revision: &Revision, formulas: Vec<Listed>) -> Self {
        let formulas = formulas.into_iter().map(|Listed { name, path, formula }| {
            let (formula, problem) = match formula {
                Ok(formula) => (Some(formula), None),
                Err(problem) => (None, Some(problem)),
            };
            FormulaSummary {
                name,
                path,
                description: formula.as_ref().map(|formula| formula.description.clone()).unwrap_or_default(),
                secrets: formula
                    .iter()
                    .flat_map(|formula| &formula.secrets)
                    .map(ToString::to_string)
                    .collect(),
                args: formula.into_iter().flat_map(|formula| formula.args).map(argument).collect(),
                problem,
            }
        });
        Self { revision: revision.to_string(), formulas: formulas.collect() }
    }
}

fn argument((name, argument): (String, formula::Argument)) -> FormulaArgument {
    let formula::Argument { required, default, pattern, help } = argument;
    FormulaArgument { name, required, default, pattern, help }
}

/// The step that runs where `ended` steps have ended.
fn running_step(job: &Job, ended: usize) -> Option<String> {
    let Some(Body::Steps(steps)) = &job.work.body else { return None };
    steps.get(ended).filter(|_| job.phase() == Phase::Working).map(|step| step.name.clone())
}
