//! Limits that change while servers run: the capacity, and tenants that come, change and go.
//!
//! Owns rule 4.8 (closing idle servers when there are too many) and the removal of tenants (4.12). Nothing that is
//! leased is ever closed.

use super::input::Refusal;
use super::output::{CloseReason, Output, RejectReason};
use super::scheduler::Scheduler;
use super::slots::State;
use super::tenants::{self, Standing, TenantState};
use crate::ids::TenantId;
use crate::tenant::Allowance;

impl Scheduler {
    pub(super) fn set_tenant(&mut self, id: TenantId, allowance: Allowance, out: &mut Vec<Output>) {
        let Some(key) = self.tenants.find(id) else {
            self.tenants.insert(TenantState::new(id, allowance, self.now, self.clock.now()));
            return;
        };
        let tenant = &mut self.tenants.table[key];
        self.clock.forget(tenant);
        tenant.allowance = tenants::coherent(allowance);
        tenant.standing = Standing::Active;
        self.close_idle_above(key, allowance.ceiling, CloseReason::Ceiling, out);
        self.resync(key);
    }

    pub(super) fn remove_tenant(&mut self, id: TenantId, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let key = self.tenants.find(id).ok_or(Refusal::UnknownTenant)?;
        self.tenants.table[key].standing = Standing::Leaving;
        self.reject_all(key, RejectReason::TenantRemoved, out);
        self.close_idle_above(key, 0, CloseReason::TenantRemoved, out);
        self.take_promises_back(key);
        self.resync(key);
        self.forget_if_drained(key, out);
        Ok(())
    }

    /// Closes idle servers while there are more than the capacity. What is leased is closed when it is released.
    pub(super) fn shed(&mut self, out: &mut Vec<Output>) {
        while self.slots.staying() > self.capacity.working() {
            let Some(slot) = self.victim_of_shrinking() else { return };
            self.close(slot, CloseReason::Capacity, out);
        }
    }

    /// Closes a tenant's idle servers, the longest idle first, until it has no more than `limit`.
    pub(super) fn close_idle_above(&mut self, key: u32, limit: u32, why: CloseReason, out: &mut Vec<Output>) {
        while self.tenants.table[key].servers() > limit {
            let Some(slot) = self.tenants.table[key].resting.back() else { return };
            self.close(slot, why, out);
        }
    }

    /// Frees the slots that were promised to a tenant. Looks at every server: this is rare.
    pub(super) fn take_promises_back(&mut self, key: u32) {
        let promised = |state: State| match state {
            State::Closing { next: Some(promise) } if promise.tenant == key => Some(promise.roles),
            State::Opening { .. } | State::Idle { .. } | State::Busy { .. } | State::Closing { .. } => None,
        };
        let slots = self.slots.table.iter();
        let found: Vec<_> = slots.filter_map(|(slot, entry)| Some((slot, promised(entry.state)?))).collect();
        for (slot, roles) in found {
            self.slots.renounce(slot, &mut self.tenants.table[key]);
            self.abandon(key, roles);
        }
    }
}
