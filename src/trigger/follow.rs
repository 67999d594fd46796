//! The source that tells of files that changed on a branch, in any repository.

use std::path::{Path, PathBuf};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    attend::{self, Handle, Told},
    ledger::Origin,
    settings::Git,
};
use crate::{
    ids::Revision,
    ops_repo::{self, OpsRepo, RemoteUrl},
    retry::Pause,
    store,
    telemetry::chain,
};

/// How many changed paths are named.
const NAMED: usize = 20;
/// The longest pause after trouble.
const LONGEST: std::time::Duration = std::time::Duration::from_mins(10);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Repository(#[from] ops_repo::Error),
    #[error("{0}")]
    Attend(#[from] attend::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
}

/// Tells of changes until `ending`. The mirror of the repository is in `folder`.
pub async fn run(trigger: String, settings: Git, folder: PathBuf, handle: Handle, ending: CancellationToken) {
    let mut pause = Pause::new(settings.poll, settings.poll.max(LONGEST));
    let mut repo = None;
    loop {
        let looked = tokio::select! {
            () = ending.cancelled() => return,
            looked = look(&trigger, &settings, &folder, &handle, &mut repo) => looked,
        };
        let wait = match looked {
            Ok(revision) => {
                pause.reset();
                let at = revision.map(|revision| format!(" at {revision}")).unwrap_or_default();
                handle.source_stands(&trigger, format!("followed{at}"));
                settings.poll
            }
            Err(error) => {
                tracing::warn!(trigger, error = chain(&error), "its repository cannot be looked at");
                handle.source_stands(&trigger, format!("not followed: {}", chain(&error)));
                pause.wait()
            }
        };
        tokio::select! {
            () = ending.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// Looks once; gives the branch's tip. The repository is opened the first time.
async fn look(
    trigger: &str,
    settings: &Git,
    folder: &Path,
    handle: &Handle,
    repo: &mut Option<OpsRepo>,
) -> Result<Option<Revision>, Error> {
    let repo = match repo {
        Some(repo) => repo,
        None => repo.insert(open(settings, folder).await?),
    };
    let tips = repo.tips().await?;
    let Some(tip) = tips.branch.clone() else { return Ok(None) };
    let known = handle.mark(trigger).await?.and_then(|mark| Revision::parse(&mark).ok());
    if known.as_ref() == Some(&tip) {
        return Ok(Some(tip));
    }
    repo.fetch(&tips).await?;
    repo.pin(&tip).await?;
    let Some(known) = known else {
        handle.set_mark(trigger, tip.to_string()).await?;
        return Ok(Some(tip));
    };
    let paths = match repo.difference(&known, &tip, &[]).await {
        Ok(changes) => {
            let matching =
                changes.into_iter().filter(|change| settings.globs.matches(Path::new(&change.path)));
            Some(matching.map(|change| change.path).collect::<Vec<_>>())
        }
        // The history was rewritten and the mirror made anew: what changed is not known, but that it did.
        Err(ops_repo::Error::UnknownRevision { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if paths.as_ref().is_some_and(Vec::is_empty) {
        handle.set_mark(trigger, tip.to_string()).await?;
        return Ok(Some(tip));
    }
    let named: Option<Vec<&String>> = paths.as_ref().map(|paths| paths.iter().take(NAMED).collect());
    let content = serde_json::json!({
        "from": known,
        "to": tip,
        "count": paths.as_ref().map(Vec::len),
        "paths": named,
    });
    let told = Told {
        trigger: trigger.to_owned(),
        origin: Origin::Git,
        caller: None,
        by: None,
        forced: false,
        content: Some(content.to_string()),
        mark: Some(tip.to_string()),
        left_out: None,
    };
    handle.tell(told).await?;
    Ok(Some(tip))
}

async fn open(settings: &Git, folder: &Path) -> Result<OpsRepo, ops_repo::Error> {
    OpsRepo::open(ops_repo::Settings {
        remote: RemoteUrl::parse(&settings.repo)?,
        branch: settings.branch.clone(),
        mirror: folder.to_path_buf(),
        // It is read alone: nothing is written there, and nothing is an action.
        actions: "actions".to_owned(),
        formulas: "formulas".to_owned(),
        author_name: "consign".to_owned(),
        author_email: "consign@localhost".to_owned(),
        results_branch: None,
        signing_key: None,
        keys: ops_repo::Keys::default(),
    })
    .await
}
