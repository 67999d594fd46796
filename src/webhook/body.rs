//! What receivers are told.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::content_type,
    ids::WebhookId,
    lifecycle::{Job, Origin, Phase},
    outcome::{Cause, Outcome, result_file::ResultFile},
};

/// The largest artifact whose content stands in the body, in bytes.
pub const INLINE_LIMIT: u64 = 256 * 1024;
/// The most that the artifacts of one body hold together, in bytes; those after that have their `url` alone.
pub const INLINE_TOTAL: u64 = 1024 * 1024;

/// The body of a webhook: one change of a job's phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "consign webhook")]
pub struct Body {
    /// The webhook's ULID: the same for all its URLs, and each time that it is sent.
    pub id: String,
    /// Which change of the job's phase it is, counted from 1.
    pub sequence: u32,
    /// When the phase changed, RFC 3339.
    #[schemars(with = "String")]
    pub timestamp: Timestamp,
    /// The job's ULID.
    pub job_id: String,
    /// The id of its action; null for work that has none.
    pub action_id: Option<String>,
    /// The phase that it is in now.
    pub state: Phase,
    /// How it ended; null until it has.
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    pub cause: Option<Cause>,
    /// The exit code, as the result file has it.
    pub exit_code: Option<i64>,
    /// What went wrong, in a sentence with the evidence; null unless it ended without success.
    pub error: Option<String>,
    /// The result file's content, once it has ended.
    pub result: Option<ResultFile>,
    /// What was kept of its files.
    pub artifacts: Vec<Artifact>,
}

/// One kept file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Its path, relative to the task's working directory.
    pub name: String,
    /// Its media type, as its name suggests.
    pub content_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its content in base64, where it has at most 256 KiB and those before it have at most 1 MiB together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Where it can be had otherwise: a path on the agent's HTTP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Body {
    /// What is said of a job that has just come into its phase; artifacts are without their content.
    #[must_use]
    pub fn of(job: &Job, id: WebhookId, sequence: u32, now: Timestamp) -> Self {
        let result = job.result().filter(|_| job.outcome().is_some());
        let kept = result.iter().flat_map(|result| &result.artifacts);
        Self {
            id: id.to_string(),
            sequence,
            timestamp: now,
            job_id: job.job_id.to_string(),
            action_id: if let Origin::Action { id, .. } = &job.origin { Some(id.to_string()) } else { None },
            state: job.phase(),
            outcome: job.outcome(),
            cause: result.as_ref().map(|result| result.cause),
            exit_code: result.as_ref().map(|result| result.exit_code),
            error: result
                .as_ref()
                .filter(|result| result.outcome != Outcome::Succeeded)
                .map(|result| result.message.clone()),
            artifacts: kept
                .map(|artifact| Artifact {
                    name: artifact.name.clone(),
                    content_type: content_type::of(&artifact.name).to_owned(),
                    size: artifact.size,
                    data: None,
                    url: Some(
                        artifact
                            .url
                            .clone()
                            .unwrap_or_else(|| format!("/jobs/{}/artifacts/{}", job.job_id, artifact.name)),
                    ),
                })
                .collect(),
            result,
        }
    }

    /// The artifacts whose content stands in the body, in order.
    pub(super) fn inlined(&mut self) -> impl Iterator<Item = &mut Artifact> {
        let mut left = INLINE_TOTAL;
        self.artifacts.iter_mut().filter(move |artifact| {
            let fits = artifact.size <= INLINE_LIMIT.min(left);
            left -= if fits { artifact.size } else { 0 };
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lifecycle::{Ending, Event, Work},
        outcome::result_file,
    };

    fn job() -> Job {
        Job::new(Origin::Hand { child: "c".to_owned(), note: None }, Work::default(), Timestamp::UNIX_EPOCH)
    }

    fn body(sizes: &[u64]) -> Body {
        let mut job = job();
        let now = Timestamp::UNIX_EPOCH;
        let mut ending = Ending::without_task(Cause::ExitCode, "exit code 7", now);
        ending.exit_code = Some(7);
        ending.artifacts = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| result_file::Artifact {
                name: format!("{number}.json"),
                size: *size,
                sha256: String::new(),
                url: None,
            })
            .collect();
        for event in [Event::Concluded(ending), Event::Withdrawn, Event::Ended] {
            job.apply(event, now).unwrap();
        }
        Body::of(&job, WebhookId::new(), 4, now)
    }

    #[test]
    fn a_job_on_its_way_has_neither_outcome_nor_result() {
        let body = Body::of(&job(), WebhookId::new(), 1, Timestamp::UNIX_EPOCH);
        assert_eq!((body.state, body.outcome, body.cause), (Phase::Queued, None, None));
        assert_eq!((body.exit_code, body.error, body.result), (None, None, None));
    }

    #[test]
    fn an_ended_one_has_its_result_and_the_error() {
        let body = body(&[1]);
        assert_eq!((body.state, body.cause, body.exit_code), (Phase::Failed, Some(Cause::ExitCode), Some(7)));
        assert_eq!(body.error.as_deref(), Some("exit code 7"));
        assert_eq!(body.result.as_ref().map(|result| result.exit_code), Some(7));
        assert_eq!(body.artifacts[0].content_type, "application/json");
        assert_eq!(body.artifacts[0].url, Some(format!("/jobs/{}/artifacts/0.json", body.job_id)));
    }

    #[test]
    fn small_artifacts_are_inlined_up_to_the_total() {
        let small = INLINE_LIMIT;
        let mut body = body(&[small, small + 1, small, small, small, 1, 0]);
        let names: Vec<&str> = body.inlined().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["0.json", "2.json", "3.json", "4.json", "6.json"]);
    }
}
