//! The formulas that one revision of the ops repo has.

use std::collections::{BTreeSet, HashMap};

use crate::{
    action::FILE_LIMIT,
    diagnostic::summary,
    formula::{self, Formula},
    ids::{FormulaName, Revision},
    ops_repo::{self, Blob, BlobId, Entry, EntryKind, OpsRepo},
    validation::{Formulas, SourceFile},
};

/// The formulas of one revision.
#[derive(Debug)]
pub(super) struct AtRevision {
    files: HashMap<String, Vec<SourceFile>>,
    names: Vec<String>,
}

impl AtRevision {
    /// Reads those that are `named`, and the names of all.
    pub(super) async fn read(
        repo: &OpsRepo,
        tip: &Revision,
        named: &BTreeSet<FormulaName>,
    ) -> Result<Self, ops_repo::Error> {
        let mut formulas = Self { files: HashMap::new(), names: Vec::new() };
        if named.is_empty() {
            return Ok(formulas);
        }
        let mut wanted = Vec::new();
        for entry in repo.formulas(tip).await? {
            let Some(name) = formula_name(&entry.path) else { continue };
            if matches!(entry.content.kind, EntryKind::Regular | EntryKind::Executable) {
                if named.iter().any(|wanted| wanted.as_str() == name) {
                    wanted.push((name.clone(), entry));
                }
                formulas.names.push(name);
            }
        }
        let blobs: Vec<BlobId> = wanted.iter().map(|(_, entry)| entry.content.blob.clone()).collect();
        // One byte more than the limit, so that the reader of formulas says that it is too large.
        let contents = repo.read_blobs(&blobs, usize::MAX).await?;
        for ((name, entry), content) in wanted.into_iter().zip(contents) {
            if let Blob::Bytes(content) = content {
                formulas.files.entry(name).or_default().push(SourceFile { path: entry.path, content });
            }
        }
        Ok(formulas)
    }
}

/// A formula of a revision as a list has it.
#[derive(Debug)]
pub struct Listed {
    /// The stem of its file.
    pub name: String,
    /// Its file.
    pub path: String,
    /// What it is, or why it cannot be used.
    pub formula: Result<Formula, String>,
}

/// Every formula of a revision, in the order of their files.
pub async fn list(repo: &OpsRepo, revision: &Revision) -> Result<Vec<Listed>, ops_repo::Error> {
    let entries = repo.formulas(revision).await?;
    let named: Vec<(String, Entry)> =
        entries.into_iter().filter_map(|entry| Some((formula_name(&entry.path)?, entry))).collect();
    let blobs: Vec<BlobId> = named.iter().map(|(_, entry)| entry.content.blob.clone()).collect();
    let contents = repo.read_blobs(&blobs, FILE_LIMIT).await?;
    let listed = named.into_iter().zip(contents).map(|((name, Entry { path, .. }), content)| {
        let formula = match content {
            Blob::Bytes(content) => formula::file::read(&path, &content)
                .map_err(|problems| summary(&path, &String::from_utf8_lossy(&content), &problems)),
            Blob::TooLarge { .. } => Err(format!("{path} has more than {FILE_LIMIT} bytes")),
            Blob::Missing => Err(format!("the content of {path} is missing from the repository")),
        };
        Listed { name, path, formula }
    });
    Ok(listed.collect())
}

fn formula_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    name.strip_suffix(".sh").or_else(|| name.strip_suffix(".toml")).map(ToOwned::to_owned)
}

impl Formulas for AtRevision {
    fn files(&self, name: &FormulaName) -> Vec<SourceFile> {
        self.files.get(name.as_str()).cloned().unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
}
