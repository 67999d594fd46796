//! What pull requests and merged commits are told.

use serde_json::Value;

use super::agent::{Reviewed, high};
use crate::support::{
    Gitea, LIMIT,
    gitea::{REPOSITORY, ROOT},
    wait_for,
};

/// Waits until a commit's latest status with this context says so.
async fn says(gitea: &Gitea, commit: &str, context: &str, state: &str, words: &str) {
    wait_for(&format!("{context} to say {state}: {words}"), LIMIT, async || {
        let statuses = gitea.get(ROOT, &format!("/repos/{REPOSITORY}/commits/{commit}/statuses")).await;
        let latest = statuses.as_array().into_iter().flatten().find(|status| status["context"] == context);
        let said = latest.cloned().unwrap_or_default();
        let matches =
            said["status"] == state && said["description"].as_str().unwrap_or_default().contains(words);
        if matches { Ok(()) } else { Err(said.to_string()) }
    })
    .await;
}

async fn head(gitea: &Gitea, number: u64) -> String {
    let pull: Value = gitea.get(ROOT, &format!("/repos/{REPOSITORY}/pulls/{number}")).await;
    pull["head"]["sha"].as_str().unwrap().to_owned()
}

async fn count(gitea: &Gitea, commit: &str) -> usize {
    let statuses = gitea.get(ROOT, &format!("/repos/{REPOSITORY}/commits/{commit}/statuses")).await;
    statuses.as_array().unwrap().len()
}

#[tokio::test]
async fn pull_requests_are_told_what_actions_will_need_and_merges_what_became_of_them() {
    let reviewed = Reviewed::new("statuses", "statuses = true").await;
    let Reviewed { world, gitea, .. } = &reviewed;
    let agent = world.agent().await;
    let good = high("good", "hello", "");
    let files =
        [("actions/good.toml", good.as_str()), ("actions/bad.toml", "id = \"bad\"\nformla = \"hello\"\n")];
    let number = gitea.propose("ann", "both", &files).await;
    reviewed.hook(&agent).await;
    let commit = head(gitea, number).await;
    says(gitea, &commit, "consign/good", "success", "review by 1 of the team ops (high blast radius)").await;
    says(gitea, &commit, "consign/bad", "failure", "`formula` is missing").await;
    assert_eq!(world.children().await, Vec::<String>::new(), "nothing of it runs");

    // Another head is another look; what was said already is not said again, by another agent neither.
    gitea.commit("ann", "both", &[("actions/bad.toml", &high("bad", "hello", ""))]).await;
    reviewed.hook(&agent).await;
    let commit = head(gitea, number).await;
    says(gitea, &commit, "consign/bad", "success", "review by 1").await;
    says(gitea, &commit, "consign/good", "success", "review by 1").await;
    agent.terminate().await;
    let agent = world.agent().await;
    let late = gitea.propose("ann", "late", &[("actions/late.toml", &high("late", "hello", ""))]).await;
    reviewed.hook(&agent).await;
    says(gitea, &head(gitea, late).await, "consign/late", "success", "valid").await;
    assert_eq!(count(gitea, &commit).await, 2);

    gitea.review("bob", number, "APPROVED").await;
    gitea.merge("ann", number, "squash").await;
    assert_eq!(world.result("good", LIMIT).await["outcome"], "succeeded");
    let pull = gitea.get(ROOT, &format!("/repos/{REPOSITORY}/pulls/{number}")).await;
    let merged = pull["merge_commit_sha"].as_str().unwrap();
    says(gitea, merged, "consign/good", "success", "succeeded").await;
    says(gitea, merged, "consign/bad", "success", "succeeded").await;
}
