//! Marker files: what a script can read of a trigger without the agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::Trigger;
use crate::trigger::{
    settings::MARKERS,
    state::{Course, Run},
};

/// The marker of one trigger: a file with the time of the last end that its cooldown is counted from, in RFC 3339.
/// Beside it, with `.running` after its name, stands a file while a run goes on, with the job's id.
#[derive(Debug, Clone)]
pub struct Marker {
    ended: PathBuf,
    running: PathBuf,
}

impl Marker {
    /// Where a trigger's marker is; without a place of its own it is in `folder`.
    #[must_use]
    pub fn of(trigger: &Trigger, folder: &Path) -> Self {
        let ended = trigger.marker_file.clone().unwrap_or_else(|| folder.join(&trigger.name));
        let mut running = ended.clone().into_os_string();
        running.push(MARKERS.0);
        Self { ended, running: running.into() }
    }

    /// Writes it as things stand.
    pub fn leave(&self, last: Option<Timestamp>, run: Option<&Run>) -> io::Result<()> {
        if let Some(folder) = self.ended.parent() {
            fs::create_dir_all(folder)?;
        }
        put(&self.ended, last.map(|at| format!("{at}\n")))?;
        let job = |run: &Run| run.job_id.map(|job_id| job_id.to_string()).unwrap_or_default();
        put(&self.running, run.map(|run| format!("{}\n", job(run))))
    }

    /// Reads what it says; a trigger without one has not run.
    pub fn read(&self) -> io::Result<Course> {
        let text = match fs::read_to_string(&self.ended) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let at = text.map(|text| text.trim().parse::<Timestamp>().map_err(io::Error::other)).transpose()?;
        let running = self.running.try_exists()?.then(|| Run {
            trigger: String::new(),
            event: ulid::Ulid::nil(),
            by: None,
            content: None,
            job_id: None,
            begun_at: Timestamp::UNIX_EPOCH,
        });
        // Whichever end the cooldown is counted from, it is the one that was written.
        Ok(Course { run: running, ended_at: at, succeeded_at: at })
    }
}

/// Replaces a file at once, or removes it. One that is as it should be is left alone: to replace a file takes some
/// file systems as long as to write it to the disk.
fn put(path: &Path, text: Option<String>) -> io::Result<()> {
    let Some(text) = text else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(MARKERS.1);
    fs::write(&draft, text)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name = \"t\"\nkind = \"schedule\"\ncron = \"@daily\"\naction = { formula = \"a\" }\n";
        let trigger: Trigger = toml::from_str(text).unwrap();
        let marker = Marker::of(&trigger, &folder.path().join("triggers"));
        assert_eq!(marker.read().unwrap(), Course::default());
        let at: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let run = Run {
            trigger: "t".to_owned(),
            event: ulid::Ulid::nil(),
            by: None,
            content: None,
            job_id: None,
            begun_at: at,
        };
        marker.leave(Some(at), Some(&run)).unwrap();
        let course = marker.read().unwrap();
        assert!(course.run.is_some() && course.ended_at == Some(at));
        marker.leave(Some(at), None).unwrap();
        assert!(marker.read().unwrap().run.is_none());
        assert_eq!(fs::read_to_string(&marker.ended).unwrap(), "2026-11-21T10:00:00Z\n");
        fs::write(&marker.ended, "yesterday").unwrap();
        assert!(marker.read().is_err());
    }
}
