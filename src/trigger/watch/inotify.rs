//! inotify: the kernel says which folder something changed in. One watch for each folder.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

/// How many bytes of events are read at a time.
const BUFFER: usize = 16 * 1024;

/// File systems whose changes may be made elsewhere, where inotify does not hear of them: their magic numbers, from
/// statfs(2), and 9p and virtiofs of virtual machines (`linux/magic.h`).
const REMOTE: [u64; 7] = [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x6573_5546, 0x00C3_6400, 0x0102_1997];

/// Watches on folders.
#[derive(Debug)]
pub(super) struct Inotify {
    instance: AsyncFd<OwnedFd>,
    folders: HashMap<i32, PathBuf>,
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Files that may have changed.
    pub(super) files: HashSet<PathBuf>,
    /// Whether folders came or went, or events were lost, so that everything is to be looked at.
    pub(super) everything: bool,
}

impl Inotify {
    /// An instance without watches.
    pub(super) fn new() -> io::Result<Self> {
        let instance = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(reason)?;
        #[expect(
            deprecated,
            reason = "its successor is not safe to call; an OwnedFd keeps what that asks for"
        )]
        let instance = AsyncFd::new(instance)?;
        Ok(Self { instance, folders: HashMap::new() })
    }

    /// Watches these folders and no others; says whether there are new ones among them.
    pub(super) fn watch(&mut self, folders: &HashSet<PathBuf>) -> io::Result<bool> {
        let mut new = false;
        let mut watched = HashMap::with_capacity(folders.len());
        for folder in folders {
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.instance, folder.as_path(), flags) {
                Ok(watch) => {
                    new |= self.folders.get(&watch) != Some(folder);
                    watched.insert(watch, folder.clone());
                }
                // It is gone again; its parent tells of that.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(reason(error)),
            }
        }
        for watch in self.folders.keys().filter(|watch| !watched.contains_key(watch)) {
            // The kernel drops the watch of a folder that is gone.
            let _ = inotify::remove_watch(&self.instance, *watch);
        }
        self.folders = watched;
        Ok(new)
    }

    /// Waits until something is heard.
    pub(super) async fn hear(&mut self) -> io::Result<Heard> {
        let mut heard = Heard::default();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        loop {
            let mut ready = self.instance.readable().await?;
            let mut reader = Reader::new(&self.instance, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                        note(
                            &mut heard,
                            self.folders.get(&event.wd()).map(PathBuf::as_path),
                            event.events(),
                            name,
                        );
                    }
                    Err(Errno::WOULDBLOCK) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if heard.everything || !heard.files.is_empty() {
                return Ok(heard);
            }
        }
    }
}

fn note(heard: &mut Heard, folder: Option<&Path>, events: ReadFlags, name: Option<&OsStr>) {
    let structure =
        ReadFlags::ISDIR | ReadFlags::QUEUE_OVERFLOW | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
    if events.intersects(structure) {
        heard.everything = true;
    } else if let (Some(folder), Some(name)) = (folder, name) {
        heard.files.insert(folder.join(name));
    }
}

/// The kernel's word for a limit is misleading here.
fn reason(error: Errno) -> io::Error {
    match error {
        Errno::NOSPC => {
            io::Error::other("there are no inotify watches left: raise fs.inotify.max_user_watches")
        }
        Errno::MFILE => io::Error::other(
            "there are no inotify instances left: raise fs.inotify.max_user_instances, or the limit of open files",
        ),
        error => error.into(),
    }
}

/// Whether changes in a folder may be made elsewhere.
pub(super) fn is_remote(folder: &Path) -> bool {
    // A folder that is not there yet is looked at when it is.
    rustix::fs::statfs(folder).is_ok_and(|system| {
        u64::try_from(system.f_type).is_ok_and(|kind| REMOTE.contains(&(kind & 0xFFFF_FFFF)))
    })
}
