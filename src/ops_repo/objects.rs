//! Reading: trees, differences and blobs of the mirror, never a work tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Blob, BlobId, Change, Content, Entry, EntryKind, Error, Mirror, OpsRepo, Settings,
    git::Invocation,
    reader::{Object, Want},
};
use crate::{hexadecimal, ids::Revision};

/// The mode of a folder.
const FOLDER: u32 = 0o40000;
const READ_TREE: &str = "read a tree";

impl Mirror {
    /// Whether the mirror holds the commit.
    pub async fn has_commit(&self, revision: &Revision) -> Result<bool, Error> {
        let name = format!("{revision}^{{commit}}");
        let found = self.reader.ask("look up a commit", Want::Header, vec![name]).await?;
        Ok(found.iter().all(Option::is_some))
    }

    /// Where references of the mirror stand.
    pub(super) async fn references<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<Revision>; N], Error> {
        let operation = "look at the mirror";
        let found = self.reader.ask(operation, Want::Header, names.map(ToOwned::to_owned).into()).await?;
        let revisions: Vec<Option<Revision>> =
            found.into_iter().map(|object| Revision::parse(&object?.id).ok()).collect();
        revisions.try_into().map_err(|_| Error::Answer { operation })
    }

    /// What differs at or below `paths`; everywhere where none is given. [`Error::UnknownRevision`] where the mirror
    /// lacks one of the two.
    pub async fn difference(
        &self,
        from: &Revision,
        to: &Revision,
        paths: &[&str],
    ) -> Result<Vec<Change>, Error> {
        let operation = "compare two revisions";
        let mut arguments = vec!["diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index"];
        arguments.extend([from.as_str(), to.as_str(), "--"]);
        arguments.extend(paths);
        let ended = self.git.run(Invocation::new(operation, arguments)).await?;
        if !ended.succeeded() {
            for revision in [from, to] {
                if !self.has_commit(revision).await? {
                    return Err(Error::UnknownRevision { revision: revision.clone() });
                }
            }
        }
        parse_changes(&ended.output()?).ok_or(Error::Answer { operation })
    }
}

impl OpsRepo {
    /// Where it is, and where things are in it.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether `ancestor` is part of the history of `descendant`; not so where the mirror lacks either.
    pub async fn is_ancestor(&self, ancestor: &Revision, descendant: &Revision) -> Result<bool, Error> {
        // Mostly one is the parent of the other, which takes no walk.
        if self.parents(descendant).await?.contains(ancestor) && self.has_commit(ancestor).await? {
            return Ok(true);
        }
        let arguments = ["merge-base", "--is-ancestor", ancestor.as_str(), descendant.as_str()];
        let ended = self.mirror.git.run(Invocation::new("compare two revisions", arguments)).await?;
        match ended.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ if self.has_commit(ancestor).await? && self.has_commit(descendant).await? => Err(ended.error()),
            _ => Ok(false),
        }
    }

    /// The parents of a commit; none where the mirror lacks it.
    async fn parents(&self, revision: &Revision) -> Result<Vec<Revision>, Error> {
        let name = format!("{revision}^{{commit}}");
        let found = self.mirror.reader.ask("read a commit", Want::Content, vec![name]).await?;
        let parents = found.into_iter().flatten().flat_map(|commit| parse_parents(&commit.content));
        Ok(parents.collect())
    }

    /// Everything in the actions and formulas folders at `revision`.
    pub async fn snapshot(&self, revision: &Revision) -> Result<Vec<Entry>, Error> {
        let operation = "list the actions and formulas";
        let arguments = ["ls-tree", "-z", "-r", "--full-tree", revision.as_str(), "--"];
        let folders = [self.settings.actions.as_str(), &self.settings.formulas];
        let arguments = [&arguments[..], &folders].concat();
        let ended = self.mirror.git.run(Invocation::new(operation, arguments)).await?;
        if !ended.succeeded() && !self.has_commit(revision).await? {
            return Err(Error::UnknownRevision { revision: revision.clone() });
        }
        parse_snapshot(&ended.output()?).ok_or(Error::Answer { operation })
    }

    /// What differs in the actions and formulas folders. [`Error::UnknownRevision`] where the mirror
    /// lacks one of the two: take a [`Self::snapshot`] then.
    pub async fn changes(&self, from: &Revision, to: &Revision) -> Result<Vec<Change>, Error> {
        let folders = [self.settings.actions.as_str(), &self.settings.formulas];
        self.mirror.difference(from, to, &folders).await
    }

    /// Every file of the formulas folder at `revision`, without what is in folders below it.
    pub async fn formulas(&self, revision: &Revision) -> Result<Vec<Entry>, Error> {
        self.files_in(revision, self.settings.formulas.trim_end_matches('/'), |_| true).await
    }

    /// Those of `paths` that are there at `revision`.
    pub async fn files_at(&self, revision: &Revision, paths: &[&str]) -> Result<Vec<Entry>, Error> {
        let mut folders: BTreeMap<&str, BTreeSet<&[u8]>> = BTreeMap::new();
        for path in paths {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            folders.entry(folder).or_default().insert(name.as_bytes());
        }
        let mut entries = Vec::new();
        for (folder, names) in folders {
            entries.extend(self.files_in(revision, folder, |name| names.contains(name)).await?);
        }
        Ok(entries)
    }

    /// Those files of one folder whose names are wanted, in the order of the names; none where there is no such
    /// folder.
    async fn files_in(
        &self,
        revision: &Revision,
        folder: &str,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Entry>, Error> {
        let unknown = || Error::UnknownRevision { revision: revision.clone() };
        let mut tree = self.tree(format!("{revision}^{{tree}}")).await?.ok_or_else(unknown)?;
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            let line = tree.lines()?.into_iter().find(|line| line.name == name.as_bytes());
            let Some(line) = line.filter(|line| line.mode == FOLDER) else { return Ok(Vec::new()) };
            let below = self.tree(hexadecimal::encode(line.id)).await?;
            tree = below.ok_or(Error::Answer { operation: READ_TREE })?;
        }
        let lines = tree.lines()?.into_iter().filter(|line| line.mode != FOLDER && is_wanted(line.name));
        let entry = |line: TreeLine<'_>| {
            let (name, utf8) = path(line.name);
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            Some(Entry {
                path,
                content: content(&format!("{:06o}", line.mode), &hexadecimal::encode(line.id), utf8)??,
            })
        };
        lines.map(|line| entry(line).ok_or(Error::Answer { operation: READ_TREE })).collect()
    }

    async fn tree(&self, name: String) -> Result<Option<Tree>, Error> {
        let found = self.mirror.reader.ask(READ_TREE, Want::Content, vec![name]).await?;
        Ok(found.into_iter().next().flatten().map(Tree))
    }

    /// The blobs, in the order asked for, those of more than `limit` bytes unread.
    pub async fn read_blobs(&self, ids: &[BlobId], limit: usize) -> Result<Vec<Blob>, Error> {
        let operation = "read files of the ops repo";
        let ask = |want, ids: Vec<&BlobId>| {
            let names = ids.into_iter().map(|id| id.as_str().to_owned()).collect();
            self.mirror.reader.ask(operation, want, names)
        };
        let headers = ask(Want::Header, ids.iter().collect()).await?;
        let is_small = |object: &Object| object.size <= limit as u64;
        let small = ids.iter().zip(&headers).filter(|(_, object)| object.as_ref().is_some_and(is_small));
        let mut contents = ask(Want::Content, small.map(|(id, _)| id).collect()).await?.into_iter();
        let blobs = headers.into_iter().map(|header| match header {
            Some(object) if object.kind != "blob" => Ok(Blob::Missing),
            Some(object) if !is_small(&object) => Ok(Blob::TooLarge { size: object.size }),
            Some(_) => {
                let read = contents.next().flatten().ok_or(Error::Answer { operation })?;
                Ok(Blob::Bytes(read.content))
            }
            // What a damaged mirror cannot read is no answer about the file.
            None if self.is_damaged() => Err(Error::Answer { operation }),
            None => Ok(Blob::Missing),
        });
        blobs.collect()
    }
}

/// A tree as git keeps it.
struct Tree(Object);

impl Tree {
    fn lines(&self) -> Result<Vec<TreeLine<'_>>, Error> {
        let lines =
            if self.0.kind == "tree" { parse_tree(&self.0.content, self.0.id.len() / 2) } else { None };
        lines.ok_or(Error::Answer { operation: READ_TREE })
    }
}

/// A name in a tree, and what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLine<'tree> {
    /// What it is, as in a file's status.
    pub mode: u32,
    /// Its name, without the folders that it is in.
    pub name: &'tree [u8],
    /// The object's id, as bytes.
    pub id: &'tree [u8],
}

/// Reads `<mode> <name>\0<id>`…, with ids of so many bytes.
#[must_use]
pub fn parse_tree(mut bytes: &[u8], id_length: usize) -> Option<Vec<TreeLine<'_>>> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let space = bytes[..end].iter().position(|byte| *byte == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
        let name = &bytes[space + 1..end];
        let (id, rest) = bytes[end + 1..].split_at_checked(id_length)?;
        lines.push(TreeLine { mode, name, id });
        bytes = rest;
    }
    Some(lines)
}

/// The parents that a commit names, before the first empty line.
fn parse_parents(commit: &[u8]) -> Vec<Revision> {
    let lines = commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let parents = lines.filter_map(|line| std::str::from_utf8(line.strip_prefix(b"parent ")?).ok());
    parents.filter_map(|id| Revision::parse(id).ok()).collect()
}

/// Reads `<mode> <type> <id>\t<path>\0`…; trees are passed over.
#[must_use]
pub fn parse_snapshot(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    for record in bytes.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&record[..tab]).ok()?.split(' ');
        let (mode, kind, id) = (words.next()?, words.next()?, words.next()?);
        if kind != "tree" {
            let (path, utf8) = path(&record[tab + 1..]);
            entries.push(Entry { path, content: content(mode, id, utf8)?? });
        }
    }
    Some(entries)
}

/// Reads `:<mode> <mode> <id> <id> <status>\0<path>\0`….
#[must_use]
pub fn parse_changes(bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut records = bytes.split(|byte| *byte == 0).filter(|record| !record.is_empty());
    while let Some(record) = records.next() {
        let mut words = std::str::from_utf8(record).ok()?.strip_prefix(':')?.split(' ');
        let (old_mode, new_mode, old, new) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (path, utf8) = path(records.next()?);
        changes.push(Change {
            path,
            before: content(old_mode, old, utf8)?,
            after: content(new_mode, new, utf8)?,
        });
    }
    Some(changes)
}

fn path(bytes: &[u8]) -> (String, bool) {
    (String::from_utf8_lossy(bytes).into_owned(), std::str::from_utf8(bytes).is_ok())
}

/// What a mode and an id mean: `Some(None)` is nothing, `None` not understood.
#[expect(clippy::option_option, reason = "absent and not understood are two answers, private to the parsers")]
fn content(mode: &str, id: &str, utf8: bool) -> Option<Option<Content>> {
    let kind = match mode {
        "000000" => return Some(None),
        _ if !utf8 => EntryKind::NotUtf8,
        "100755" => EntryKind::Executable,
        "120000" => EntryKind::Symlink,
        "160000" => EntryKind::Submodule,
        _ if mode.starts_with("100") => EntryKind::Regular,
        _ => return None,
    };
    Some(Some(Content { kind, blob: BlobId::parse(id)? }))
}
