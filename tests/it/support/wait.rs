//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long anything may take that a test waits for. It takes far less where the machine is not busy; whoever waited long
/// at the launch gate looks only once in a minute whether it is open.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);
/// How long is waited between two looks where nothing else is said.
const PAUSE: Duration = Duration::from_millis(50);
/// How many times as long as a look takes is waited until the next one: tests that wait leave the machine to what they
/// wait for.
const REST: u32 = 3;
/// The most that is waited for that reason.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Looks until `check` gives its value; fails the test after `limit` with what the last look said instead.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    check: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    look(|took| PAUSE.max((took * REST).min(LONGEST_REST)), what, limit, check)
}

/// The same with this pause between two looks, however long they take.
#[track_caller]
pub(crate) fn look_every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    check: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    look(move |_took| pause, what, limit, check)
}

#[track_caller]
fn look<T>(
    pause_after: impl Fn(Duration) -> Duration,
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            let looked = Instant::now();
            match check().await {
                Ok(value) => return value,
                Err(status) if begun.elapsed() > limit => {
                    panic!("{caller}: waited {} s for {what}; last seen: {status}", limit.as_secs())
                }
                Err(_) => tokio::time::sleep(pause_after(looked.elapsed())).await,
            }
        }
    }
}
