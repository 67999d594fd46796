//! Issues: which have a label, changing their labels, and commenting on them.
//!
//! Of an issue only its number and its labels are read. Title and body are a stranger's text, and stay there.

use jiff::Timestamp;
use reqwest::StatusCode;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::{Client, Error, Kind, Right, http::Question};
use crate::hexadecimal::percent;

/// The colour of a label that is made, red, green and blue in hexadecimal.
const COLOUR: &str = "1d76db";

#[derive(Debug, Deserialize)]
struct Issue {
    number: u32,
    #[serde(default)]
    labels: Vec<Label>,
    /// GitHub lists pull requests among the issues.
    #[serde(default)]
    pull_request: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Label {
    id: i64,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Comment {
    #[serde(default)]
    body: Option<String>,
}

const fn question(path: &str) -> Question<'_> {
    Question { path, right: Right::Issues }
}

fn find<'label>(labels: &'label [Label], name: &str) -> Option<&'label Label> {
    labels.iter().find(|label| label.name.eq_ignore_ascii_case(name))
}

impl Client {
    /// The numbers of the open issues that have a label.
    pub async fn labelled(&self, label: &str) -> Result<Vec<u32>, Error> {
        let path = self.path("/issues");
        let query = [("state", "open"), ("type", "issues"), ("labels", label)];
        let issues: Vec<Issue> = self.http.list(question(&path), &query).await?;
        // Gitea lists every issue where the repository has no label of this name.
        let meant = |issue: &Issue| issue.pull_request.is_none() && find(&issue.labels, label).is_some();
        Ok(issues.into_iter().filter(meant).map(|issue| issue.number).collect())
    }

    /// Gives an issue one label, which is made where the repository has none of the name, and takes others from it.
    /// Says whether there is such an issue.
    pub async fn relabel(&self, number: u32, add: &str, remove: &[&str]) -> Result<bool, Error> {
        let path = self.path(&format!("/issues/{number}"));
        let issue: Issue = match self.http.get(question(&path), &[]).await {
            Ok(issue) => issue,
            // It was deleted or moved, unless the whole repository is hidden from the token.
            Err(Error::Status {
                status: StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::MOVED_PERMANENTLY,
                ..
            }) => return self.access().await.map(|_| false),
            Err(error) => return Err(error),
        };
        let path = format!("{path}/labels");
        if find(&issue.labels, add).is_none() {
            let body = json!({ "labels": [add] });
            let labels: Vec<Label> = self.http.post(question(&path), &body).await?;
            // Gitea leaves out what it does not know.
            if find(&labels, add).is_none() {
                let label = json!({ "name": add, "color": COLOUR });
                self.http.post::<IgnoredAny>(question(&self.path("/labels")), &label).await?;
                self.http.post::<IgnoredAny>(question(&path), &body).await?;
            }
        }
        for label in remove.iter().filter_map(|name| find(&issue.labels, name)) {
            let label = match self.http.kind {
                Kind::Gitea => label.id.to_string(),
                Kind::GitHub => percent(&label.name, b""),
            };
            self.http.delete(question(&format!("{path}/{label}"))).await?;
        }
        Ok(true)
    }

    /// Comments on an issue, unless a comment since then contains `marker` already.
    pub async fn comment_once(
        &self,
        number: u32,
        since: Timestamp,
        marker: &str,
        text: &str,
    ) -> Result<(), Error> {
        let path = self.path(&format!("/issues/{number}/comments"));
        let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let query = [("since", since.as_str())];
        let comments: Vec<Comment> = match self.http.kind {
            // It has no pages here.
            Kind::Gitea => self.http.get(question(&path), &query).await?,
            Kind::GitHub => self.http.list(question(&path), &query).await?,
        };
        let is_ours = |comment: &Comment| comment.body.as_ref().is_some_and(|body| body.contains(marker));
        if comments.iter().any(is_ours) {
            return Ok(());
        }
        let body = json!({ "body": format!("{text}\n\n{marker}") });
        self.http.post::<IgnoredAny>(question(&path), &body).await.map(drop)
    }
}
