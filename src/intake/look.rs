//! Looks at the ops repo.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Findings, Rules, Verdict, formulas::AtRevision};
use crate::{
    action::{self, Action, FILE_LIMIT, after},
    ids::{ActionId, FormulaName, Revision},
    ops_repo::{self, Blob, BlobId, Content, Entry, EntryKind, OpsRepo},
    outcome::{Cause, Outcome, result_file::ResultFile},
    store::PastAction,
    validation::{
        self,
        tree::{FileKind, kind_of},
    },
    webhook::resolve,
};

/// The largest result file that is read, in bytes. Results are written far smaller.
const RESULT_LIMIT: usize = 1024 * 1024;
/// How many results are read at a time, so that a repo with a long past is not held in memory.
const RESULTS_AT_ONCE: usize = 1000;

/// Looks at `tip`, compared with what was looked at before.
///
/// Without `before`, or where it no longer exists, the whole tree is listed. An action that has the result
/// of a launch counts as ended, also for a store that does not know it: a result file met in the repo means
/// that. What actions may ask for is in `rules`.
pub async fn look(
    repo: &OpsRepo,
    before: Option<&Revision>,
    tip: &Revision,
    results_tip: Option<&Revision>,
    rules: &Rules,
) -> Result<Findings, ops_repo::Error> {
    match before {
        None => afresh(repo, tip, results_tip, rules).await,
        Some(before) => {
            // Each question is a program of its own; those that do not need each other's answer are asked at once.
            let (continued, changes) = tokio::join!(repo.is_ancestor(before, tip), repo.changes(before, tip));
            let rewritten = !continued?;
            match changes {
                Ok(changes) => {
                    let differing: Vec<Changed> = changes
                        .into_iter()
                        .map(|change| Changed { path: change.path, after: change.after })
                        .collect();
                    let (past, files) = tokio::try_join!(
                        launched_before(repo, tip, results_tip, &differing),
                        read(repo, tip, &differing, rules)
                    )?;
                    Ok(Findings { revision: tip.clone(), rewritten, files, past })
                }
                Err(ops_repo::Error::UnknownRevision { .. }) => {
                    let mut findings = afresh(repo, tip, results_tip, rules).await?;
                    findings.rewritten = true;
                    Ok(findings)
                }
                Err(error) => Err(error),
            }
        }
    }
}

/// A path that differs, and what stands there now.
struct Changed {
    path: String,
    after: Option<Content>,
}

async fn afresh(
    repo: &OpsRepo,
    tip: &Revision,
    results_tip: Option<&Revision>,
    rules: &Rules,
) -> Result<Findings, ops_repo::Error> {
    let entries = repo.snapshot(tip).await?;
    let mut results: BTreeMap<String, BlobId> = BTreeMap::new();
    let elsewhere = match results_tip {
        Some(results_tip) if results_tip != tip => repo.snapshot(results_tip).await?,
        _ => Vec::new(),
    };
    for entry in entries.iter().chain(&elsewhere) {
        if entry.path.ends_with(".result.json") {
            results.insert(entry.path.clone(), entry.content.blob.clone());
        }
    }
    let (ended, open): (Vec<Entry>, Vec<Entry>) = entries
        .into_iter()
        .partition(|entry| action::result_path(&entry.path).is_some_and(|path| results.contains_key(&path)));
    let past = past_actions(repo, ended, &results).await?;
    let changed: Vec<Changed> =
        open.into_iter().map(|entry| Changed { path: entry.path, after: Some(entry.content) }).collect();
    let files = read(repo, tip, &changed, rules).await?;
    Ok(Findings { revision: tip.clone(), rewritten: false, files, past })
}

/// The actions among what differs that were launched and have their result.
async fn launched_before(
    repo: &OpsRepo,
    tip: &Revision,
    results_tip: Option<&Revision>,
    differing: &[Changed],
) -> Result<Vec<PastAction>, ops_repo::Error> {
    let written = differing.iter().filter_map(|change| {
        let entry = Entry { path: change.path.clone(), content: change.after.clone()? };
        Some((action::result_path(&change.path)?, entry))
    });
    let (paths, entries): (Vec<String>, Vec<Entry>) = written.unzip();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut results = BTreeMap::new();
    for revision in [Some(tip), results_tip.filter(|results_tip| *results_tip != tip)].into_iter().flatten() {
        let found = repo.files_at(revision, &paths).await?;
        results.extend(found.into_iter().map(|entry| (entry.path, entry.content.blob)));
    }
    let past = past_actions(repo, entries, &results).await?;
    Ok(past.into_iter().filter(|past| past.rejected_blob.is_none()).collect())
}

/// The actions that have a result, with their content where they were never launched.
async fn past_actions(
    repo: &OpsRepo,
    ended: Vec<Entry>,
    results: &BTreeMap<String, BlobId>,
) -> Result<Vec<PastAction>, ops_repo::Error> {
    let mut past = Vec::with_capacity(ended.len());
    for chunk in ended.chunks(RESULTS_AT_ONCE) {
        let known: Vec<(ActionId, &Entry, &BlobId)> = chunk
            .iter()
            .filter_map(|entry| {
                let id = ActionId::parse(&action::stem(&entry.path)?).ok()?;
                Some((id, entry, results.get(&action::result_path(&entry.path)?)?))
            })
            .collect();
        let blobs: Vec<BlobId> = known.iter().map(|(_, _, blob)| (*blob).clone()).collect();
        let contents = repo.read_blobs(&blobs, RESULT_LIMIT).await?;
        for ((id, entry, _), content) in known.into_iter().zip(contents) {
            let (launched, succeeded) = ended_as(&content);
            past.push(PastAction {
                id,
                path: entry.path.clone(),
                rejected_blob: (!launched).then(|| entry.content.blob.as_str().to_owned()),
                succeeded,
            });
        }
    }
    Ok(past)
}

/// Whether a result says that something was launched, and whether that succeeded. One that does not read
/// counts as launched: an action whose end is in doubt must not run again. So does that of submitted work, which
/// goes by its job id: nobody committed it to be run, wherever its record was moved to.
fn ended_as(content: &Blob) -> (bool, bool) {
    let Blob::Bytes(bytes) = content else { return (true, false) };
    serde_json::from_slice::<ResultFile>(bytes).map_or((true, false), |result| {
        let submitted = result.id == result.job_id;
        let launched = submitted || result.outcome != Outcome::Rejected || !result.attempts.is_empty();
        (launched, result.outcome == Outcome::Succeeded)
    })
}

/// Reads the action files among what differs, and the formulas that they name.
async fn read(
    repo: &OpsRepo,
    tip: &Revision,
    changed: &[Changed],
    rules: &Rules,
) -> Result<Vec<Finding>, ops_repo::Error> {
    let settings = repo.settings();
    let is_action =
        |path: &str| kind_of(path, &settings.actions, &settings.formulas) == Some(FileKind::Action);
    let mut files = Vec::new();
    let mut written = Vec::new();
    for Changed { path, after } in changed.iter().filter(|change| is_action(&change.path)) {
        match after {
            None => files.push(Finding::Deleted { path: path.clone() }),
            Some(content) => written.push(Entry { path: path.clone(), content: content.clone() }),
        }
    }
    let blobs: Vec<BlobId> = written.iter().map(|entry| entry.content.blob.clone()).collect();
    let contents = repo.read_blobs(&blobs, FILE_LIMIT).await?;
    let mut actions = Vec::new();
    for (entry, content) in written.into_iter().zip(contents) {
        let read = match (entry.content.kind, content) {
            (EntryKind::Regular | EntryKind::Executable, Blob::Bytes(bytes)) => Ok(bytes),
            (EntryKind::Regular | EntryKind::Executable, Blob::TooLarge { size, .. }) => {
                Err(format!("the file has {size} bytes; an action may have {FILE_LIMIT}"))
            }
            (EntryKind::Regular | EntryKind::Executable, Blob::Missing) => {
                Err("its content is missing from the repository".to_owned())
            }
            _ => Err("it is not a regular file".to_owned()),
        };
        actions.push((entry, read));
    }
    let legal: Vec<Action> = actions
        .iter()
        .filter_map(|(entry, read)| validation::check_action(&entry.path, read.as_ref().ok()?).ok())
        .collect();
    let named: BTreeSet<FormulaName> = legal.iter().map(|action| action.formula.clone()).collect();
    let receivers: BTreeSet<&str> =
        legal.iter().flat_map(|action| &action.notify).map(String::as_str).collect();
    let refused = resolve::refused(rules.receivers, &receivers).await;
    let formulas = AtRevision::read(repo, tip, &named).await?;
    let circles =
        after::circles(&legal.iter().map(|action| (action.id.key(), action.after.as_slice())).collect());
    for (entry, read) in actions {
        let verdict = match read {
            Ok(bytes) => {
                let checked = validation::check(&entry.path, &bytes, &formulas);
                Verdict::new(&entry.path, &bytes, checked, &rules.allowed, &refused).without_circle(
                    &entry.path,
                    &bytes,
                    &circles,
                )
            }
            Err(message) => Verdict::Unsound {
                id: action::stem(&entry.path).and_then(|stem| ActionId::parse(&stem).ok()),
                cause: Cause::Invalid,
                message: format!("{}: {message}", entry.path),
            },
        };
        files.push(Finding::Written {
            path: entry.path,
            blob: entry.content.blob.as_str().to_owned(),
            verdict,
        });
    }
    Ok(files)
}
