//! Virtual time: what tenants used, by weight, and the clock it is compared with.
//!
//! Owns the unit, the clock `V` and the sums of weights and shares of those that take part. Virtual time is
//! slot-microseconds divided by weight, in 1/256. `V` advances by K/Σw per microsecond of contention: as a tenant would
//! that gets exactly its part. Must not know tenants one by one.

use super::tenants::TenantState;
use crate::time::Moment;

/// The clock of virtual time.
#[derive(Clone, Debug)]
pub(super) struct VirtualClock {
    v: u64,
    at: Moment,
    weights: u64,
    shares: u64,
    lag_max: u64,
}

impl VirtualClock {
    pub(super) fn new(lag_max_us: u64) -> Self {
        Self { v: 0, at: Moment(0), weights: 0, shares: 0, lag_max: cost(lag_max_us, 1) }
    }

    pub(super) const fn now(&self) -> u64 {
        self.v
    }

    /// The most over-use that is remembered.
    pub(super) const fn latest(&self) -> u64 {
        self.v.saturating_add(self.lag_max)
    }

    /// The sum of weights of active tenants.
    pub(super) const fn weights(&self) -> u64 {
        self.weights
    }

    /// The sum of shares of active tenants, as they are written.
    pub(super) const fn shares(&self) -> u64 {
        self.shares
    }

    /// Lets time pass; it counts only while there was contention.
    pub(super) fn advance(&mut self, now: Moment, capacity: u32, contended: bool) {
        let passed = now.micros_since(self.at);
        self.at = self.at.max(now);
        if !contended || passed == 0 {
            return;
        }
        let slot_time = u128::from(passed).saturating_mul(u128::from(capacity)) << SHIFT;
        let step = slot_time.checked_div(u128::from(self.weights)).unwrap_or(0);
        self.v = self.v.saturating_add(u64::try_from(step).unwrap_or(u64::MAX));
    }

    /// Keeps a tenant's activity and virtual time in step: who comes back has no claim on the time it was away, and
    /// no more than a bounded debt from before.
    pub(super) fn follow(&mut self, tenant: &mut TenantState) {
        let active = tenant.is_active();
        let (weight, share) = (u64::from(tenant.allowance.weight), u64::from(tenant.allowance.share));
        match (tenant.active, active) {
            (false, true) => {
                self.weights = self.weights.saturating_add(weight);
                self.shares = self.shares.saturating_add(share);
                tenant.virtual_time = tenant.virtual_time.clamp(self.v, self.latest());
            }
            (true, false) => {
                self.weights = self.weights.saturating_sub(weight);
                self.shares = self.shares.saturating_sub(share);
            }
            (true, true) | (false, false) => {}
        }
        tenant.active = active;
    }

    /// A tenant begins to wait: what it did not use while it needed nothing counts only up to a bound.
    pub(super) fn bound_credit(&self, tenant: &mut TenantState) {
        tenant.virtual_time = tenant.virtual_time.max(self.v.saturating_sub(self.lag_max));
    }

    /// Takes an active tenant's weight and share out, before they change.
    pub(super) fn forget(&mut self, tenant: &mut TenantState) {
        if std::mem::take(&mut tenant.active) {
            self.weights = self.weights.saturating_sub(u64::from(tenant.allowance.weight));
            self.shares = self.shares.saturating_sub(u64::from(tenant.allowance.share));
        }
    }
}

/// What `slot_us` cost a tenant of that weight.
pub(super) fn cost(slot_us: u64, weight: u32) -> u64 {
    slot_us.saturating_mul(1 << SHIFT) / u64::from(weight.max(1))
}

const SHIFT: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;
    use crate::tenant::Allowance;

    #[test]
    fn the_clock_runs_only_under_contention_and_by_capacity_over_weights() {
        let allowance = Allowance { reserve: 0, floor: 1, share: 1, ceiling: 1, weight: 4, max_waiters: 1 };
        let mut tenant = TenantState::new(TenantId(0), allowance, Moment(0), 0);
        let mut clock = VirtualClock::new(1_000);
        tenant.busy = 1;
        clock.follow(&mut tenant);
        clock.advance(Moment(100), 8, false);
        assert_eq!(clock.now(), 0);
        clock.advance(Moment(200), 8, true);
        assert_eq!(clock.now(), cost(200, 1));
        tenant.busy = 0;
        clock.follow(&mut tenant);
        assert_eq!(clock.weights(), 0);
        clock.advance(Moment(300), 8, true);
        assert_eq!(clock.now(), cost(200, 1));
    }

    #[test]
    fn who_comes_back_starts_at_the_clock_and_keeps_a_bounded_debt() {
        let allowance = Allowance { reserve: 0, floor: 1, share: 1, ceiling: 1, weight: 1, max_waiters: 1 };
        let mut clock = VirtualClock::new(1_000);
        let mut debtor = TenantState::new(TenantId(0), allowance, Moment(0), cost(9_000, 1));
        let mut sleeper = TenantState::new(TenantId(1), allowance, Moment(0), 0);
        clock.v = cost(5_000, 1);
        debtor.busy = 1;
        sleeper.busy = 1;
        clock.follow(&mut debtor);
        clock.follow(&mut sleeper);
        assert_eq!(debtor.virtual_time, cost(6_000, 1));
        assert_eq!(sleeper.virtual_time, cost(5_000, 1));
    }
}
