//! Whether an action gives a formula what it needs.

use std::collections::BTreeMap;

use super::{Body, Formula, pattern};
use crate::{action::Action, diagnostic::did_you_mean};

/// The arguments that the task gets, defaults filled in; or everything that does not fit, a plain
/// sentence each.
///
/// A program declares no arguments and takes any.
pub fn bind(action: &Action, formula: &Formula) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut problems = Vec::new();
    if matches!(formula.body, Body::Steps(_)) {
        problems.extend(unknown_arguments(action, formula));
    }
    let mut args = action.args.clone();
    for (name, argument) in &formula.args {
        match (args.get(name), &argument.default) {
            (Some(value), _) => problems.extend(mismatch(formula, name, argument.pattern.as_deref(), value)),
            (None, _) if argument.required => {
                let purpose = argument.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                problems.push(format!("formula `{}` needs the argument `{name}`{purpose}", formula.name));
            }
            (None, Some(default)) => {
                args.insert(name.clone(), default.clone());
            }
            (None, None) => {}
        }
    }
    for secret in &formula.secrets {
        if !action.secrets.contains(secret) {
            problems.push(format!(
                "formula `{}` needs the secret {secret}, which the action does not list in `secrets`",
                formula.name
            ));
        }
    }
    for mount in &formula.mounts {
        if !action.mounts.contains(mount) {
            problems.push(format!(
                "formula `{}` needs the mount `{mount}`, which the action does not list in `mounts`",
                formula.name
            ));
        }
    }
    if problems.is_empty() { Ok(args) } else { Err(problems) }
}

fn unknown_arguments(action: &Action, formula: &Formula) -> Vec<String> {
    let known = || formula.args.keys().map(String::as_str);
    let unknown = action.args.keys().filter(|name| !formula.args.contains_key(*name));
    unknown
        .map(|name| {
            let help = did_you_mean(name, known()).unwrap_or_else(|| {
                if formula.args.is_empty() {
                    "it takes none".to_owned()
                } else {
                    format!(
                        "it takes {}",
                        known().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    )
                }
            });
            format!("formula `{}` has no argument `{name}`; {help}", formula.name)
        })
        .collect()
}

fn mismatch(formula: &Formula, name: &str, pattern: Option<&str>, value: &str) -> Option<String> {
    let pattern = pattern?;
    match pattern::compile(pattern) {
        Ok(expression) if expression.is_match(value) => None,
        Ok(_) => Some(format!(
            "the argument `{name}` is {}, which does not match the pattern `{pattern}` of formula `{}`",
            crate::table::quote(value),
            formula.name
        )),
        Err(reason) => {
            Some(format!("the pattern of argument `{name}` of formula `{}` is bad: {reason}", formula.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMULA: &str = r#"
description = "d"
secrets = ["KEY"]
mounts = ["data"]
[args]
model = { required = true, pattern = "[a-z]+", help = "what to train" }
rounds = { default = "3" }
note = {}
[[steps]]
name = "one"
run = "true"
"#;

    fn bound(rest: &str) -> Result<BTreeMap<String, String>, Vec<String>> {
        let text = format!("id = \"a\"\nformula = \"f\"\ncontext = \"c\"\n{rest}");
        let action = crate::action::file::read("a.toml", text.as_bytes()).expect("an action");
        let formula = crate::formula::file::read("f.toml", FORMULA.as_bytes()).expect("a formula");
        bind(&action, &formula)
    }

    #[test]
    fn defaults_are_filled_in() {
        let args = bound("secrets = [\"KEY\"]\nmounts = [\"data\"]\nargs = { model = \"tiny\" }");
        let expected = [("model", "tiny"), ("rounds", "3")];
        assert_eq!(args, Ok(expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()));
    }

    #[test]
    fn everything_that_does_not_fit_is_said() {
        let problems = bound("secrets = []\nargs = { modle = \"x\" }").expect_err("problems");
        assert_eq!(
            problems,
            [
                "formula `f` has no argument `modle`; did you mean `model`?",
                "formula `f` needs the argument `model` (what to train)",
                "formula `f` needs the secret KEY, which the action does not list in `secrets`",
                "formula `f` needs the mount `data`, which the action does not list in `mounts`",
            ]
        );
        let problems = bound("secrets = [\"KEY\"]\nmounts = [\"data\"]\nargs = { model = \"T1\" }")
            .expect_err("problems");
        assert_eq!(
            problems,
            ["the argument `model` is \"T1\", which does not match the pattern `[a-z]+` of formula `f`"]
        );
    }

    #[test]
    fn a_program_takes_any_argument() {
        let text = "id = \"a\"\nformula = \"f\"\ncontext = \"c\"\nsecrets = []\nargs = { any = \"x\" }";
        let action = crate::action::file::read("a.toml", text.as_bytes()).expect("an action");
        let formula = crate::formula::file::read("f.sh", b"true\n").expect("a formula");
        assert_eq!(bind(&action, &formula).map(|args| args.len()), Ok(1));
    }
}
