//! The globs of an action and its formula.
//!
//! `*` and `?` stand for anything but `/`, `**` for any number of folders, `[…]` for one character and
//! `{a,b}` for either. A leading dot is a character like any other.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The longest glob, in bytes.
pub const LIMIT: usize = 512;

/// Globs that cannot be compiled. What passed [`check`] can.
#[derive(Debug, thiserror::Error)]
#[error("the globs cannot be compiled")]
pub struct Error(#[from] globset::Error);

/// Compiled globs.
#[derive(Debug)]
pub struct Globs {
    set: GlobSet,
    patterns: Vec<Pattern>,
}

/// Where below the working directory the matches of one glob can be.
#[derive(Debug)]
struct Pattern {
    text: String,
    /// The folders that every match lies in.
    base: Vec<String>,
    /// How many parts a match has at most; `None` where that is open.
    parts: Option<usize>,
}

/// Message and help for a text that is not a glob below the working directory.
///
/// The message goes on after the key's name.
pub fn check(text: &str) -> Result<(), (String, String)> {
    let quoted = || crate::table::quote(text);
    let below = !text.is_empty()
        && text.len() <= LIMIT
        && !text.starts_with(['/', '~'])
        && !text.chars().any(|character| character.is_control() || character == '\\')
        && text.split('/').all(|part| part != "..");
    if !below {
        return Err((
            format!("is not a glob below the working directory: {}", quoted()),
            "write it relative and without `..`, such as \"reports/**/*.html\"".to_owned(),
        ));
    }
    if text.ends_with('/') {
        let help = format!("to keep what is in the folder, write \"{text}**\"");
        return Err((format!("matches no file: {}", quoted()), help));
    }
    if text.split('/').any(|part| part.is_empty() || part == ".") {
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        return Err((format!("matches no file: {}", quoted()), format!("write \"{}\"", parts.join("/"))));
    }
    match Globs::new(&[text.to_owned()]) {
        Ok(_) => Ok(()),
        Err(Error(error)) => Err((
            format!("is not a glob: {}", quoted()),
            format!("{}; `*`, `?`, `**`, `[…]` and `{{a,b}}` are known", error.kind()),
        )),
    }
}

impl Globs {
    /// Compiles `globs`.
    pub fn new(globs: &[String]) -> Result<Self, Error> {
        let mut set = GlobSetBuilder::new();
        for text in globs {
            set.add(GlobBuilder::new(text).literal_separator(true).build()?);
        }
        let patterns = globs.iter().map(|text| Pattern::new(text)).collect();
        Ok(Self { set: set.build()?, patterns })
    }

    /// The places of the globs that match a file's name.
    #[must_use]
    pub fn matching(&self, name: &str) -> Vec<usize> {
        self.set.matches(name)
    }

    /// The globs' texts, in their order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }

    /// Whether a folder may hold a match, so that it has to be looked into; the empty name is the working
    /// directory's.
    #[must_use]
    pub fn may_hold(&self, folder: &str) -> bool {
        let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        self.patterns.iter().any(|pattern| pattern.may_hold(&parts))
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let parts: Vec<&str> = text.split('/').collect();
        let folders = &parts[..parts.len().saturating_sub(1)];
        let base =
            folders.iter().take_while(|part| !part.contains(['*', '?', '[', '{'])).map(ToString::to_string);
        // An alternative or a class may hold a slash of its own.
        let open = text.contains("**") || text.contains(['{', '[']);
        Self { text: text.to_owned(), base: base.collect(), parts: (!open).then_some(parts.len()) }
    }

    fn may_hold(&self, folder: &[&str]) -> bool {
        self.base.iter().zip(folder).all(|(wanted, part)| wanted == part)
            && self.parts.is_none_or(|parts| folder.len() < parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(texts: &[&str]) -> Globs {
        Globs::new(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn globs_match_as_shells_and_ci_systems_do() {
        for (glob, name, matches) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "b/a.txt", false),
            ("*", ".hidden", true),
            ("**", "a/b/c", true),
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "a/b/c.txt", true),
            ("report/**", "report/a/b", true),
            ("report/**", "report", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[ab].txt", "b.txt", true),
            ("{a,b/c}.txt", "b/c.txt", true),
            ("a", "A", false),
        ] {
            assert_eq!(globs(&[glob]).matching(name).len(), usize::from(matches), "{glob} {name}");
        }
        assert_eq!(globs(&["*.a", "b.*", "c"]).matching("b.a"), [0, 1]);
    }

    #[test]
    fn only_folders_that_may_hold_a_match_are_looked_into() {
        for (glob, folder, may) in [
            ("*.txt", "", true),
            ("*.txt", "a", false),
            ("a/b/*.txt", "a", true),
            ("a/b/*.txt", "a/b", true),
            ("a/b/*.txt", "a/c", false),
            ("a/b/*.txt", "a/b/c", false),
            ("a/**/x", "a/b/c/d", true),
            ("a/**/x", "b", false),
            ("*/x", "b", true),
            ("*/x", "b/c", false),
            ("{a,b/c/d}/x", "b/c/d", true),
        ] {
            assert_eq!(globs(&[glob]).may_hold(folder), may, "{glob} {folder}");
        }
    }

    #[test]
    fn what_can_never_match_is_refused_with_what_to_write() {
        for (text, message, help) in [
            ("/etc/passwd", "is not a glob below", "relative"),
            ("~/x", "is not a glob below", "relative"),
            ("a/../../b", "is not a glob below", "relative"),
            ("a\\b", "is not a glob below", "relative"),
            ("a\0", "is not a glob below", "relative"),
            ("", "is not a glob below", "relative"),
            ("report/", "matches no file", "\"report/**\""),
            ("./a//b", "matches no file", "\"a/b\""),
            ("[a", "is not a glob: ", "unclosed character class"),
            ("{a,b", "is not a glob: ", "unclosed alternate"),
            ("[z-a]", "is not a glob: ", "invalid range"),
        ] {
            let (found, advice) = check(text).unwrap_err();
            assert!(found.contains(message) && advice.contains(help), "{text}: {found}; {advice}");
        }
        assert_eq!(check("reports/**/*.html"), Ok(()));
        assert!(check(&"a".repeat(LIMIT + 1)).is_err());
    }

    proptest! {
        #[test]
        fn a_folder_of_a_match_may_hold_it(glob in "[a*?/{},!\\[\\]]{1,12}", name in "[a/]{1,12}") {
            if check(&glob).is_ok() {
                let globs = globs(&[&glob]);
                if name.split('/').all(|part| !part.is_empty()) && !globs.matching(&name).is_empty() {
                    let mut folder = name.as_str();
                    while let Some((parent, _)) = folder.rsplit_once('/') {
                        prop_assert!(globs.may_hold(parent), "{glob} {name} {parent}");
                        folder = parent;
                    }
                }
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            if check(&text).is_ok() {
                prop_assert!(Globs::new(&[text]).is_ok());
            }
        }
    }
}
