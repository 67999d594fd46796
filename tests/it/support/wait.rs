//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Looks until `check` gives its value; fails the test after `limit` with what the last look said instead.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            match check().await {
                Ok(value) => return value,
                Err(status) if begun.elapsed() > limit => {
                    panic!("{caller}: waited {} s for {what}; last seen: {status}", limit.as_secs())
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}
