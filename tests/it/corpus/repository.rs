//! What may be committed, and what the intake makes of it: real git, and no server.

use std::{collections::BTreeMap, path::Path, process::Command};

use consign::{
    ids::Revision,
    intake::{Finding, Verdict, look},
    ops_repo::OpsRepo,
};
use serde::Deserialize;

use super::{cases, rules};
use crate::support::mirror;

/// What every script can use.
const PRELUDE: &str = r#"set -eu
action() {
    stem=${1##*/}
    mkdir -p "$(dirname -- "$1")"
    printf 'id = "%s"\nformula = "hello"\ncontext = "c"\nsecrets = []\n' "${stem%.toml}" >"$1"
}
"#;
/// What becomes of what a script left, and of what it committed itself.
const PUSH: &str = "\ngit add --all 2>/dev/null || :\ngit diff --cached --quiet || git commit --quiet -m case\n\
                    git push --quiet --force origin HEAD:refs/heads/main\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    script: String,
    second: Option<String>,
    found: BTreeMap<String, String>,
    /// What is found of each file, where they are too many to name.
    last: Option<String>,
}

fn run(folder: &Path, script: &str) {
    let output = Command::new("sh")
        .args(["-c", &format!("{PRELUDE}{script}")])
        .current_dir(folder)
        .env("HOME", folder)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "t")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "t@example.invalid")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a look finds, by path, and the tip that was looked at.
async fn look(repo: &OpsRepo, before: Option<&Revision>) -> (BTreeMap<String, String>, Revision) {
    let tips = repo.tips().await.unwrap();
    repo.fetch(&tips).await.unwrap();
    let tip = tips.branch.unwrap();
    let findings = look::look(repo, before, &tip, None, &rules()).await.unwrap();
    let found = findings.files.into_iter().map(|finding| match finding {
        Finding::Deleted { path } => (path, "gone".to_owned()),
        Finding::Written { path, verdict: Verdict::Sound { .. }, .. } => (path, "sound".to_owned()),
        Finding::Written { path, verdict: Verdict::Unsound { message, .. }, .. } => (path, message),
    });
    (found.collect(), tip)
}

#[tokio::test]
async fn every_commit_has_its_verdict() {
    let mut wrong = Vec::new();
    for case in cases::<Case>("repository.toml") {
        let folder = tempfile::tempdir().unwrap();
        let begin = "git init --quiet --bare -b main ops.git\ngit init --quiet -b main ops\ncd ops\n\
                     git remote add origin ../ops.git\nmkdir actions formulas\necho 'exit 0' >formulas/hello.sh\n";
        run(folder.path(), &format!("{begin}{PUSH}git fetch --quiet\nmkdir -p actions"));
        let work = folder.path().join("ops");
        let remote = folder.path().join("ops.git");
        let repo = mirror(remote.to_str().unwrap(), folder.path().join("mirror")).await;
        run(&work, &format!("{}{PUSH}", case.script));
        let (mut found, tip) = look(&repo, None).await;
        if let Some(second) = &case.second {
            run(&work, &format!("{second}{PUSH}"));
            (found, _) = look(&repo, Some(&tip)).await;
        }
        let is_expected = match &case.last {
            Some(expected) => !found.is_empty() && found.values().all(|verdict| verdict == expected),
            None => {
                found.keys().eq(case.found.keys())
                    && found
                        .values()
                        .zip(case.found.values())
                        .all(|(found, expected)| found.contains(expected))
            }
        };
        if !is_expected {
            wrong.push(format!("{}: {found:?}", case.name));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
