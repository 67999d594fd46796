//! Where the ops repo keeps what was submitted and has ended.
//!
//! A record is an action file beside its result, written by the agent. It says what ran; nobody on the branch
//! approved it, so it is never taken for an action that should run.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stem;
use crate::ids::JobId;

/// Where the end of submitted work is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// In the agent's store alone.
    Store,
    /// In the ops repo as well, action and result.
    Repo,
}

/// The folder of the records, within that of the actions.
const FOLDER: &str = "api";

/// Where the record of a job that was submitted at that time stands, in a folder for each month: one folder for
/// all would make each commit slower than the last.
#[must_use]
pub fn path(actions: &str, job_id: JobId, submitted_at: Timestamp) -> String {
    format!("{actions}/{FOLDER}/{}/{job_id}.toml", submitted_at.strftime("%Y/%m"))
}

/// Whether `path` is a record's: one within `<actions>/api/` that goes by a job's id.
#[must_use]
pub fn is_record(path: &str, actions: &str) -> bool {
    let folder = format!("{}/{FOLDER}/", actions.trim_end_matches('/'));
    path.starts_with(&folder) && stem(path).is_some_and(|stem| stem.parse::<JobId>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stands_in_the_month_of_its_job_and_is_known_by_its_path() {
        let job_id = JobId::new();
        let at = "2026-11-30T23:59:59Z".parse().unwrap();
        let path = path("vault/actions", job_id, at);
        assert_eq!(path, format!("vault/actions/api/2026/11/{job_id}.toml"));
        assert!(is_record(&path, "vault/actions") && is_record(&path, "vault/actions/"));
        for other in [
            format!("vault/actions/{job_id}.toml"),
            format!("vault/actions/apis/{job_id}.toml"),
            format!("api/{job_id}.toml"),
            format!("vault/actions/api/{job_id}.result.json"),
            format!("vault/actions/api/{job_id}.sh"),
            "vault/actions/api/deploy.toml".to_owned(),
        ] {
            assert!(!is_record(&other, "vault/actions"), "{other}");
        }
    }
}
