//! What a watched tree looked like: two hashes for each file, and one for all.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::trigger::globs::Globs;

/// How many changed paths are named.
const NAMED: usize = 20;

/// The files of a tree that globs match, as they were last looked at. It keeps no path: 16 bytes for each file.
#[derive(Debug)]
pub(super) struct Tree {
    globs: Globs,
    limit: usize,
    files: HashMap<u64, u64>,
    /// All files together, whatever their order: the XOR of their stamps.
    digest: u64,
}

/// What tells one state of a tree from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    watched: String,
    state: String,
}

impl Digest {
    /// Whether `mark`, as an earlier digest printed, is of the same globs and another state.
    pub(super) fn is_change_from(&self, mark: &str) -> bool {
        mark.split_once(':').is_some_and(|(watched, state)| watched == self.watched && state != self.state)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.watched, self.state)
    }
}

/// What differs from the look before.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How many files are new, changed or gone.
    pub(super) count: usize,
    /// Some of those that are new or changed.
    pub(super) paths: Vec<String>,
}

/// A look at the whole tree.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) changes: Changes,
    /// Every folder that a match can be in.
    pub(super) folders: HashSet<PathBuf>,
    /// The first folder that could not be read, and why.
    pub(super) unreadable: Option<String>,
}

/// Why a tree is not watched.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} files match `paths`: leave some out, or raise `max_files`")]
pub(super) struct TooMany(usize);

impl Changes {
    fn note(&mut self, path: &Path) {
        self.count += 1;
        let name = path.to_string_lossy();
        if self.paths.len() < NAMED && !self.paths.iter().any(|known| *known == name) {
            self.paths.push(name.into_owned());
        }
    }

    /// Adds others.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        for path in other.paths {
            if self.paths.len() < NAMED && !self.paths.contains(&path) {
                self.paths.push(path);
            }
        }
    }
}

impl Tree {
    /// A tree that was not looked at yet.
    pub(super) fn new(globs: Globs, limit: usize) -> Self {
        Self { globs, limit, files: HashMap::new(), digest: 0 }
    }

    /// How many files it has.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// What tells one state of the tree from another: what is watched, and how that looks.
    pub(super) fn digest(&self) -> Digest {
        let watched = format!("{:016x}", first(Sha256::digest(self.globs.text()).as_slice()));
        Digest { watched, state: format!("{:016x}-{}", self.digest, self.files.len()) }
    }

    /// Looks at every file. Symbolic links are looked at, and not followed; a root may be one.
    pub(super) fn scan(&mut self) -> Result<Scan, TooMany> {
        let mut scan = Scan::default();
        let mut files = HashMap::with_capacity(self.files.len());
        let mut digest = 0;
        let mut folders: Vec<PathBuf> = self.globs.roots().to_vec();
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // It is gone since its parent was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    scan.unreadable.get_or_insert_with(|| format!("{}: {error}", folder.display()));
                    continue;
                }
            };
            for entry in entries.filter_map(Result::ok) {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if !self.globs.closes(&path) {
                        folders.push(path);
                    }
                    continue;
                }
                if !self.globs.matches(&path) {
                    continue;
                }
                let Ok(metadata) = entry.metadata() else { continue };
                let (key, stamp) = (key(&path), stamp(&path, &metadata));
                if files.len() >= self.limit {
                    return Err(TooMany(self.limit));
                }
                files.insert(key, stamp);
                digest ^= stamp;
                if self.files.remove(&key) != Some(stamp) {
                    scan.changes.note(&path);
                }
            }
            scan.folders.insert(folder);
        }
        // What was not met again is gone.
        scan.changes.count += self.files.len();
        self.files = files;
        self.digest = digest;
        Ok(scan)
    }

    /// Looks at one file.
    pub(super) fn look(&mut self, path: &Path, changes: &mut Changes) -> Result<(), TooMany> {
        if !self.globs.matches(path) {
            return Ok(());
        }
        let now = fs::symlink_metadata(path).ok().filter(|metadata| !metadata.is_dir());
        let now = now.map(|metadata| stamp(path, &metadata));
        let before = match now {
            Some(stamp) => self.files.insert(key(path), stamp),
            None => self.files.remove(&key(path)),
        };
        if before != now {
            self.digest ^= before.unwrap_or_default() ^ now.unwrap_or_default();
            changes.note(path);
        }
        if self.files.len() > self.limit { Err(TooMany(self.limit)) } else { Ok(()) }
    }
}

fn key(path: &Path) -> u64 {
    first(Sha256::digest(path.as_os_str().as_bytes()).as_slice())
}

fn stamp(path: &Path, metadata: &Metadata) -> u64 {
    let mut hash = Sha256::new();
    for number in [
        metadata.ino(),
        metadata.len(),
        metadata.mtime().cast_unsigned(),
        metadata.mtime_nsec().cast_unsigned(),
    ] {
        hash.update(number.to_le_bytes());
    }
    hash.update(path.as_os_str().as_bytes());
    first(hash.finalize().as_slice())
}

fn first(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folder: &Path, limit: usize) -> Tree {
        let paths = ["**/*.md", "!drafts/**"].map(|glob| match glob.strip_prefix('!') {
            Some(glob) => format!("!{}/{glob}", folder.display()),
            None => format!("{}/{glob}", folder.display()),
        });
        Tree::new(Globs::new(&paths, true).unwrap(), limit)
    }

    #[test]
    fn new_changed_and_removed_files_are_seen_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        };
        write("a.md", "1");
        write("sub/b.md", "1");
        write("drafts/c.md", "1");
        write("d.txt", "1");
        std::os::unix::fs::symlink("/", at("outside")).unwrap();
        let mut tree = tree(folder.path(), 10);
        let first = tree.scan().unwrap();
        assert_eq!((first.changes.count, tree.len()), (2, 2));
        assert_eq!(first.folders, HashSet::from([at(""), at("sub")].map(|path| path.components().collect())));
        let digest = tree.digest();
        assert_eq!(tree.scan().unwrap().changes.count, 0);
        write("d.txt", "22");
        write("drafts/c.md", "22");
        assert_eq!(tree.scan().unwrap().changes.count, 0);
        assert_eq!(tree.digest(), digest);

        write("a.md", "22");
        fs::remove_file(at("sub/b.md")).unwrap();
        let scan = tree.scan().unwrap();
        assert_eq!((scan.changes.count, tree.len()), (2, 1));
        assert_eq!(scan.changes.paths, [at("a.md").to_str().unwrap()]);
        assert!(tree.digest().is_change_from(&digest.to_string()));
        assert!(!tree.digest().is_change_from(&tree.digest().to_string()));
        let other = Tree::new(Globs::new(&["/other/**".to_owned()], true).unwrap(), 10);
        assert!(!other.digest().is_change_from(&digest.to_string()), "other files are meant now");
    }

    #[test]
    fn a_look_at_one_file_comes_to_the_same_as_a_scan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.md");
        let (mut looking, mut scanning) = (tree(folder.path(), 10), tree(folder.path(), 10));
        for text in [Some("1"), Some("22"), Some("22"), None, None, Some("3")] {
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
            let mut changes = Changes::default();
            looking.look(&path, &mut changes).unwrap();
            let scan = scanning.scan().unwrap();
            assert_eq!(changes.count, scan.changes.count, "{text:?}");
            assert_eq!(looking.digest(), scanning.digest());
        }
    }

    #[test]
    fn too_many_files_are_an_error_and_not_memory() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..4 {
            fs::write(folder.path().join(format!("{number}.md")), "").unwrap();
        }
        assert!(tree(folder.path(), 3).scan().is_err());
        assert!(tree(folder.path(), 4).scan().is_ok());
    }
}
