//! Shares when there are too few servers for all of them: each is scaled down alike.
//!
//! Owns by how much, and when that changes. A share is a promise among those that ask at the same time. Where the shares of
//! the active tenants are more than the capacity, it could be kept to the first that come only; so all promise less. Must
//! not know tenants one by one, apart from whom a change concerns.

use super::scheduler::Scheduler;
use super::slots::State;

/// By how much shares are scaled down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    /// The shares of all active tenants divided by the capacity, in 1/256, as of the last change; at least 1.
    ratio: u64,
}

impl Scale {
    /// All shares are what they are.
    pub(super) const WHOLE: Self = Self { ratio: ONE };

    /// Whether a share is less than what is written.
    pub(super) fn is_down(self) -> bool {
        self.ratio > ONE
    }

    /// What is left of a share: never less than one server, where it was that.
    pub(super) fn of(self, share: u32) -> u32 {
        if !self.is_down() {
            return share;
        }
        let scaled = u64::from(share).saturating_mul(ONE).checked_div(self.ratio).unwrap_or(0);
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1).min(share)
    }

    /// The scale for such a sum of shares, if it is another one by now. A quarter more or less is not worth a look at all
    /// tenants that it concerns, as long as there are too few servers.
    fn due(self, capacity: u32, shares: u64) -> Option<Self> {
        if shares <= u64::from(capacity) {
            return self.is_down().then_some(Self::WHOLE);
        }
        let ratio =
            shares.saturating_mul(ONE).checked_div(u64::from(capacity.max(1))).unwrap_or(ONE).max(ONE);
        let quarters = ratio.saturating_mul(4);
        let is_other = quarters >= self.ratio.saturating_mul(5) || quarters <= self.ratio.saturating_mul(3);
        is_other.then_some(Self { ratio })
    }
}

impl Scheduler {
    /// Scales shares anew if the sum of those of active tenants has changed enough. Between two such changes tenants with
    /// shares of a quarter of the sum became active or inactive: so a look at all that wait is O(1) for each of these.
    pub(super) fn rescale(&mut self) {
        let Some(scale) = self.scale.due(self.capacity.limit(), self.clock.shares()) else { return };
        self.scale = scale;
        let concerned = self.slots.table.iter().flat_map(|(_, slot)| {
            let heir = match slot.state {
                State::Closing { next } => next.map(|promise| promise.tenant),
                State::Opening { .. } | State::Idle { .. } | State::Busy { .. } => None,
            };
            [Some(slot.tenant), heir].into_iter().flatten()
        });
        let mut concerned: Vec<u32> = concerned.chain(self.timers.iter().map(|(_, tenant)| tenant)).collect();
        concerned.sort_unstable();
        concerned.dedup();
        for key in concerned {
            self.resync(key);
        }
    }
}

const ONE: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_are_too_many_are_scaled_down_alike_and_to_one_at_least() {
        assert_eq!(Scale::WHOLE.due(60, 60), None);
        let scale = Scale::WHOLE.due(60, 120).unwrap();
        assert_eq!([0, 1, 2, 5, 20].map(|share| scale.of(share)), [0, 1, 1, 2, 10]);
        let scale = Scale::WHOLE.due(60, 10_000).unwrap();
        assert_eq!([1, 5, 20].map(|share| scale.of(share)), [1, 1, 1]);
        assert_eq!(scale.due(0, u64::MAX).unwrap().of(u32::MAX), 1);
    }

    #[test]
    fn a_quarter_more_or_less_changes_nothing_until_there_are_enough() {
        assert_eq!(Scale::WHOLE.due(100, 124), None);
        let scale = Scale::WHOLE.due(100, 200).unwrap();
        assert_eq!([151, 200, 249].map(|shares| scale.due(100, shares)), [None; 3]);
        assert!([150, 250].iter().all(|shares| scale.due(100, *shares).is_some()));
        let scale = Scale::WHOLE.due(100, 125).unwrap();
        assert_eq!(scale.due(100, 101), None);
        assert_eq!(scale.due(100, 100), Some(Scale::WHOLE));
    }
}
