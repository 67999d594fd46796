//! How often somebody may ask: a rate, and a burst before it counts.
//!
//! What is kept for each caller is one point in time (the generic cell rate algorithm): up to when the requests
//! so far would have been spaced out. Callers who asked little lately need no entry.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::{StatusCode, header};
use tokio::time::Instant;

use super::problem::Problem;
use crate::tokens::HolderName;

/// How much of the rate may be used at once: so many seconds' worth.
const BURST: Duration = Duration::from_secs(10);
/// How many tokens, and how many addresses, are told apart. While more than these ask too often, others wait with
/// them.
const CALLERS: usize = 10_000;

/// Holds every token to a rate, and every address that shows no good token.
#[derive(Debug)]
pub struct Limits {
    /// Requests a second; 0 is no limit.
    rate: u32,
    holders: Mutex<Spaced<HolderName>>,
    addresses: Mutex<Spaced<IpAddr>>,
}

/// Up to when each caller's requests would have been spaced out.
type Spaced<Caller> = HashMap<Caller, Instant>;

impl Limits {
    /// So many requests a second for each, with a burst of ten seconds' worth; 0 is no limit.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self { rate, holders: Mutex::default(), addresses: Mutex::default() }
    }

    /// Counts a request with a good token.
    pub(super) fn holder(&self, name: &HolderName) -> Result<(), Problem> {
        self.count(&self.holders, name.clone())
    }

    /// Counts a request without one. Of an IPv6 address the network counts: whoever has one has 2^64 of them.
    pub(super) fn address(&self, address: IpAddr) -> Result<(), Problem> {
        let caller = match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        };
        self.count(&self.addresses, caller)
    }

    fn count<Caller: Eq + Hash>(
        &self,
        spaced: &Mutex<Spaced<Caller>>,
        caller: Caller,
    ) -> Result<(), Problem> {
        if self.rate == 0 {
            return Ok(());
        }
        let spacing = Duration::from_secs(1) / self.rate;
        let mut spaced = spaced.lock().unwrap_or_else(PoisonError::into_inner);
        take(&mut spaced, caller, CALLERS, spacing, Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs() + 1;
            let detail = format!("more than {} requests a second: ask again in {seconds} s", self.rate);
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
            problem.with_header(header::RETRY_AFTER, &seconds.to_string())
        })
    }
}

/// Counts a request, or gives how long to wait before the next one.
fn take<Caller: Eq + Hash>(
    spaced: &mut Spaced<Caller>,
    caller: Caller,
    most: usize,
    spacing: Duration,
    now: Instant,
) -> Result<(), Duration> {
    if spaced.len() >= most && !spaced.contains_key(&caller) {
        // Whoever's requests are spaced out by now is as if never heard of.
        spaced.retain(|_, until| *until > now);
        if spaced.len() >= most {
            return Err(BURST);
        }
    }
    let until = spaced.entry(caller).or_insert(now);
    let next = (*until).max(now) + spacing;
    match next.checked_duration_since(now + BURST.max(spacing)) {
        Some(wait) if !wait.is_zero() => Err(wait),
        _ => {
            *until = next;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACING: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let (mut spaced, start) = (Spaced::default(), Instant::now());
        for request in 0..100 {
            assert_eq!(take(&mut spaced, 'a', 9, SPACING, start), Ok(()), "{request}");
        }
        assert_eq!(take(&mut spaced, 'a', 9, SPACING, start), Err(SPACING));
        assert_eq!(take(&mut spaced, 'b', 9, SPACING, start), Ok(()), "another caller");
        assert_eq!(take(&mut spaced, 'a', 9, SPACING, start + SPACING), Ok(()));
        assert_eq!(take(&mut spaced, 'a', 9, SPACING, start + SPACING), Err(SPACING));
        let later = start + BURST * 3;
        let let_through = (0..200).filter(|_| take(&mut spaced, 'a', 9, SPACING, later).is_ok()).count();
        assert_eq!(let_through, 100, "no more is saved up");
    }

    #[test]
    fn no_more_callers_are_kept_than_are_told_apart() {
        let (mut spaced, start) = (Spaced::default(), Instant::now());
        for caller in 0..10 {
            assert_eq!(take(&mut spaced, caller, 10, SPACING, start), Ok(()));
        }
        assert_eq!(take(&mut spaced, 10, 10, SPACING, start), Err(BURST));
        assert_eq!(take(&mut spaced, 3, 10, SPACING, start), Ok(()), "a known one goes on");
        assert_eq!(take(&mut spaced, 10, 10, SPACING, start + SPACING), Ok(()));
        assert_eq!(spaced.len(), 2, "the others are forgotten");
    }

    #[test]
    fn addresses_of_one_network_count_together() {
        let limits = Limits::new(1);
        let ask = |address: &str| limits.address(address.parse().unwrap()).is_ok();
        assert_eq!((0..20).filter(|low| ask(&format!("2001:db8::{low:x}"))).count(), 10);
        assert!(ask("2001:db8:0:1::1") && ask("192.0.2.1"));
        assert_eq!((0..20).filter(|_| ask("::ffff:192.0.2.1")).count(), 9, "the same address");
        assert!((0..1000).all(|_| Limits::new(0).address("192.0.2.1".parse().unwrap()).is_ok()));
    }
}
