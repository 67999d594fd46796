//! All files of an ops repo, checked together as the agent would see them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checked, Formulas, SourceFile, Valid, ambiguous, check};
use crate::{
    action::{self, after, record::is_record},
    diagnostic::{Diagnostic, Located},
    formula,
    ids::FormulaName,
};

/// What a file of an ops repo is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// An action.
    Action,
    /// A formula.
    Formula,
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Its path, relative to the repo's root.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// What is wrong in it; empty where it is valid.
    pub problems: Vec<Located>,
    /// The action, where it is a valid one with a valid formula.
    pub valid: Option<Box<Valid>>,
    diagnostics: Vec<Diagnostic>,
    text: String,
}

impl FileReport {
    pub(super) fn new(path: &str, kind: FileKind, content: &[u8], diagnostics: Vec<Diagnostic>) -> Self {
        let text = String::from_utf8_lossy(content).into_owned();
        let problems = diagnostics.iter().map(|diagnostic| diagnostic.locate(path, &text)).collect();
        Self { path: path.to_owned(), kind, problems, valid: None, diagnostics, text }
    }

    /// Takes down what is wrong about a key of an action beyond the file itself; where the action does not have
    /// the key, its formula asks for it.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let places = [key, "formula"].map(|key| crate::table::place_of(&self.text, key));
        let place = places.into_iter().find(|place| !place.is_empty()).unwrap_or_default();
        let diagnostic = Diagnostic::new(message, place);
        self.problems.push(diagnostic.locate(&self.path, &self.text));
        self.diagnostics.push(diagnostic);
    }

    /// Whether nothing is wrong in it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    /// Its problems as people read them, each with its line and a caret; empty where it is valid.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let rendered: Vec<String> = self
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(&self.path, &self.text, colour))
            .collect();
        rendered.join("\n\n")
    }
}

/// What `path`, relative to the root of an ops repo, is there; `None` for what is not read, as records of
/// submitted work are not.
#[must_use]
pub fn kind_of(path: &str, actions: &str, formulas: &str) -> Option<FileKind> {
    let within = |folder: &str| path.strip_prefix(folder.trim_end_matches('/'))?.strip_prefix('/');
    if let Some(name) = within(formulas) {
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        return (!name.contains('/') && matches!(ending, Some("sh" | "toml"))).then_some(FileKind::Formula);
    }
    let name = within(actions)?;
    action::stem(name).filter(|_| !is_record(path, actions)).map(|_| FileKind::Action)
}

/// Checks every action and formula among `files` (path relative to the repo's root, content), as the
/// agent would; `actions` and `formulas` are the two folders. Gives one report for each, in the order
/// of their paths.
#[must_use]
pub fn validate_tree(files: &[(String, Vec<u8>)], actions: &str, formulas: &str) -> Vec<FileReport> {
    let sorted: BTreeMap<&str, &[u8]> =
        files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let of_kind = |kind: FileKind| {
        sorted.iter().filter(move |(path, _)| kind_of(path, actions, formulas) == Some(kind))
    };
    let known = KnownFormulas {
        files: of_kind(FileKind::Formula)
            .map(|(path, content)| SourceFile { path: (*path).to_owned(), content: content.to_vec() })
            .collect(),
    };
    let mut reports: Vec<FileReport> = known.files.iter().map(|file| known.report(file)).collect();
    let mut first_of_id: BTreeMap<String, &str> = BTreeMap::new();
    for (path, content) in of_kind(FileKind::Action) {
        let (valid, mut problems) = match check(path, content, &known) {
            Checked::Valid(valid) => (Some(valid), Vec::new()),
            Checked::Invalid(invalid) => (None, invalid.problems),
        };
        let key = action::stem(path).unwrap_or_default().to_lowercase();
        match first_of_id.get(&key) {
            Some(first) => problems.push(duplicate_id(content, first)),
            None => {
                first_of_id.insert(key, path);
            }
        }
        let report = FileReport::new(path, FileKind::Action, content, problems);
        reports.push(FileReport { valid, ..report });
    }
    refuse_circles(&mut reports);
    reports.sort_by(|left, right| left.path.cmp(&right.path));
    reports
}

/// Takes down which actions wait for each other in a circle.
fn refuse_circles(reports: &mut [FileReport]) {
    let actions: Vec<_> = reports
        .iter()
        .filter_map(|report| report.valid.as_ref())
        .map(|valid| (valid.action.id.clone(), valid.action.after.clone()))
        .collect();
    let circles = after::circles(&actions.iter().map(|(id, after)| (id.key(), after.as_slice())).collect());
    for report in reports {
        let Some(id) = report.valid.as_ref().map(|valid| valid.action.id.clone()) else { continue };
        if let Some(circle) = circles.get(&id.key()) {
            report.refuse("after", after::message(id.as_str(), circle));
        }
    }
}

/// The problem of an action whose id an earlier file has: ids that differ in case alone are one id.
#[must_use]
pub fn duplicate_id(content: &[u8], first: &str) -> Diagnostic {
    let place = crate::table::place_of(&String::from_utf8_lossy(content), "id");
    Diagnostic::new(format!("the id is taken by {first}"), place)
        .with_help("ids are unique over all folders, upper and lower case not told apart: choose another")
}

/// The formulas among the files of a tree.
struct KnownFormulas {
    files: Vec<SourceFile>,
}

/// The stem of a formula's file.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

impl KnownFormulas {
    fn report(&self, file: &SourceFile) -> FileReport {
        let mut problems = formula::file::read(&file.path, &file.content).err().unwrap_or_default();
        if let Ok(name) = FormulaName::parse(stem(&file.path))
            && let [first, second, ..] = self.files(&name).as_slice()
        {
            let (message, help) = ambiguous(&name, &first.path, &second.path);
            problems.insert(0, Diagnostic { message, span: 0..0, help });
        }
        FileReport::new(&file.path, FileKind::Formula, &file.content, problems)
    }
}

impl Formulas for KnownFormulas {
    fn files(&self, name: &FormulaName) -> Vec<SourceFile> {
        self.files.iter().filter(|file| stem(&file.path) == name.as_str()).cloned().collect()
    }

    fn names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.files.iter().map(|file| stem(&file.path)).collect();
        names.into_iter().map(ToOwned::to_owned).collect()
    }
}
