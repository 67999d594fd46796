//! Whether an action and its formula can run, told from their files alone.
//!
//! The agent and `consign validate` decide by the same functions: [`check`] for one action,
//! [`tree::validate_tree`] for all files of an ops repo. Nothing here asks a server.

use std::collections::BTreeMap;

use crate::{
    action::{self, Action},
    diagnostic::{Diagnostic, did_you_mean, summary},
    formula::{self, Formula},
    ids::{ActionId, FormulaName},
    outcome::Cause,
    table,
};

pub mod disk;
pub mod tree;

/// A file of the ops repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, relative to the repo's root.
    pub path: String,
    /// Its content as it stands there.
    pub content: Vec<u8>,
}

/// The formulas that an action can use.
pub trait Formulas {
    /// The files that define `name`: none, one, or two (a `.sh` and a `.toml`), which is an error.
    fn files(&self, name: &FormulaName) -> Vec<SourceFile>;
    /// The names of all formulas, for suggestions.
    fn names(&self) -> Vec<String>;
}

/// What became of an action file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It can run, as far as the files tell.
    Valid(Box<Valid>),
    /// It cannot.
    Invalid(Invalid),
}

/// An action, its formula, and what the formula is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// The action.
    pub action: Action,
    /// The formula that it uses.
    pub formula: Formula,
    /// The file that the formula was read from.
    pub formula_path: String,
    /// The action's arguments, and the formula's defaults for those that it leaves out.
    pub args: BTreeMap<String, String>,
}

/// Why an action cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `Cause::Invalid` or `Cause::UnknownFormula`.
    pub cause: Cause,
    /// Everything that is wrong, with its places, on one line.
    pub message: String,
    /// The id of the file's result; `None` where its stem is no legal id, so that it has none.
    pub action_id: Option<ActionId>,
    /// What is wrong, at its places in `String::from_utf8_lossy` of the file.
    pub problems: Vec<Diagnostic>,
}

/// Checks one action file and the formula that it names.
#[must_use]
pub fn check(path: &str, content: &[u8], formulas: &impl Formulas) -> Checked {
    let checked = check_action(path, content).and_then(|action| {
        let files = formulas.files(&action.formula);
        check_formula(path, content, action, &files, &formulas.names())
    });
    match checked {
        Ok(valid) => Checked::Valid(Box::new(valid)),
        Err(invalid) => Checked::Invalid(invalid),
    }
}

/// The first half of [`check`]: the action file alone.
pub fn check_action(path: &str, content: &[u8]) -> Result<Action, Invalid> {
    action::file::read(path, content).map_err(|problems| invalid(Cause::Invalid, path, content, problems))
}

/// The second half of [`check`]: `action`, read from `content`, with the files that define its formula.
///
/// `names` are those of all formulas, for a suggestion where there is no such file.
pub fn check_formula(
    path: &str,
    content: &[u8],
    action: Action,
    files: &[SourceFile],
    names: &[String],
) -> Result<Valid, Invalid> {
    let refuse = |cause: Cause, problems: Vec<(String, Option<String>)>| {
        let place = table::place_of(&String::from_utf8_lossy(content), "formula");
        let problems = problems
            .into_iter()
            .map(|(message, help)| Diagnostic { message, span: place.clone(), help })
            .collect();
        invalid(cause, path, content, problems)
    };
    let file = match files {
        [file] => file,
        [] => {
            let message = format!("there is no formula `{}`", action.formula);
            let help = did_you_mean(action.formula.as_str(), names.iter().map(String::as_str))
                .unwrap_or_else(|| known_formulas(names));
            return Err(refuse(Cause::UnknownFormula, vec![(message, Some(help))]));
        }
        [first, second, ..] => {
            return Err(refuse(Cause::Invalid, vec![ambiguous(&action.formula, &first.path, &second.path)]));
        }
    };
    let formula = formula::file::read(&file.path, &file.content).map_err(|problems| {
        let places = summary(&file.path, &String::from_utf8_lossy(&file.content), &problems);
        let message = format!("formula `{}` is not valid: {places}", action.formula);
        refuse(Cause::Invalid, vec![(message, None)])
    })?;
    let args = formula::bind::bind(&action, &formula).map_err(|sentences| {
        refuse(Cause::Invalid, sentences.into_iter().map(|sentence| (sentence, None)).collect())
    })?;
    Ok(Valid { action, formula, formula_path: file.path.clone(), args })
}

fn invalid(cause: Cause, path: &str, content: &[u8], problems: Vec<Diagnostic>) -> Invalid {
    Invalid {
        cause,
        message: summary(path, &String::from_utf8_lossy(content), &problems),
        action_id: action::stem(path).and_then(|stem| ActionId::parse(&stem).ok()),
        problems,
    }
}

fn known_formulas(names: &[String]) -> String {
    match names {
        [] => "the ops repo has no formulas: add a file `<name>.sh` or `<name>.toml` to its formulas folder"
            .to_owned(),
        names if names.len() <= 8 => {
            format!(
                "the formulas are {}",
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            )
        }
        names => format!("the formulas folder has {} others", names.len()),
    }
}

/// Message and help of a formula that two files define.
fn ambiguous(name: &FormulaName, first: &str, second: &str) -> (String, Option<String>) {
    (
        format!("formula `{name}` stands in two files, {first} and {second}"),
        Some("remove or rename one of them".to_owned()),
    )
}

#[cfg(test)]
mod tests;
