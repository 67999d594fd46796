//! Whether a job may run: pure decisions over the approval rules.
//!
//! A rule is data from the agent's own configuration, never from the ops repo. [`Rules::classify`] tells what a
//! piece of work needs, [`Rules::decide`] decides what needs no evidence. What needs some waits until it was
//! gathered and judged; nothing is approved by accident. An approval is for one [`digest`] alone.

mod digest;
mod person;
pub mod review;
pub mod signed;

use std::{num::NonZeroU8, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    digest::digest,
    person::{Refused, may_decide, reject},
};
use crate::{
    action::{BlastRadius, DispatchMode},
    ids::FormulaName,
    lifecycle::{Job, Origin, Work},
    outcome::result_file::{Approval, Evidence},
};

/// What must be true of work before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// It is on the branch.
    Merged,
    /// The commits that gave its files their content are signed by allowed keys.
    Signed,
    /// Its pull request was approved by a named role.
    Review,
}

/// One approval rule: which work it is for, and what it says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The formula; `*` stands for any text.
    pub formula: Option<String>,
    /// One of the secrets, or `bot-` and the name of the bot that it runs as; `*` stands for any text.
    pub secret: Option<String>,
    /// One of the mounts; `*` stands for any text.
    pub mount: Option<String>,
    /// The tier that the work has, instead of its own.
    pub blast_radius: Option<BlastRadius>,
    /// What it needs, instead of what its tier needs.
    pub require: Option<Requirement>,
    /// Who may sign, where a signature is needed: principals of the allowed signers, user ids or fingerprints of
    /// OpenPGP keys; `*` stands for any text. Without it, everybody among the allowed signers.
    pub signers: Option<Vec<String>>,
    /// Which forge reviews it, where a review is needed; without it, the only one that is configured.
    pub forge: Option<String>,
    /// How many people have to approve its pull request; without it, one.
    pub approvals: Option<NonZeroU8>,
    /// Of which team they have to be, as `organization/team` or a team of the repository's owner; without it, whoever
    /// may write to the repository.
    pub team: Option<String>,
    /// Whether the merge by an admin of the repository counts as an approval.
    pub admin_merge: Option<bool>,
    /// Whether an action may say `dispatch_mode = "direct"`: then being on the branch is enough where a review would
    /// be needed. Without it, where no review is needed.
    pub direct: Option<bool>,
}

/// All that decides: what each tier needs, and the rules over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What a low blast radius needs.
    pub low: Requirement,
    /// What a medium one needs.
    pub medium: Requirement,
    /// What a high one needs.
    pub high: Requirement,
    /// What work without a commit needs at least, whatever its tier.
    pub submitted: Requirement,
    /// The rules, in order; for each key the last one that matches and gives it decides.
    pub rules: Vec<Rule>,
}

/// What a piece of work needs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How much it can break.
    pub tier: BlastRadius,
    /// What must be true of it.
    pub requirement: Requirement,
    /// Who may sign; `None` is everybody among the allowed signers.
    pub signers: Option<Vec<String>>,
    /// What is asked of its pull request, where a review is needed.
    pub review: review::Need,
    /// Whether it says `dispatch_mode = "direct"` and may not.
    pub is_direct: bool,
    /// All of it in words. Whatever changes what is needed, or by which rule, changes the words.
    pub rule: String,
}

/// A decision about one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Approved(Approval),
    /// It may not run yet.
    Waiting {
        /// What it waits for, and what to do, in words.
        reason: String,
        /// How soon to look again, where nothing tells that its evidence changed.
        again: Option<Duration>,
    },
}

impl Rules {
    /// The tier that a piece of work is in, and what it needs.
    ///
    /// A missing blast radius is high; work that names a secret or runs as a bot is at least medium. Only a rule
    /// lowers either.
    #[must_use]
    pub fn classify(&self, work: &Work) -> Need {
        let own = work.blast_radius.unwrap_or(BlastRadius::High);
        let grants_nothing = work.secrets.is_empty() && work.bot.is_none();
        let floor = if grants_nothing { BlastRadius::Low } else { BlastRadius::Medium };
        let matching: Vec<&Rule> = self.rules.iter().filter(|rule| rule.matches(work)).collect();
        let by_tier = matching.iter().rfind(|rule| rule.blast_radius.is_some());
        let tier = by_tier.and_then(|rule| rule.blast_radius).unwrap_or_else(|| own.max(floor));
        let of_tier = match tier {
            BlastRadius::Low => self.low,
            BlastRadius::Medium => self.medium,
            BlastRadius::High => self.high,
        };
        let by_requirement = matching.iter().rfind(|rule| rule.require.is_some());
        let mut requirement = by_requirement.and_then(|rule| rule.require).unwrap_or(of_tier);
        let by_direct = matching.iter().rfind(|rule| rule.direct.is_some());
        let may_be_direct =
            by_direct.and_then(|rule| rule.direct).unwrap_or(requirement != Requirement::Review);
        let is_direct = work.dispatch_mode == Some(DispatchMode::Direct);
        let review = review::Need {
            forge: matching.iter().rev().find_map(|rule| rule.forge.clone()),
            approvals: matching
                .iter()
                .rev()
                .find_map(|rule| rule.approvals)
                .map_or(1, |count| count.get().into()),
            team: matching.iter().rev().find_map(|rule| rule.team.clone()),
            admin_merge: matching.iter().rev().find_map(|rule| rule.admin_merge).unwrap_or_default(),
        };
        let by_direct =
            by_direct.filter(|_| is_direct && may_be_direct && requirement == Requirement::Review);
        if by_direct.is_some() {
            requirement = Requirement::Merged;
        }
        let signers = matching.iter().rev().find_map(|rule| rule.signers.clone());
        let mut rule = requirement.as_str().to_owned();
        if let (Requirement::Signed, Some(signers)) = (requirement, &signers) {
            rule = format!("{rule} by {}", signers.join(" or "));
        }
        if requirement == Requirement::Review {
            rule = format!("{rule}{review}");
        }
        rule = format!("{rule} ({} blast radius", tier.as_str());
        for (what, by) in [("", by_tier), (requirement.as_str(), by_requirement), ("direct", by_direct)] {
            if let Some(by) = by {
                let space = if what.is_empty() { "" } else { " " };
                rule = format!("{rule}, {what}{space}by the rule for {}", by.subject());
            }
        }
        let is_direct = is_direct && !may_be_direct;
        rule.push_str(if is_direct { ", not direct)" } else { ")" });
        Need { tier, requirement, signers, review, is_direct, rule }
    }

    /// Decides about a job as far as that takes no evidence; `digest` is what an approval is for.
    ///
    /// For work that was submitted `merged` is its formula and the right to submit. No commit of it can be signed
    /// and no pull request reviewed, so whatever is stricter takes somebody else's word.
    #[must_use]
    pub fn decide(&self, job: &Job, digest: String) -> Decision {
        let need = self.classify(&job.work);
        let (least, revision) = match &job.origin {
            Origin::Action { revision, .. } => (Requirement::Merged, revision),
            Origin::Submitted { revision, .. } => (self.submitted, revision),
            // Nomad let somebody dispatch it.
            Origin::Hand { .. } => return Decision::waiting("it was dispatched by hand"),
        };
        if !need.is_direct && need.requirement.max(least) == Requirement::Merged {
            let evidence = vec![Evidence::Merged { revision: revision.to_string() }];
            return Decision::Approved(Approval { rule: self.words(job), by: Vec::new(), digest, evidence });
        }
        let awaited = match &job.origin {
            Origin::Submitted { .. } => {
                let (rule, id) = (self.words(job), job.job_id);
                format!(
                    "the approval of {rule}: `consign approve {id}` or `consign reject {id}`, with a token of scope \
                     approve"
                )
            }
            Origin::Action { .. } | Origin::Hand { .. } => format!("its approval: {}", need.rule),
        };
        Decision::waiting(awaited + need.objection())
    }

    /// The rule that a job's approval names, in words: what it needs by the present rules.
    #[must_use]
    pub fn words(&self, job: &Job) -> String {
        let Need { requirement, rule, is_direct, .. } = self.classify(&job.work);
        let Origin::Submitted { by, .. } = &job.origin else { return rule };
        if !is_direct && requirement.max(self.submitted) == Requirement::Merged {
            return format!("submitted by {by}, formula {rule}");
        }
        let stricter = self.submitted > requirement;
        let asked = if stricter { format!("{} by [approval] api", self.submitted.as_str()) } else { rule };
        format!("somebody other than {by}, who submitted it, instead of {asked}")
    }

    /// Why a job's approval no longer holds, whatever its evidence; `digest` is that of what would run now.
    #[must_use]
    pub fn withdraws(&self, job: &Job, digest: &str) -> Option<String> {
        // Without a formula nothing is launched.
        job.work.body.as_ref()?;
        let Some(approval) = &job.approval else {
            return Some("its approval: the one on record is of an earlier version of consign".to_owned());
        };
        let words = self.words(job);
        if approval.digest != digest {
            return Some(format!(
                "its approval anew, {words}: what would run is not what was approved, because its base job or the \
                 configuration changed"
            ));
        }
        (approval.rule != words).then(|| {
            format!("its approval anew: the rules changed, it was {} and has to be {words}", approval.rule)
        })
    }
}

impl Need {
    /// What is wrong with its `dispatch_mode` and what to do, to stand behind what it needs; empty where nothing is.
    #[must_use]
    pub const fn objection(&self) -> &'static str {
        if self.is_direct {
            "; it says dispatch_mode = \"direct\", which no rule allows here: leave that out, or set `direct` in a rule"
        } else {
            ""
        }
    }
}

impl Decision {
    /// The decision to wait for something that is heard of.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self::Waiting { reason: reason.into(), again: None }
    }
}

impl Requirement {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Signed => "signed",
            Self::Review => "review",
        }
    }
}

impl Rule {
    /// Whether every pattern that the rule gives fits the work.
    fn matches(&self, work: &Work) -> bool {
        let any = |pattern: &Option<String>, names: &[&str]| {
            pattern.as_deref().is_none_or(|pattern| names.iter().any(|name| fits(pattern, name)))
        };
        let formula: Vec<&str> = work.formula.iter().map(FormulaName::as_str).collect();
        let granted = work.granted_names();
        let granted: Vec<&str> = granted.iter().map(String::as_str).collect();
        let mounts: Vec<&str> = work.shape.mounts.iter().map(|mount| mount.alias.as_str()).collect();
        any(&self.formula, &formula) && any(&self.secret, &granted) && any(&self.mount, &mounts)
    }

    /// What it is for, in words.
    fn subject(&self) -> String {
        let keys = [("formula", &self.formula), ("secret", &self.secret), ("mount", &self.mount)];
        let given = keys.iter().filter_map(|(key, pattern)| Some(format!("{key} {}", pattern.as_ref()?)));
        let words = given.collect::<Vec<_>>().join(" and ");
        if words.is_empty() { "everything".to_owned() } else { words }
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests;
