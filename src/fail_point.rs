//! Named moments at which a test ends the agent as a crash does: before and after each of [`CHANGES`].
//!
//! Only a build with the feature `fail-points` has them. There the environment variable [`POINT`] names one, as
//! in `before dispatch` or `after concluded`, and [`PASSES`] says how often it is passed until the process sends
//! itself SIGKILL the next time. In any other build the calls are empty.

/// The environment variable that names the moment.
pub const POINT: &str = "CONSIGN_FAIL_POINT";
/// The environment variable with the number of times that the moment is passed unharmed; 0 where it is absent.
pub const PASSES: &str = "CONSIGN_FAIL_POINT_PASSES";

/// Every change of state in the store, in Nomad, in Vault, in the ops repo and at a webhook's receiver that a
/// test ends the agent around: those of a start in their order, then those of a job's life in theirs. Those of a
/// job's record go by the name of the [event](crate::lifecycle::Event::name).
pub const CHANGES: [&str; 38] = [
    "migrated",
    "take-over begun",
    "claimed",
    "recovered",
    "take-over ended",
    "taken in",
    "submitted",
    "submission answered",
    "trigger recorded",
    "trigger's job noted",
    "released",
    "approved",
    "variant registered",
    "intended",
    "dispatch",
    "dispatched",
    "admission",
    "admitted",
    "alias made",
    "group written",
    "granted",
    "working",
    "log read",
    "artifacts taken",
    "cancelled",
    "child stopped",
    "stopped",
    "concluded",
    "entity deleted",
    "grant withdrawn",
    "again",
    "ended",
    "retried",
    "result commit",
    "push",
    "push recorded",
    "webhook counted",
    "webhook sent",
];

#[cfg(feature = "fail-points")]
mod armed {
    use std::{
        env, process,
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    use rustix::process::{Signal, getpid, kill_process};

    struct Target {
        moment: String,
        passes: AtomicU32,
    }

    static TARGET: LazyLock<Option<Target>> = LazyLock::new(|| {
        let passes = env::var(super::PASSES).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        Some(Target { moment: env::var(super::POINT).ok()?, passes: AtomicU32::new(passes) })
    });

    /// Is at a moment.
    pub(super) fn reach(when: &str, change: &str) {
        let Some(target) = &*TARGET else { return };
        if target.moment.split_once(' ') == Some((when, change)) {
            let less = |passes: u32| passes.checked_sub(1);
            if target.passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
                && kill_process(getpid(), Signal::KILL).is_err()
            {
                process::abort();
            }
        }
    }
}

/// Is just before a change.
#[cfg(feature = "fail-points")]
pub fn before(change: &str) {
    armed::reach("before", change);
}

/// Is just after a change.
#[cfg(feature = "fail-points")]
pub fn after(change: &str) {
    armed::reach("after", change);
}

/// Is just before a change; nothing in this build.
#[cfg(not(feature = "fail-points"))]
pub const fn before(_: &str) {}

/// Is just after a change; nothing in this build.
#[cfg(not(feature = "fail-points"))]
pub const fn after(_: &str) {}
