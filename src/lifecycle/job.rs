//! The record of one piece of work.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Phase, Retry, Stage};
use crate::{
    action::{self, BlastRadius, Concurrency, DispatchMode},
    dispatch::shape::Shape,
    duration::Span,
    formula::Body,
    ids::{ActionId, BotName, DispatchId, FormulaName, JobId, Revision, SecretName},
    outcome::{
        Cause, Outcome,
        result_file::{self, Approval, Artifact, LogStatus, ResultFile, StepResult, Usage},
    },
};

/// One piece of work, from the moment it is seen to its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub job_id: JobId,
    /// Where it came from.
    pub origin: Origin,
    /// What runs.
    pub work: Work,
    /// Where it is.
    pub stage: Stage,
    /// When it was first seen.
    pub submitted_at: Timestamp,
    /// When it last got into the queue; absent from records of earlier versions.
    #[serde(default)]
    pub queued_at: Option<Timestamp>,
    /// What it waits for, in words.
    pub waits_for: Option<String>,
    /// The rule that approved it, in words.
    pub approved_by: Option<String>,
    /// The approval that `approved_by` tells of; `None` where Nomad had the job before consign.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// The digest of what an approval would be for, while there is none.
    #[serde(default)]
    pub unapproved_digest: Option<String>,
    /// Since when there is none, while there is none; absent from records of earlier versions.
    #[serde(default)]
    pub unapproved_since: Option<Timestamp>,
    /// That it shall end, and why.
    pub cancelled: Option<Cancellation>,
    /// Its attempts, the present one last.
    pub attempts: Vec<Attempt>,
    /// How the present attempt, or the job, ended.
    pub ending: Option<Ending>,
    /// That it runs again because somebody asked, and what it goes on from; the latest time alone.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// Where a job came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An action file in the ops repo.
    Action {
        /// The action's id.
        id: ActionId,
        /// The file.
        path: String,
        /// The file's git blob.
        blob: String,
        /// The commit that action and formula were read at.
        revision: Revision,
    },
    /// A submission over HTTP or from the command line: it has no action file.
    Submitted {
        /// Who submitted it: the name of the token that was shown.
        by: String,
        /// The commit that its formula was read at.
        revision: Revision,
    },
    /// A child that somebody dispatched by hand.
    Hand {
        /// The child's id.
        child: String,
        /// The note that its meta gave as action id.
        note: Option<String>,
    },
}

/// What runs: all that decides it, taken at one revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The base job.
    pub base_job: String,
    /// The formula's name.
    pub formula: Option<FormulaName>,
    /// What the formula runs; gone once the job has ended and cannot be retried.
    pub body: Option<Body>,
    /// Why it runs.
    pub context: String,
    /// How much it can break, as its action says; `None` where that says nothing.
    #[serde(default)]
    pub blast_radius: Option<BlastRadius>,
    /// How it says that it came onto the branch.
    #[serde(default)]
    pub dispatch_mode: Option<DispatchMode>,
    /// The secrets that it may read.
    pub secrets: Vec<SecretName>,
    /// The bot that it runs as, with the bot's token.
    #[serde(default)]
    pub bot: Option<BotName>,
    /// The formula's arguments, defaults included.
    pub args: BTreeMap<String, String>,
    /// Further environment variables.
    pub env: BTreeMap<String, String>,
    /// The longest that the task may run, counted from its start.
    pub timeout: Option<Span>,
    /// 0 to 100, the highest first.
    pub priority: u8,
    /// The model that it needs loaded.
    pub model: Option<String>,
    /// Tools that it may use.
    pub tools: Vec<String>,
    /// Globs, relative to the task's working directory, of what to keep.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// The group whose limit it counts against.
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    /// What it needs beyond its base job.
    #[serde(default)]
    pub shape: Shape,
    /// Actions that must have succeeded before it is queued.
    #[serde(default)]
    pub after: Vec<ActionId>,
    /// The time before which it is not queued.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// When another attempt follows one that ended; `None` is after none but those that ended at the gate.
    #[serde(default)]
    pub retry: Option<action::Retry>,
    /// Who is told of each change of phase.
    #[serde(default)]
    pub notify: Vec<Receiver>,
    /// Whether the values of its secrets are to stand in the log as they are printed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmasked: bool,
}

/// A URL that is told of each change of phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// The http or https URL.
    pub url: String,
    /// Whether it may be on the agent's machine, because the submitter is.
    #[serde(default)]
    pub loopback: bool,
}

/// The timeout of work that names none, counted from the task's start.
pub const DEFAULT_TIMEOUT: Span = Span::from_secs(60 * 60);

impl Work {
    /// The names of all that it is granted, as approval rules know them: secrets, and `bot-<name>`.
    #[must_use]
    pub fn granted_names(&self) -> Vec<String> {
        let bot = self.bot.iter().map(|bot| format!("bot-{bot}"));
        self.secrets.iter().map(ToString::to_string).chain(bot).collect()
    }

    /// What it waits for once it is approved, in words.
    #[must_use]
    pub fn awaited(&self, now: Timestamp) -> Option<String> {
        let time = self.not_before.filter(|at| *at > now).map(|at| format!("{at} to come"));
        let all = time.into_iter().chain(successes(&self.after));
        Some(all.collect::<Vec<_>>().join(", and then for ")).filter(|what| !what.is_empty())
    }

    /// The longest that the task may run.
    #[must_use]
    pub fn timeout(&self) -> std::time::Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT).0
    }
}

/// The wait for other actions, in words.
#[must_use]
pub fn successes(of: &[ActionId]) -> Option<String> {
    let names: Vec<&str> = of.iter().map(ActionId::as_str).collect();
    (!names.is_empty()).then(|| format!("{} to succeed", names.join(", ")))
}

/// That a job shall end, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// The cause that its result gets.
    pub cause: Cause,
    /// Why, in a sentence.
    pub reason: String,
}

/// One attempt to run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Nomad's idempotency token and the prefix of the child's id.
    pub dispatch_id: DispatchId,
    /// The Nomad job that is dispatched, fixed when the attempt was put on record.
    pub parent: String,
    /// The exact meta that is sent, now and when it is sent again.
    pub meta: BTreeMap<String, String>,
    /// The exact payload that is sent.
    pub payload: Vec<u8>,
    /// The child that Nomad made.
    pub child: Option<String>,
    /// The allocation that the launch gate is opened for.
    pub allocation: Option<String>,
    /// The name of its node.
    pub node: Option<String>,
    /// When Nomad accepted it.
    pub dispatched_at: Option<Timestamp>,
    /// When its task started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The task's own exit code.
    pub exit_code: Option<i64>,
    /// Why it ended.
    pub cause: Option<Cause>,
    /// Why the agent stopped its child, where it did.
    pub stopped: Option<Cancellation>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why it ended.
    pub cause: Cause,
    /// One plain sentence with the evidence.
    pub message: String,
    /// The task's own exit code.
    pub exit_code: Option<i64>,
    /// When the task started, if it did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether the task certainly never started, so that another attempt is safe.
    pub at_gate: bool,
    /// What it printed.
    pub log: Excerpt,
    /// What became of its steps.
    pub steps: Vec<StepResult>,
    /// What was kept of its files.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// The CPU time that the task used, in seconds.
    #[serde(default)]
    pub cpu_seconds: Option<f64>,
    /// The most memory that the task held, in bytes.
    #[serde(default)]
    pub peak_memory: Option<u64>,
}

/// A part of a log, usually its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Valid UTF-8, cut at a line.
    pub text: String,
    /// Whether it is all.
    pub status: LogStatus,
}

impl Excerpt {
    /// The excerpt of a task that never ran, or whose log is gone.
    #[must_use]
    pub const fn lost() -> Self {
        Self { text: String::new(), status: LogStatus::Lost }
    }
}

impl Attempt {
    /// An attempt that is on record and not yet sent.
    #[must_use]
    pub const fn intended(
        dispatch_id: DispatchId,
        parent: String,
        meta: BTreeMap<String, String>,
        payload: Vec<u8>,
    ) -> Self {
        Self {
            dispatch_id,
            parent,
            meta,
            payload,
            child: None,
            allocation: None,
            node: None,
            dispatched_at: None,
            started_at: None,
            finished_at: None,
            exit_code: None,
            cause: None,
            stopped: None,
        }
    }
}

impl Ending {
    /// The ending of something that no task ran for.
    #[must_use]
    pub fn without_task(cause: Cause, message: impl Into<String>, at: Timestamp) -> Self {
        Self {
            cause,
            message: message.into(),
            exit_code: None,
            started_at: None,
            finished_at: at,
            at_gate: false,
            log: Excerpt::lost(),
            steps: Vec::new(),
            artifacts: Vec::new(),
            cpu_seconds: None,
            peak_memory: None,
        }
    }

    /// Adds to the message what else there is to say.
    pub fn remark(&mut self, remark: &str) {
        self.message = format!("{}; {remark}", self.message);
    }

    /// Says that so many bytes of what the task printed are missing in its log.
    pub fn lacks(&mut self, bytes: u64) {
        if self.log.status == LogStatus::Complete {
            self.log.status = LogStatus::Truncated;
        }
        self.remark(&format!("{bytes} bytes of what it printed did not reach its log"));
    }

    fn usage(&self) -> Option<Usage> {
        let Self { peak_memory, cpu_seconds, .. } = *self;
        (peak_memory.is_some() || cpu_seconds.is_some()).then_some(Usage { peak_memory, cpu_seconds })
    }
}

impl Job {
    /// A job that was just seen, queued.
    #[must_use]
    pub fn new(origin: Origin, work: Work, now: Timestamp) -> Self {
        Self {
            job_id: JobId::new(),
            origin,
            work,
            stage: Stage::Queued,
            submitted_at: now,
            queued_at: Some(now),
            waits_for: None,
            approved_by: None,
            approval: None,
            unapproved_digest: None,
            unapproved_since: None,
            cancelled: None,
            attempts: Vec::new(),
            ending: None,
            retry: None,
        }
    }

    /// A job for a child that somebody dispatched by hand: Nomad has it already.
    #[must_use]
    pub fn adopt(child: &str, parent: &str, note: Option<String>, work: Work, now: Timestamp) -> Self {
        let mut job = Self::new(Origin::Hand { child: child.to_owned(), note }, work, now);
        job.attempts.push(Attempt {
            child: Some(child.to_owned()),
            dispatched_at: Some(now),
            ..Attempt::intended(DispatchId::new(), parent.to_owned(), BTreeMap::new(), Vec::new())
        });
        job.stage = Stage::Dispatched;
        job
    }

    /// Where it is, as everybody outside sees it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Waiting => Phase::Waiting,
            Stage::Queued | Stage::Intended => Phase::Queued,
            Stage::Dispatched | Stage::Admitted | Stage::Granted => Phase::Loading,
            Stage::Working => Phase::Working,
            Stage::Concluded | Stage::Withdrawn => {
                let attempt = self.ended_attempt();
                if attempt.is_some_and(|attempt| attempt.started_at.is_some()) {
                    Phase::Working
                } else if attempt.is_some_and(|attempt| attempt.child.is_some()) {
                    Phase::Loading
                } else {
                    Phase::Queued
                }
            }
            Stage::Ended => match self.ending.as_ref().map(|ending| ending.cause.outcome()) {
                Some(Outcome::Succeeded) => Phase::Done,
                _ => Phase::Failed,
            },
        }
    }

    /// The attempt that has just ended. What ended may also be the wait for a further one, which had none of its
    /// own.
    fn ended_attempt(&self) -> Option<&Attempt> {
        let ended_at = self.ending.as_ref().map(|ending| ending.finished_at);
        self.attempts.last().filter(|attempt| attempt.finished_at == ended_at)
    }

    /// The name that people use for it: the action id, or the job id.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::Action { id, .. } => id.to_string(),
            Origin::Submitted { .. } | Origin::Hand { .. } => self.job_id.to_string(),
        }
    }

    /// Its action file moved to `path`.
    pub fn relocate(&mut self, to: &str) {
        if let Origin::Action { path, .. } = &mut self.origin {
            to.clone_into(path);
        }
    }

    /// The digest that it is approved for, or that an approval would be for.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        let approved = self.approval.as_ref().map(|approval| &approval.digest);
        approved.or(self.unapproved_digest.as_ref()).map(String::as_str)
    }

    /// The present attempt.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// Whether another attempt follows the one that just ended.
    ///
    /// One that ended at the gate never started, so it is repeated by itself. After any other the formula may
    /// have run, and only the action decides that it may run again.
    #[must_use]
    pub fn runs_again(&self) -> bool {
        let Some(ending) = &self.ending else { return false };
        let made = self.attempts_since_asked().len();
        let asked = self.work.retry.as_ref();
        let another =
            asked.is_some_and(|retry| made < usize::from(retry.attempts) && retry.on.contains(&ending.cause));
        self.cancelled.is_none()
            && !matches!(self.origin, Origin::Hand { .. })
            && (ending.at_gate && made < super::ATTEMPTS || self.ended_attempt().is_some() && another)
    }

    /// Its formula, and how long its task ran, where it has succeeded.
    #[must_use]
    pub fn successful_run(&self) -> Option<(&FormulaName, std::time::Duration)> {
        let ending = self.ending.as_ref().filter(|ending| ending.cause == Cause::Success)?;
        let took = ending.finished_at.duration_since(ending.started_at?);
        Some((self.work.formula.as_ref()?, std::time::Duration::try_from(took).ok()?))
    }

    /// The result file of a job that has ended.
    #[must_use]
    pub fn result(&self) -> Option<ResultFile> {
        let ending = self.ending.as_ref()?;
        let last = self.attempts.last();
        let revision = match &self.origin {
            Origin::Action { revision, .. } | Origin::Submitted { revision, .. } => {
                Some(revision.to_string())
            }
            Origin::Hand { .. } => None,
        };
        Some(ResultFile {
            id: self.name(),
            job_id: self.job_id.to_string(),
            outcome: ending.cause.outcome(),
            cause: ending.cause,
            message: ending.message.clone(),
            exit_code: ending.exit_code.unwrap_or(ending.cause.exit_code()),
            timestamp: ending.finished_at,
            logs: ending.log.text.clone(),
            log_status: ending.log.status,
            submitted_at: self.submitted_at,
            dispatched_at: last.and_then(|attempt| attempt.dispatched_at),
            started_at: last.and_then(|attempt| attempt.started_at),
            finished_at: ending.finished_at,
            revision,
            approved_by: self.approved_by.clone(),
            approval: self.approval.clone(),
            secrets: self.work.granted_names(),
            attempts: self.attempts.iter().map(result_file::Attempt::from).collect(),
            steps: self.steps(),
            artifacts: ending.artifacts.clone(),
            usage: ending.usage(),
        })
    }
}

impl From<&Attempt> for result_file::Attempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            dispatch_id: attempt.dispatch_id.to_string(),
            nomad_job_id: attempt.child.clone(),
            allocation_id: attempt.allocation.clone(),
            node: attempt.node.clone(),
            exit_code: attempt.exit_code,
            cause: attempt.cause,
            dispatched_at: attempt.dispatched_at,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
        }
    }
}
