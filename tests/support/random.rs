//! Numbers from a seed: the same seed gives the same test.
//!
//! Owns splitmix64, which is enough to choose what to do next.

/// A source of numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed from `TENANTRY_TEST_SEED`, or one that differs in each run. Tests print it.
    pub(crate) fn seed() -> u64 {
        use std::hash::BuildHasher;
        match std::env::var("TENANTRY_TEST_SEED") {
            Ok(text) => text.parse().expect("TENANTRY_TEST_SEED is not a number"),
            Err(_) => std::hash::RandomState::new().hash_one(0) >> 16,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
