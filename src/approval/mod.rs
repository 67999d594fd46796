//! Whether an action may run: a pure decision over the approval rules.
//!
//! A rule is data from the agent's own configuration, never from the ops repo. What a rule asks for
//! and this version cannot check makes an action wait; nothing is approved by accident.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, BlastRadius},
    ids::{BotName, SecretName},
};

/// What must be true of an action before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// It is on the branch.
    Merged,
    /// The commit that gave it its content is signed by an allowed key.
    Signed,
    /// Its pull request was approved by a named role.
    Review,
}

/// One approval rule: which actions it is for, and what it says of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The formula; `*` stands for any text.
    pub formula: Option<String>,
    /// One of the secrets, or `bot-` and the name of the bot that it runs as; `*` stands for any text.
    pub secret: Option<String>,
    /// One of the mounts; `*` stands for any text.
    pub mount: Option<String>,
    /// The tier that the action has, instead of its own.
    pub blast_radius: Option<BlastRadius>,
    /// What it needs, instead of what its tier needs.
    pub require: Option<Requirement>,
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
    /// The rules, in order; the last that matches and says something decides.
    pub rules: Vec<Rule>,
}

/// The decision about one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Approved {
        /// The rule that says so, in words.
        by: String,
    },
    /// It may not run yet.
    Waiting {
        /// What it waits for, in words.
        reason: String,
    },
}

/// Decides about an action that is on the branch, and that runs as `bot`, where it does.
#[must_use]
pub fn decide(action: &Action, bot: Option<&BotName>, rules: &Rules) -> Decision {
    let (tier, requirement) = rules.classify(action, bot);
    let tier = tier.as_str();
    match requirement {
        Requirement::Merged => Decision::Approved { by: format!("merged ({tier} blast radius)") },
        Requirement::Signed => Decision::Waiting {
            reason: format!(
                "a {tier} blast radius needs a signed commit, which this version of consign cannot check yet"
            ),
        },
        Requirement::Review => Decision::Waiting {
            reason: format!(
                "a {tier} blast radius needs a reviewed pull request, which this version of consign cannot check yet"
            ),
        },
    }
}

/// Decides about work that was submitted by `by`, and not committed, whose formula is on the branch.
///
/// `merged` is that formula and the right to submit. No commit can be signed and no pull request reviewed,
/// so whatever is stricter takes somebody else's word.
#[must_use]
pub fn decide_submitted(action: &Action, bot: Option<&BotName>, by: &str, rules: &Rules) -> Decision {
    let (tier, requirement) = rules.classify(action, bot);
    let tier = tier.as_str();
    if requirement.max(rules.submitted) == Requirement::Merged {
        return Decision::Approved { by: format!("submitted by {by}, formula merged ({tier} blast radius)") };
    }
    Decision::Waiting {
        reason: format!(
            "the approval of somebody other than {by}, as a {tier} blast radius without a commit needs; this \
             version of consign cannot take it yet: commit the action, or cancel this one"
        ),
    }
}

impl Rules {
    /// The tier that an action is in, and what it needs.
    ///
    /// A missing blast radius is high; an action that names a secret or runs as a bot is at least medium.
    /// Only a rule lowers either.
    #[must_use]
    pub fn classify(&self, action: &Action, bot: Option<&BotName>) -> (BlastRadius, Requirement) {
        let own = action.blast_radius.unwrap_or(BlastRadius::High);
        let grants_nothing = action.secrets.is_empty() && bot.is_none();
        let floor = if grants_nothing { BlastRadius::Low } else { BlastRadius::Medium };
        let matching = || self.rules.iter().filter(|rule| rule.matches(action, bot));
        let tier =
            matching().filter_map(|rule| rule.blast_radius).next_back().unwrap_or_else(|| own.max(floor));
        let of_tier = match tier {
            BlastRadius::Low => self.low,
            BlastRadius::Medium => self.medium,
            BlastRadius::High => self.high,
        };
        (tier, matching().filter_map(|rule| rule.require).next_back().unwrap_or(of_tier))
    }
}

impl Rule {
    /// Whether every pattern that the rule gives fits the action.
    #[must_use]
    pub fn matches(&self, action: &Action, bot: Option<&BotName>) -> bool {
        let bot = bot.map(|name| format!("bot-{name}"));
        let formula = self.formula.as_deref().is_none_or(|pattern| fits(pattern, action.formula.as_str()));
        let secret = self.secret.as_deref().is_none_or(|pattern| {
            let mut names = action.secrets.iter().map(SecretName::as_str).chain(bot.as_deref());
            names.any(|name| fits(pattern, name))
        });
        let mount = self
            .mount
            .as_deref()
            .is_none_or(|pattern| action.mounts.iter().any(|alias| fits(pattern, alias)));
        formula && secret && mount
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
mod tests {
    use super::*;
    use crate::ids::{ActionId, FormulaName};

    fn rules(extra: Vec<Rule>) -> Rules {
        Rules {
            low: Requirement::Merged,
            medium: Requirement::Signed,
            high: Requirement::Review,
            submitted: Requirement::Merged,
            rules: extra,
        }
    }

    fn action(blast_radius: Option<BlastRadius>, secrets: &[&str]) -> Action {
        Action {
            id: ActionId::parse("a").unwrap(),
            formula: FormulaName::parse("deploy-web").unwrap(),
            context: "why".to_owned(),
            secrets: secrets.iter().map(|name| SecretName::parse(name).unwrap()).collect(),
            args: std::collections::BTreeMap::default(),
            job: None,
            mounts: vec!["ssh".to_owned()],
            driver: None,
            model: None,
            tools: vec![],
            timeout: None,
            dispatch_mode: None,
            blast_radius,
            resources: None,
            constraints: vec![],
            priority: 50,
            retry: None,
            concurrency: None,
            after: vec![],
            not_before: None,
            env: std::collections::BTreeMap::default(),
            artifacts: vec![],
            notify: vec![],
            mask: true,
        }
    }

    #[test]
    fn missing_is_high_and_a_secret_is_at_least_medium() {
        let plain = rules(vec![]);
        assert_eq!(plain.classify(&action(None, &[]), None).0, BlastRadius::High);
        assert_eq!(plain.classify(&action(Some(BlastRadius::Low), &[]), None).0, BlastRadius::Low);
        assert_eq!(plain.classify(&action(Some(BlastRadius::Low), &["A"]), None).0, BlastRadius::Medium);
        assert_eq!(plain.classify(&action(Some(BlastRadius::High), &["A"]), None).0, BlastRadius::High);
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let by =
            |rule: Rule| rules(vec![rule]).classify(&action(Some(BlastRadius::Low), &["PROD_KEY"]), None);
        let raised = Rule {
            secret: Some("PROD_*".to_owned()),
            blast_radius: Some(BlastRadius::High),
            ..Rule::default()
        };
        assert_eq!(by(raised), (BlastRadius::High, Requirement::Review));
        let lowered = Rule {
            formula: Some("deploy-*".to_owned()),
            blast_radius: Some(BlastRadius::Low),
            ..Rule::default()
        };
        assert_eq!(by(lowered), (BlastRadius::Low, Requirement::Merged));
        let elsewhere =
            Rule { mount: Some("gpg".to_owned()), require: Some(Requirement::Merged), ..Rule::default() };
        assert_eq!(by(elsewhere), (BlastRadius::Medium, Requirement::Signed));
    }

    #[test]
    fn a_bots_token_is_a_secret() {
        let bot = BotName::parse("night-shift").unwrap();
        let low = action(Some(BlastRadius::Low), &[]);
        assert_eq!(rules(vec![]).classify(&low, Some(&bot)).0, BlastRadius::Medium);
        let raised = rules(vec![Rule {
            secret: Some("bot-night-*".to_owned()),
            require: Some(Requirement::Review),
            ..Rule::default()
        }]);
        assert_eq!(raised.classify(&low, Some(&bot)).1, Requirement::Review);
        assert_eq!(raised.classify(&low, None).1, Requirement::Merged);
    }

    #[test]
    fn what_cannot_be_checked_waits_and_says_so() {
        let decision = decide(&action(None, &[]), None, &rules(vec![]));
        let Decision::Waiting { reason } = decision else { panic!("approved by accident") };
        assert!(reason.contains("cannot check yet"), "{reason}");
        assert!(matches!(
            decide(&action(Some(BlastRadius::Low), &[]), None, &rules(vec![])),
            Decision::Approved { .. }
        ));
    }

    #[test]
    fn what_is_submitted_needs_its_tiers_approval_and_that_of_all_submissions() {
        let approved = |blast_radius, submitted| {
            let rules = Rules { submitted, ..rules(vec![]) };
            decide_submitted(&action(Some(blast_radius), &[]), None, "ann", &rules)
        };
        let merged = approved(BlastRadius::Low, Requirement::Merged);
        assert!(matches!(&merged, Decision::Approved { by } if by.contains("ann")), "{merged:?}");
        for (blast_radius, submitted) in [
            (BlastRadius::Medium, Requirement::Merged),
            (BlastRadius::High, Requirement::Merged),
            (BlastRadius::Low, Requirement::Signed),
            (BlastRadius::Low, Requirement::Review),
        ] {
            let decision = approved(blast_radius, submitted);
            assert!(matches!(decision, Decision::Waiting { .. }), "{blast_radius:?} {submitted:?}");
        }
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("*b*", "abc", true),
            ("a*a", "a", false),
            ("plain", "plain", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
