//! The keys of a trigger by the issues of a forge: which are run for, and what labels they get.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::Keys;

/// How long a label may be, in characters: GitHub's limit, and the lowest of the three.
const LABEL_LIMIT: usize = 50;

/// Which issues are run for, and what labels they get.
#[derive(Debug, Clone)]
pub struct Issues {
    /// The name of the forge in `[forge.<name>]`.
    pub forge: String,
    /// The repository, as `owner/name`.
    pub repository: String,
    /// The label that starts a run.
    pub label: String,
    /// The label while it goes on.
    pub running: String,
    /// The label after one that succeeded.
    pub done: String,
    /// The label after one that did not.
    pub failed: String,
    /// The file of the secret of the forge's webhook.
    pub hmac_file: Option<PathBuf>,
    /// How often it looks.
    pub poll: Duration,
}

impl Issues {
    /// What the keys of a trigger say.
    pub(super) fn read(keys: &Keys, poll: Duration) -> Result<Self, String> {
        let required = |key: &str, value: Option<&str>| {
            value.map(str::to_owned).ok_or_else(|| format!("`{key}` is missing"))
        };
        let label = required("label", keys.label.as_deref())?;
        let or = |given: Option<&str>, end: &str| given.map_or(format!("{label}-{end}"), str::to_owned);
        let issues = Self {
            forge: required("forge", keys.forge.as_deref())?,
            repository: required("repo", keys.repo.as_deref())?,
            running: or(keys.label_running.as_deref(), "running"),
            done: or(keys.label_done.as_deref(), "done"),
            failed: or(keys.label_failed.as_deref(), "failed"),
            label,
            hmac_file: keys.hmac_file.clone(),
            poll,
        };
        check_labels(&issues)?;
        Ok(issues)
    }

    /// What tells an issue's repository from all others.
    #[must_use]
    pub fn repository_key(&self) -> String {
        format!("{}:{}", self.forge, self.repository.to_ascii_lowercase())
    }
}

/// What comes with the event of an issue.
#[must_use]
pub fn content(issue: u32) -> Value {
    json!({ "issue": issue })
}

/// The issue that an event is about.
#[must_use]
pub fn issue(content: Option<&str>) -> Option<u32> {
    let content: Value = serde_json::from_str(content?).ok()?;
    u32::try_from(content.get("issue")?.as_u64()?).ok()
}

/// The label that starts a run must not be one that the agent sets, or there would be no end.
fn check_labels(issues: &Issues) -> Result<(), String> {
    let labels = [&issues.label, &issues.running, &issues.done, &issues.failed];
    for label in labels {
        // A list of labels is separated by commas in a query.
        if label.trim().is_empty() || label.contains(',') || label.chars().count() > LABEL_LIMIT {
            return Err(format!("{label:?} is no label: one has 1 to {LABEL_LIMIT} characters and no comma"));
        }
    }
    let different: BTreeSet<String> = labels.iter().map(|label| label.to_lowercase()).collect();
    if different.len() == labels.len() { Ok(()) } else { Err("two of its labels are the same".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issue_of_an_event_is_a_number_and_nothing_else() {
        assert_eq!(issue(Some(&content(7).to_string())), Some(7));
        for content in [
            None,
            Some("{}"),
            Some("{\"issue\": \"7\"}"),
            Some("{\"issue\": -7}"),
            Some("{\"issue\": 4294967296}"),
            Some("7"),
        ] {
            assert_eq!(issue(content), None, "{content:?}");
        }
    }
}
