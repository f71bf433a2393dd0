//! Slowing down those who guess: how long an answer is held back after repeated failures.
//!
//! Owns a table of fixed size, keyed by a fingerprint of (address, login claimed) that the caller computes with a
//! secret hash, so that nobody can aim at another's entry. Must not read a clock, nor wait.
//!
//! Every answer of a slowed key is held back, good or bad: if only bad ones were, a guesser would take silence for
//! "wrong" and go on in a second connection.

use std::time::Duration;

use crate::time::Moment;

/// How many failures are free, and how delays grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottlePolicy {
    /// Failures without any delay.
    pub free_failures: u32,
    /// The first delay; it doubles with each further failure.
    pub delay_first: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// Failures older than this are forgotten.
    pub memory: Duration,
    /// Entries at most; rounded up to a multiple of [`WAYS`].
    pub entries_max: usize,
}

impl Default for ThrottlePolicy {
    /// Three free, then 100 ms doubling up to 2 s, forgotten after a minute; 16,384 entries of 24 bytes.
    fn default() -> Self {
        Self {
            free_failures: 3,
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(2),
            memory: Duration::from_secs(60),
            entries_max: 16_384,
        }
    }
}

/// Entries that a key can be in.
pub const WAYS: usize = 8;

/// The table of recent failures.
#[derive(Debug)]
pub struct Throttle {
    policy: ThrottlePolicy,
    sets: Vec<[Entry; WAYS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    fingerprint: u64,
    failures: u32,
    last: Moment,
}

impl Entry {
    const fn belongs_to(&self, fingerprint: u64) -> bool {
        self.failures > 0 && self.fingerprint == fingerprint
    }
}

impl Throttle {
    /// An empty table. Its memory is taken now and never grows.
    #[must_use]
    pub fn new(policy: ThrottlePolicy) -> Self {
        let sets = policy.entries_max.div_ceil(WAYS).max(1);
        Self { policy, sets: vec![[Entry::default(); WAYS]; sets] }
    }

    /// How long the answer to an attempt of this key is to be held back.
    #[must_use]
    pub fn delay(&self, fingerprint: u64, now: Moment) -> Duration {
        let set = self.sets.get(self.index(fingerprint));
        let entry = set.into_iter().flatten().find(|entry| entry.belongs_to(fingerprint));
        let failures = entry.map_or(0, |entry| self.remembered(entry, now));
        match failures.checked_sub(self.policy.free_failures) {
            None => Duration::ZERO,
            Some(excess) => {
                let factor = 1_u32.checked_shl(excess).unwrap_or(u32::MAX);
                self.policy.delay_first.saturating_mul(factor).min(self.policy.delay_max)
            }
        }
    }

    /// An attempt of this key failed. If there is no room, the entry that was quiet for longest is forgotten.
    pub fn handle_failure(&mut self, fingerprint: u64, now: Moment) {
        let known = self.entry(fingerprint).copied();
        let failures = known.map_or(0, |entry| self.remembered(&entry, now));
        let index = self.index(fingerprint);
        let Some(set) = self.sets.get_mut(index) else { return };
        let slot = set.iter_mut().min_by_key(|entry| match entry {
            entry if entry.belongs_to(fingerprint) => (0, Moment(0)),
            entry if entry.failures == 0 => (1, Moment(0)),
            entry => (2, entry.last),
        });
        if let Some(slot) = slot {
            *slot = Entry { fingerprint, failures: failures.saturating_add(1), last: now };
        }
    }

    /// An attempt of this key succeeded: its failures are forgotten.
    pub fn handle_success(&mut self, fingerprint: u64) {
        if let Some(entry) = self.entry(fingerprint) {
            *entry = Entry::default();
        }
    }

    fn entry(&mut self, fingerprint: u64) -> Option<&mut Entry> {
        let index = self.index(fingerprint);
        self.sets.get_mut(index)?.iter_mut().find(|entry| entry.belongs_to(fingerprint))
    }

    fn remembered(&self, entry: &Entry, now: Moment) -> u32 {
        if now.since(entry.last) < self.policy.memory { entry.failures } else { 0 }
    }

    /// The set a key belongs to. The fingerprint is a hash already.
    fn index(&self, fingerprint: u64) -> usize {
        let sets = u64::try_from(self.sets.len()).unwrap_or(u64::MAX);
        usize::try_from(fingerprint.checked_rem(sets).unwrap_or_default()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn failed(throttle: &mut Throttle, fingerprint: u64, times: u32, now: Moment) {
        for _ in 0..times {
            throttle.handle_failure(fingerprint, now);
        }
    }

    fn delays(throttle: &mut Throttle, count: usize) -> Vec<u128> {
        let delay = |_| {
            throttle.handle_failure(1, Moment(SECOND));
            throttle.delay(1, Moment(SECOND)).as_millis()
        };
        (0..count).map(delay).collect()
    }

    #[test]
    fn delays_start_after_the_free_failures_and_double_to_the_limit() {
        let mut throttle = Throttle::new(ThrottlePolicy::default());
        assert_eq!(throttle.delay(1, Moment(0)), Duration::ZERO);
        assert_eq!(delays(&mut throttle, 9), [0, 0, 100, 200, 400, 800, 1600, 2000, 2000]);
        failed(&mut throttle, 1, 100, Moment(SECOND));
        assert_eq!(throttle.delay(1, Moment(SECOND)), Duration::from_secs(2), "no shift overflows");
        assert_eq!(throttle.delay(2, Moment(SECOND)), Duration::ZERO, "others are not slowed");
    }

    #[test]
    fn success_and_time_forget_failures() {
        let mut throttle = Throttle::new(ThrottlePolicy::default());
        failed(&mut throttle, 1, 5, Moment(SECOND));
        assert!(throttle.delay(1, Moment(60 * SECOND)) > Duration::ZERO);
        assert_eq!(throttle.delay(1, Moment(61 * SECOND)), Duration::ZERO, "a minute later");
        throttle.handle_failure(1, Moment(61 * SECOND));
        assert_eq!(throttle.delay(1, Moment(61 * SECOND)), Duration::ZERO, "the count starts again");
        failed(&mut throttle, 1, 5, Moment(62 * SECOND));
        throttle.handle_success(1);
        assert_eq!(throttle.delay(1, Moment(62 * SECOND)), Duration::ZERO);
    }

    #[test]
    fn a_full_set_forgets_the_quietest_key() {
        let policy = ThrottlePolicy { entries_max: WAYS, ..ThrottlePolicy::default() };
        let mut throttle = Throttle::new(policy);
        let ways = WAYS as u64;
        for key in 0..=ways {
            failed(&mut throttle, key, 4, Moment(SECOND + key));
        }
        let now = Moment(SECOND + 100);
        assert_eq!(throttle.delay(0, now), Duration::ZERO, "the first came longest ago");
        assert!((1..=ways).all(|key| throttle.delay(key, now) > Duration::ZERO));
    }

    proptest! {
        #[test]
        fn the_table_never_grows_and_delays_are_bounded(
            events in prop::collection::vec((0_u64..40, any::<bool>(), 0_u64..SECOND * 100), 0..200),
        ) {
            let policy = ThrottlePolicy { entries_max: 16, ..ThrottlePolicy::default() };
            let mut throttle = Throttle::new(policy);
            for (key, success, at) in events {
                if success {
                    throttle.handle_success(key);
                    prop_assert_eq!(throttle.delay(key, Moment(at)), Duration::ZERO);
                } else {
                    throttle.handle_failure(key, Moment(at));
                }
                prop_assert!(throttle.delay(key, Moment(at)) <= policy.delay_max);
                prop_assert_eq!(throttle.sets.len(), 2);
            }
        }
    }
}
