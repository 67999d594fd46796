//! The `paths` of a trigger: globs, and after `!` what they leave out.
//!
//! `*` and `?` stand for anything but `/`, `**` for any number of folders, `[…]` for one character and `{a,b}` for
//! either.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The longest glob, in bytes.
const LIMIT: usize = 512;
/// The most globs of one trigger.
const COUNT: usize = 64;

/// Compiled globs.
#[derive(Debug, Clone)]
pub struct Globs {
    wanted: GlobSet,
    unwanted: GlobSet,
    /// The folders that are left out whole.
    closed: GlobSet,
    roots: Vec<PathBuf>,
    texts: String,
}

impl Globs {
    /// Compiles globs; all absolute, or all relative to a repository's root. Gives what is wrong with them.
    pub fn new(texts: &[String], absolute: bool) -> Result<Self, String> {
        if texts.len() > COUNT {
            return Err(format!("`paths` has {} globs, and may have {COUNT}", texts.len()));
        }
        let (mut wanted, mut unwanted, mut closed) =
            (GlobSetBuilder::new(), GlobSetBuilder::new(), GlobSetBuilder::new());
        let mut roots = Vec::new();
        for text in texts {
            let excluded = text.strip_prefix('!');
            let pattern = excluded.unwrap_or(text);
            check(pattern, absolute)?;
            let compile = |pattern: &str| {
                let glob = GlobBuilder::new(pattern).literal_separator(true).build();
                glob.map_err(|error| format!("`paths`: {text:?} is not a glob: {}", error.kind()))
            };
            if excluded.is_some() {
                unwanted.add(compile(pattern)?);
                if let Some(folder) = pattern.strip_suffix("/**") {
                    closed.add(compile(folder)?);
                }
            } else {
                wanted.add(compile(pattern)?);
                roots.push(root(pattern));
            }
        }
        if roots.is_empty() {
            return Err("`paths` needs a glob that does not begin with `!`".to_owned());
        }
        roots.sort();
        roots.dedup();
        let nested = |root: &PathBuf| roots.iter().any(|other| other != root && root.starts_with(other));
        let roots = roots.iter().filter(|root| !nested(root)).cloned().collect();
        let build = |set: GlobSetBuilder| set.build().map_err(|error| format!("`paths`: {error}"));
        Ok(Self {
            wanted: build(wanted)?,
            unwanted: build(unwanted)?,
            closed: build(closed)?,
            roots,
            texts: texts.join("\n"),
        })
    }

    /// Whether a file is one of those meant.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        self.wanted.is_match(path) && !self.unwanted.is_match(path)
    }

    /// Whether everything in a folder is left out.
    #[must_use]
    pub fn closes(&self, folder: &Path) -> bool {
        self.closed.is_match(folder)
    }

    /// The globs as they were written, one a line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.texts
    }

    /// The folders that every match lies in, none of them within another.
    #[must_use]
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }
}

fn check(pattern: &str, absolute: bool) -> Result<(), String> {
    let problem = if pattern.is_empty() || pattern.len() > LIMIT {
        format!("a glob has 1 to {LIMIT} bytes")
    } else if pattern.starts_with('/') != absolute {
        let how = if absolute { "absolute" } else { "relative to the repository's root" };
        format!("globs are {how} here")
    } else if pattern.split('/').skip(usize::from(absolute)).any(|part| ["", ".", ".."].contains(&part)) {
        "write it without `//`, `.` and `..`, and not ending in `/`".to_owned()
    } else {
        return Ok(());
    };
    Err(format!("`paths`: {pattern:?}: {problem}"))
}

/// The folder that all matches of a glob lie in.
fn root(pattern: &str) -> PathBuf {
    let parts: Vec<&str> = pattern.split('/').collect();
    let folders = &parts[..parts.len() - 1];
    let literal = folders.iter().take_while(|part| !part.contains(['*', '?', '[', '{', '\\']));
    let path = literal.copied().collect::<Vec<_>>().join("/");
    PathBuf::from(if path.is_empty() && pattern.starts_with('/') { "/".to_owned() } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(texts: &[&str], absolute: bool) -> Result<Globs, String> {
        Globs::new(&texts.iter().map(ToString::to_string).collect::<Vec<_>>(), absolute)
    }

    #[test]
    fn what_is_left_out_wins() {
        let globs = globs(&["/d/**/*.md", "!/d/drafts/**", "!/d/**/x.md"], true).unwrap();
        for (path, matches) in [
            ("/d/a.md", true),
            ("/d/b/c/a.md", true),
            ("/d/a.txt", false),
            ("/d/drafts/a.md", false),
            ("/d/b/x.md", false),
            ("/e/a.md", false),
        ] {
            assert_eq!(globs.matches(Path::new(path)), matches, "{path}");
        }
        assert!(globs.closes(Path::new("/d/drafts")) && !globs.closes(Path::new("/d/other")));
        assert_eq!(globs.roots(), [PathBuf::from("/d")]);
    }

    #[test]
    fn roots_hold_every_match_and_none_holds_another() {
        let globs = globs(&["/a/b/*.md", "/a/**", "/c/{x,y}/z", "/e.md"], true).unwrap();
        assert_eq!(globs.roots(), [PathBuf::from("/")]);
        let globs = self::globs(&["/a/b/*.md", "/a/b/c/**", "/c/{x,y}/z"], true).unwrap();
        assert_eq!(globs.roots(), [PathBuf::from("/a/b"), PathBuf::from("/c")]);
    }

    #[test]
    fn what_is_no_glob_is_refused() {
        for texts in [&["a/*"][..], &["/a//b"], &["/a/../b"], &["/a/"], &["!/a/**"], &[""], &["/a/[b"], &[]] {
            assert!(globs(texts, true).is_err(), "{texts:?}");
        }
        assert!(globs(&["/a"], false).is_err());
        assert!(globs(&["docs/**"], false).is_ok());
    }
}
