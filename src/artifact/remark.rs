//! What a result says about artifacts that were asked for and not kept.

use std::collections::BTreeMap;

use bytesize::ByteSize;

use super::{DEPTH, Limits};
use crate::table::quote;

/// How many names of a kind are given; the rest is counted.
const SHOWN: usize = 5;

/// What keeps something from being an artifact, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The files were gone before they could be taken.
    Lost,
    /// No file matched a glob.
    Unmatched,
    /// A glob names a folder.
    Folder,
    /// A file is larger than one may be.
    Size,
    /// A file is over what one job may keep, in bytes.
    Total,
    /// A file is over what one job may keep, in number.
    Count,
    /// It is a symbolic link.
    Link,
    /// It is a device, a pipe or a socket.
    Special,
    /// Its name cannot be kept.
    Name,
    /// A folder is too deep.
    Depth,
    /// A folder has too many entries, or all together have.
    Entries,
    /// It grew or shrank while it was read.
    Changed,
    /// Nomad did not give it.
    Unreadable,
    /// The agent's disk is nearly full.
    Room,
    /// The agent could not write it.
    Unwritable,
    /// There was no time left.
    Time,
}

/// All that is to be said about the artifacts of one job; empty where everything was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    groups: BTreeMap<Kind, Group>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    shown: Vec<String>,
    more: usize,
}

impl Remarks {
    /// Notes a file, a folder or a glob.
    pub fn note(&mut self, kind: Kind, name: &str) {
        self.push(kind, || quote(name));
    }

    /// Notes a file with its size in bytes.
    pub fn note_size(&mut self, kind: Kind, name: &str, size: u64) {
        self.push(kind, || format!("{} ({})", quote(name), ByteSize(size)));
    }

    /// Notes a file, or the empty name for all of them, with a reason.
    pub fn note_reason(&mut self, kind: Kind, name: &str, reason: &str) {
        self.push(kind, || {
            if name.is_empty() { reason.to_owned() } else { format!("{} ({reason})", quote(name)) }
        });
    }

    fn push(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        let group = self.groups.entry(kind).or_default();
        if group.shown.len() < SHOWN {
            group.shown.push(text());
        } else {
            group.more += 1;
        }
    }

    /// All of it as one clause; `None` where there is nothing to say.
    #[must_use]
    pub fn clause(&self, limits: &Limits) -> Option<String> {
        let clauses: Vec<String> = self
            .groups
            .iter()
            .map(|(kind, group)| {
                let more = if group.more > 0 { format!(" and {} more", group.more) } else { String::new() };
                format!("{}{}{more}", opening(*kind, limits), group.shown.join(", "))
            })
            .collect();
        (!clauses.is_empty()).then(|| format!("artifacts: {}", clauses.join("; ")))
    }
}

fn opening(kind: Kind, limits: &Limits) -> String {
    match kind {
        Kind::Lost => "lost: ".to_owned(),
        Kind::Unmatched => "no file matched ".to_owned(),
        Kind::Folder => "folders, whose files are kept by adding `/**`: ".to_owned(),
        Kind::Size => format!("refused, larger than the {} of one artifact: ", ByteSize(limits.size)),
        Kind::Total => format!("refused, over the {} of one job: ", ByteSize(limits.total)),
        Kind::Count => format!("refused, over the {} files of one job: ", limits.count),
        Kind::Link => "refused, symbolic links: ".to_owned(),
        Kind::Special => "refused, devices, pipes or sockets: ".to_owned(),
        Kind::Name => "refused, names that are too long, not UTF-8 or hold control characters: ".to_owned(),
        Kind::Depth => format!("not looked into, more than {DEPTH} folders deep: "),
        Kind::Entries => "not looked into, too many entries: ".to_owned(),
        Kind::Changed => "refused, changed while they were read: ".to_owned(),
        Kind::Unreadable => "unreadable: ".to_owned(),
        Kind::Room => "refused, too little room on the agent's disk: ".to_owned(),
        Kind::Unwritable => "could not be stored: ".to_owned(),
        Kind::Time => "not taken in time: ".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { size: 1 << 30, total: 1 << 33, count: 2 };

    #[test]
    fn nothing_is_said_where_all_was_kept() {
        assert_eq!(Remarks::default().clause(&LIMITS), None);
    }

    #[test]
    fn names_are_given_quoted_and_counted_where_there_are_many() {
        let mut remarks = Remarks::default();
        remarks.note_size(Kind::Size, "big\n.bin", 3 << 30);
        remarks.note(Kind::Unmatched, "x/**");
        for number in 0..9 {
            remarks.note(Kind::Link, &number.to_string());
        }
        assert_eq!(
            remarks.clause(&LIMITS).unwrap(),
            "artifacts: no file matched \"x/**\"; \
             refused, larger than the 1.0 GiB of one artifact: \"big\\n.bin\" (3.0 GiB); \
             refused, symbolic links: \"0\", \"1\", \"2\", \"3\", \"4\" and 4 more"
        );
    }
}
