//! What a submission means: an action as JSON, without a file, with a formula of the ops repo.
//!
//! It is read by the very reader of action files, from the TOML text that says the same.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Rules, formulas::Shelf, refused_receiver, work};
use crate::{
    action::Action,
    diagnostic::sentences,
    dispatch::shape,
    ids::{JobId, Revision},
    lifecycle::Work,
    ops_repo::{self, OpsRepo},
    outcome::Cause,
    validation::{self, Formulas as _},
    webhook::resolve,
};

/// The key of a submission that has one URL more for `notify`.
pub const STATE_WEBHOOK_URL: &str = "state_webhook_url";

/// An action that was submitted.
#[derive(Debug)]
pub struct Submitted<'body> {
    /// The job's id, which stands for the action's.
    pub job_id: JobId,
    /// Who submitted it.
    pub by: &'body str,
    /// Whether whoever submitted it is on this machine, so that webhooks may go there too.
    pub on_loopback: bool,
    /// The action's keys, and [`STATE_WEBHOOK_URL`]; those that are null count as not given.
    pub body: Map<String, Value>,
}

/// A submission that can be launched.
#[derive(Debug)]
pub struct Sound {
    /// The action; its id is the job's.
    pub action: Action,
    /// What runs.
    pub work: Work,
    /// The action as the text of a file, without `notify`: a webhook's URL may be a secret of its receiver's.
    pub text: String,
}

/// Why a submission cannot be launched.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A key makes no sense, or does not fit the formula.
    #[error("{0}")]
    Invalid(String),
    /// There is no such formula.
    #[error("{0}")]
    UnknownFormula(String),
    /// The ops repo could not be read.
    #[error("{0}")]
    OpsRepo(#[from] ops_repo::Error),
}

/// Reads a submission, with the formula that it names as `revision` has it. What it may ask for
/// is in `rules`.
pub async fn read(
    repo: &OpsRepo,
    formulas: &Shelf,
    revision: &Revision,
    submitted: Submitted<'_>,
    rules: &Rules,
) -> Result<Sound, Refused> {
    let path = format!("{}.toml", submitted.job_id);
    let on_loopback = submitted.on_loopback;
    let mut body = completed(submitted).map_err(Refused::Invalid)?;
    let text = text(&body).map_err(Refused::Invalid)?;
    let content = text.as_bytes();
    let action = validation::check_action(&path, content).map_err(|invalid| refused(&invalid))?;
    let formulas = formulas.take(repo, revision, action.formula.clone()).await?;
    let files = formulas.files(&action.formula);
    let valid = validation::check_formula(&path, content, action, &files, &formulas.names())
        .map_err(|invalid| refused(&invalid))?;
    let receivers: BTreeSet<&str> = valid.action.notify.iter().map(String::as_str).collect();
    let unwelcome = resolve::refused(rules.receivers.for_submitter(on_loopback), &receivers).await;
    if let Some(refused) = refused_receiver(&valid.action, &unwelcome) {
        return Err(Refused::Invalid(refused.message));
    }
    let decided = shape::decide(&valid.action, &valid.formula, &rules.allowed)
        .map_err(|refused| Refused::Invalid(format!("`{}`: {}", refused.key, refused.message)))?;
    let mut work = work(&valid, decided);
    work.notify.iter_mut().for_each(|receiver| receiver.loopback = on_loopback);
    let text = match body.remove("notify") {
        Some(_) => self::text(&body).map_err(Refused::Invalid)?,
        None => text,
    };
    Ok(Sound { action: valid.action, work, text })
}

/// What was submitted, with what an action file must have besides.
fn completed(submitted: Submitted<'_>) -> Result<Map<String, Value>, String> {
    let Submitted { job_id, by, mut body, .. } = submitted;
    if body.contains_key("id") {
        return Err("`id` is for action files: what is submitted goes by its job id; leave it out".to_owned());
    }
    body.values_mut().for_each(leave_nulls_out);
    body.retain(|_, value| !value.is_null());
    if let Some(url) = body.remove(STATE_WEBHOOK_URL) {
        if !url.is_string() {
            return Err(format!("`{STATE_WEBHOOK_URL}` is not a text"));
        }
        // Where `notify` is no list, the reader of actions says so.
        match body.entry("notify").or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(urls) if !urls.contains(&url) => urls.push(url),
            _ => {}
        }
    }
    body.insert("id".to_owned(), job_id.to_string().into());
    body.entry("context").or_insert_with(|| format!("submitted by {by}").into());
    body.entry("secrets").or_insert_with(|| Value::Array(Vec::new()));
    Ok(body)
}

/// The action file that says the same.
fn text(body: &Map<String, Value>) -> Result<String, String> {
    toml::to_string(body).map_err(|error| {
        let unreadable = |(key, value): (&String, &Value)| {
            let error = toml::Value::try_from(value).err()?;
            Some(format!("`{}` cannot be read: {error}", key.escape_debug()))
        };
        body.iter().find_map(unreadable).unwrap_or_else(|| format!("the action cannot be read: {error}"))
    })
}

/// Takes the members that are null out of every object: TOML has no null, and none of them says anything.
fn leave_nulls_out(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(leave_nulls_out);
            members.retain(|_, member| !member.is_null());
        }
        Value::Array(elements) => elements.iter_mut().for_each(leave_nulls_out),
        _ => {}
    }
}

fn refused(invalid: &validation::Invalid) -> Refused {
    let message = sentences(&invalid.problems);
    match invalid.cause {
        Cause::UnknownFormula => Refused::UnknownFormula(message),
        _ => Refused::Invalid(message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::action::{DispatchMode, WhenFull};

    fn written(body: &Value) -> Result<String, String> {
        let body = body.as_object().unwrap().clone();
        text(&completed(Submitted { job_id: JobId::new(), by: "ann", on_loopback: false, body })?)
    }

    fn action(body: &Value) -> Result<Action, String> {
        let body = body.as_object().unwrap().clone();
        let job_id = JobId::new();
        let text = text(&completed(Submitted { job_id, by: "ann", on_loopback: false, body })?)?;
        validation::check_action(&format!("{job_id}.toml"), text.as_bytes())
            .map_err(|invalid| refused(&invalid).to_string())
    }

    #[test]
    fn every_kind_of_key_is_read_as_in_a_file() {
        let body = json!({
            "formula": "deploy",
            "args": { "text": "a \"b\"\n'''c\u{7f}", "model-name": "ä" },
            "secrets": ["TOKEN"],
            "mounts": null,
            "timeout_minutes": 90,
            "dispatch_mode": "pr",
            "resources": { "cpu": 100, "memory": null },
            "constraints": [{ "attribute": "${attr.kernel.name}", "value": "linux" }],
            "concurrency": { "group": "g", "when_full": "skip" },
            "not_before": "2027-01-31T22:00:00Z",
            "env": { "A": "" },
            "mask": false,
        });
        let action = action(&body).unwrap();
        assert_eq!(action.context, "submitted by ann");
        assert_eq!(action.args["text"], "a \"b\"\n'''c\u{7f}");
        assert_eq!(action.timeout.unwrap().0.as_secs(), 90 * 60);
        assert_eq!(action.dispatch_mode, Some(DispatchMode::Pr));
        assert_eq!(action.resources.unwrap().cpu, Some(100));
        assert_eq!(action.constraints.len(), 1);
        assert_eq!(action.concurrency.unwrap().when_full, WhenFull::Skip);
        assert!(action.not_before.is_some() && !action.mask);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        for (body, field) in [
            (json!({}), "`formula`"),
            (json!({ "formula": 1 }), "`formula`"),
            (json!({ "formula": "a", "id": "b" }), "`id`"),
            (json!({ "formula": "a", "priority": 101 }), "`priority`"),
            (json!({ "formula": "a", "priority": u64::MAX }), "`priority`"),
            (json!({ "formula": "a", "priority": 1.5 }), "`priority`"),
            (json!({ "formula": "a", "secrets": [null] }), "`secrets`"),
            (json!({ "formula": "a", "secrets": ["x"] }), "`secrets`"),
            (json!({ "formula": "a", "state_webhook_url": [] }), "`state_webhook_url`"),
            (json!({ "formula": "a", "state_webhook_url": "ftp://a/" }), "`notify`"),
            (json!({ "formula": "a", "state_webhook_url": "http://a/", "notify": 1 }), "`notify`"),
            (json!({ "formula": "a", "context": " " }), "`context`"),
            (json!({ "formula": "a", "context": "\0" }), "`context`"),
            (json!({ "formula": "a", "args": { "x": 1 } }), "`x`"),
            (json!({ "formula": "a", "prority": 1 }), "`priority`"),
            (json!({ "formula": "a", "\u{1b}[31m": 1 }), "\\u{1b}"),
        ] {
            let refused = action(&body).unwrap_err();
            assert!(refused.contains(field) && !refused.contains('\u{1b}'), "{body}: {refused}");
        }
    }

    #[test]
    fn one_url_more_is_one_of_those_that_are_told() {
        let (one, two) = ("https://one.example/", "https://two.example/");
        for (notify, url, expected) in [
            (Value::Null, one, vec![one]),
            (json!([two]), one, vec![two, one]),
            (json!([one]), one, vec![one]),
        ] {
            let action = action(&json!({ "formula": "a", "notify": notify, "state_webhook_url": url }));
            assert_eq!(action.unwrap().notify, expected, "{notify}");
        }
        assert!(action(&json!({ "formula": "a", "state_webhook_url": null })).unwrap().notify.is_empty());
    }

    #[test]
    fn no_depth_of_nesting_breaks_it() {
        let mut deep = json!(1);
        for _ in 0..120 {
            deep = json!({ "a": [deep] });
        }
        assert!(action(&json!({ "formula": "a", "args": deep })).is_err());
    }

    proptest::proptest! {
        /// A text comes through as it was given, and nothing in it becomes a key.
        #[test]
        fn texts_come_through(text in "\\PC*|[ -~\n\t\r\"'\\\\=\\[\\]]*", name in "[A-Za-z][a-z]{0,5}") {
            let body = json!({ "formula": "a", "args": { &name: &text } });
            let written = written(&body).unwrap();
            let parsed: toml::Table = written.parse().unwrap();
            proptest::prop_assert_eq!(parsed["args"][&name].as_str(), Some(text.as_str()));
            proptest::prop_assert_eq!(parsed.len(), 5);
        }
    }
}
