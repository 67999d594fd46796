//! What a look at the ops repo means: which action files are new, changed or gone.
//!
//! Only what differs between two revisions is read. Action and formula are taken at the same revision,
//! so that a later change of the formula does not touch what already waits.

mod formulas;
pub mod look;
pub mod submission;

use std::collections::BTreeMap;

pub use self::formulas::{Listed, Shelf, list};
use crate::{
    action::{Action, after},
    diagnostic::{Diagnostic, summary},
    dispatch::{
        base_job::Declared,
        shape::{self, Allowed, Decided, Refused},
    },
    formula::Formula,
    ids::{ActionId, Revision},
    lifecycle::{Receiver, Work},
    outcome::Cause,
    store::PastAction,
    table,
    validation::{Checked, Valid},
    webhook,
};

/// What actions may ask for.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What of their nodes.
    pub allowed: Allowed,
    /// Where webhooks may go.
    pub receivers: webhook::Policy,
}

/// Everything that one look found.
#[derive(Debug)]
pub struct Findings {
    /// The revision that was looked at.
    pub revision: Revision,
    /// Whether the history was rewritten since the last look: then nothing counts as deleted.
    pub rewritten: bool,
    /// The action files that differ, in the order of their paths.
    pub files: Vec<Finding>,
    /// Actions that had a result before this store knew them.
    pub past: Vec<PastAction>,
}

/// One action file that differs.
#[derive(Debug)]
pub enum Finding {
    /// It is new or has other content.
    Written {
        /// The file.
        path: String,
        /// Its git blob.
        blob: String,
        /// What is in it.
        verdict: Verdict,
    },
    /// It is gone.
    Deleted {
        /// The file.
        path: String,
    },
}

/// What an action file amounts to.
#[derive(Debug)]
pub enum Verdict {
    /// Work that can be launched.
    Sound {
        /// The action.
        action: Box<Action>,
        /// What runs.
        work: Box<Work>,
    },
    /// Something that cannot.
    Unsound {
        /// The id that its result goes by; `None` where its stem is no legal id.
        id: Option<ActionId>,
        /// Why.
        cause: Cause,
        /// Why, in a sentence.
        message: String,
    },
}

impl Verdict {
    /// Makes of the checked file at `path` what is launched, or why it is not. `refused` are the webhook URLs
    /// that must not be told.
    #[must_use]
    pub fn new(
        path: &str,
        content: &[u8],
        checked: Checked,
        allowed: &Allowed,
        refused: &BTreeMap<String, webhook::Refused>,
    ) -> Self {
        match checked {
            Checked::Invalid(invalid) => {
                Self::Unsound { id: invalid.action_id, cause: invalid.cause, message: invalid.message }
            }
            Checked::Valid(valid) => {
                if let Some(refused) = refused_receiver(&valid.action, refused) {
                    return Self::Unsound {
                        id: Some(valid.action.id),
                        cause: refused.cause,
                        message: located(path, content, &refused),
                    };
                }
                match shape::decide(&valid.action, &valid.formula, allowed) {
                    Ok(decided) => {
                        let work = work(&valid, decided);
                        Self::Sound { action: Box::new(valid.action), work: Box::new(work) }
                    }
                    Err(refused) => Self::Unsound {
                        id: Some(valid.action.id),
                        cause: refused.cause,
                        message: located(path, content, &refused),
                    },
                }
            }
        }
    }

    /// With the bot that the work runs as, where its base job has bots; `declared` tells what a base job
    /// declares.
    #[must_use]
    pub fn with_bot(self, declared: impl FnOnce(&str) -> Declared) -> Self {
        let Self::Sound { action, mut work } = self else { return self };
        match declared(&work.base_job).bot(&action.formula, &work.args) {
            Ok(bot) => {
                work.bot = bot;
                Self::Sound { action, work }
            }
            Err(error) => {
                Self::Unsound { id: Some(action.id), cause: Cause::Invalid, message: error.to_string() }
            }
        }
    }

    /// Without those that wait for each other in one of these circles.
    fn without_circle(self, path: &str, content: &[u8], circles: &BTreeMap<String, Vec<&ActionId>>) -> Self {
        let id = match &self {
            Self::Sound { action, .. } => action.id.clone(),
            Self::Unsound { .. } => return self,
        };
        let Some(circle) = circles.get(&id.key()) else { return self };
        let message = after::message(id.as_str(), circle);
        let refused = Refused { cause: Cause::Invalid, key: "after", message };
        Self::Unsound { id: Some(id), cause: refused.cause, message: located(path, content, &refused) }
    }

    /// The id that the file's result goes by.
    #[must_use]
    pub fn id(&self) -> Option<&ActionId> {
        match self {
            Self::Sound { action, .. } => Some(&action.id),
            Self::Unsound { id, .. } => id.as_ref(),
        }
    }
}

/// Why an action is refused, with its place in the file: that of the key, or of the formula that asks for it.
fn located(path: &str, content: &[u8], refused: &Refused) -> String {
    let text = String::from_utf8_lossy(content);
    let places = [refused.key, "formula"].map(|key| table::place_of(&text, key));
    let place = places.into_iter().find(|place| !place.is_empty()).unwrap_or_default();
    summary(path, &text, &[Diagnostic::new(refused.message.as_str(), place)])
}

/// Why an action cannot be told of over one of its URLs.
fn refused_receiver(action: &Action, refused: &BTreeMap<String, webhook::Refused>) -> Option<Refused> {
    let (url, reason) = action.notify.iter().find_map(|url| Some((url, refused.get(url)?)))?;
    let message = format!("`notify` cannot have {}: {reason}", webhook::origin(url));
    Some(Refused { cause: Cause::Invalid, key: "notify", message })
}

/// The formula's globs and the action's, each once.
fn artifacts(action: &Action, formula: &Formula) -> Vec<String> {
    let mut globs = formula.artifacts.clone();
    globs.extend(action.artifacts.iter().filter(|glob| !formula.artifacts.contains(glob)).cloned());
    globs
}

/// The base job of an action and its formula.
#[must_use]
pub fn base_job(action: &Action, formula: &Formula) -> String {
    let named = action.job.as_ref().or(formula.job.as_ref());
    named.cloned().unwrap_or_else(|| "runner".to_owned())
}

/// What a valid action asks for, but for the bot that it runs as: only its base job tells.
#[must_use]
pub fn work(valid: &Valid, decided: Decided) -> Work {
    let Valid { action, formula, args, .. } = valid;
    let mut env = decided.env;
    env.extend(action.env.clone());
    Work {
        base_job: base_job(action, formula),
        formula: Some(formula.name.clone()),
        body: Some(formula.body.clone()),
        context: action.context.clone(),
        blast_radius: action.blast_radius,
        dispatch_mode: action.dispatch_mode,
        secrets: action.secrets.clone(),
        bot: None,
        args: args.clone(),
        env,
        timeout: action.timeout.or(formula.timeout),
        priority: action.priority,
        model: action.model.clone(),
        tools: action.tools.clone(),
        artifacts: artifacts(action, formula),
        concurrency: action.concurrency.clone(),
        shape: decided.shape,
        after: action.after.clone(),
        not_before: action.not_before,
        retry: action.retry.clone(),
        notify: action.notify.iter().map(|url| Receiver { url: url.clone(), loopback: false }).collect(),
        unmasked: !action.mask,
    }
}
