//! What the program takes from around it without being given it: the time of day, how long the machine is up, and
//! chance.
//!
//! In tests all may be [`simulated`], together with the servers that requests go to, so that a run follows
//! from a seed.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// How much a pause between tries is varied at random, as a share of it.
const JITTER: f64 = 0.3;

/// The present time.
pub(crate) fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Timestamp::now()
}

/// The time since the machine started, with that in which it was suspended. A simulated process never sleeps.
pub(crate) fn uptime() -> Duration {
    #[cfg(test)]
    if simulated::now().is_some() {
        return Duration::ZERO;
    }
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// 128 random bits from the operating system.
pub(crate) fn random_bits() -> u128 {
    #[cfg(test)]
    if let Some(bits) = simulated::random_bits() {
        return bits;
    }
    let mut bits = [0_u8; 16];
    // It fails only where a signal came first.
    while rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()) != Ok(bits.len()) {}
    u128::from_le_bytes(bits)
}

/// How much a pause between tries is varied at random, as a share of it.
pub(crate) fn jitter() -> f64 {
    #[cfg(test)]
    if simulated::now().is_some() {
        return 0.0;
    }
    JITTER
}

/// What stands in for the surroundings of a test's thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::{cell::RefCell, future::pending, rc::Rc};

    use jiff::Timestamp;

    /// A server that requests go to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Server {
        Nomad,
        Vault,
    }

    /// A request, taken apart.
    #[derive(Debug)]
    pub(crate) struct Request {
        pub(crate) server: Server,
        pub(crate) method: String,
        /// Below `/v1/`, its segments decoded.
        pub(crate) path: Vec<String>,
        pub(crate) query: Vec<(String, String)>,
        pub(crate) body: serde_json::Value,
    }

    /// What becomes of a request.
    #[derive(Debug)]
    pub(crate) enum Reply {
        /// It is answered, with a status and a body.
        Answer(u16, String),
        /// Nobody answers at the server's address.
        Nobody,
        /// The program dies while it waits for the answer.
        Death,
    }

    /// Everything around the program.
    pub(crate) trait Surroundings {
        fn now(&self) -> Timestamp;
        fn random_bits(&mut self) -> u128;
        fn answer(&mut self, request: Request) -> Reply;
    }

    thread_local! {
        static SURROUNDINGS: RefCell<Option<Rc<RefCell<dyn Surroundings>>>> = const { RefCell::new(None) };
    }

    fn with<T>(ask: impl FnOnce(&mut dyn Surroundings) -> T) -> Option<T> {
        let surroundings = SURROUNDINGS.with_borrow(Clone::clone)?;
        let answer = ask(&mut *surroundings.borrow_mut());
        Some(answer)
    }

    /// Has this thread's surroundings simulated from now on, or no longer.
    pub(crate) fn set(surroundings: Option<Rc<RefCell<dyn Surroundings>>>) {
        SURROUNDINGS.set(surroundings);
    }

    pub(crate) fn now() -> Option<Timestamp> {
        with(|surroundings| surroundings.now())
    }

    pub(crate) fn random_bits() -> Option<u128> {
        with(|surroundings| surroundings.random_bits())
    }

    /// The answer to a request; `None` where nobody gives one. `path` is what follows the server's address.
    pub(crate) async fn answer(
        server: Server,
        method: &str,
        url: &str,
        body: Option<&[u8]>,
    ) -> Option<(u16, String)> {
        let url = reqwest::Url::parse(url).ok()?;
        let decoded = |segment: &str| {
            let pairs = format!("x={}", segment.replace('+', "%2B"));
            let url = reqwest::Url::parse(&format!("http://x/?{pairs}")).ok()?;
            url.query_pairs().next().map(|(_, value)| value.into_owned())
        };
        let request = Request {
            server,
            method: method.to_owned(),
            path: url.path_segments()?.skip(1).filter_map(decoded).collect(),
            query: url.query_pairs().into_owned().collect(),
            body: body.and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default(),
        };
        match with(|surroundings| surroundings.answer(request))? {
            Reply::Answer(status, body) => Some((status, body)),
            Reply::Nobody => None,
            Reply::Death => pending().await,
        }
    }
}
