//! The rooms of the house, from the lowest level to the highest: a room uses rooms below it, never above.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

/// Levels from low to high. A room may use every room of a lower level, and those on its own level that
/// [`NEIGHBOURS`] names. A part of a room may stand on a level of its own.
const LEVELS: &[(&str, &[&str])] = &[
    (
        "words",
        &[
            "ambient",
            "credential",
            "diagnostic",
            "duration",
            "fail_point",
            "hexadecimal",
            "ids",
            "program",
            "redacted",
            "retry",
            "table",
            "telemetry",
        ],
    ),
    (
        "pure rooms",
        &[
            "action",
            "approval",
            "artifact",
            "dispatch",
            "dispatch::shape",
            "formula",
            "lifecycle",
            "outcome",
            "queue",
            "sample",
            "trigger",
            "validation",
            "webhook",
        ],
    ),
    ("drivers", &["forge", "metrics", "nomad", "ops_repo", "store", "vault"]),
    (
        "effects",
        &[
            "dispatch::launch",
            "dispatch::nodes",
            "forge::evidence",
            "grant",
            "intake",
            "track",
            "webhook::deliver",
            "webhook::resolve",
        ],
    ),
    ("controller", &["controller"]),
    (
        "edges",
        &[
            "agent",
            "bootstrap",
            "cli",
            "client",
            "config",
            "dev",
            "doctor",
            "http",
            "page",
            "schema",
            "secret",
            "tokens",
            "trigger::attend",
            "trigger::follow",
            "trigger::issues",
            "trigger::watch",
        ],
    ),
];

/// Uses between rooms of one level: (room, what it uses).
const NEIGHBOURS: &[(&str, &[&str])] = &[
    ("words", &["*"]),
    ("action", &["artifact", "outcome"]),
    ("artifact", &["outcome"]),
    ("formula", &["action"]),
    ("validation", &["action", "formula", "outcome"]),
    ("sample", &["action", "formula", "validation"]),
    ("approval", &["action", "dispatch::shape", "formula", "lifecycle", "outcome"]),
    ("queue", &["action", "lifecycle", "outcome"]),
    ("lifecycle", &["action", "dispatch::shape", "formula", "outcome"]),
    ("dispatch", &["action", "approval", "formula", "lifecycle", "outcome"]),
    ("dispatch::shape", &["action", "dispatch", "formula", "outcome"]),
    ("trigger", &["action", "outcome", "webhook"]),
    ("webhook", &["artifact", "lifecycle", "outcome"]),
    ("intake", &["webhook::resolve"]),
    ("webhook::deliver", &["track", "webhook::resolve"]),
    ("edges", &["*"]),
];

#[test]
fn rooms_use_only_what_is_below_them() {
    let mut faults = Vec::new();
    let mut unknown = BTreeSet::new();
    for (path, text) in sources() {
        let Some((level, room)) = place(&path) else {
            if path != "lib" && path != "main" {
                unknown.insert(path.split("::").next().unwrap_or_default().to_owned());
            }
            continue;
        };
        for used in uses(&text) {
            let Some((used_level, used_room)) = place(&used) else { continue };
            let inside = top(room) == top(used_room) && used_level <= level;
            if used_level >= level
                && !inside
                && !(used_level == level && are_neighbours(level, room, used_room))
            {
                faults.push(format!(
                    "{path} ({}) uses {used} ({}), which is not below it",
                    LEVELS[level].0, LEVELS[used_level].0
                ));
            }
        }
    }
    assert!(unknown.is_empty(), "no level is given for {unknown:?}: add them to LEVELS");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn uses_are_found() {
    let text = "use crate::{action::Action, ids::{self, JobId}};\nuse crate::outcome;\n    use crate::track::judge::x;\nlet a = crate::nomad::b();\n// use crate::comment;";
    let found: Vec<String> = uses(text).into_iter().collect();
    assert_eq!(
        found,
        ["action::Action", "ids::JobId", "ids::self", "nomad::b", "outcome", "track::judge::x"]
    );
}

/// The level and the room that a module path such as `track::judge::tests` lies in: the longest name wins.
fn place(path: &str) -> Option<(usize, &'static str)> {
    let inside = |room: &str| path == room || path.starts_with(&format!("{room}::"));
    LEVELS
        .iter()
        .enumerate()
        .flat_map(|(level, (_, rooms))| rooms.iter().map(move |room| (level, *room)))
        .filter(|(_, room)| inside(room))
        .max_by_key(|(_, room)| room.len())
}

fn top(room: &str) -> &str {
    room.split("::").next().unwrap_or(room)
}

fn are_neighbours(level: usize, room: &str, used: &str) -> bool {
    NEIGHBOURS.iter().any(|(name, allowed)| {
        (*name == room || *name == LEVELS[level].0) && (allowed.contains(&used) || allowed.contains(&"*"))
    })
}

/// Every source file's text by its module path.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(&root).unwrap().with_extension("");
                let module = module.to_str().unwrap().replace('/', "::");
                let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
                found.insert(module, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// The paths after `crate::` in a source text, groups in braces spread out; comments are passed over.
fn uses(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for (start, word) in code.match_indices("crate::") {
        let alone = !code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if alone {
            spread(&mut code[start + word.len()..].chars().peekable(), "", &mut found);
        }
    }
    found
}

/// Reads one path, or one group of paths, that follows `prefix`.
fn spread(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, prefix: &str, found: &mut BTreeSet<String>) {
    let mut path = prefix.to_owned();
    while let Some(next) = rest.peek().copied() {
        if next.is_alphanumeric() || next == '_' || next == ':' {
            path.push(next);
            rest.next();
        } else if next == '{' {
            loop {
                rest.next();
                while rest.next_if(|next| next.is_whitespace()).is_some() {}
                if rest.peek().is_none_or(|next| *next == '}') {
                    break;
                }
                spread(rest, &path, found);
                // Whatever follows the path, such as `as Name`, ends at the comma or the brace.
                while rest.next_if(|next| *next != ',' && *next != '}').is_some() {}
                if rest.peek().is_none_or(|next| *next == '}') {
                    break;
                }
            }
            rest.next();
            return;
        } else {
            break;
        }
    }
    if !path.is_empty() {
        found.insert(path);
    }
}
