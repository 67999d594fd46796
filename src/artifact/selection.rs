//! Chooses among what the folders hold.

use super::{
    DEPTH, ENTRIES, Globs, Limits, name,
    remark::{Kind, Remarks},
};

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// What it is; links are not followed to tell.
    pub kind: EntryKind,
    /// Its size in bytes.
    pub size: u64,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket, or something unknown.
    Special,
}

/// A file that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its path, relative to the task's working directory.
    pub name: String,
    /// Its size in bytes when it was listed.
    pub size: u64,
}

/// A search under way.
#[derive(Debug)]
pub struct Selection<'globs> {
    globs: &'globs Globs,
    limits: Limits,
    matched: Vec<bool>,
    chosen: Vec<Chosen>,
    entries: usize,
    remarks: Remarks,
}

impl<'globs> Selection<'globs> {
    /// A search that begins with the working directory, whose name is empty.
    #[must_use]
    pub fn new(globs: &'globs Globs, limits: Limits) -> Self {
        let matched = globs.texts().map(|_| false).collect();
        Self { globs, limits, matched, chosen: Vec::new(), entries: 0, remarks: Remarks::default() }
    }

    /// Takes what a folder holds, and gives the folders to look into next.
    pub fn add(&mut self, folder: &str, mut entries: Vec<Entry>) -> Vec<String> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut next = Vec::new();
        for entry in entries {
            if self.entries == ENTRIES {
                self.remarks.note(Kind::Entries, if folder.is_empty() { "." } else { folder });
                break;
            }
            self.entries += 1;
            let path =
                if folder.is_empty() { entry.name.clone() } else { format!("{folder}/{}", entry.name) };
            if entry.kind == EntryKind::Folder {
                next.extend(self.folder(path, &entry.name));
            } else {
                self.file(path, &entry);
            }
        }
        next
    }

    fn folder(&mut self, path: String, own: &str) -> Option<String> {
        for glob in self.globs.matching(&path) {
            if self.globs.texts().nth(glob) == Some(path.as_str()) {
                self.matched[glob] = true;
                self.remarks.note(Kind::Folder, &path);
            }
        }
        if !self.globs.may_hold(&path) {
            return None;
        }
        let refused = if !name::is_legal_part(own) || path.len() > name::LIMIT {
            Kind::Name
        } else if path.split('/').count() > DEPTH {
            Kind::Depth
        } else {
            return Some(path);
        };
        self.remarks.note(refused, &path);
        None
    }

    fn file(&mut self, path: String, entry: &Entry) {
        let globs = self.globs.matching(&path);
        if globs.is_empty() {
            return;
        }
        for glob in globs {
            self.matched[glob] = true;
        }
        if !name::is_legal_part(&entry.name) || path.len() > name::LIMIT {
            return self.remarks.note(Kind::Name, &path);
        }
        match entry.kind {
            EntryKind::Link => self.remarks.note(Kind::Link, &path),
            EntryKind::Special | EntryKind::Folder => self.remarks.note(Kind::Special, &path),
            EntryKind::File if entry.size > self.limits.size => {
                self.remarks.note_size(Kind::Size, &path, entry.size);
            }
            EntryKind::File => self.chosen.push(Chosen { name: path, size: entry.size }),
        }
    }

    /// Notes a folder that could not be looked into.
    pub fn unseen(&mut self, folder: &str, kind: Kind, reason: &str) {
        self.remarks.note_reason(kind, if folder.is_empty() { "." } else { folder }, reason);
    }

    /// What is kept, in the order of the names, and what is to be said.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Chosen>, Remarks) {
        for (glob, _) in self.globs.texts().zip(&self.matched).filter(|(_, matched)| !**matched) {
            self.remarks.note(Kind::Unmatched, glob);
        }
        self.chosen.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut kept, mut total) = (Vec::new(), 0_u64);
        for file in self.chosen {
            if kept.len() == self.limits.count {
                self.remarks.note(Kind::Count, &file.name);
            } else if total.saturating_add(file.size) > self.limits.total {
                self.remarks.note_size(Kind::Total, &file.name, file.size);
            } else {
                total += file.size;
                kept.push(file);
            }
        }
        (kept, self.remarks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { size: 100, total: 150, count: 3 };

    fn entry(name: &str, kind: EntryKind, size: u64) -> Entry {
        Entry { name: name.to_owned(), kind, size }
    }

    fn file(name: &str, size: u64) -> Entry {
        entry(name, EntryKind::File, size)
    }

    fn globs(texts: &[&str]) -> Globs {
        Globs::new(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    fn finish(selection: Selection<'_>) -> (Vec<String>, String) {
        let (chosen, remarks) = selection.finish();
        (chosen.into_iter().map(|file| file.name).collect(), remarks.clause(&LIMITS).unwrap_or_default())
    }

    #[test]
    fn files_that_match_are_chosen_and_folders_that_may_hold_some_are_next() {
        let globs = globs(&["*.txt", "out/**", "gone"]);
        let mut selection = Selection::new(&globs, LIMITS);
        let folders = [entry("out", EntryKind::Folder, 0), entry("other", EntryKind::Folder, 0)];
        let next = selection.add("", [vec![file("b.txt", 1), file("a.md", 1)], folders.to_vec()].concat());
        assert_eq!(next, ["out"]);
        assert_eq!(selection.add("out", vec![file("a", 1)]), Vec::<String>::new());
        let (names, said) = finish(selection);
        assert_eq!(names, ["b.txt", "out/a"]);
        assert_eq!(said, "artifacts: no file matched \"gone\"");
    }

    #[test]
    fn links_devices_and_bad_names_are_refused_by_name() {
        let globs = globs(&["**"]);
        let mut selection = Selection::new(&globs, LIMITS);
        let next = selection.add(
            "",
            vec![
                entry("link", EntryKind::Link, 11),
                entry("pipe", EntryKind::Special, 0),
                entry("..", EntryKind::Folder, 0),
                entry("bad\u{fffd}", EntryKind::Folder, 0),
                file("a\nb", 1),
                file("..", 1),
                file("fine", 1),
            ],
        );
        assert_eq!(next, Vec::<String>::new());
        let (names, said) = finish(selection);
        assert_eq!(names, ["fine"]);
        for part in ["links: \"link\"", "sockets: \"pipe\"", "\"..\"", "\"a\\nb\"", "\"bad\u{fffd}\""] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn what_is_over_a_limit_is_refused_by_name_and_the_rest_is_kept() {
        let globs = globs(&["*"]);
        let mut selection = Selection::new(&globs, LIMITS);
        let sizes = [("a", 101), ("b", 100), ("c", 60), ("d", 50), ("e", 0), ("f", 0), ("g", 0)];
        selection.add("", sizes.iter().map(|(name, size)| file(name, *size)).collect());
        let (names, said) = finish(selection);
        assert_eq!(names, ["b", "d", "e"]);
        for part in ["one artifact: \"a\" (101 B)", "one job: \"c\" (60 B)", "files of one job: \"f\", \"g\""]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn a_glob_that_names_a_folder_is_told_what_to_write() {
        let globs = globs(&["report"]);
        let mut selection = Selection::new(&globs, LIMITS);
        selection.add("", vec![entry("report", EntryKind::Folder, 0)]);
        assert!(finish(selection).1.contains("adding `/**`: \"report\""));
    }

    #[test]
    fn depth_and_entries_are_bounded() {
        let globs = globs(&["**"]);
        let mut selection = Selection::new(&globs, LIMITS);
        let deep = vec!["d"; DEPTH].join("/");
        assert_eq!(selection.add(&deep, vec![entry("d", EntryKind::Folder, 0)]), Vec::<String>::new());
        let many = (0..=ENTRIES).map(|number| file(&number.to_string(), 0)).collect();
        selection.add("many", many);
        let (names, said) = finish(selection);
        assert_eq!(names.len(), LIMITS.count);
        assert!(said.contains("32 folders deep") && said.contains("too many entries: \"many\""), "{said}");
    }

    proptest! {
        #[test]
        fn whatever_a_task_makes_stays_below_and_within_the_limits(
            entries in proptest::collection::vec((any::<String>(), 0..4_u8, 0..200_u64), 0..40),
        ) {
            let globs = globs(&["**"]);
            let mut selection = Selection::new(&globs, LIMITS);
            let kinds = [EntryKind::File, EntryKind::Folder, EntryKind::Link, EntryKind::Special];
            let entries: Vec<Entry> =
                entries.iter().map(|(name, kind, size)| entry(name, kinds[usize::from(*kind)], *size)).collect();
            let mut next = selection.add("", entries.clone());
            if let Some(folder) = next.pop() {
                selection.add(&folder, entries);
            }
            let (chosen, _) = selection.finish();
            prop_assert!(chosen.len() <= LIMITS.count);
            prop_assert!(chosen.iter().map(|file| file.size).sum::<u64>() <= LIMITS.total);
            for file in chosen {
                prop_assert!(file.name.split('/').all(name::is_legal_part), "{:?}", file.name);
            }
        }
    }
}
