use std::time::Duration;

use consign::client::{AtDeadline, Client, Error, Wait};
use secrecy::SecretString;
use serde_json::json;

/// Has the formula `report` run, and gives the file that it keeps; `None` where the job did not succeed.
pub(crate) async fn report(agent: &str, token: SecretString) -> Result<Option<Vec<u8>>, Error> {
    let client = Client::new(agent, Some(token))?;
    let action = json!({ "formula": "report", "args": { "month": "2026-10" }, "blast_radius": "low" });
    let wait =
        Wait { deadline: Some(Duration::from_mins(10)), at_deadline: AtDeadline::Cancel, ..Wait::default() };
    let job = client.submit_and_wait(&action, &wait).await?;
    let Some(artifact) = job.artifacts.iter().find(|artifact| artifact.name == "report.csv") else {
        return Ok(None);
    };
    let mut content = Vec::new();
    client
        .fetch(&job.summary.job_id, artifact, |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    Ok(Some(content))
}
