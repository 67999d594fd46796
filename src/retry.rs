//! Waiting between tries: the only place that knows the `backoff` crate.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// How long to wait before each further try: doubling with jitter, up to a cap, for ever.
#[derive(Debug)]
pub struct Pause {
    backoff: ExponentialBackoff,
    cap: Duration,
}

impl Pause {
    /// Begins at about `first` and grows to at most `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_multiplier(2.0)
            .with_randomization_factor(crate::ambient::jitter())
            .with_max_interval(cap)
            .with_max_elapsed_time(None)
            .build();
        Self { backoff, cap }
    }

    /// How long to wait before the next try.
    pub fn wait(&mut self) -> Duration {
        self.backoff.next_backoff().unwrap_or(self.cap)
    }

    /// Begins again at the shortest wait.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_about_the_cap_and_starts_over() {
        let mut pause = Pause::new(Duration::from_millis(100), Duration::from_secs(2));
        let first = pause.wait();
        assert!(first <= Duration::from_millis(130), "{first:?}");
        let last = (0..20).map(|_| pause.wait()).last();
        assert!(last >= Some(Duration::from_millis(1400)), "{last:?}");
        pause.reset();
        assert!(pause.wait() <= Duration::from_millis(130));
    }
}
