//! Looks for the files of an allocation that globs match.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::WORKING_DIRECTORY;
use crate::{
    artifact::{Chosen, Entry, EntryKind, Globs, Kind, Limits, Remarks, Selection},
    nomad::{self, Client, FileKind, FolderEntry},
    retry::Pause,
    telemetry::chain,
};

/// The longest list of one folder, in bytes; an entry takes about 150.
const LIST_LIMIT: usize = 2 * 1024 * 1024;
/// How often a list is asked for before the folder counts as unreadable.
const TRIES: u32 = 5;

/// Chooses what is kept. It is an error only where nobody answers at Nomad's address, so that nothing is known.
pub(super) async fn search(
    nomad: &Client,
    allocation: &str,
    globs: &Globs,
    limits: Limits,
    deadline: Instant,
) -> Result<(Vec<Chosen>, Remarks), nomad::Error> {
    let mut selection = Selection::new(globs, limits);
    let mut folders = VecDeque::from([String::new()]);
    while let Some(folder) = folders.pop_front() {
        if Instant::now() >= deadline {
            selection.unseen(&folder, Kind::Time, "the search for files");
            break;
        }
        match list(nomad, allocation, &folder).await {
            Ok(Some(entries)) => {
                folders.extend(selection.add(&folder, entries.into_iter().map(entry).collect()));
            }
            Ok(None) if folder.is_empty() => return Ok(lost("Nomad no longer had the allocation's files")),
            // Something that outlived the task removed it.
            Ok(None) => {}
            Err(nomad::Error::TooLong { .. }) => selection.unseen(&folder, Kind::Entries, "in one folder"),
            Err(error) if error.is_out_of_reach() => return Err(error),
            Err(error) if folder.is_empty() => return Ok(lost(&chain(&error))),
            Err(error) => selection.unseen(&folder, Kind::Unreadable, &chain(&error)),
        }
    }
    Ok(selection.finish())
}

/// Whether Nomad no longer has anything of the allocation.
pub(super) async fn is_gone(nomad: &Client, allocation: &str) -> Result<bool, nomad::Error> {
    match list(nomad, allocation, "").await {
        Err(error) if error.is_out_of_reach() => Err(error),
        result => Ok(matches!(result, Ok(None))),
    }
}

fn lost(reason: &str) -> (Vec<Chosen>, Remarks) {
    let mut remarks = Remarks::default();
    remarks.note_reason(Kind::Lost, "", reason);
    (Vec::new(), remarks)
}

async fn list(
    nomad: &Client,
    allocation: &str,
    folder: &str,
) -> Result<Option<Vec<FolderEntry>>, nomad::Error> {
    let path = if folder.is_empty() {
        WORKING_DIRECTORY.to_owned()
    } else {
        format!("{WORKING_DIRECTORY}/{folder}")
    };
    let mut pause = Pause::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut tried = 1;
    loop {
        match nomad.folder(allocation, &path, LIST_LIMIT).await {
            Err(error) if error.kind() == nomad::Kind::Unavailable && tried < TRIES => {
                tracing::warn!(allocation, path, error = chain(&error), tried, "cannot list a folder");
            }
            result => return result,
        }
        tried += 1;
        tokio::time::sleep(pause.wait()).await;
    }
}

fn entry(entry: FolderEntry) -> Entry {
    let kind = match entry.kind() {
        FileKind::Regular => EntryKind::File,
        FileKind::Folder => EntryKind::Folder,
        FileKind::Link => EntryKind::Link,
        FileKind::Special => EntryKind::Special,
    };
    Entry { name: entry.name, kind, size: entry.size }
}
