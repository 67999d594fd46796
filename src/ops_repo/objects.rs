//! Reading: trees, differences and blobs of the mirror, never a work tree.

use super::{
    Blob, BlobId, Change, Content, Entry, EntryKind, Error, Mirror, OpsRepo, Settings, git::Invocation,
};
use crate::ids::Revision;

/// How many paths one command is asked about: far below what the system takes as arguments.
const PATHS_AT_ONCE: usize = 500;

impl Mirror {
    /// Whether the mirror holds the commit.
    pub async fn has_commit(&self, revision: &Revision) -> Result<bool, Error> {
        let object = format!("{revision}^{{commit}}");
        let ended = self.git.run(Invocation::new("look up a commit", ["cat-file", "-e", &object])).await?;
        Ok(ended.succeeded())
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
        let arguments = ["merge-base", "--is-ancestor", ancestor.as_str(), descendant.as_str()];
        let ended = self.mirror.git.run(Invocation::new("compare two revisions", arguments)).await?;
        match ended.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ if self.has_commit(ancestor).await? && self.has_commit(descendant).await? => Err(ended.error()),
            _ => Ok(false),
        }
    }

    /// Everything in the actions and formulas folders at `revision`.
    pub async fn snapshot(&self, revision: &Revision) -> Result<Vec<Entry>, Error> {
        self.tree(revision, &["-r"], &[&self.settings.actions, &self.settings.formulas]).await
    }

    /// What differs in the actions and formulas folders. [`Error::UnknownRevision`] where the mirror
    /// lacks one of the two: take a [`Self::snapshot`] then.
    pub async fn changes(&self, from: &Revision, to: &Revision) -> Result<Vec<Change>, Error> {
        let folders = [self.settings.actions.as_str(), &self.settings.formulas];
        self.mirror.difference(from, to, &folders).await
    }

    /// Every file of the formulas folder at `revision`, without what is in folders below it.
    pub async fn formulas(&self, revision: &Revision) -> Result<Vec<Entry>, Error> {
        self.tree(revision, &[], &[&format!("{}/", self.settings.formulas.trim_end_matches('/'))]).await
    }

    /// Those of `paths` that are there at `revision`.
    pub async fn files_at(&self, revision: &Revision, paths: &[&str]) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for paths in paths.chunks(PATHS_AT_ONCE) {
            entries.extend(self.tree(revision, &[], paths).await?);
        }
        Ok(entries)
    }

    async fn tree(&self, revision: &Revision, options: &[&str], paths: &[&str]) -> Result<Vec<Entry>, Error> {
        let operation = "read a tree";
        let mut arguments = vec!["ls-tree", "-z", "--full-tree"];
        arguments.extend(options);
        arguments.extend([revision.as_str(), "--"]);
        arguments.extend(paths);
        let ended = self.mirror.git.run(Invocation::new(operation, arguments)).await?;
        if !ended.succeeded() && !self.has_commit(revision).await? {
            return Err(Error::UnknownRevision { revision: revision.clone() });
        }
        parse_tree(&ended.output()?).ok_or(Error::Answer { operation })
    }

    /// The blobs, in the order asked for, those of more than `limit` bytes unread.
    pub async fn read_blobs(&self, ids: &[BlobId], limit: usize) -> Result<Vec<Blob>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let operation = "read files of the ops repo";
        let list = |ids: &mut dyn Iterator<Item = &BlobId>| -> String {
            ids.flat_map(|id| {
                [
                    id.as_str(),
                    "
",
                ]
            })
            .collect()
        };
        let check = Invocation::new(operation, ["cat-file", "--batch-check", "--buffer"]);
        let all = list(&mut ids.iter());
        let sizes = self.mirror.git.text(check.input(all)).await?;
        let sizes: Vec<Option<u64>> = sizes.lines().map(blob_size).collect();
        if sizes.len() != ids.len() {
            return Err(Error::Answer { operation });
        }
        let is_small = |size: &Option<u64>| size.is_some_and(|size| size <= limit as u64);
        let small = list(&mut ids.iter().zip(&sizes).filter(|(_, size)| is_small(size)).map(|(id, _)| id));
        let bytes = if small.is_empty() {
            Vec::new()
        } else {
            let batch = Invocation::new(operation, ["cat-file", "--batch", "--buffer"]);
            self.mirror.git.output(batch.input(small)).await?
        };
        let mut rest = bytes.as_slice();
        sizes
            .into_iter()
            .map(|size| match size {
                // What a damaged mirror cannot read is no answer about the file.
                None if self.is_damaged() => Err(Error::Answer { operation }),
                None => Ok(Blob::Missing),
                Some(size) if size > limit as u64 => Ok(Blob::TooLarge { size }),
                Some(size) => take_blob(&mut rest, size).map(Blob::Bytes).ok_or(Error::Answer { operation }),
            })
            .collect()
    }
}

/// The size in a line `<id> blob <size>`; `None` for a missing object or one that is no blob.
fn blob_size(line: &str) -> Option<u64> {
    line.split_once(' ')?.1.strip_prefix("blob ")?.parse().ok()
}

/// Takes a header line, `size` bytes and a newline off `rest`.
fn take_blob(rest: &mut &[u8], size: u64) -> Option<Vec<u8>> {
    let start = rest.iter().position(|byte| *byte == b'\n')? + 1;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    let bytes = rest.get(start..end)?.to_vec();
    *rest = rest.get(end + 1..)?;
    Some(bytes)
}

/// Reads `<mode> <type> <id>\t<path>\0`…; trees are passed over.
#[must_use]
pub fn parse_tree(bytes: &[u8]) -> Option<Vec<Entry>> {
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
