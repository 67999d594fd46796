//! Programs that tests write.

use std::{fs, path::Path, process::Command};

/// Writes a program for others to run. Another process writes it: the kernel runs no file that is open for writing
/// (ETXTBSY), and a child that another test starts has for a moment every file that is open here.
pub(crate) fn write_program(path: &Path, text: &str) {
    let written = path.with_extension("text");
    fs::write(&written, text).unwrap();
    let installed = Command::new("install").args(["-m", "755"]).args([&written, path]).status();
    assert!(installed.unwrap().success(), "{}", path.display());
    fs::remove_file(written).unwrap();
}
