//! The source that tells of files that changed on a branch, in any repository.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    attend::{self, Handle, Told},
    ledger::Origin,
    settings::Git,
};
use crate::{
    hexadecimal,
    ids::Revision,
    ops_repo::{self, Mirror, RemoteUrl},
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

/// Where the mirror of a trigger's repository is in the folder of all mirrors: another repository has another one.
#[must_use]
pub fn mirror(mirrors: &Path, trigger: &str, settings: &Git) -> PathBuf {
    mirrors.join(format!("{trigger}-{}", followed(settings)))
}

/// Removes every mirror in the folder `mirrors` that is not one of `kept`.
pub fn remove_others(mirrors: &Path, kept: &BTreeSet<PathBuf>) {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(mirrors)? {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    };
    match remove() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %mirrors.display(), "mirrors that nobody needs cannot be removed");
        }
        _ => {}
    }
}

/// What tells one branch of one repository from others; a password does not.
fn followed(settings: &Git) -> String {
    let remote = RemoteUrl::parse(&settings.repo);
    let repo = remote.map_or_else(|_| settings.repo.clone(), |remote| remote.to_string());
    hexadecimal::encode(&Sha256::digest(format!("{} {repo}", settings.branch))[..8])
}

/// Tells of changes until `ending`. The mirror of the repository is in `folder`.
pub async fn run(trigger: String, settings: Git, folder: PathBuf, handle: Handle, ending: CancellationToken) {
    let mut pause = Pause::new(settings.poll, settings.poll.max(LONGEST));
    let mut mirror = None;
    loop {
        let looked = tokio::select! {
            () = ending.cancelled() => return,
            looked = look(&trigger, &settings, &folder, &handle, &mut mirror) => looked,
        };
        let wait = match looked {
            Ok(tip) => {
                pause.reset();
                let at = tip.map(|tip| format!(" at {tip}")).unwrap_or_default();
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

/// Looks once; gives the branch's tip. The mirror is opened the first time.
async fn look(
    trigger: &str,
    settings: &Git,
    folder: &Path,
    handle: &Handle,
    mirror: &mut Option<Mirror>,
) -> Result<Option<Revision>, Error> {
    let mirror = match mirror {
        Some(mirror) => mirror,
        None => mirror.insert(open(settings, folder).await?),
    };
    let Some(tip) = mirror.tip(&settings.branch).await? else { return Ok(None) };
    let followed = followed(settings);
    let mark = format!("{followed}:{tip}");
    let known = handle.mark(trigger).await?;
    if known.as_ref() == Some(&mark) {
        return Ok(Some(tip));
    }
    mirror.take(&settings.branch, &tip).await?;
    // What was told of another repository, or another branch, says nothing of this one.
    let known = known.as_deref().and_then(|mark| mark.strip_prefix(&followed)?.strip_prefix(':'));
    let Some(known) = known.and_then(|known| Revision::parse(known).ok()) else {
        handle.set_mark(trigger, mark).await?;
        return Ok(Some(tip));
    };
    let paths = match mirror.difference(&known, &tip, &[]).await {
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
        handle.set_mark(trigger, mark).await?;
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
        mark: Some(mark),
        left_out: None,
    };
    handle.tell(told).await?;
    Ok(Some(tip))
}

async fn open(settings: &Git, folder: &Path) -> Result<Mirror, ops_repo::Error> {
    let mirror = Mirror::open(RemoteUrl::parse(&settings.repo)?, folder).await?;
    mirror.check_branch(&settings.branch).await?;
    Ok(mirror)
}
