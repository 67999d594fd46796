//! Reads the keys that actions and formulas have in common.

use std::{collections::BTreeSet, time::Duration};

use bytesize::ByteSize;

use super::{Driver, Resources};
use crate::{
    artifact::glob,
    duration::Span,
    ids::{FormulaName, InvalidName, SecretName},
    table::{Table, Value, quote},
};

/// The most secrets that one action or formula may name.
pub const SECRET_LIMIT: usize = 32;
/// The most names, globs or URLs that one list may have.
pub const LIST_LIMIT: usize = 64;
/// The longest text of an argument, a variable or a context, in bytes.
pub const TEXT_LIMIT: usize = 4 * 1024;
/// The longest timeout.
pub const TIMEOUT_LIMIT: Duration = Duration::from_hours(7 * 24);
/// The longest name of a mount, a tool, a model or a device, in bytes.
const NAME_LIMIT: usize = 128;

/// Message and help of a bad value; the message goes on after the key's name.
type Bad = (String, String);

/// A checked name, or what is wrong with it.
pub(crate) fn checked<T>(result: Result<T, InvalidName>) -> Result<T, Bad> {
    result.map_err(|error| {
        let help = match SecretName::parse(&error.text.to_ascii_uppercase().replace('-', "_")) {
            Ok(name) if error.kind == "secret name" => format!("did you mean `{name}`?"),
            _ => format!("use {}", error.rule),
        };
        (format!("is not a legal {}: {}", error.kind, quote(&error.text)), help)
    })
}

/// A list of texts, each of which `parse` accepts, without repetition and at most `limit` long.
pub(crate) fn distinct<T>(
    value: &Value<'_, '_>,
    limit: usize,
    parse: impl Fn(&str) -> Result<T, Bad>,
) -> Option<Vec<T>> {
    let elements = value.list()?;
    if elements.len() > limit {
        value.note(&format!("has {} elements; {limit} are allowed", elements.len()), "remove some");
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut parsed = Vec::with_capacity(elements.len());
    for element in &elements {
        let Some(text) = element.text() else { continue };
        if seen.insert(text) {
            parsed.extend(element.parsed(&parse));
        } else {
            element.note(&format!("repeats {}", quote(text)), "name it once");
        }
    }
    Some(parsed)
}

/// The names of secrets.
pub(crate) fn secrets(value: &Value<'_, '_>) -> Option<Vec<SecretName>> {
    distinct(value, SECRET_LIMIT, |text| checked(SecretName::parse(text)))
}

/// The aliases of mounts.
pub(crate) fn mounts(value: &Value<'_, '_>) -> Option<Vec<String>> {
    distinct(value, LIST_LIMIT, |text| named(text, "._-", "mount"))
}

/// The name of a base job.
pub(crate) fn job(value: &Value<'_, '_>) -> Option<String> {
    value.parsed(|text| named(text, "._-", "base job"))
}

/// The task driver.
pub(crate) fn driver(value: &Value<'_, '_>) -> Option<Driver> {
    let words = [Driver::Docker, Driver::Exec, Driver::RawExec].map(|driver| (driver.name(), driver));
    word(value, &words)
}

/// A name of letters, digits and the characters in `further`, beginning with a letter or digit.
pub(crate) fn named(text: &str, further: &str, kind: &str) -> Result<String, Bad> {
    let legal = text.len() <= NAME_LIMIT
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || further.contains(character));
    if legal {
        return Ok(text.to_owned());
    }
    let further: Vec<String> = further.chars().map(|character| format!("`{character}`")).collect();
    Err((
        format!("is not the name of a {kind}: {}", quote(text)),
        format!(
            "use 1 to {NAME_LIMIT} letters, digits, {}, beginning with a letter or digit",
            further.join(", ")
        ),
    ))
}

/// Globs that stay below the task's working directory.
pub(crate) fn artifacts(value: &Value<'_, '_>) -> Option<Vec<String>> {
    distinct(value, LIST_LIMIT, |text| glob::check(text).map(|()| text.to_owned()))
}

/// A length of time that a task may run.
pub(crate) fn timeout(value: &Value<'_, '_>) -> Option<Span> {
    if let Some(number) = value.written_number() {
        let help = format!("write \"{number}m\" or \"{number}s\"");
        value.note("must be a text with a unit, not a number", help);
        return None;
    }
    value.parsed(|text| {
        let span: Span = text.parse().map_err(|_| {
            let help = match text.trim().parse::<u64>() {
                Ok(number) => format!("name the unit: \"{number}m\" or \"{number}s\""),
                Err(_) => "write it as \"45s\", \"90m\" or \"1h30m\"".to_owned(),
            };
            (format!("is not a length of time: {}", quote(text)), help)
        })?;
        if span.0.is_zero() || span.0 > TIMEOUT_LIMIT {
            return Err((
                format!("is out of range: {}", quote(text)),
                "it must be more than nothing and at most 7 days (\"168h\")".to_owned(),
            ));
        }
        Ok(span)
    })
}

/// A text of 1 to [`TEXT_LIMIT`] bytes that can stand in an environment variable.
pub(crate) fn prose(value: &Value<'_, '_>) -> Option<String> {
    let text = variable_text(value)?;
    if text.trim().is_empty() {
        value.note("is empty", "say in a sentence what it is for");
        return None;
    }
    Some(text)
}

/// A text of at most [`TEXT_LIMIT`] bytes that can stand in an environment variable.
pub(crate) fn variable_text(value: &Value<'_, '_>) -> Option<String> {
    value.parsed(|text| {
        if text.contains('\0') {
            return Err((
                "contains a NUL character".to_owned(),
                "remove it: an environment variable cannot carry one".to_owned(),
            ));
        }
        if text.len() > TEXT_LIMIT {
            return Err((
                format!("has {} bytes; {TEXT_LIMIT} are allowed", text.len()),
                "keep long texts in a file of their own, such as the formula".to_owned(),
            ));
        }
        Ok(text.to_owned())
    })
}

/// What the task needs of a node.
pub(crate) fn resources(value: &Value<'_, '_>) -> Option<Resources> {
    let table = value.table()?;
    let cpu = table.optional("cpu");
    let cores = table.optional("cores");
    if let (Some(_), Some(cores)) = (&cpu, &cores) {
        cores.note(
            "stands beside `cpu`",
            "keep one of them: `cpu` is a share in MHz, `cores` are whole cores",
        );
    }
    let memory = table.optional("memory").map(|value| (memory(&value), value));
    let memory_max = table.optional("memory_max").map(|value| (self::memory(&value), value));
    if let (Some((Some(least), _)), Some((Some(most), value))) = (&memory, &memory_max)
        && most < least
    {
        value.note("is less than `memory`", "`memory_max` is what the task may reach where there is room");
    }
    let resources = Resources {
        cpu: cpu.and_then(|value| value.integer(1..=10_000_000)),
        cores: cores.and_then(|value| value.integer(1..=4096)),
        memory: memory.and_then(|(bytes, _)| bytes),
        memory_max: memory_max.and_then(|(bytes, _)| bytes),
        gpus: table.optional("gpus").and_then(|value| value.integer(0..=64)),
        device: table.optional("device").and_then(|value| device(&value)),
    };
    table.note_unknown_keys();
    Some(resources)
}

fn memory(value: &Value<'_, '_>) -> Option<u64> {
    value.parsed(|text| {
        let help = "write a number with a unit, such as \"512MiB\" or \"8GiB\"".to_owned();
        let unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
        match text.parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 && unit => Ok(size.as_u64()),
            _ => Err((format!("is not an amount of memory: {}", quote(text)), help)),
        }
    })
}

fn device(value: &Value<'_, '_>) -> Option<String> {
    value.parsed(|text| {
        let parts: Vec<&str> = text.split('/').collect();
        let legal = |part: &str| {
            !part.is_empty()
                && part.trim() == part
                && part
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || "_.- ".contains(character))
        };
        if text.len() <= NAME_LIMIT && parts.len() <= 3 && parts.into_iter().all(legal) {
            return Ok(text.to_owned());
        }
        Err((
            format!("is not the name of a device: {}", quote(text)),
            "use Nomad's name for it, type, vendor/type or vendor/type/model, such as \"nvidia/gpu\""
                .to_owned(),
        ))
    })
}

/// One of the words of an enumeration.
pub(crate) fn word<T: Copy>(value: &Value<'_, '_>, words: &[(&'static str, T)]) -> Option<T> {
    value.parsed(|text| {
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let names: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let help = crate::diagnostic::did_you_mean(
            &text.to_ascii_lowercase().replace('-', "_"),
            words.iter().map(|(word, _)| *word),
        )
        .unwrap_or_else(|| format!("write one of {}", names.join(", ")));
        Err((format!("is not a known word: {}", quote(text)), help))
    })
}

/// The name of a formula.
pub(crate) fn formula(value: &Value<'_, '_>) -> Option<FormulaName> {
    value.parsed(|text| {
        if let Some((stem, "sh" | "toml")) = text.rsplit_once('.') {
            return Err((
                format!("names a file: {}", quote(text)),
                format!("leave the ending away: \"{}\"", stem.rsplit('/').next().unwrap_or(stem)),
            ));
        }
        checked(FormulaName::parse(text))
    })
}

/// The keys of a table of arguments: each must be legal, and no two may make the same variable.
pub(crate) fn argument_names<'t, 'i>(table: &Table<'t, 'i>) -> Vec<(&'t str, Value<'t, 'i>)> {
    let mut variables = BTreeSet::new();
    let mut legal = Vec::new();
    for (name, span, value) in table.entries() {
        let diagnostic = if !super::environment::is_argument_name(name) {
            Some(
                crate::diagnostic::Diagnostic::new(
                    format!("{} is not a legal name of an argument", quote(name)),
                    span,
                )
                .with_help("use letters, digits, `_` and `-`, beginning with a letter or `_`"),
            )
        } else if !variables.insert(super::environment::variable(name)) {
            Some(
                crate::diagnostic::Diagnostic::new(
                    format!(
                        "the argument `{name}` and another one both become {}",
                        super::environment::variable(name)
                    ),
                    span,
                )
                .with_help("rename one: upper and lower case, `-` and `_` are not told apart"),
            )
        } else {
            None
        };
        match diagnostic {
            Some(diagnostic) => table.note(diagnostic),
            None => legal.push((name, value)),
        }
    }
    legal
}
