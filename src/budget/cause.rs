//! Why a request waits, in one word that it carries from the moment it begins to wait.
//!
//! Owns the choice among the words. What stands in the way changes while a request waits, and the first of a
//! tenant's queue speaks for all of it. So a wait is put down to what held for its last half, or else to what it began
//! with. Must not change anything but what it remembers.

use super::scheduler::Scheduler;
use super::stops::Stop;
use super::tenants::{Place, TenantState};
use super::why::Blocked;
use crate::stats::Cause;
use crate::time::Moment;

impl Scheduler {
    /// Why a tenant that wants no other server waits.
    pub(super) fn cause_of_patience(&self, tenant: &TenantState) -> Cause {
        match self.stop(tenant) {
            Some((Stop::Halted, _)) => Cause::Paused,
            Some((Stop::Rate, _)) => Cause::RateLimit,
            None if tenant.waiters() <= tenant.opening => Cause::Login,
            None if tenant.slots() >= tenant.allowance.ceiling => Cause::Ceiling,
            None if !tenant.breaker.is_closed() => Cause::LoginRefused,
            None => Cause::OwnServers,
        }
    }

    /// Why the tenant's first request waits, and since when that is so.
    pub(super) fn cause(&self, tenant: &TenantState) -> (Cause, Moment) {
        let (cause, since) = tenant.cause;
        let Place::Lane(lane) = tenant.place else {
            // Time alone makes transactions slow: nothing happens then that would be remembered.
            let is_its_own = matches!(cause, Cause::Ceiling | Cause::OwnServers);
            let is_slow = is_its_own && tenant.demand.is_slow(tenant.expected_hold_us(self.now));
            return (if is_slow { Cause::Slow } else { cause }, since);
        };
        let (blocked, blocked_since) = self.obstacles.get(usize::from(lane)).copied().unwrap_or_default();
        (of_lane(blocked), since.max(blocked_since))
    }

    /// What the wait of a tenant's first request is put down to, if it ends now.
    pub(super) fn cause_of_wait(&self, tenant: &TenantState, since: Moment, began_with: Cause) -> Cause {
        let (cause, held_since) = self.cause(tenant);
        let half = Moment(since.0.saturating_add(self.now.micros_since(since) / 2));
        if held_since <= half { cause } else { began_with }
    }

    /// Remembers what a request begins to wait for.
    pub(super) fn note_newcomer(&mut self) {
        let Some(waiter) = self.newcomer.take() else { return };
        let tenant = self.waiters.table[waiter].tenant;
        let (cause, _) = self.cause(&self.tenants.table[tenant]);
        self.waiters.table[waiter].began_with = cause;
    }

    /// Remembers what stands in the way of each lane, and since when.
    pub(super) fn note_obstacles(&mut self) {
        for (known, blocked) in self.obstacles.iter_mut().zip(self.blocked) {
            if known.0 != blocked {
                *known = (blocked, self.now);
            }
        }
    }
}

/// What it means for a tenant that its lane is stopped so.
const fn of_lane(blocked: Option<Blocked>) -> Cause {
    match blocked {
        Some(Blocked::Unreachable) => Cause::ServerDown,
        Some(Blocked::LoginsInFlight | Blocked::ReconnectBudget) => Cause::ReconnectBrake,
        Some(Blocked::LongBorrowers) => Cause::LongBorrowers,
        Some(Blocked::AwaitingRelease | Blocked::NoIdleServer) | None => Cause::Budget,
    }
}
