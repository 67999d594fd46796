//! The shipped Vault policies: filled in, checked, and compared by what they allow.

use std::collections::{BTreeMap, BTreeSet};

use hcl::Body;

/// The agent's Vault policy; placeholders `kv`, `prefix`, `bots`, `gate`, `accessor`.
pub const AGENT: &str = include_str!("../../policies/agent.hcl");
/// The Vault policy of one secret or bot; placeholders `kv`, `prefix`, `name`.
pub const SECRET: &str = include_str!("../../policies/secret.hcl");
/// The launch gate's Vault policy; placeholder `kv`.
pub const GATE: &str = include_str!("../../policies/gate.hcl");
/// The Vault policy of every task's token; no placeholders.
pub const TASK: &str = include_str!("../../policies/task.hcl");

/// A text that is not a Vault policy, or a template that cannot be filled in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not HCL.
    #[error("the Vault policy is not HCL")]
    Syntax(#[source] hcl::Error),
    /// The HCL is not made of `path` blocks.
    #[error("the Vault policy has something other than `path \"…\" {{ … }}` blocks: {0}")]
    Shape(String),
    /// A value could change what the Vault policy says.
    #[error("{value:?} cannot stand in a Vault policy as the {name}: {RULE}")]
    Value {
        /// The placeholder.
        name: &'static str,
        /// The value given for it.
        value: String,
    },
}

/// What a value in a Vault policy may be made of.
pub const RULE: &str = "it must be letters, digits, `.`, `_`, `-`, with `/` only in between";

/// What a Vault policy says of each path: its attributes, lists in order.
pub type Rules = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Whether `value` means the same to Vault as to a reader: no wildcard, no quote, no empty segment.
#[must_use]
pub fn is_plain(value: &str) -> bool {
    value.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-'))
    })
}

/// Fills in the placeholders of a template and checks that the outcome is a Vault policy.
pub fn render(template: &str, values: &[(&'static str, &str)]) -> Result<String, Error> {
    let mut text: String =
        template.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |text, line| {
            if text.is_empty() && line.is_empty() { text } else { text + line + "\n" }
        });
    for (name, value) in values {
        if !is_plain(value) {
            return Err(Error::Value { name, value: (*value).to_owned() });
        }
        text = text.replace(&format!("<{name}>"), value);
    }
    if let Some(place) = text.find('<') {
        let left: String = text[place..].chars().take(20).collect();
        return Err(Error::Shape(left));
    }
    rules(&text)?;
    Ok(text)
}

/// Reads what a Vault policy says.
pub fn rules(text: &str) -> Result<Rules, Error> {
    let body: Body = hcl::parse(text).map_err(Error::Syntax)?;
    if let Some(attribute) = body.attributes().next() {
        return Err(Error::Shape(attribute.key().to_owned()));
    }
    let mut rules = Rules::new();
    for block in body.blocks() {
        let path = match (block.identifier(), block.labels()) {
            ("path", [path]) => path.as_str().to_owned(),
            (other, _) => return Err(Error::Shape(other.to_owned())),
        };
        let mut attributes = BTreeMap::new();
        for attribute in block.body().attributes() {
            attributes.insert(attribute.key().to_owned(), words(attribute.expr()));
        }
        if block.body().blocks().next().is_some() || rules.insert(path.clone(), attributes).is_some() {
            return Err(Error::Shape(path));
        }
    }
    Ok(rules)
}

/// Whether two texts allow the same; a text that cannot be read allows something else.
#[must_use]
pub fn same(left: &str, right: &str) -> bool {
    match (rules(left), rules(right)) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

/// The words of a list; of an object each key with its own list.
fn words(expression: &hcl::Expression) -> BTreeSet<String> {
    match expression {
        hcl::Expression::Array(items) => items.iter().map(word).collect(),
        hcl::Expression::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let key = match key {
                    hcl::ObjectKey::Identifier(name) => name.as_str().to_owned(),
                    other => other.to_string().trim_matches('"').to_owned(),
                };
                format!("{key}={}", words(value).into_iter().collect::<Vec<_>>().join(","))
            })
            .collect(),
        other => BTreeSet::from([word(other)]),
    }
}

fn word(expression: &hcl::Expression) -> String {
    match expression {
        hcl::Expression::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [(&str, &str); 6] = [
        ("kv", "secret"),
        ("prefix", "runner"),
        ("bots", "bots"),
        ("gate", "consign-go"),
        ("accessor", "auth_jwt_1"),
        ("name", "A"),
    ];

    /// One line per path: the path, its capabilities, its allowed parameters.
    fn lines(template: &str) -> Vec<String> {
        let text = render(template, &VALUES).unwrap();
        rules(&text)
            .unwrap()
            .into_iter()
            .map(|(path, attributes)| {
                let attributes: Vec<String> = attributes
                    .into_iter()
                    .map(|(key, words)| format!("{key}: {}", words.into_iter().collect::<Vec<_>>().join(" ")))
                    .collect();
                format!("{path} | {}", attributes.join(" | "))
            })
            .collect()
    }

    #[test]
    fn the_agent_gets_these_paths_and_no_more() {
        assert_eq!(
            lines(AGENT),
            [
                "identity/entity-alias | allowed_parameters: mount_accessor=auth_jwt_1 name= \
                 | capabilities: update",
                "identity/entity/name/entity_* | capabilities: delete",
                "identity/group/name/bot-* | allowed_parameters: member_entity_ids= \
                 | capabilities: read update",
                "identity/group/name/consign-go | allowed_parameters: member_entity_ids= \
                 | capabilities: read update",
                "identity/group/name/runner-* | allowed_parameters: member_entity_ids= \
                 | capabilities: read update",
                "identity/lookup/entity | allowed_parameters: alias_mount_accessor=auth_jwt_1 alias_name= \
                 | capabilities: update",
                "secret/metadata/bots/* | capabilities: list read",
                "secret/metadata/runner/* | capabilities: list read",
            ]
        );
    }

    #[test]
    fn the_small_policies_get_these_paths_and_no_more() {
        assert_eq!(lines(SECRET), ["secret/data/runner/A | capabilities: read"]);
        assert_eq!(lines(GATE), ["secret/data/consign/go | capabilities: read"]);
        assert_eq!(
            lines(TASK),
            [
                "auth/token/lookup-self | capabilities: read",
                "auth/token/renew-self | capabilities: update",
                "auth/token/revoke-self | capabilities: update",
            ]
        );
    }

    #[test]
    fn values_that_would_widen_a_policy_are_refused() {
        for bad in ["", "*", "a*", "+/a", "a\"b", "a//b", "/a", "a/", "..", "a b", "<kv>", "${x}"] {
            assert!(matches!(render(GATE, &[("kv", bad)]), Err(Error::Value { .. })), "{bad:?}");
        }
        assert!(matches!(render(GATE, &[]), Err(Error::Shape(_))));
    }

    #[test]
    fn layout_does_not_matter_and_rights_do() {
        let text = render(SECRET, &VALUES).unwrap();
        assert!(same(&text, "path \"secret/data/runner/A\" { capabilities=[\"read\"] }"));
        assert!(!same(&text, "path \"secret/data/runner/*\" { capabilities=[\"read\"] }"));
        assert!(!same(&text, "nonsense"));
    }
}
