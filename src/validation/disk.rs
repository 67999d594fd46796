//! Reads the files to validate from disk: a work tree of an ops repo, or single files of one.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::tree::{FileKind, FileReport, kind_of, validate_tree};
use crate::{action, formula};

/// Why files could not be read from disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A path names what can be neither an action nor a formula.
    #[error("{path} is no action, no formula and no folder: their names end in `.toml` or `.sh`")]
    UnknownKind {
        /// The path.
        path: PathBuf,
    },
}

/// The files of one folder that is laid out as an ops repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The folder.
    pub root: PathBuf,
    /// Path relative to the root, and content, of every action and formula.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Reads every action and formula below `root`. Symbolic links are not followed, and nothing outside
/// the two folders is read.
pub fn read_tree(root: &Path, actions: &str, formulas: &str) -> Result<Tree, Error> {
    let mut files = Vec::new();
    for folder in BTreeSet::from([actions, formulas]) {
        let folder = folder.trim_end_matches('/');
        if is_real_folder(&root.join(folder)) {
            read_folder(root, folder, &|path| kind_of(path, actions, formulas), &mut files)?;
        }
    }
    files.sort();
    files.dedup();
    Ok(Tree { root: root.to_owned(), files })
}

/// Validates each of `paths`: every file of a folder that is an ops repo's work tree, or single files.
///
/// A single file that stands in an ops repo is checked with the formulas of that repo; one that stands
/// elsewhere is checked alone, so that its formula may be unknown.
pub fn validate_paths(paths: &[PathBuf], actions: &str, formulas: &str) -> Result<Vec<FileReport>, Error> {
    let mut reports = Vec::new();
    for path in paths {
        if path.is_dir() {
            let tree = read_tree(path, actions, formulas)?;
            reports.extend(validate_tree(&tree.files, actions, formulas));
        } else {
            reports.push(validate_file(path, actions, formulas)?);
        }
    }
    Ok(reports)
}

fn validate_file(path: &Path, actions: &str, formulas: &str) -> Result<FileReport, Error> {
    let absolute =
        std::path::absolute(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    for root in absolute.ancestors().skip(1) {
        let Some(relative) = absolute.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
        if kind_of(relative, actions, formulas).is_some() {
            let tree = read_tree(root, actions, formulas)?;
            let reports = validate_tree(&tree.files, actions, formulas);
            if let Some(report) = reports.into_iter().find(|report| report.path == relative) {
                return Ok(report);
            }
        }
    }
    let content = read_file(path)?;
    let name = path.to_string_lossy();
    let in_formulas = path.parent().is_some_and(|parent| parent.ends_with(formulas));
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") if !in_formulas => {
            let problems = action::file::read(&name, &content).err().unwrap_or_default();
            Ok(FileReport::new(&name, FileKind::Action, &content, problems))
        }
        Some("toml" | "sh") => {
            let problems = formula::file::read(&name, &content).err().unwrap_or_default();
            Ok(FileReport::new(&name, FileKind::Formula, &content, problems))
        }
        _ => Err(Error::UnknownKind { path: path.to_owned() }),
    }
}

/// Whether `path` is a folder, and no link to one.
fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn read_folder(
    root: &Path,
    folder: &str,
    kind: &impl Fn(&str) -> Option<FileKind>,
    files: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), Error> {
    let path = root.join(folder);
    let unreadable = |source| Error::Read { path: path.clone(), source };
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let file_type = entry.file_type().map_err(unreadable)?;
        let relative = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if file_type.is_dir() {
            read_folder(root, &relative, kind, files)?;
        } else if file_type.is_file() && kind(&relative).is_some() {
            files.push((relative, read_file(&entry.path())?));
        }
    }
    Ok(())
}

/// The file's content, of one that is too large only as much as shows that it is.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut content = Vec::new();
    let most = u64::try_from(action::FILE_LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    io::Read::read_to_end(&mut io::Read::take(file, most), &mut content).map_err(unreadable)?;
    Ok(content)
}
