//! Programs on `PATH`.

use std::{
    env,
    os::unix::fs::PermissionsExt as _,
    path::{self, Path, PathBuf},
};

/// Where `name` is on this process's `PATH`: the first file of that name that somebody may execute, as a path that holds
/// in every working directory.
///
/// A command whose environment is cleared starts faster by a path than by a name: the standard library looks up the name
/// only after a fork, which copies the tables of this process's whole memory, and starts a path without one.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .filter_map(|folder| path::absolute(folder.join(name)).ok())
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_alone() {
        let shell = find("sh").unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{}", shell.display());
        assert_eq!(find("no-program-has-this-name"), None);
        // A folder, and a file that nobody may execute.
        assert_eq!(find("."), None);
        assert!(!is_executable(Path::new("/etc/passwd")));
    }
}
