//! The published JSON Schemas, made from the types, and the reference that is made from them.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use crate::{
    action::keys::ActionKeys, config::Config, formula::keys::FormulaKeys, outcome::result_file::ResultFile,
    webhook,
};

mod reference;

pub use reference::reference;

/// What a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An action file.
    Action,
    /// A formula file.
    Formula,
    /// A result file.
    Result,
    /// The body of a webhook.
    Webhook,
    /// The agent's configuration.
    Config,
}

/// The JSON Schema (draft 2020-12) of a kind of file.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Action => without_null(generate::<ActionKeys>()),
        Kind::Formula => without_null(generate::<FormulaKeys>()),
        Kind::Result => generate::<ResultFile>(),
        Kind::Webhook => generate::<webhook::Body>(),
        Kind::Config => generate::<Config>(),
    }
}

fn generate<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema without `null` as a type: TOML has no null, an optional key is one that is left out.
fn without_null(schema: Value) -> Value {
    match schema {
        Value::Object(mut members) => {
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    members.remove("anyOf");
                    for (name, value) in only {
                        members.entry(name).or_insert(value);
                    }
                }
            }
            Value::Object(members.into_iter().map(|(name, value)| (name, without_null(value))).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_null).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{action, diagnostic::Diagnostic, formula};

    fn properties(schema: &Value) -> BTreeSet<String> {
        schema["properties"].as_object().expect("properties").keys().cloned().collect()
    }

    fn required(schema: &Value) -> BTreeSet<String> {
        let names = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect()
    }

    /// The words in backticks of the help that a reader gives on an unknown key: the keys that it knows.
    fn keys_of_reader(problems: &[Diagnostic]) -> BTreeSet<String> {
        let help = problems.iter().find(|problem| problem.message.contains("\"qqqq\""));
        let help = help.and_then(|problem| problem.help.as_deref()).expect("help on an unknown key");
        let (_, list) = help.split_once("has the keys").expect("a list of keys");
        list.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
    }

    fn missing_keys(problems: &[Diagnostic], text: &str) -> BTreeSet<String> {
        let missing = problems.iter().filter(|problem| problem.message.contains(text));
        missing.filter_map(|problem| problem.message.split('`').nth(1).map(ToOwned::to_owned)).collect()
    }

    #[test]
    fn the_schema_of_an_action_has_the_keys_that_are_read() {
        let schema = schema(Kind::Action);
        let of = |text: &str| action::file::read("a.toml", text.as_bytes()).expect_err("problems");
        assert_eq!(keys_of_reader(&of("qqqq = 1")), properties(&schema));
        assert_eq!(missing_keys(&of(""), "is missing"), required(&schema));
        for (key, text, place) in [
            ("resources", "resources = { qqqq = 1 }", &schema["properties"]["resources"]),
            ("retry", "retry = { qqqq = 1 }", &schema["properties"]["retry"]),
            ("concurrency", "concurrency = { qqqq = 1 }", &schema["properties"]["concurrency"]),
            ("constraints", "constraints = [{ qqqq = 1 }]", &schema["properties"]["constraints"]["items"]),
        ] {
            assert_eq!(keys_of_reader(&of(text)), properties(place), "{key}");
        }
    }

    #[test]
    fn the_schema_of_a_formula_has_the_keys_that_are_read() {
        let schema = schema(Kind::Formula);
        let of = |text: &str| formula::file::read("f.toml", text.as_bytes()).expect_err("problems");
        assert_eq!(keys_of_reader(&of("qqqq = 1")), properties(&schema));
        assert_eq!(missing_keys(&of(""), "is missing"), required(&schema));
        let steps = &schema["properties"]["steps"]["items"];
        assert_eq!(keys_of_reader(&of("steps = [{ qqqq = 1 }]")), properties(steps));
        assert_eq!(missing_keys(&of("steps = [{}]"), "element 1 of `steps` needs"), required(steps));
        let argument = &schema["properties"]["args"]["additionalProperties"];
        assert_eq!(keys_of_reader(&of("args = { a = { qqqq = 1 } }")), properties(argument));
    }

    #[test]
    fn the_schema_of_a_result_names_its_fields() {
        let names = properties(&schema(Kind::Result));
        for name in ["id", "job_id", "outcome", "cause", "exit_code", "timestamp", "logs", "attempts"] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_schema_of_a_webhook_names_its_fields() {
        let schema = schema(Kind::Webhook);
        let names = properties(&schema);
        for name in ["id", "sequence", "timestamp", "job_id", "action_id", "state", "outcome", "cause"] {
            assert!(names.contains(name), "{name}");
        }
        let artifact = properties(&schema["properties"]["artifacts"]["items"]);
        assert_eq!(Vec::from_iter(artifact), ["content_type", "data", "name", "sha256", "size", "url"]);
    }

    #[test]
    fn no_schema_of_a_toml_file_speaks_of_null() {
        for kind in [Kind::Action, Kind::Formula] {
            assert!(!schema(kind).to_string().contains("null"), "{kind:?}");
        }
    }
}
