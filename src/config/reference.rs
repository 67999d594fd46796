//! The configuration reference, made from the commented defaults.

use std::fmt::Write as _;

use super::{Config, DEFAULT, WELL_KNOWN};

const INTRODUCTION: &str = "\
# Configuration

The agent and the operator's commands read one TOML file: the one that `--config` names, else
`./consign.toml`, else `/etc/consign/consign.toml`. Every key has a default, so a file holds only what
differs. An unknown key is an error with its place: a misspelt limit is a limit that does not hold.

Environment variables win over the file, and an empty one counts as unset. Durations are written as
`90s`, `15m` or `1h30m`, sizes as `16KiB`. `consign validate` checks the configuration too, and
`consign schema config` prints its JSON Schema. This page is made from the built-in defaults.
";

/// The reference as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    let mut comment: Vec<&str> = Vec::new();
    let mut meaning = String::new();
    for line in DEFAULT.lines().chain([""]) {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            heading(&mut page, section);
        } else if let Some((key, value)) = line.split_once(" = ") {
            // Keys that follow each other without a comment of their own share the one before them.
            if !comment.is_empty() {
                meaning = std::mem::take(&mut comment).join(" ");
            }
            row(&mut page, section, key, value, &meaning);
        } else if !comment.is_empty() {
            let block = std::mem::take(&mut comment);
            // The file's own introduction stands before its first section; this page has one.
            if !section.is_empty() {
                example(&mut page, &block);
            }
        }
    }
    page
}

fn heading(page: &mut String, section: &str) {
    // Writing to a string does not fail.
    let _ =
        write!(page, "\n## `[{section}]`\n\n| key | default | environment | meaning |\n|---|---|---|---|\n");
}

fn row(page: &mut String, section: &str, key: &str, value: &str, meaning: &str) {
    let known = WELL_KNOWN.iter().find(|(_, at, named)| *at == section && *named == key);
    let known = known.map(|(name, ..)| format!("`{name}`, ")).unwrap_or_default();
    let path: Vec<&str> = section.split('.').chain([key]).collect();
    let own = Config::variable(&path);
    // Markdown would take `<name>` for HTML, and `|` for the end of a cell.
    let meaning = meaning.replace('<', "\\<").replace('|', "\\|");
    let _ = writeln!(page, "| `{key}` | `{value}` | {known}`{own}` | {meaning} |");
}

fn example(page: &mut String, lines: &[&str]) {
    let _ = write!(page, "\n```text\n{}\n```\n", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    #[test]
    fn the_committed_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("CONSIGN_REGENERATE").is_some() {
            std::fs::write(path, reference()).expect("the reference is written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == reference(), "run the tests once with CONSIGN_REGENERATE=1 to write {path}");
    }

    #[test]
    fn every_key_has_a_row_and_a_meaning() {
        let page = reference();
        let defaults = DeTable::parse(DEFAULT).expect("the defaults parse");
        for (path, _) in super::super::keys(defaults.get_ref(), &[]) {
            let variable = format!("`{}`", Config::variable(&path));
            let row = page.lines().find(|line| line.contains(&variable)).unwrap_or_default();
            let key = path.last().expect("a key");
            assert!(row.starts_with(&format!("| `{key}` |")), "{path:?}: {row:?}");
            assert!(!row.ends_with("|  |"), "{path:?} has no meaning: {row:?}");
        }
    }
}
