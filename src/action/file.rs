//! Reads an action file.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Action, BlastRadius, Concurrency, Constraint, DispatchMode, FILE_LIMIT, Retry, WhenFull, environment,
    fields,
};
use crate::{
    diagnostic::{Diagnostic, did_you_mean},
    duration::Span,
    ids::{ActionId, SecretName},
    outcome::{Cause, Outcome},
    table::{self, Table, Value, quote},
};

/// The priority of an action that names none.
pub const DEFAULT_PRIORITY: u8 = 50;

/// How Nomad compares an attribute with a value.
const OPERATORS: [&str; 14] = [
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "regexp",
    "set_contains",
    "set_contains_all",
    "set_contains_any",
    "version",
    "semver",
    "is_set",
    "is_not_set",
];

/// Reads an action, or says everything that is wrong with the file.
///
/// `path` decides the id. The spans of the diagnostics are those of `String::from_utf8_lossy(content)`.
pub fn read(path: &str, content: &[u8]) -> Result<Action, Vec<Diagnostic>> {
    let text = table::decode(content, FILE_LIMIT, "an action").map_err(|problem| vec![problem])?;
    table::parse(text, "an action", |table| action(path, table))
}

/// Asks for every key before it gives up on any, so that all problems of the file are noted.
fn action(path: &str, table: &Table<'_, '_>) -> Option<Action> {
    let id = table.required("id", &example_id(path)).and_then(|value| id(path, &value));
    let formula = table.required("formula", "formula = \"hello\"").and_then(|value| fields::formula(&value));
    let context = table
        .required("context", "context = \"why this should run\"")
        .and_then(|value| fields::prose(&value));
    let secrets = table.required("secrets", "secrets = []").and_then(|value| fields::secrets(&value));
    let own_id = id.as_ref();
    let optional = Action {
        id: id.clone().or_else(|| ActionId::parse("unread").ok())?,
        formula: formula.clone().or_else(|| crate::ids::FormulaName::parse("unread").ok())?,
        context: context.clone().unwrap_or_default(),
        args: table.optional("args").and_then(|value| args(&value)).unwrap_or_default(),
        job: table.optional("job").and_then(|value| fields::job(&value)),
        mounts: table.optional("mounts").and_then(|value| fields::mounts(&value)).unwrap_or_default(),
        driver: table.optional("driver").and_then(|value| fields::driver(&value)),
        model: table
            .optional("model")
            .and_then(|value| value.parsed(|text| fields::named(text, "._:/@+-", "model"))),
        tools: table.optional("tools").and_then(|value| tools(&value)).unwrap_or_default(),
        timeout: timeout(table),
        dispatch_mode: table.optional("dispatch_mode").and_then(|value| {
            fields::word(&value, &[("direct", DispatchMode::Direct), ("pr", DispatchMode::Pr)])
        }),
        blast_radius: table.optional("blast_radius").and_then(|value| {
            let words =
                [("low", BlastRadius::Low), ("medium", BlastRadius::Medium), ("high", BlastRadius::High)];
            fields::word(&value, &words)
        }),
        resources: table.optional("resources").and_then(|value| fields::resources(&value)),
        constraints: table.optional("constraints").and_then(|value| constraints(&value)).unwrap_or_default(),
        priority: table
            .optional("priority")
            .and_then(|value| value.integer(0..=100))
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(DEFAULT_PRIORITY),
        retry: table.optional("retry").and_then(|value| retry(&value)),
        concurrency: table.optional("concurrency").and_then(|value| concurrency(&value)),
        after: table.optional("after").and_then(|value| after(own_id, &value)).unwrap_or_default(),
        not_before: table.optional("not_before").and_then(|value| not_before(&value)),
        env: table
            .optional("env")
            .and_then(|value| env(secrets.as_deref().unwrap_or_default(), &value))
            .unwrap_or_default(),
        artifacts: table
            .optional("artifacts")
            .and_then(|value| fields::artifacts(&value))
            .unwrap_or_default(),
        notify: table.optional("notify").and_then(|value| notify(&value)).unwrap_or_default(),
        mask: table.optional("mask").and_then(|value| value.boolean()).unwrap_or(true),
        secrets: secrets.clone().unwrap_or_default(),
    };
    id.and(formula).and(context).and(secrets).map(|_| optional)
}

fn example_id(path: &str) -> String {
    format!("id = {}", quote(super::stem(path).as_deref().unwrap_or("fix-42")))
}

fn id(path: &str, value: &Value<'_, '_>) -> Option<ActionId> {
    let id = value.parsed(|text| fields::checked(ActionId::parse(text)))?;
    match super::stem(path) {
        Some(stem) if stem == id.as_str() => Some(id),
        Some(stem) => {
            let help = format!("write id = {}, or rename the file to `{id}.toml`", quote(&stem));
            value.note("differs from the file's name", help);
            None
        }
        None => {
            value.note("stands in a file whose name does not end in `.toml`", format!("call it `{id}.toml`"));
            None
        }
    }
}

fn args(value: &Value<'_, '_>) -> Option<BTreeMap<String, String>> {
    let table = value.table()?;
    let texts = fields::argument_names(&table)
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), fields::variable_text(&value)?)))
        .collect();
    Some(texts)
}

fn tools(value: &Value<'_, '_>) -> Option<Vec<String>> {
    fields::distinct(value, fields::LIST_LIMIT, |text| fields::named(text, "._:/@+-", "tool"))
}

fn timeout(table: &Table<'_, '_>) -> Option<Span> {
    let timeout = table.optional("timeout");
    let minutes = table.optional("timeout_minutes");
    if let (Some(_), Some(minutes)) = (&timeout, &minutes) {
        minutes.note("stands beside `timeout`", "keep one of them");
    }
    let most = fields::TIMEOUT_LIMIT.as_secs() / 60;
    let minutes = minutes.and_then(|value| value.integer(1..=most));
    timeout.and_then(|value| fields::timeout(&value)).or(minutes.map(|minutes| Span::from_secs(minutes * 60)))
}

fn constraints(value: &Value<'_, '_>) -> Option<Vec<Constraint>> {
    let elements = value.list()?;
    if elements.len() > fields::LIST_LIMIT {
        value.note(
            &format!("has {} elements; {} are allowed", elements.len(), fields::LIST_LIMIT),
            "remove some",
        );
        return None;
    }
    Some(elements.iter().filter_map(constraint).collect())
}

fn constraint(value: &Value<'_, '_>) -> Option<Constraint> {
    let table = value.table()?;
    let attribute = table
        .required("attribute", "attribute = \"${attr.kernel.name}\"")
        .and_then(|value| value.parsed(attribute));
    let operator = table.optional("operator").map_or(Some("="), |value| {
        let words: Vec<(&'static str, &'static str)> = OPERATORS.iter().map(|word| (*word, *word)).collect();
        fields::word(&value, &words)
    });
    let value = if matches!(operator, Some("is_set" | "is_not_set")) {
        table.optional("value").map_or(Some(String::new()), |value| value.parsed(compared))
    } else {
        table.required("value", "value = \"linux\"").and_then(|value| value.parsed(compared))
    };
    table.note_unknown_keys();
    Some(Constraint { attribute: attribute?, operator: operator?.to_owned(), value: value? })
}

fn attribute(text: &str) -> Result<String, (String, String)> {
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    let known = ["attr.", "node.", "meta."].iter().any(|start| {
        inner.strip_prefix(start).is_some_and(|name| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || "._-/".contains(character))
        })
    });
    if known && text.len() <= fields::TEXT_LIMIT {
        return Ok(text.to_owned());
    }
    Err((
        format!("is not an attribute of a node: {}", quote(text)),
        "write it as \"${attr.kernel.name}\", \"${node.class}\" or \"${meta.rack}\"".to_owned(),
    ))
}

fn compared(text: &str) -> Result<String, (String, String)> {
    if text.contains("${") || text.contains('\0') || text.len() > fields::TEXT_LIMIT {
        return Err((
            format!("cannot be compared with: {}", quote(text)),
            "write a plain text, without `${…}`".to_owned(),
        ));
    }
    Ok(text.to_owned())
}

fn retry(value: &Value<'_, '_>) -> Option<Retry> {
    let table = value.table()?;
    let usual = Retry::default();
    let attempts = table.optional("attempts").map_or(Some(usual.attempts), |value| {
        value.integer(1..=10).and_then(|number| u8::try_from(number).ok())
    });
    let on = table
        .optional("on")
        .map_or(Some(usual.on), |value| fields::distinct(&value, Cause::ALL.len(), cause));
    table.note_unknown_keys();
    Some(Retry { attempts: attempts?, on: on? })
}

fn cause(text: &str) -> Result<Cause, (String, String)> {
    let may_be_retried =
        |cause: &Cause| matches!(cause.outcome(), Outcome::Failed | Outcome::TimedOut | Outcome::Lost);
    let words: Vec<String> =
        Cause::ALL.iter().filter(|cause| may_be_retried(cause)).map(ToString::to_string).collect();
    match text.parse::<Cause>() {
        Ok(cause) if may_be_retried(&cause) => Ok(cause),
        Ok(_) => Err((
            format!("is no cause for another attempt: {}", quote(text)),
            "name causes of the outcomes failed, timed_out or lost".to_owned(),
        )),
        Err(_) => Err((
            format!("is not a cause: {}", quote(text)),
            did_you_mean(text, words.iter().map(String::as_str))
                .unwrap_or_else(|| format!("the causes are {}", words.join(", "))),
        )),
    }
}

fn concurrency(value: &Value<'_, '_>) -> Option<Concurrency> {
    let table = value.table()?;
    let group = table
        .required("group", "group = \"deploy\"")
        .and_then(|value| value.parsed(|text| fields::named(text, "._:/-", "group")));
    let limit = table.optional("limit").map_or(Some(1), |value| {
        value.integer(1..=u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok())
    });
    let when_full = table.optional("when_full").map_or(Some(WhenFull::default()), |value| {
        let words =
            [("queue", WhenFull::Queue), ("skip", WhenFull::Skip), ("cancel_older", WhenFull::CancelOlder)];
        fields::word(&value, &words)
    });
    table.note_unknown_keys();
    Some(Concurrency { group: group?, limit: limit?, when_full: when_full? })
}

fn after(own: Option<&ActionId>, value: &Value<'_, '_>) -> Option<Vec<ActionId>> {
    fields::distinct(value, fields::LIST_LIMIT, |text| {
        let id = fields::checked(ActionId::parse(text))?;
        if own.is_some_and(|own| own.key() == id.key()) {
            return Err((
                "is the action itself".to_owned(),
                "name other actions: this one would wait for ever".to_owned(),
            ));
        }
        Ok(id)
    })
}

fn not_before(value: &Value<'_, '_>) -> Option<Timestamp> {
    let text = value.date_time()?;
    let time = text.parse().ok();
    if time.is_none() {
        let help = if text.parse::<jiff::civil::DateTime>().is_ok() {
            "name the time and its offset from UTC, such as \"2027-01-31T22:00:00Z\""
        } else {
            "write it as \"2027-01-31T22:00:00Z\" (RFC 3339)"
        };
        value.note(&format!("is not a point in time: {}", quote(&text)), help);
    }
    time
}

fn env(secrets: &[SecretName], value: &Value<'_, '_>) -> Option<BTreeMap<String, String>> {
    let table = value.table()?;
    let mut variables = BTreeMap::new();
    for (name, span, value) in table.entries() {
        let problem = if !environment::is_variable_name(name) {
            Some((
                "is not a legal name of a variable",
                "use letters, digits and `_`, beginning with a letter or `_`",
            ))
        } else if environment::is_reserved(name) {
            Some((
                "is a variable that an action cannot set",
                "PATH and names that begin with NOMAD_, VAULT_, CONSIGN_, ARG_ or LD_ are taken",
            ))
        } else if secrets.iter().any(|secret| secret.as_str() == name) {
            Some((
                "is the name of a secret of this action",
                "the secret's value comes in the variable of that name",
            ))
        } else {
            None
        };
        if let Some((message, help)) = problem {
            table.note(Diagnostic::new(format!("{} {message}", quote(name)), span).with_help(help));
        } else if let Some(text) = fields::variable_text(&value) {
            variables.insert(name.to_owned(), text);
        }
    }
    Some(variables)
}

fn notify(value: &Value<'_, '_>) -> Option<Vec<String>> {
    fields::distinct(value, fields::LIST_LIMIT, |text| {
        let legal = reqwest::Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
        if legal && text.len() <= fields::TEXT_LIMIT {
            return Ok(text.to_owned());
        }
        Err((
            format!("is not an http or https URL: {}", quote(text)),
            "write it in full: \"https://chat.example/hooks/deploys\"".to_owned(),
        ))
    })
}

#[cfg(test)]
mod tests;
