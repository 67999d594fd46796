//! The source that tells of files that changed in a tree.
//!
//! inotify and polling differ only in when and where is looked again: what a change is, `tree` says. So a lost
//! event, a moved folder and a restart all come to the same comparison.

mod inotify;
mod tree;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    inotify::{Heard, Inotify},
    tree::{Changes, Scan, TooMany, Tree},
};
use super::{
    attend::{self, Handle, Told},
    ledger::Origin,
    settings::{Method, Watch},
};
use crate::{duration::Span, store, telemetry::chain};

/// How soon is begun again after trouble.
const AGAIN: Duration = Duration::from_secs(10);
/// After how many settle times a change is told although files still change.
const PATIENCE: u32 = 20;

/// Why a tree is not watched.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("inotify does not work")]
    Inotify(#[source] io::Error),
    #[error("a change cannot be told: {0}")]
    Attend(#[from] attend::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("the look at the tree broke off")]
    Scan(#[from] tokio::task::JoinError),
}

/// Tells of changes until `ending`.
pub async fn run(trigger: String, settings: Watch, handle: Handle, ending: CancellationToken) {
    loop {
        let watching = Watching {
            trigger: &trigger,
            settings: &settings,
            handle: &handle,
            tree: Arc::new(Mutex::new(Tree::new(settings.globs.clone(), settings.max_files))),
            inotify: None,
            whole: true,
        };
        let error = tokio::select! {
            () = ending.cancelled() => return,
            Err(error) = watching.run() => error,
        };
        tracing::warn!(trigger, error = chain(&error), "its files are not watched; tried again soon");
        handle.source_stands(&trigger, format!("not watched: {}", chain(&error)));
        tokio::select! {
            () = ending.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

struct Watching<'source> {
    trigger: &'source str,
    settings: &'source Watch,
    handle: &'source Handle,
    tree: Arc<Mutex<Tree>>,
    inotify: Option<Inotify>,
    /// Whether every root is there, so that inotify hears of all that comes.
    whole: bool,
}

impl Watching<'_> {
    async fn run(mut self) -> Result<Infallible, Error> {
        let known = self.handle.mark(self.trigger).await?;
        self.begin().await?;
        let digest = self.tree().digest();
        if known.is_some_and(|known| digest.is_change_from(&known)) {
            // What changed is not known, but that something did.
            self.tell(&Changes { count: 1, paths: Vec::new() }, "while nobody watched").await?;
        } else {
            self.handle.set_mark(self.trigger, digest.to_string()).await?;
        }
        loop {
            let mut changes = self.wait(None).await?;
            let begun = Instant::now();
            while changes.count > 0 && begun.elapsed() < self.settings.settle * PATIENCE {
                let more = self.wait(Some(self.settings.settle)).await?;
                if more.count == 0 {
                    break;
                }
                changes.merge(more);
            }
            if changes.count > 0 {
                self.tell(&changes, if self.inotify.is_some() { "by inotify" } else { "by polling" }).await?;
            }
        }
    }

    /// Chooses how to watch, and looks at the tree for the first time.
    async fn begin(&mut self) -> Result<(), Error> {
        let remote = self.settings.globs.roots().iter().find(|root| inotify::is_remote(root));
        let why_not = match (self.settings.method, remote) {
            (Method::Poll, _) => "as configured".to_owned(),
            (Method::Auto, Some(root)) => format!("{} is on a network file system", root.display()),
            _ => match self.begin_inotify().await {
                Ok(()) => return Ok(()),
                Err(Error::Inotify(error)) if self.settings.method == Method::Auto => error.to_string(),
                Err(error) => return Err(error),
            },
        };
        self.inotify = None;
        self.look_everywhere().await?;
        let every = Span(self.settings.poll);
        self.stands(format!("polled every {every}: {why_not}"));
        Ok(())
    }

    async fn begin_inotify(&mut self) -> Result<(), Error> {
        self.inotify = Some(Inotify::new().map_err(Error::Inotify)?);
        self.look_everywhere().await?;
        self.stands("watched by inotify".to_owned());
        Ok(())
    }

    /// Waits until files may have changed, or for `limit`; gives what changed, which may be nothing.
    async fn wait(&mut self, limit: Option<Duration>) -> Result<Changes, Error> {
        let Some(inotify) = &mut self.inotify else {
            sleep(limit.unwrap_or(self.settings.poll)).await;
            return self.look_everywhere().await;
        };
        // What is not there cannot be watched, only looked for.
        let limit = limit.or_else(|| (!self.whole).then_some(self.settings.poll));
        let heard = match limit {
            None => inotify.hear().await,
            Some(limit) => match timeout(limit, inotify.hear()).await {
                Ok(heard) => heard,
                Err(_) if self.whole => return Ok(Changes::default()),
                Err(_) => Ok(Heard { everything: true, ..Heard::default() }),
            },
        };
        let Heard { files, everything } = heard.map_err(Error::Inotify)?;
        if everything {
            return self.look_everywhere().await;
        }
        let mut changes = Changes::default();
        let mut tree = self.tree();
        for file in files {
            tree.look(&file, &mut changes)?;
        }
        drop(tree);
        Ok(changes)
    }

    /// Looks at the whole tree. With inotify every folder is watched before it is looked at for the last time.
    async fn look_everywhere(&mut self) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        loop {
            let tree = Arc::clone(&self.tree);
            let scanned = spawn_blocking(move || tree.lock().unwrap_or_else(PoisonError::into_inner).scan());
            let Scan { changes: further, folders, unreadable } = scanned.await??;
            changes.merge(further);
            if let Some(folder) = unreadable {
                tracing::warn!(trigger = self.trigger, folder, "a folder cannot be read");
            }
            self.whole = self.settings.globs.roots().iter().all(|root| folders.contains(root));
            let again = match &mut self.inotify {
                Some(inotify) => inotify.watch(&folders).map_err(Error::Inotify)?,
                None => false,
            };
            if !again {
                return Ok(changes);
            }
        }
    }

    async fn tell(&self, changes: &Changes, how: &str) -> Result<(), Error> {
        let content = serde_json::json!({ "count": changes.count, "paths": changes.paths, "noticed": how });
        let told = Told {
            trigger: self.trigger.to_owned(),
            origin: Origin::Watch,
            caller: None,
            by: None,
            forced: false,
            content: Some(content.to_string()),
            mark: Some(self.tree().digest().to_string()),
            left_out: None,
        };
        self.handle.tell(told).await.map(drop).map_err(Error::Attend)
    }

    fn stands(&self, how: String) {
        let files = self.tree().len();
        tracing::info!(trigger = self.trigger, files, how, "its files are watched");
        self.handle.source_stands(self.trigger, how);
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
