//! Small container images, made of this machine's own programs: no registry is needed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use consign::program;

/// busybox and nothing else; its user is root.
pub(crate) const BUSYBOX: &str = "consign-test/busybox:1";
/// The same, its user is not root.
pub(crate) const UNPRIVILEGED: &str = "consign-test/unprivileged:1";
/// This machine's own `sh` and the core utilities beside it.
pub(crate) const SYSTEM: &str = "consign-test/system:1";

/// What [`SYSTEM`] has; the wrapper and the tests' formulas call nothing else.
const PROGRAMS: &[&str] = &[
    "sh", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "env", "grep", "head", "id", "ls", "mawk",
    "md5sum", "mkdir", "mkfifo", "mv", "readlink", "rm", "rmdir", "seq", "setsid", "sleep", "tail", "tr",
    "true", "wc",
];

/// An image before its import.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) repository: &'static str,
    pub(crate) tag: &'static str,
    /// The root file system, a tar archive.
    pub(crate) archive: Vec<u8>,
    /// Lines of a Dockerfile.
    pub(crate) changes: Vec<&'static str>,
}

/// Every image.
pub(crate) fn all() -> Vec<Image> {
    let image = |name: &'static str, archive: &[u8], changes| {
        let (repository, tag) = name.split_once(':').unwrap();
        Image { repository, tag, archive: archive.to_vec(), changes }
    };
    let busybox = busybox();
    vec![
        image(BUSYBOX, &busybox, Vec::new()),
        image(UNPRIVILEGED, &busybox, vec!["USER 65534:65534"]),
        image(SYSTEM, &system(), Vec::new()),
    ]
}

fn busybox() -> Vec<u8> {
    let root = root();
    add(root.path(), "busybox");
    let applets = Command::new("busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    archive(root.path())
}

fn system() -> Vec<u8> {
    let root = root();
    for program in PROGRAMS {
        add(root.path(), program);
    }
    archive(root.path())
}

/// A root file system without any program. Docker makes what it mounts upon, but in a read-only root it cannot
/// make what a bind mount of the job's needs.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "usr", "tmp"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    symlink("../bin", root.path().join("usr/bin")).unwrap();
    root
}

/// Copies a program to `/bin`, and the libraries that it needs to where it looks for them.
fn add(root: &Path, program: &str) {
    let source = program::find(program)
        .unwrap_or_else(|| panic!("{program} is not on PATH (Debian: busybox-static, coreutils)"));
    fs::copy(&source, root.join("bin").join(program)).unwrap();
    for library in libraries(&source) {
        let place = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&library, place).unwrap();
    }
}

/// What `ldd` says; a static program needs none.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn archive(root: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(root).args(["--owner=0", "--group=0", "-c", "."]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
