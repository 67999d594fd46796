//! When a webhook is sent again.

use std::time::Duration;

/// How many requests are made for one webhook and URL at most.
pub const REQUESTS: u32 = 5;

/// How long to wait after the `requests`-th request failed: 1, 2, 4 and 8 s; `None` after the last one.
#[must_use]
pub fn pause_after(requests: u32) -> Option<Duration> {
    (1..REQUESTS).contains(&requests).then(|| Duration::from_secs(1 << (requests - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_requests_with_doubling_pauses() {
        let pauses: Vec<Option<u64>> =
            (1..=6).map(|requests| pause_after(requests).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(8), None, None]);
        assert_eq!(pause_after(0), None);
        assert_eq!(pause_after(u32::MAX), None);
    }
}
