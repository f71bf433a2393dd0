//! Whose idle server is taken when another tenant needs a slot.
//!
//! Owns rule 4.4 b to d: first what others borrowed, longest idle first; then, rather than breaking into a share, the
//! next release of a borrower; then, of servers within their owners' shares, by SIEVE one that has long been unused and is
//! not expected to be used, or else the one that will be used again last. Servers under a reserve are never taken for
//! others. Each answer "none" says when to ask again. Also owns the sums over tenants that these questions need.

use super::links::List;
use super::scheduler::Scheduler;
use super::slots::State;
use super::tenants::{Band, Lenders, Part, Standing, TenantState};
use super::why::Blocked;
use crate::ids::TenantId;
use crate::time::Moment;

/// Sums of all tenants' [`Part`]s, and the list of tenants with idle servers above their share.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) sum: Part,
    pub(super) lenders: List<Lenders>,
}

/// What stands in the way, and when it may have gone by itself.
pub(super) type Obstacle = (Blocked, Moment);

impl Totals {
    pub(super) const fn new() -> Self {
        let sum = Part {
            idle_over: 0,
            idle_within: 0,
            idle_floor: 0,
            reserved: 0,
            returning: 0,
            long: [0, 0],
            stopped: 0,
        };
        Self { sum, lenders: List::new() }
    }
}

impl Scheduler {
    /// What a tenant adds to the sums.
    pub(super) fn part(&self, tenant: &TenantState) -> Part {
        let stopped = u32::from(!tenant.queue.is_empty() && self.stop(tenant).is_some());
        let mut part = Part { stopped, ..Part::default() };
        if tenant.standing == Standing::Active {
            let servers = tenant.servers().saturating_sub(tenant.promised);
            part.reserved = servers.min(tenant.allowance.reserve);
        }
        if !tenant.is_over_share() {
            part.idle_within = if tenant.is_above_reserve() { tenant.idle } else { 0 };
            part.idle_floor = if is_at_floor(tenant) { part.idle_within } else { 0 };
            return part;
        }
        let excess = tenant.servers().saturating_sub(tenant.share);
        part.idle_over = tenant.idle;
        match self.hold_class(tenant) {
            0 => part.returning = excess.min(tenant.busy),
            // Idle ones are nobody's burden: others may take them.
            1 => part.long = [excess.saturating_sub(tenant.idle), 0],
            _ => part.long = [0, excess.saturating_sub(tenant.idle)],
        }
        part
    }

    /// Brings the sums up to date with a tenant.
    pub(super) fn resync_part(&mut self, key: u32) {
        let part = self.part(&self.tenants.table[key]);
        let before = std::mem::replace(&mut self.tenants.table[key].part, part);
        if before == part {
            return;
        }
        let sum = &mut self.totals.sum;
        replace(&mut sum.idle_over, before.idle_over, part.idle_over);
        replace(&mut sum.idle_within, before.idle_within, part.idle_within);
        replace(&mut sum.idle_floor, before.idle_floor, part.idle_floor);
        replace(&mut sum.reserved, before.reserved, part.reserved);
        replace(&mut sum.returning, before.returning, part.returning);
        replace(&mut sum.stopped, before.stopped, part.stopped);
        for (sum, (before, after)) in sum.long.iter_mut().zip(before.long.into_iter().zip(part.long)) {
            replace(sum, before, after);
        }
        match (before.idle_over > 0, part.idle_over > 0) {
            (false, true) => self.totals.lenders.push_back(&mut self.tenants.table, key),
            (true, false) => self.totals.lenders.remove(&mut self.tenants.table, key),
            (true, true) | (false, false) => {}
        }
    }

    /// The idle server that `borrower` may take for its next one.
    pub(super) fn victim(&mut self, borrower: u32, band: Band) -> Result<u32, Obstacle> {
        let (borrowed, later) = self.borrowed_victim(borrower, band);
        if let Some(slot) = borrowed {
            return Ok(slot);
        }
        let tenant = &self.tenants.table[borrower];
        let age = match band {
            Band::Floor | Band::Share => {
                let patience = tenant.head_ready.0.saturating_add(self.config.release_patience_us);
                if self.totals.sum.returning >= self.config.releases_awaited && self.now.0 < patience {
                    return Err((Blocked::AwaitingRelease, Moment(patience)));
                }
                let stale = self.config.stale_us.max(self.config.idle_age_us);
                if let Ok(slot) = self.sieve(Age::at_least(stale), Band::Floor, Whose::Unexpected) {
                    return Ok(slot);
                }
                return self.needed_last(band).map_err(|at| (Blocked::NoIdleServer, at.min(later)));
            }
            Band::Burst => self.collateral_age(tenant),
        };
        if let Ok(slot) = self.sieve(age, band, Whose::Unexpected) {
            return Ok(slot);
        }
        self.sieve(age, band, Whose::Anyones).map_err(|at| (Blocked::NoIdleServer, at.min(later)))
    }

    /// Of idle servers within their owners' shares that are all expected to be used again, the one that will be last.
    /// With too few servers for tenants that ask in turns, the one that was used longest ago is the very next to be
    /// used: whoever takes that makes all of them log in again, one after the other.
    fn needed_last(&self, band: Band) -> Result<u32, Moment> {
        if let Some(later) = self.none_within(band) {
            return Err(later);
        }
        let mut best: Option<(u64, u32)> = None;
        let mut soonest = Moment::NEVER;
        for key in self.slots.by_age.iter(&self.slots.table) {
            let slot = &self.slots.table[key];
            let State::Idle { since } = slot.state else { continue };
            let fresh_until = Moment(since.0.saturating_add(self.config.idle_age_min_us));
            if fresh_until > self.now {
                // So are all that follow.
                soonest = soonest.min(fresh_until);
                break;
            }
            let owner = &self.tenants.table[slot.tenant];
            if owner.is_over_share() || !owner.is_above_reserve() || owner.resting.back() != Some(key) {
                continue;
            }
            let ripe = self.ripe_among_fresh(owner, since).max(self.spared_until(owner, since, band));
            if ripe > self.now {
                soonest = soonest.min(ripe);
                continue;
            }
            let idles_us = owner.demand.rhythm.idles_for_us(self.now, owner.idle, since);
            if best.is_none_or(|(most_us, _)| idles_us > most_us) {
                best = Some((idles_us, key));
            }
        }
        best.map(|(_, key)| key).ok_or(soonest)
    }

    /// From when on a tenant's longest idle server may be the one that is needed last: soon if it would lie idle for long.
    fn ripe_among_fresh(&self, owner: &TenantState, since: Moment) -> Moment {
        let soon = Moment(since.0.saturating_add(self.config.idle_age_min_us));
        let idles_us = owner.demand.rhythm.idles_at_least_us(soon, owner.idle, since);
        if idles_us >= self.config.idle_gain_us {
            soon
        } else {
            Moment(since.0.saturating_add(self.config.idle_age_us.max(self.config.idle_age_min_us)))
        }
    }

    /// If nobody of that band can have an idle server within its owner's share: from when on perhaps.
    fn none_within(&self, band: Band) -> Option<Moment> {
        let sum = &self.totals.sum;
        if sum.idle_within == 0 {
            return Some(Moment::NEVER);
        }
        let oldest = self.slots.oldest_idle().map_or(Moment::NEVER, |since| self.stale_at(since));
        (sum.idle_floor == sum.idle_within && band > Band::Floor && oldest > self.now).then_some(oldest)
    }

    const fn stale_at(&self, since: Moment) -> Moment {
        Moment(since.0.saturating_add(self.config.stale_us))
    }

    /// Until when a server is no one's but its owner's, because that would have it back at once: nobody above the floor
    /// takes what is below another's floor before it is stale.
    fn spared_until(&self, owner: &TenantState, since: Moment, band: Band) -> Moment {
        let is_floor = is_at_floor(owner);
        if is_floor && band > Band::Floor {
            Moment(since.0.saturating_add(self.config.stale_us))
        } else {
            Moment(0)
        }
    }

    /// How long a server within its owner's share must have been idle for a burst: as long as the borrower is expected to
    /// hold it, within limits. The longer the loan, the staler the collateral.
    fn collateral_age(&self, borrower: &TenantState) -> Age {
        let limit_us = self.config.collateral_max_us.max(self.config.burst_idle_age_us);
        let usual_us = borrower.hold_us.min(limit_us).max(self.config.burst_idle_age_us);
        // The expected hold is the mean age of the running leases if that is more. Idle servers age as fast as these,
        // so that what counts is which began first.
        let mean_start = borrower.starts_us.div_ceil(u128::from(borrower.busy.max(1)));
        let mean_start = Moment(u64::try_from(mean_start).unwrap_or(u64::MAX));
        let before = if borrower.busy == 0 { Moment::NEVER } else { mean_start };
        Age { usual_us, before, limit_us }
    }

    /// The idle server to close when there are too many: borrowed ones, then by SIEVE. One under a reserve only if the
    /// reserves alone are too much: otherwise the next release makes room.
    pub(super) fn victim_of_shrinking(&mut self) -> Option<u32> {
        let oldest = |state: &Self, key: u32| {
            let owner = &state.tenants.table[key];
            let slot = owner.resting.back()?;
            Some((state.slots.idle_since(slot)?, owner.id, slot))
        };
        let lenders = self.totals.lenders.iter(&self.tenants.table);
        if let Some((_, _, slot)) = lenders.filter_map(|key| oldest(self, key)).min() {
            return Some(slot);
        }
        self.sieve(Age::at_least(0), Band::Floor, Whose::Anyones)
            .ok()
            .or_else(|| self.slots.by_age.front().filter(|_| self.is_overreserved()))
    }

    /// Whether not even the servers under reserves fit into the capacity.
    pub(super) const fn is_overreserved(&self) -> bool {
        self.totals.sum.reserved > self.capacity.working()
    }

    /// The longest idle server above its owner's share that the borrower may take, or when there may be one.
    ///
    /// Below its share a borrower takes any. Above it, the server must have been idle for a while, and either be stale or
    /// belong to a tenant that was served more than the borrower. Only the borrower's running leases count here: so time
    /// alone can only end such a claim, never make one, and no timer is needed for it.
    fn borrowed_victim(&self, borrower: u32, band: Band) -> (Option<u32>, Moment) {
        let needy = self.tenants.table[borrower].virtual_time_now(self.now);
        let lead = super::fairness::cost(self.config.lead_us, 1);
        let mut best: Option<(Moment, TenantId, u32)> = None;
        let mut later = Moment::NEVER;
        for owner in self.totals.lenders.iter(&self.tenants.table) {
            let owner = &self.tenants.table[owner];
            let Some(slot) = owner.resting.back() else { continue };
            let Some(since) = self.slots.idle_since(slot) else { continue };
            let age_us = match band {
                Band::Floor | Band::Share => 0,
                Band::Burst if needy.saturating_add(lead) < owner.virtual_time => {
                    self.config.burst_idle_age_us
                }
                Band::Burst => self.config.burst_idle_age_us.max(self.config.stale_us),
            };
            let ripe = Moment(since.0.saturating_add(age_us));
            if ripe > self.now {
                later = later.min(ripe);
            } else if best.is_none_or(|best| (since, owner.id, slot) < best) {
                best = Some((since, owner.id, slot));
            }
        }
        (best.map(|(_, _, slot)| slot), later)
    }

    /// SIEVE over idle servers within their owners' shares that have been idle for long enough: the hand passes servers
    /// in the order of their birth, spares once those that were used since it came by, and takes the first other one.
    fn sieve(&mut self, age: Age, band: Band, whose: Whose) -> Result<u32, Moment> {
        if let Some(later) = self.none_within(band) {
            return Err(later);
        }
        let oldest = self.slots.oldest_idle().map_or(Moment::NEVER, |since| age.ripe(since));
        if oldest > self.now {
            return Err(oldest);
        }
        let mut soonest = Moment::NEVER;
        for _ in 0..self.slots.by_birth.len().saturating_mul(2) {
            let Some(key) = self.slots.hand.or_else(|| self.slots.by_birth.front()) else { break };
            self.slots.hand = self.slots.by_birth.after(&self.slots.table, key);
            let slot = &self.slots.table[key];
            let State::Idle { since } = slot.state else { continue };
            let owner = &self.tenants.table[slot.tenant];
            if owner.is_over_share() || !owner.is_above_reserve() {
                continue;
            }
            if whose == Whose::Unexpected && owner.demand.rhythm.is_expected(self.now, owner.idle, since) {
                continue;
            }
            let ripe = age.ripe(since).max(self.spared_until(owner, since, band));
            if ripe > self.now {
                soonest = soonest.min(ripe);
            } else if !std::mem::take(&mut self.slots.table[key].visited) {
                return Ok(key);
            }
        }
        Err(soonest)
    }
}

/// Whether the tenant has no more than its floor.
fn is_at_floor(tenant: &TenantState) -> bool {
    tenant.band(tenant.servers().saturating_sub(1)) == Band::Floor
}

/// Whose servers SIEVE chooses among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Anyones,
    /// Of tenants whose next request cannot be foreseen, or that have stopped.
    Unexpected,
}

/// How long a server must have been idle before it is taken.
#[derive(Clone, Copy, Debug)]
struct Age {
    usual_us: u64,
    /// If it became idle after this moment, it must have been idle for `limit_us`.
    before: Moment,
    limit_us: u64,
}

impl Age {
    const fn at_least(us: u64) -> Self {
        Self { usual_us: us, before: Moment::NEVER, limit_us: us }
    }

    /// When a server that is idle since then may be taken. Never earlier for a server that is idle for less time.
    fn ripe(self, since: Moment) -> Moment {
        let us = if since <= self.before { self.usual_us } else { self.limit_us };
        Moment(since.0.saturating_add(us))
    }
}

fn replace(sum: &mut u32, before: u32, after: u32) {
    // Of the many parts one or two change.
    if before == after {
        return;
    }
    assert!(*sum >= before, "a sum holds each of its parts");
    *sum = sum.saturating_sub(before).saturating_add(after);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collateral_of_a_burst_is_as_old_as_its_running_leases() {
        let age = Age { usual_us: 20_000, before: Moment(100_000), limit_us: 5_000_000 };
        assert_eq!(age.ripe(Moment(100_000)), Moment(120_000));
        assert_eq!(age.ripe(Moment(100_001)), Moment(5_100_001));
        assert_eq!(Age::at_least(5_000).ripe(Moment(7)), Moment(5_007));
    }
}
