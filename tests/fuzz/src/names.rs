//! Names, the paths made of them, and what git says of paths: each stays where it belongs, and is read as it was written.

use std::path::{Component, Path};

use consign::{
    action,
    approval::fits,
    artifact::{
        glob::{self, Globs},
        name,
    },
    ids::{ActionId, BotName, DispatchId, FormulaName, InvalidName, JobId, Revision, SecretName},
    ops_repo::{parse_changes, parse_snapshot, parse_tree},
    validation::tree::kind_of,
};

pub(crate) fn check(input: &[u8]) {
    listed(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    ids(text);
    paths(text);
    artifacts(text);
}

/// What a name is read from is how it is written; none can leave a folder or be taken for an option.
fn ids(text: &str) {
    fn written(name: Result<impl ToString, InvalidName>, text: &str) -> bool {
        name.is_ok_and(|name| {
            assert_eq!(name.to_string(), text);
            assert!(!text.is_empty() && !text.starts_with(['-', '.', '_']) && text.is_ascii());
            assert!(!text.contains(['/', '\\', '%', '\0', '\n', ' ', ',', '*', '{', '$']));
            true
        })
    }
    let is_id = written(ActionId::parse(text), text);
    written(FormulaName::parse(text), text);
    written(SecretName::parse(text), text);
    written(BotName::parse(text), text);
    written(Revision::parse(text), text);
    let job_id = text.parse::<JobId>().map(|id| id.to_string());
    let dispatch_id = text.parse::<DispatchId>().map(|id| id.to_string());
    for id in [job_id, dispatch_id].into_iter().flatten() {
        assert!(id.eq_ignore_ascii_case(text));
        assert_eq!(id.parse::<JobId>().map(|id| id.to_string()), Ok(id));
    }
    if is_id {
        let path = format!("actions/2026/{text}.toml");
        assert_eq!(action::stem(&path).as_deref(), Some(text));
        let result = action::result_path(&path).expect("an action has a result");
        assert_eq!(Path::new(&result).parent(), Path::new(&path).parent());
        assert_eq!(action::path_of_result(&result), Some(path));
        assert!(kind_of(&result, "actions", "formulas").is_none(), "no result is an action");
    }
}

fn paths(path: &str) {
    if let Some(result) = action::result_path(path) {
        assert_eq!(action::path_of_result(&result).as_deref(), Some(path));
    }
    let _ = (action::stem(path), kind_of(path, "actions", "formulas"));
    let record = action::record::is_record(path, "actions");
    assert!(!record || path.starts_with("actions/"));
}

/// A file that a task names stays in its folder, and so does the URL.
fn artifacts(text: &str) {
    let (patterns, part) = text.split_once('\n').unwrap_or(("**", text));
    if name::is_legal_part(part) {
        let path = Path::new("/kept").join(part);
        assert!(path.parent() == Some(Path::new("/kept")) && !part.contains('\0'));
        assert!(path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))));
        let url = name::url("job", part);
        assert!(url.is_ascii() && !url.contains([' ', '?', '#', '"', '\\']));
    }
    let disposition = name::disposition(part);
    let file = disposition.strip_prefix("attachment; filename*=UTF-8''").expect("RFC 6266");
    assert!(file.bytes().all(|byte| byte.is_ascii_graphic() && !b";\"\\,".contains(&byte)), "{file:?}");
    if glob::check(patterns).is_ok() {
        let globs = Globs::new(&[patterns.to_owned()]).expect("what was checked compiles");
        if !globs.matching(part).is_empty() {
            let folder = part.rsplit_once('/').map_or("", |(folder, _)| folder);
            assert!(
                globs.may_hold(folder),
                "{patterns:?} matches {part:?} in a folder that is not looked into"
            );
        }
    }
    assert!(fits("*", text) && fits(text, text) || text.contains('*'));
}

/// What git lists is understood or refused whole.
fn listed(bytes: &[u8]) {
    if let Some(entries) = parse_snapshot(bytes) {
        assert!(entries.iter().all(|entry| !entry.path.contains('\0')));
    }
    for id_length in [20, 32] {
        if let Some(lines) = parse_tree(bytes, id_length) {
            assert!(lines.iter().all(|line| line.id.len() == id_length && !line.name.contains(&0)));
        }
    }
    if let Some(changes) = parse_changes(bytes) {
        assert!(changes.iter().all(|change| !change.path.is_empty() && !change.path.contains('\0')));
    }
}
