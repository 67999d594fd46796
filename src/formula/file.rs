//! Reads a formula file.

use std::collections::{BTreeMap, BTreeSet};

use super::{Argument, Body, Formula, PAYLOAD_LIMIT, Step, pattern};
use crate::{
    action::{FILE_LIMIT, fields},
    diagnostic::Diagnostic,
    ids::FormulaName,
    table::{self, Table, Value, quote},
};

/// The most steps that a formula may have.
pub const STEP_LIMIT: usize = 64;
/// The longest name of a step, in bytes.
const STEP_NAME_LIMIT: usize = 64;

/// Reads a formula, or says everything that is wrong with the file.
///
/// The ending of `path` decides what it is, its stem the name. The spans of the diagnostics are those of
/// `String::from_utf8_lossy(content)`.
pub fn read(path: &str, content: &[u8]) -> Result<Formula, Vec<Diagnostic>> {
    let file_name = path.rsplit('/').next().unwrap_or(path);
    let name = |stem: &str| {
        FormulaName::parse(stem).map_err(|error| {
            let help = format!("rename the file: {}", error.rule);
            Diagnostic::new(format!("the file's name is not a legal formula name: {}", quote(stem)), 0..0)
                .with_help(help)
        })
    };
    if let Some(stem) = file_name.strip_suffix(".sh") {
        return name(stem).and_then(|name| program(name, content)).map_err(|problem| vec![problem]);
    }
    let Some(stem) = file_name.strip_suffix(".toml") else {
        return Err(vec![
            Diagnostic::new("a formula's file name ends in `.sh` or `.toml`", 0..0)
                .with_help("rename the file: `.sh` for a program, `.toml` for steps"),
        ]);
    };
    let name = name(stem).map_err(|problem| vec![problem])?;
    let text = table::decode(content, FILE_LIMIT, "a formula").map_err(|problem| vec![problem])?;
    table::parse(text, "a formula", |table| steps_formula(name, table))
}

fn program(name: FormulaName, content: &[u8]) -> Result<Formula, Diagnostic> {
    let text =
        table::decode(content, PAYLOAD_LIMIT, "a program, which travels as the payload of a dispatch,")?;
    if text.trim().is_empty() {
        return Err(Diagnostic::new("the program is empty", 0..0).with_help("write what it should run"));
    }
    let first = text.split('\n').next().unwrap_or_default();
    if first.starts_with("#!") && first.ends_with('\r') {
        return Err(Diagnostic::new(
            "the first line ends in a carriage return",
            first.len() - 1..first.len(),
        )
        .with_help(
            "save the file with Unix line ends: the kernel would look for an interpreter of that name",
        ));
    }
    Ok(Formula {
        name,
        description: first_comment(text),
        job: None,
        args: BTreeMap::new(),
        secrets: Vec::new(),
        mounts: Vec::new(),
        driver: None,
        timeout: None,
        resources: None,
        artifacts: Vec::new(),
        body: Body::Program(text.to_owned()),
    })
}

/// The comment that a program begins with, as its description; empty where it has none.
fn first_comment(text: &str) -> String {
    let after_shebang = text.lines().skip_while(|line| line.starts_with("#!") || line.trim().is_empty());
    let lines: Vec<&str> = after_shebang
        .map_while(|line| line.strip_prefix('#'))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    lines.join(" ")
}

/// Asks for every key before it gives up on any, so that all problems of the file are noted.
fn steps_formula(name: FormulaName, table: &Table<'_, '_>) -> Option<Formula> {
    let description = table
        .required("description", "description = \"what it does, in a sentence\"")
        .and_then(|value| fields::prose(&value));
    let formula = Formula {
        name,
        description: description.clone().unwrap_or_default(),
        job: table.optional("job").and_then(|value| fields::job(&value)),
        args: table.optional("args").and_then(|value| arguments(&value)).unwrap_or_default(),
        secrets: table.optional("secrets").and_then(|value| fields::secrets(&value)).unwrap_or_default(),
        mounts: table.optional("mounts").and_then(|value| fields::mounts(&value)).unwrap_or_default(),
        driver: table.optional("driver").and_then(|value| fields::driver(&value)),
        timeout: table.optional("timeout").and_then(|value| fields::timeout(&value)),
        resources: table.optional("resources").and_then(|value| fields::resources(&value)),
        artifacts: table
            .optional("artifacts")
            .and_then(|value| fields::artifacts(&value))
            .unwrap_or_default(),
        body: Body::Steps(
            table.required("steps", "[[steps]]").and_then(|value| steps(&value)).unwrap_or_default(),
        ),
    };
    description.map(|_| formula)
}

fn arguments(value: &Value<'_, '_>) -> Option<BTreeMap<String, Argument>> {
    let table = value.table()?;
    let arguments = fields::argument_names(&table)
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), argument(&value)?)))
        .collect();
    Some(arguments)
}

fn argument(value: &Value<'_, '_>) -> Option<Argument> {
    let table = value.table()?;
    let required = table.optional("required").is_some_and(|value| value.boolean().unwrap_or_default());
    let default = table.optional("default");
    if let (true, Some(default)) = (required, &default) {
        default.note(
            "stands beside `required = true`",
            "remove one of them: a required argument is always given",
        );
    }
    let expression = table.optional("pattern").and_then(|value| {
        value.parsed(|text| match pattern::compile(text) {
            Ok(expression) => Ok((text.to_owned(), expression)),
            Err(reason) => Err((
                format!("is not a regular expression: {reason}"),
                "it must match the whole value, such as \"[a-z]+\"".to_owned(),
            )),
        })
    });
    let default = default.and_then(|value| Some((fields::variable_text(&value)?, value)));
    if let (Some((_, expression)), Some((text, value))) = (&expression, &default)
        && !expression.is_match(text)
    {
        value.note("does not match `pattern`", "give a default that an action could give as well");
    }
    let help = table.optional("help").and_then(|value| fields::prose(&value));
    table.note_unknown_keys();
    Some(Argument {
        required,
        default: default.map(|(text, _)| text),
        pattern: expression.map(|(text, _)| text),
        help,
    })
}

fn steps(value: &Value<'_, '_>) -> Option<Vec<Step>> {
    let elements = value.list()?;
    if elements.is_empty() || elements.len() > STEP_LIMIT {
        let message = format!("has {} elements", elements.len());
        value.note(&message, format!("a formula has 1 to {STEP_LIMIT} steps, each under [[steps]]"));
        return None;
    }
    let mut names = BTreeSet::new();
    let mut bytes = 0;
    let mut steps = Vec::with_capacity(elements.len());
    for element in &elements {
        let Some(step) = step(element, &mut names) else { continue };
        bytes += step.run.len();
        if bytes > PAYLOAD_LIMIT {
            let help = format!(
                "all scripts together may have {PAYLOAD_LIMIT} bytes: they travel as the payload of a dispatch"
            );
            element.note(&format!("brings the scripts to {bytes} bytes"), help);
            return None;
        }
        steps.push(step);
    }
    Some(steps)
}

fn step(value: &Value<'_, '_>, names: &mut BTreeSet<String>) -> Option<Step> {
    let table = value.table()?;
    let name = table.required("name", "name = \"build\"").and_then(|value| {
        let name = value.parsed(step_name)?;
        if names.insert(name.clone()) {
            return Some(name);
        }
        value.note(&format!("repeats {}", quote(&name)), "give each step a name of its own");
        None
    });
    let run = table.required("run", "run = \"make\"").and_then(|value| {
        let run = value.parsed(|text| {
            if text.contains('\0') {
                return Err(("contains a NUL character".to_owned(), "remove it".to_owned()));
            }
            Ok(text.to_owned())
        })?;
        if run.trim().is_empty() {
            value.note("is empty", "write the script that the step runs");
            return None;
        }
        Some(run)
    });
    let timeout = table.optional("timeout").and_then(|value| fields::timeout(&value));
    let retries = table.optional("retries").and_then(|value| value.integer(0..=10)).unwrap_or_default();
    let continue_on_error = table.optional("continue_on_error").and_then(|value| value.boolean());
    table.note_unknown_keys();
    Some(Step {
        name: name?,
        run: run?,
        timeout,
        retries: u32::try_from(retries).ok()?,
        continue_on_error: continue_on_error.unwrap_or_default(),
    })
}

fn step_name(text: &str) -> Result<String, (String, String)> {
    let legal = text.len() <= STEP_NAME_LIMIT
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || " ._-".contains(character));
    if legal {
        return Ok(text.to_owned());
    }
    Err((
        format!("is not the name of a step: {}", quote(text)),
        format!(
            "use 1 to {STEP_NAME_LIMIT} letters, digits, spaces, `.`, `_` or `-`, beginning with a letter or digit"
        ),
    ))
}

#[cfg(test)]
mod tests;
