//! The formulas that one revision of the ops repo has.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::Mutex;

use crate::{
    action::FILE_LIMIT,
    diagnostic::summary,
    formula::{self, Formula},
    ids::{FormulaName, Revision},
    ops_repo::{self, Blob, BlobId, Entry, EntryKind, OpsRepo},
    validation::{Formulas, SourceFile},
};

/// How many formulas are kept for the next submissions.
const KEPT: usize = 256;

/// The formulas of one revision that submissions named: most name the same few, and each reading asks git twice.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<Option<Named>>);

#[derive(Debug)]
struct Named {
    revision: Revision,
    formulas: HashMap<FormulaName, Arc<AtRevision>>,
}

impl Shelf {
    /// The formula `name` as `revision` has it. Whoever asks for one that is being read waits for it.
    pub(super) async fn take(
        &self,
        repo: &OpsRepo,
        revision: &Revision,
        name: FormulaName,
    ) -> Result<Arc<AtRevision>, ops_repo::Error> {
        let mut kept = self.0.lock().await;
        let known = match &mut *kept {
            Some(known) if known.revision == *revision && known.formulas.len() < KEPT => known,
            other => other.insert(Named { revision: revision.clone(), formulas: HashMap::new() }),
        };
        if let Some(formulas) = known.formulas.get(&name) {
            return Ok(Arc::clone(formulas));
        }
        let formulas = Arc::new(AtRevision::read(repo, revision, &BTreeSet::from([name.clone()])).await?);
        if formulas.files.contains_key(name.as_str()) {
            known.formulas.insert(name, Arc::clone(&formulas));
        }
        Ok(formulas)
    }
}

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
