//! What the documents say, as far as a program can tell whether it is true.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use consign::{action, config, fail_point::CHANGES, formula, outcome::result_file::ResultFile};

fn root() -> PathBuf {
    env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests").into()
}

/// README.md and every page below docs/: its path from the root, and its text.
fn pages() -> BTreeMap<String, String> {
    let root = root();
    let mut folders = vec![root.join("docs")];
    let mut paths = vec![root.join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// A page by its path from the root.
pub(crate) fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The fenced blocks of a page in one language.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.trim() == language, String::new())),
            (Some(_), Some(_)) => {
                if let Some((true, block)) = open.take() {
                    found.push(block);
                }
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// A page without its fenced blocks.
fn prose(page: &str) -> String {
    let parts = page.split("\n```").step_by(2);
    parts.collect::<Vec<_>>().join("\n")
}

/// The anchors of a page's headings, as forges make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept =
                text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
        })
        .collect()
}

/// The targets of a page's links.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for (name, text) in &pages {
        for link in links(text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let folder = Path::new(name).parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { root().join(name) } else { root().join(folder).join(file) };
            let leads = match (target.is_file(), anchor) {
                (true, Some(anchor)) => anchors(&fs::read_to_string(&target).unwrap()).contains(anchor),
                (true, None) => true,
                (false, _) => target.is_dir() && anchor.is_none(),
            };
            if !leads {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// Reads a TOML block as what it looks like; gives the problem, if there is one.
fn fault(block: &str) -> Option<String> {
    let table: toml::Table = match block.parse() {
        Ok(table) => table,
        Err(error) => return Some(error.to_string()),
    };
    if let Some(id) = table.get("id") {
        let name = format!("{}.toml", id.as_str().unwrap_or_default());
        return action::file::read(&name, block.as_bytes()).err().map(|problems| format!("{problems:?}"));
    }
    if table.contains_key("steps") || table.contains_key("description") {
        let read = formula::file::read("example.toml", block.as_bytes());
        return read.err().map(|problems| format!("{problems:?}"));
    }
    config::read("consign.toml", block, &config::Environment::new()).err().map(|error| error.to_string())
}

#[test]
fn every_example_is_valid() {
    let mut count = 0;
    for (name, text) in pages() {
        for block in blocks(&text, "toml") {
            count += 1;
            if let Some(fault) = fault(&block) {
                panic!("{name}: {fault}\n{block}");
            }
        }
        for block in blocks(&text, "json").iter().filter(|block| block.contains("\"outcome\"")) {
            count += 1;
            let read = serde_json::from_str::<ResultFile>(block);
            assert!(read.is_ok(), "{name}: {read:?}\n{block}");
        }
    }
    assert!(count >= 4, "only {count} examples were found");
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let defaults: toml::Table = config::DEFAULT.parse().unwrap();
    for (section, keys) in &defaults {
        assert!(page.contains(&format!("## `[{section}")), "[{section}]");
        for key in keys.as_table().unwrap().keys() {
            assert!(page.contains(&config::Config::variable(&[section, key])), "[{section}] {key}");
        }
    }
}

#[test]
fn the_operators_page_shows_the_nomad_policy_as_it_is() {
    let policy = fs::read_to_string(root().join("policies/nomad-agent.hcl")).unwrap();
    let page = self::page("docs/operate.md");
    assert!(blocks(&page, "hcl").contains(&policy), "docs/operate.md shows another policies/nomad-agent.hcl");
}

#[test]
fn the_operators_page_shows_the_unit_as_it_is() {
    let unit = fs::read_to_string(root().join("docs/systemd/consign.service")).unwrap();
    let page = self::page("docs/operate.md");
    assert!(
        blocks(&page, "ini").contains(&unit),
        "docs/operate.md shows another docs/systemd/consign.service"
    );
}

/// The text of every Rust file below a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn every_threat_names_tests_that_exist() {
    let sources = [sources(&root().join("src")), sources(&root().join("tests"))].concat();
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let table = page.split_once("\n| threat |").unwrap().1;
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    for row in rows {
        let tests: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        let missing = tests.iter().find(|test| !sources.contains(&format!("fn {test}()")));
        assert_eq!(missing, None, "{row}");
    }
}

#[test]
fn every_dependency_is_accounted_for() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let page = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let (plain, tests) = page.split_once("For tests alone").expect("a part for tests");
    for (part, key) in [(plain, "dependencies"), (tests, "dev-dependencies")] {
        let named: BTreeSet<&str> = manifest[key].as_table().unwrap().keys().map(String::as_str).collect();
        let rows = part.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        let told: BTreeSet<&str> = rows.map(|(name, _)| name).filter(|name| *name != "crate").collect();
        assert_eq!(told, named, "docs/dependencies.md and Cargo.toml's [{key}] differ");
    }
}

/// What stands between backticks on a page.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_promise_names_tests_that_there_are() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let promises: Vec<&str> = page.lines().filter(|line| line.starts_with("| P")).collect();
    assert_eq!(promises.len(), 7, "{promises:?}");
    for promise in promises {
        let tests: Vec<&str> = code(promise).filter(|name| name.contains("::")).collect();
        assert!(!tests.is_empty(), "{promise}");
        for test in tests {
            let (module, function) = test.rsplit_once("::").unwrap();
            let file = root().join("tests/it").join(module.replace("::", "/")).with_extension("rs");
            let text = fs::read_to_string(&file).unwrap_or_default();
            let asynchronous = format!("#[tokio::test]\nasync fn {function}()");
            let plain = format!("#[test]\nfn {function}()");
            assert!(text.contains(&asynchronous) || text.contains(&plain), "there is no test {test}");
        }
    }
}

#[test]
fn the_crash_table_has_every_fail_point() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let table = page.split_once("| point | kills |").expect("the crash table").1;
    let named: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).map(|row| row.0).collect();
    let points = CHANGES.iter().flat_map(|change| [format!("before {change}"), format!("after {change}")]);
    assert_eq!(named, points.chain(["all".to_owned()]).collect::<Vec<_>>());
}
