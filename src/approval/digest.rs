//! What an approval is for.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    hexadecimal,
    lifecycle::{Job, Origin, Work},
};

/// Says which form is hashed: another form has another name.
const FORM: &str = "consign approval 2";

/// All that decides what runs.
#[derive(Serialize)]
struct Bound<'job> {
    form: &'static str,
    action: Option<&'job str>,
    work: &'job Work,
    base_job: &'job str,
}

/// The SHA-256, in hexadecimal, over all that decides what a job runs: the action's id, the whole work on record
/// (the formula's body, arguments, environment, names of secrets, bot, shape with its mounts, and what decides
/// when it runs), and `base_job`, the SHA-256 of the Nomad job that it is dispatched from, as it is registered.
#[must_use]
pub fn digest(job: &Job, base_job: &str) -> String {
    let action = match &job.origin {
        Origin::Action { id, .. } => Some(id.as_str()),
        Origin::Submitted { .. } | Origin::Hand { .. } => None,
    };
    let bound = Bound { form: FORM, action, work: &job.work, base_job };
    // JSON with its keys in a fixed order, maps by key. Texts, numbers and lists: writing them does not fail.
    hexadecimal::encode(&Sha256::digest(serde_json::to_vec(&bound).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        dispatch::shape::{Mount, Shape},
        formula::Body,
        ids::{ActionId, BotName, Revision, SecretName},
    };

    fn job(work: Work) -> Job {
        let origin = Origin::Action {
            id: ActionId::parse("a").unwrap(),
            path: "actions/a.toml".to_owned(),
            blob: String::new(),
            revision: Revision::parse(&"a".repeat(40)).unwrap(),
        };
        Job::new(origin, work, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn everything_that_decides_what_runs_changes_it() {
        let one = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let mount = Mount { alias: "ssh".to_owned(), ..Mount::default() };
        let works = [
            Work::default(),
            Work { body: Some(Body::Program("exit 0".to_owned())), ..Work::default() },
            Work { args: one("a"), ..Work::default() },
            Work { env: one("a"), ..Work::default() },
            Work { secrets: vec![SecretName::parse("A").unwrap()], ..Work::default() },
            Work { bot: Some(BotName::parse("a").unwrap()), ..Work::default() },
            Work { context: "why".to_owned(), ..Work::default() },
            Work { shape: Shape { mounts: vec![mount], ..Shape::default() }, ..Work::default() },
        ];
        let mut digests: Vec<String> =
            works.iter().map(|work| digest(&job(work.clone()), "job {}")).collect();
        digests.push(digest(&job(Work::default()), "job { }"));
        let mut other = job(Work::default());
        other.origin =
            Origin::Submitted { by: "ann".to_owned(), revision: Revision::parse(&"a".repeat(40)).unwrap() };
        digests.push(digest(&other, "job {}"));
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn where_a_job_came_from_and_how_far_it_is_changes_nothing() {
        let mut later = job(Work::default());
        later.relocate("actions/b/a.toml");
        later.waits_for = Some("something".to_owned());
        assert_eq!(digest(&later, "j"), digest(&job(Work::default()), "j"));
    }
}
