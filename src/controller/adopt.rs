//! What becomes of a child that somebody dispatched by hand: pure.

use crate::{
    dispatch::base_job::BOT_KEY,
    ids::{BotName, SecretName},
    lifecycle::Work,
    nomad::Child,
};

/// What the configuration says about such children.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whether any is taken over.
    pub enabled: bool,
    /// The secrets that they may ask for.
    pub secrets: Vec<SecretName>,
    /// The bots that they may run as.
    pub bots: Vec<BotName>,
}

/// The decision about one child.
#[derive(Debug, Clone, PartialEq)]
pub struct Adoption {
    /// What runs, as far as the child's meta tells.
    pub work: Work,
    /// The note that the meta gives as action id.
    pub note: Option<String>,
    /// Why it is stopped instead, and what to do.
    pub refused: Option<String>,
}

/// The longest note that is kept, in characters.
const NOTE_LIMIT: usize = 4096;

/// Decides about a child of the base job `base_job` that has neither a ULID nor a token of consign's.
/// `impossible` says what the base job needs and nobody could give, where that is so.
#[must_use]
pub fn decide(child: &Child, base_job: &str, impossible: Option<String>, rules: &Rules) -> Adoption {
    let note = |key: &str| {
        let text = child.meta.get(key).map(String::as_str).unwrap_or_default();
        (!text.is_empty()).then(|| text.chars().take(NOTE_LIMIT).collect::<String>())
    };
    let asked = child.meta.get("secrets").map(String::as_str).unwrap_or_default();
    let names: Result<Vec<SecretName>, _> =
        asked.split(',').map(str::trim).filter(|name| !name.is_empty()).map(SecretName::parse).collect();
    let (mut secrets, illegal) = match names {
        Ok(names) => (names, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    secrets.sort();
    secrets.dedup();
    let wanted_bot = child.meta.get(BOT_KEY).map(String::as_str).filter(|name| !name.is_empty());
    let bot = wanted_bot.and_then(|name| rules.bots.iter().find(|bot| bot.as_str() == name).cloned());
    let forbidden: Vec<&str> =
        secrets.iter().filter(|name| !rules.secrets.contains(name)).map(SecretName::as_str).collect();
    let refused = if !rules.enabled {
        Some("hand dispatches are not taken over here ([adopt] enabled = false): commit an action to the ops repo".to_owned())
    } else if child.parent_id != base_job {
        // What a variant mounts was approved for the action that it was made for.
        Some(format!(
            "{} was made for actions with mounts or resources of their own: commit an action, or dispatch {base_job} itself",
            child.parent_id
        ))
    } else if let Some(illegal) = illegal {
        Some(format!("{illegal}: separate names by commas"))
    } else if child.payload.is_empty() {
        Some(format!("it has no script: give one, as in `nomad job dispatch {base_job} script.sh`"))
    } else if let (Some(name), None) = (wanted_bot, &bot) {
        Some(format!(
            "a hand dispatch may not run as the bot {name:?}: leave the meta `bot` out, commit an action, or have an operator list the bot in [adopt] bots"
        ))
    } else if forbidden.is_empty() {
        impossible
    } else {
        Some(format!(
            "a hand dispatch may not ask for {}: commit an action that names it, or have an operator list it in [adopt] secrets",
            forbidden.join(", ")
        ))
    };
    let work = Work {
        base_job: base_job.to_owned(),
        context: note("context").unwrap_or_default(),
        secrets: if refused.is_some() { Vec::new() } else { secrets },
        bot: bot.filter(|_| refused.is_none()),
        ..Work::default()
    };
    Adoption { work, note: note("action_id"), refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(secrets: &str, payload: &str) -> Child {
        Child {
            payload: payload.to_owned(),
            parent_id: "runner".to_owned(),
            meta: [("secrets".to_owned(), secrets.to_owned())].into(),
            ..Child::default()
        }
    }

    fn rules(secrets: &[&str]) -> Rules {
        Rules {
            enabled: true,
            secrets: secrets.iter().map(|name| SecretName::parse(name).unwrap()).collect(),
            bots: vec![BotName::parse("triage").unwrap()],
        }
    }

    fn decided(child: &Child, rules: &Rules) -> Adoption {
        decide(child, "runner", None, rules)
    }

    #[test]
    fn a_script_without_secrets_needs_nobody_else() {
        assert_eq!(decided(&child("", "x"), &rules(&[])).refused, None);
    }

    #[test]
    fn what_asks_for_too_much_is_told_what_to_do() {
        for (child, rules, expected) in [
            (child("", ""), rules(&[]), "nomad job dispatch runner script.sh"),
            (child("A,B", "x"), rules(&["A"]), "may not ask for B"),
            (child("a b", "x"), rules(&[]), "separate names by commas"),
            (child("", "x"), Rules::default(), "enabled = false"),
        ] {
            let adoption = decided(&child, &rules);
            let refused = adoption.refused.unwrap();
            assert!(refused.contains(expected), "{refused}");
            assert!(adoption.work.secrets.is_empty());
        }
    }

    #[test]
    fn a_variant_is_nobody_elses() {
        let child = Child { parent_id: "runner-0123456789ab".to_owned(), ..child("", "x") };
        let refused = decided(&child, &rules(&[])).refused.unwrap();
        assert!(refused.contains("dispatch runner itself"), "{refused}");
    }

    #[test]
    fn allowed_secrets_are_granted() {
        let adoption = decided(&child(" A, B,A", "x"), &rules(&["A", "B"]));
        assert_eq!((adoption.refused, adoption.work.secrets.len()), (None, 2));
    }

    #[test]
    fn a_bot_must_be_listed() {
        let run_as = |bot: &str| {
            let mut child = child("", "x");
            child.meta.insert(BOT_KEY.to_owned(), bot.to_owned());
            let Adoption { refused, work, .. } = decided(&child, &rules(&[]));
            (refused.is_some_and(|why| why.contains("[adopt] bots")), work.bot.map(|bot| bot.to_string()))
        };
        assert_eq!(run_as(""), (false, None));
        assert_eq!(run_as("triage"), (false, Some("triage".to_owned())));
        for other in ["verify", " triage", "${node.unique.id}", "../x"] {
            assert_eq!(run_as(other), (true, None), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_placed_is_not_adopted() {
        let why = Some("raw_exec cannot mount".to_owned());
        assert_eq!(decide(&child("", "x"), "runner", why.clone(), &rules(&[])).refused, why);
    }
}
