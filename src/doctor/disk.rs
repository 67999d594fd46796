//! The store's folder and the disk that it is on.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use bytesize::ByteSize;
use rustix::fs::{Access, access, statvfs};

use super::{Finding, Level};

const SUBJECT: &str = "store";
/// Less free space than this is a warning.
const SCARCE: u64 = 1 << 30;
/// With less free space than this the agent cannot work.
const EXHAUSTED: u64 = 64 << 20;

pub(super) fn examine(folder: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Where the folder is yet to be made, what it will be made in decides.
    let Some(present) = folder.ancestors().map(current).find(|ancestor| ancestor.exists()) else {
        let message = format!("nothing of {} exists", folder.display());
        return vec![Finding::failure(SUBJECT, message, "Set [store] path.")];
    };
    let shown = folder.display();
    if !present.is_dir() {
        let message = format!("{} is not a folder", present.display());
        return vec![Finding::failure(SUBJECT, message, "Set [store] path.")];
    }
    findings.push(match access(present, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if present == current(folder) => Finding::ok(SUBJECT, format!("{shown} is writable")),
        Ok(()) => Finding::ok(SUBJECT, format!("{shown} does not exist yet and can be made")),
        Err(error) => {
            let message = format!("{} is not writable for this user: {error}", present.display());
            let remedy =
                format!("Make {shown} and give it to the agent's user (install -d -m 700 -o USER {shown}), or set [store] path.");
            Finding::failure(SUBJECT, message, remedy)
        }
    });
    if present == current(folder) {
        findings.extend(mode(folder));
        findings.extend(lock(folder));
    }
    findings.push(match statvfs(present) {
        Ok(disk) => space(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => {
            let message = format!("the free space at {} cannot be read: {error}", present.display());
            Finding::warning(SUBJECT, message, format!("df {}", present.display()))
        }
    });
    findings
}

/// The folder of artifacts.
pub(super) fn examine_artifacts(folder: &Path, reserve: u64) -> Finding {
    let Some(present) = folder.ancestors().map(current).find(|ancestor| ancestor.exists()) else {
        let message = format!("nothing of {} exists", folder.display());
        return Finding::failure(SUBJECT, message, "Set [store] artifacts.");
    };
    let shown = folder.display();
    if let Err(error) = access(present, Access::WRITE_OK | Access::EXEC_OK) {
        let message = format!("artifacts: {} is not writable for this user: {error}", present.display());
        let remedy = format!("Make {shown} and give it to the agent's user, or set [store] artifacts.");
        return Finding::failure(SUBJECT, message, remedy);
    }
    let free = statvfs(present).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if free < reserve {
        let message = format!("artifacts: {} are free at {shown}, less than stays reserved", ByteSize(free));
        let remedy = "Free some space there, or lower [store] artifact_reserve: no artifact is kept.";
        return Finding::warning(SUBJECT, message, remedy);
    }
    Finding::ok(SUBJECT, format!("artifacts: {shown} is writable"))
}

/// The empty path, which ends a relative path's ancestors, is the working directory.
fn current(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn mode(folder: &Path) -> Option<Finding> {
    let mode = folder.metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let message = format!("{} has mode {mode:04o}: others may look into it", folder.display());
        Finding::warning(SUBJECT, message, format!("chmod 700 {}", folder.display()))
    })
}

/// Whether an agent works with the store; said for information.
fn lock(folder: &Path) -> Option<Finding> {
    let file = File::open(folder.join("lock")).ok()?;
    let message = match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => "an agent is working with this store",
        Ok(()) | Err(TryLockError::Error(_)) => "no agent is working with this store",
    };
    Some(Finding::ok(SUBJECT, message))
}

/// What so many free bytes mean.
fn space(free: u64) -> Finding {
    let level = match free {
        0..EXHAUSTED => Level::Failure,
        EXHAUSTED..SCARCE => Level::Warning,
        _ => Level::Ok,
    };
    let remedy = (level != Level::Ok)
        .then(|| "Free some space on this disk, or set [store] path to a larger one.".to_owned());
    Finding { subject: SUBJECT, level, message: format!("{} are free on its disk", ByteSize(free)), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarce_space_is_told_before_it_is_gone() {
        for (free, level) in [
            (0, Level::Failure),
            (EXHAUSTED - 1, Level::Failure),
            (EXHAUSTED, Level::Warning),
            (SCARCE - 1, Level::Warning),
            (SCARCE, Level::Ok),
        ] {
            assert_eq!(space(free).level, level, "{free}");
        }
    }

    #[test]
    fn artifacts_need_a_folder_and_room() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(examine_artifacts(&folder.path().join("new"), 0).level, Level::Ok);
        assert_eq!(examine_artifacts(folder.path(), u64::MAX).level, Level::Warning);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(examine_artifacts(&folder.path().join("file"), 0).level, Level::Failure);
    }

    #[test]
    fn a_folder_in_use_and_one_yet_to_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/store");
        assert!(examine(&path)[0].message.contains("can be made"));
        assert!(!path.exists());
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let held = File::create(path.join("lock")).unwrap();
        held.lock().unwrap();
        let findings = examine(&path);
        assert!(findings.iter().any(|finding| finding.message.contains("has mode 0755")));
        assert!(findings.iter().any(|finding| finding.message.starts_with("an agent is working")));
        assert_eq!(examine(&path.join("lock"))[0].level, Level::Failure);
    }
}
