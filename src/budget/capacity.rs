//! How many servers there may be: the capacity that was given, and the smaller one that the server proved to have.
//!
//! Owns both numbers and the additive recovery after "too many connections" (budgets 4.9). Must not know who uses them.

use crate::time::Moment;

/// The capacity and its working value.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    limit: u32,
    working: u32,
    /// When `working` grows by one, if it is below `limit`.
    grow_at: Moment,
    every_us: u64,
}

impl Capacity {
    pub(super) const fn new(limit: u32, every_us: u64) -> Self {
        Self { limit, working: limit, grow_at: Moment::NEVER, every_us }
    }

    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    /// What may be used now.
    pub(super) const fn working(&self) -> u32 {
        self.working
    }

    /// When `working` grows next; `NEVER` while it is not lowered.
    pub(super) const fn grows_at(&self) -> Moment {
        if self.working < self.limit { self.grow_at } else { Moment::NEVER }
    }

    pub(super) fn set(&mut self, limit: u32) {
        let lowered = self.working < self.limit;
        self.limit = limit;
        // What the server proved still holds under the new limit; otherwise the new limit is all there is to know.
        self.working = if lowered { self.working.min(limit) } else { limit };
    }

    /// The server had no room although only `used` servers are left after the failed one.
    pub(super) fn proved(&mut self, now: Moment, used: u32) {
        self.working = self.working.min(used);
        self.grow_at = Moment(now.0.saturating_add(self.every_us));
    }

    pub(super) fn recover(&mut self, now: Moment) {
        if self.working >= self.limit || now < self.grow_at {
            return;
        }
        let every = self.every_us.max(1);
        let steps = (now.micros_since(self.grow_at) / every).saturating_add(1);
        let missing = self.limit.saturating_sub(self.working);
        self.working = self.working.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX).min(missing));
        self.grow_at = Moment(self.grow_at.0.saturating_add(steps.saturating_mul(every)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_capacity_recovers_by_one_a_second() {
        let mut capacity = Capacity::new(10, 1_000_000);
        capacity.proved(Moment(0), 7);
        capacity.recover(Moment(999_999));
        assert_eq!(capacity.working(), 7);
        capacity.recover(Moment(2_000_000));
        assert_eq!(capacity.working(), 9);
        capacity.proved(Moment(2_500_000), 8);
        capacity.recover(Moment(3_400_000));
        assert_eq!(capacity.working(), 8);
        capacity.recover(Moment(60_000_000));
        assert_eq!((capacity.working(), capacity.grows_at()), (10, Moment::NEVER));
    }

    #[test]
    fn a_new_limit_keeps_what_the_server_proved() {
        let mut capacity = Capacity::new(10, 1_000_000);
        capacity.set(12);
        assert_eq!(capacity.working(), 12);
        capacity.proved(Moment(0), 7);
        capacity.set(20);
        assert_eq!(capacity.working(), 7);
        capacity.set(5);
        assert_eq!(capacity.working(), 5);
    }
}
