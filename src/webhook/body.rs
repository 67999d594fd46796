//! What receivers are told.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::Described,
    ids::WebhookId,
    lifecycle::{Job, Origin, Phase},
    outcome::{Cause, Outcome, result_file::ResultFile},
};

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
    pub artifacts: Vec<Described>,
}

impl Body {
    /// What is said of a job that has just come into its phase; artifacts are without their content.
    #[must_use]
    pub fn of(job: &Job, id: WebhookId, sequence: u32, now: Timestamp) -> Self {
        let job_id = job.job_id.to_string();
        let result = job.result().filter(|_| job.outcome().is_some());
        let kept = result.iter().flat_map(|result| &result.artifacts);
        Self {
            id: id.to_string(),
            sequence,
            timestamp: now,
            action_id: if let Origin::Action { id, .. } = &job.origin { Some(id.to_string()) } else { None },
            state: job.phase(),
            outcome: job.outcome(),
            cause: result.as_ref().map(|result| result.cause),
            exit_code: result.as_ref().map(|result| result.exit_code),
            error: result
                .as_ref()
                .filter(|result| result.outcome != Outcome::Succeeded)
                .map(|result| result.message.clone()),
            artifacts: kept.map(|artifact| Described::of(&job_id, artifact)).collect(),
            job_id,
            result,
        }
    }

    /// The same without what a job holds in its end: its result, and its artifacts.
    #[must_use]
    pub fn without_contents(self) -> Self {
        Self { result: None, artifacts: Vec::new(), ..self }
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
        assert_eq!(body.artifacts[0].url, Some(format!("/jobs/{}/artifacts/0.json", body.job_id)));
    }
}
