//! What the forge's API and git say together, without an agent.

use std::time::Duration;

use consign::{
    approval::review::Need,
    forge::{
        Client, Kind, Settings,
        evidence::{File, Found, reviewed},
    },
    ids::Revision,
    ops_repo::OpsRepo,
};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;

use crate::support::{
    Gitea,
    gitea::{AGENT, REPOSITORY, ROOT, SCOPES},
    mirror,
};

fn client(gitea: &Gitea, token: &str) -> Client {
    let settings = Settings {
        kind: Kind::Gitea,
        url: gitea.address.clone(),
        repository: REPOSITORY.to_owned(),
        token: SecretString::from(token).into(),
        ca_cert: None,
    };
    Client::new(&settings).unwrap()
}

/// The mirror that an agent would have.
struct Mirror {
    repo: OpsRepo,
    forge: Client,
    _folder: tempfile::TempDir,
}

impl Mirror {
    async fn new(gitea: &Gitea) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repo = mirror(&gitea.remote(), folder.path().to_owned()).await;
        let forge = client(gitea, &gitea.token(AGENT, &SCOPES).await);
        Self { repo, forge, _folder: folder }
    }

    async fn tip(&self) -> Revision {
        let tips = self.repo.tips().await.unwrap();
        self.repo.fetch(&tips).await.unwrap();
        tips.branch.unwrap()
    }

    /// What is found of files as they are on the branch now.
    async fn found(&self, paths: &[&str], need: &Need) -> Found {
        let tip = self.tip().await;
        let mut files = Vec::new();
        for path in paths {
            let entries = self.repo.files_at(&tip, &[path]).await.unwrap();
            let blob = entries[0].content.blob.as_str().to_owned();
            files.push(File { path: (*path).to_owned(), blob, revision: tip.clone() });
        }
        reviewed(&self.forge, &self.repo, &files, need).await.unwrap()
    }

    #[track_caller]
    fn assert(found: &Found, reason: Option<&str>) {
        match (found, reason) {
            (Found::Approved(by), None) => assert!(!by.is_empty() && by[0].by == ["bob"], "{by:?}"),
            (Found::Refused(said), Some(reason)) => assert!(said.contains(reason), "{said}"),
            other => panic!("{other:?}"),
        }
    }
}

fn by_the_team() -> Need {
    Need { forge: None, approvals: 1, team: Some("ops".to_owned()), admin_merge: false }
}

fn by_writers() -> Need {
    Need { team: None, ..by_the_team() }
}

#[tokio::test]
async fn reviews_count_as_the_forge_has_them_and_say_why_not() {
    let gitea = Gitea::start().await;
    let mirror = Mirror::new(&gitea).await;
    let mut expected = Vec::new();
    for (name, reason) in [
        ("approved", None),
        ("unapproved", Some("has 0 of 1 approval of the team ops")),
        ("pushed-to", Some("bob approved it at")),
        ("dismissed", Some("the review of bob was dismissed")),
        ("outsider", Some("eve is not of the team ops")),
        ("taken-back", Some("bob asks for changes")),
        ("own-commit", Some("bob is one of its authors")),
    ] {
        let path = format!("actions/{name}.toml");
        let number = gitea.propose("ann", name, &[(&path, "one")]).await;
        match name {
            "unapproved" => {}
            "outsider" => drop(gitea.review("eve", number, "APPROVED").await),
            "own-commit" => {
                gitea.commit("bob", name, &[(&path, "two")]).await;
                gitea.review("bob", number, "APPROVED").await;
            }
            _ => {
                let review = gitea.review("bob", number, "APPROVED").await;
                match name {
                    "pushed-to" => drop(gitea.commit("ann", name, &[(&path, "other")]).await),
                    "dismissed" => gitea.dismiss(number, review).await,
                    "taken-back" => drop(gitea.review("bob", number, "REQUEST_CHANGES").await),
                    _ => {}
                }
            }
        }
        gitea.merge("ann", number, "merge").await;
        expected.push((path, reason));
    }
    for (path, reason) in &expected {
        Mirror::assert(&mirror.found(&[path], &by_the_team()).await, *reason);
    }
    // Whoever may write to the repository is as good where no team is named.
    let outsider = expected.iter().find(|(path, _)| path.contains("outsider")).unwrap();
    let Found::Approved(by) = mirror.found(&[&outsider.0], &by_writers()).await else { panic!("refused") };
    assert_eq!(by[0].by, ["eve"]);
    // What is pushed to its branch afterwards changes nothing.
    let approved = &expected[0].0;
    gitea.commit("ann", "approved", &[(approved, "later")]).await;
    Mirror::assert(&mirror.found(&[approved], &by_the_team()).await, None);
    let two = Need { approvals: 2, ..by_the_team() };
    Mirror::assert(&mirror.found(&[approved], &two).await, Some("has 1 of 2 approvals"));
}

#[tokio::test]
async fn content_is_bound_to_the_reviewed_head_however_it_was_merged() {
    let gitea = Gitea::start().await;
    let mirror = Mirror::new(&gitea).await;
    for style in ["merge", "rebase", "rebase-merge", "squash", "fast-forward-only"] {
        let path = format!("actions/{style}.toml");
        let number = gitea.propose("ann", style, &[(&path, style)]).await;
        // The action is not the last commit of its pull request.
        gitea.commit("ann", style, &[(&format!("{style}.md"), "words")]).await;
        if style != "fast-forward-only" {
            // The branch moves on meanwhile.
            gitea.commit("ann", "main", &[("README.md", style)]).await;
        }
        gitea.review("bob", number, "APPROVED").await;
        gitea.merge("kim", number, style).await;
        Mirror::assert(&mirror.found(&[&path], &by_the_team()).await, None);
    }

    // A formula that is another one by the time of the merge was not reviewed with the action.
    gitea.commit("ann", "main", &[("formulas/f.sh", "echo good\n")]).await;
    let files = ["actions/uses.toml", "formulas/f.sh"];
    let number = gitea.propose("ann", "uses", &[(files[0], "uses f")]).await;
    gitea.review("bob", number, "APPROVED").await;
    gitea.merge("ann", number, "squash").await;
    Mirror::assert(&mirror.found(&files, &by_the_team()).await, None);
    gitea.commit("ann", "main", &[("formulas/f.sh", "echo evil\n")]).await;
    Mirror::assert(&mirror.found(&files, &by_the_team()).await, Some("no pull request"));
    let number = gitea.propose("ann", "formula", &[("formulas/f.sh", "echo better\n")]).await;
    gitea.review("kim", number, "APPROVED").await;
    gitea.merge("ann", number, "rebase").await;
    let Found::Approved(by) = mirror.found(&files, &by_the_team()).await else { panic!("refused") };
    assert_eq!(
        (by[0].by.as_slice(), by[1].by.as_slice()),
        (&["bob".to_owned()][..], &["kim".to_owned()][..])
    );

    // What was pushed to the branch itself was not reviewed at all.
    gitea.commit("ann", "main", &[("actions/direct.toml", "direct")]).await;
    Mirror::assert(&mirror.found(&["actions/direct.toml"], &by_the_team()).await, Some("no pull request"));
}

#[tokio::test]
async fn a_merge_that_was_made_by_hand_approves_only_what_was_reviewed() {
    let gitea = Gitea::start().await;
    let mirror = Mirror::new(&gitea).await;
    gitea
        .ask(
            ROOT,
            Method::PATCH,
            &format!("/repos/{REPOSITORY}"),
            Some(json!({ "allow_manual_merge": true })),
        )
        .await;
    gitea.commit("ann", "main", &[("actions/old.toml", "dangerous")]).await;
    let changes = gitea.propose("ann", "changes", &[("actions/new.toml", "good")]).await;
    let beside = gitea.propose("ann", "beside", &[("other.md", "words")]).await;
    for number in [changes, beside] {
        gitea.review("bob", number, "APPROVED").await;
    }
    let by_hand = async |number: u64, commit: &str| {
        let body = json!({ "Do": "manually-merged", "MergeCommitID": commit });
        gitea.post(ROOT, &format!("/repos/{REPOSITORY}/pulls/{number}/merge"), body).await;
    };
    // The commit that is called the merge has other content than the pull request's head.
    let commit = gitea.commit("ann", "main", &[("actions/new.toml", "evil")]).await;
    by_hand(changes, &commit).await;
    Mirror::assert(&mirror.found(&["actions/new.toml"], &by_the_team()).await, Some("other content"));
    // It puts back what the pull request's head merely happens to have.
    gitea.commit("ann", "main", &[("actions/old.toml", "repaired")]).await;
    let commit = gitea.commit("ann", "main", &[("actions/old.toml", "dangerous")]).await;
    by_hand(beside, &commit).await;
    Mirror::assert(&mirror.found(&["actions/old.toml"], &by_the_team()).await, Some("does not change"));
}

#[tokio::test]
async fn an_admins_merge_is_an_approval_only_where_the_rule_says_so() {
    let gitea = Gitea::start().await;
    let mirror = Mirror::new(&gitea).await;
    let counted = Need { admin_merge: true, ..by_the_team() };
    for (name, author, merger, approved) in
        [("admin", "ann", ROOT, true), ("writer", "ann", "bob", false), ("own", ROOT, ROOT, false)]
    {
        let path = format!("actions/{name}.toml");
        let number = gitea.propose(author, name, &[(&path, name)]).await;
        gitea.merge(merger, number, "merge").await;
        let plain = mirror.found(&[&path], &by_the_team()).await;
        assert!(matches!(plain, Found::Refused(_)), "{name}: {plain:?}");
        let found = mirror.found(&[&path], &counted).await;
        assert_eq!(matches!(found, Found::Approved(_)), approved, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn a_token_without_rights_is_told_which_one_it_lacks() {
    let mut gitea = Gitea::start().await;
    let mirror = Mirror::new(&gitea).await;
    let path = "actions/a.toml";
    let number = gitea.propose("ann", "a", &[(path, "a")]).await;
    gitea.review("bob", number, "APPROVED").await;
    gitea.merge("ann", number, "merge").await;
    let tip = mirror.tip().await;
    let entry = mirror.repo.files_at(&tip, &[path]).await.unwrap().remove(0);
    let blob = entry.content.blob.as_str().to_owned();
    let file = File { path: path.to_owned(), blob, revision: tip };
    let error = async |token: &str, need: &Need| {
        let client = client(&gitea, token);
        let found = reviewed(&client, &mirror.repo, std::slice::from_ref(&file), need).await;
        found.expect_err("it needs rights").to_string()
    };
    let cases = [
        (&["read:issue"][..], by_the_team(), "read:repository"),
        (&["read:repository"][..], by_the_team(), "read:issue"),
        (&["read:repository", "read:issue"][..], by_the_team(), "read:organization"),
    ];
    for (scopes, need, missing) in cases {
        let said = error(&gitea.token(AGENT, scopes).await, &need).await;
        assert!(said.contains("no right to") && said.contains(missing), "{scopes:?}: {said}");
    }
    // An account that is no administrator of the repository may not ask who writes to it.
    let said = error(&gitea.token("eve", &SCOPES).await, &by_writers()).await;
    assert!(said.contains("administrator of the repository"), "{said}");
    let said = error(&gitea.token("eve", &SCOPES).await, &by_the_team()).await;
    assert!(said.contains("member of the team"), "{said}");
    let elsewhere = Need { team: Some("nobody".to_owned()), ..by_the_team() };
    let said = error(&gitea.token(AGENT, &SCOPES).await, &elsewhere).await;
    assert!(said.contains("acme has no team nobody"), "{said}");
    assert!(error("not-a-token", &by_the_team()).await.contains("401"));
    // A hidden repository looks like none.
    let hidden = json!({ "private": true });
    gitea.ask(ROOT, Method::PATCH, &format!("/repos/{REPOSITORY}"), Some(hidden)).await;
    gitea
        .post(
            ROOT,
            "/admin/users",
            json!({
                "username": "stranger", "email": "s@example.invalid", "password": "correct horse battery",
                "must_change_password": false,
            }),
        )
        .await;
    let said = error(&gitea.token("stranger", &SCOPES).await, &by_the_team()).await;
    assert!(said.contains("hidden from the token"), "{said}");
    let token = gitea.token(AGENT, &SCOPES).await;
    gitea.halt();
    let client = client(&gitea, &token);
    let begun = std::time::Instant::now();
    let down = client.access().await.unwrap_err();
    assert!(down.is_temporary() && down.to_string().contains("cannot be reached"), "{down}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
