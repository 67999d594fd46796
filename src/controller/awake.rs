//! Tells whether this process slept: it was stopped, or its machine was. Another agent may have taken over meanwhile.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::ambient::uptime;

/// How often there is a sign of life.
const INTERVAL: Duration = Duration::from_millis(500);
/// The longest time between two of them that is no sleep; on a loaded machine they come late.
const LATEST: Duration = Duration::from_secs(2);

/// The signs of life of this process.
#[derive(Debug, Clone)]
pub struct Awake(Arc<Mutex<Signs>>);

#[derive(Debug)]
struct Signs {
    last: Duration,
    slept: bool,
}

impl Default for Awake {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Signs { last: uptime(), slept: false })))
    }
}

impl Awake {
    /// Gives signs of life until `ending`.
    #[must_use]
    pub fn until(ending: CancellationToken) -> Self {
        let awake = Self::default();
        let signs = awake.clone();
        tokio::spawn(async move {
            while !ending.is_cancelled() {
                signs.has_slept();
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        });
        awake
    }

    /// Whether it slept since the last [`Self::is_up_to_date`].
    pub fn has_slept(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sign(uptime())
    }

    /// Whatever may have happened while it slept is known.
    pub fn is_up_to_date(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).slept = false;
    }
}

impl Signs {
    fn sign(&mut self, now: Duration) -> bool {
        self.slept |= now.saturating_sub(self.last) > LATEST;
        self.last = now;
        self.slept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_late_slept_until_told_otherwise() {
        let mut signs = Signs { last: Duration::from_secs(10), slept: false };
        assert!(!signs.sign(Duration::from_secs(12)));
        assert!(signs.sign(Duration::from_millis(20_001)));
        assert!(signs.sign(Duration::from_millis(20_002)), "until somebody has looked");
        signs.slept = false;
        assert!(!signs.sign(Duration::from_millis(20_003)));
    }
}
