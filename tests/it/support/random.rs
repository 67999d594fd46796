//! Numbers that can be had again.

use std::io::Write as _;

/// Numbers from a seed (splitmix64): a failed run can be repeated.
#[derive(Debug)]
pub(crate) struct Random(u64);

/// A seed from the clock, or from `CONSIGN_TEST_SEED`; it is printed.
pub(crate) fn seed() -> u64 {
    let clock = || jiff::Timestamp::now().as_second().unsigned_abs();
    let seed = std::env::var("CONSIGN_TEST_SEED").map_or_else(|_| clock(), |text| text.parse().unwrap());
    writeln!(std::io::stderr().lock(), "CONSIGN_TEST_SEED={seed}").unwrap();
    seed
}

impl Random {
    /// Seeded with [`seed`].
    pub(crate) fn new() -> Self {
        Self::from_seed(seed())
    }

    /// The numbers of this seed.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number from `low` to `high`, `high` not included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low)
    }
}
