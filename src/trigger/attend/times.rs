//! The source that tells when a schedule is due.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Handle, Told};
use crate::{
    telemetry::chain,
    trigger::{ledger::Origin, schedule::Schedule},
};

/// The longest sleep, so that a clock that was set, or a machine that slept, is noticed.
const LONGEST: Duration = Duration::from_secs(20);
/// How soon is tried again what could not be told.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells each time of a trigger's schedule until `ending`.
pub async fn run(trigger: String, schedule: Schedule, handle: Handle, ending: CancellationToken) {
    let mut told = None;
    loop {
        let pause = match tell(&trigger, &schedule, &handle, &mut told).await {
            Ok(next) => next.map_or(LONGEST, |at| until(at).min(LONGEST)),
            Err(error) => {
                tracing::warn!(trigger, error = chain(&*error), "its schedule cannot be told");
                AGAIN
            }
        };
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Tells what is due; gives the next time. `told` is up to where it was told before in this process.
async fn tell(
    trigger: &str,
    schedule: &Schedule,
    handle: &Handle,
    told: &mut Option<Timestamp>,
) -> Result<Option<Timestamp>, Box<dyn std::error::Error + Send + Sync>> {
    let now = Timestamp::now();
    let on_record = match *told {
        Some(told) => Some(told.to_string()),
        None => handle.mark(trigger).await?,
    };
    let up_to = Schedule::told(on_record.as_deref(), now);
    if on_record.is_none() {
        handle.set_mark(trigger, up_to.to_string()).await?;
    }
    *told = Some(up_to);
    if let Some(due) = schedule.due(up_to, now) {
        let content = serde_json::json!({ "scheduled_at": due.at, "missed": due.count - 1 });
        let event = Told {
            trigger: trigger.to_owned(),
            origin: Origin::Schedule,
            caller: None,
            by: None,
            forced: false,
            content: Some(content.to_string()),
            mark: Some(due.at.to_string()),
            left_out: due.left_out.then_some("missed"),
        };
        handle.tell(event).await?;
        *told = Some(due.at);
    }
    Ok(schedule.next(told.unwrap_or(now)))
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
