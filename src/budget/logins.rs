//! Logins: an ordered server is there, could not be had, or is gone.
//!
//! Owns what each ending of a login means for slots, breakers and capacity (rule 4.9).

use super::breaker::{Breaker, Role};
use super::input::{OpenFailure, Refusal};
use super::output::{CloseReason, Output, RejectReason};
use super::permit::Permit;
use super::scheduler::Scheduler;
use super::slots::{Promise, Roles, State};
use super::tenants::Standing;
use crate::ids::{ServerId, TenantId};

impl Scheduler {
    pub(super) fn opened(&mut self, server: ServerId, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let slot = self.slots.find(server).ok_or(Refusal::UnknownServer)?;
        let state = self.slots.table[slot].state;
        let State::Opening { since, .. } = state else { return Err(Refusal::WrongState(state.as_str())) };
        let key = self.slots.table[slot].tenant;
        self.latency.observe(self.now.micros_since(since));
        self.breaker.succeeded();
        let tenant = &mut self.tenants.table[key];
        tenant.breaker.succeeded();
        self.slots.rest(self.now, slot, tenant);
        if tenant.standing == Standing::Leaving {
            self.close(slot, CloseReason::TenantRemoved, out);
        } else if tenant.is_draining(self.now) {
            self.close(slot, CloseReason::Drained, out);
        } else if tenant.servers() > tenant.allowance.ceiling {
            self.close(slot, CloseReason::Ceiling, out);
        } else {
            self.serve(slot, key, out);
        }
        self.resync(key);
        Ok(())
    }

    pub(super) fn open_failed(
        &mut self,
        permit: Permit,
        failure: OpenFailure,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let slot = self.slot_of(&permit);
        let Some((slot, State::Opening { roles, .. })) =
            slot.map(|slot| (slot, self.slots.table[slot].state))
        else {
            return self.closed(permit, out);
        };
        let key = self.slots.table[slot].tenant;
        self.slots.free(self.now, slot, &mut self.tenants.table[key]);
        let tenant = &mut self.tenants.table[key];
        match failure {
            OpenFailure::ServerFull => {
                self.breaker.succeeded();
                tenant.breaker.abandoned(self.now, roles.tenant);
                self.capacity.proved(self.now, self.slots.used());
            }
            OpenFailure::Unavailable => {
                tenant.breaker.abandoned(self.now, roles.tenant);
                self.breaker.failed(self.now, roles.cluster, &self.config);
                self.reject_all_hopeless(out);
            }
            OpenFailure::Rejected => {
                self.breaker.succeeded();
                tenant.breaker.failed(self.now, roles.tenant, &self.config);
                self.reject_hopeless(key, out);
            }
        }
        self.resync(key);
        self.forget_if_drained(key, out);
        Ok(())
    }

    pub(super) fn closed(&mut self, permit: Permit, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let Some(slot) = self.slot_of(&permit) else { return Err(Refusal::ForeignPermit(permit)) };
        let key = self.slots.table[slot].tenant;
        let mut heir = None;
        match self.slots.table[slot].state {
            State::Closing { next } => {
                if let Some(promise) = next {
                    self.slots.renounce(slot, &mut self.tenants.table[promise.tenant]);
                }
                heir = next;
            }
            State::Busy { since, charged_us } => self.settle(key, since, charged_us),
            State::Opening { roles, .. } => self.abandon(key, roles),
            State::Idle { .. } => {}
        }
        self.slots.free(self.now, slot, &mut self.tenants.table[key]);
        if let Some(promise) = heir {
            self.keep(promise, out);
        }
        self.reject_hopeless(key, out);
        self.resync(key);
        self.forget_if_drained(key, out);
        Ok(())
    }

    pub(super) fn lost(&mut self, server: ServerId) -> Result<(), Refusal> {
        let slot = self.slots.find(server).ok_or(Refusal::UnknownServer)?;
        let state = self.slots.table[slot].state;
        let State::Idle { .. } = state else { return Err(Refusal::WrongState(state.as_str())) };
        let key = self.slots.table[slot].tenant;
        self.slots.dismiss(self.now, slot, &mut self.tenants.table[key]);
        self.resync(key);
        Ok(())
    }

    /// Forgets a tenant that is being removed and has no server left.
    pub(super) fn forget_if_drained(&mut self, key: u32, out: &mut Vec<Output>) {
        let tenant = &mut self.tenants.table[key];
        if tenant.standing != Standing::Leaving || tenant.slots() > 0 {
            return;
        }
        assert!(tenant.queue.is_empty(), "a tenant that is being removed has no waiters");
        self.clock.forget(tenant);
        let tenant = tenant.id;
        self.tenants.remove(key);
        out.push(Output::Drained { tenant });
    }

    /// Rejects the waiters of every tenant that now waits in vain, in the order of tenant ids.
    fn reject_all_hopeless(&mut self, out: &mut Vec<Output>) {
        let hopeless = |key: &u32| self.hopeless(&self.tenants.table[*key]).is_some();
        let waiting = self.timers.iter().map(|((_, id), key)| (id, key));
        let mut keys: Vec<(TenantId, u32)> = waiting.filter(|(_, key)| hopeless(key)).collect();
        keys.sort_unstable();
        for (_, key) in keys {
            self.reject_all(key, RejectReason::Unavailable, out);
        }
    }

    /// Orders the server for which a slot was promised, unless it is not needed or not possible any more; then the slot
    /// is free, and everybody is asked anew.
    fn keep(&mut self, promise: Promise, out: &mut Vec<Output>) {
        let Promise { tenant: key, roles } = promise;
        let allows = |breaker: Breaker, role: Role| match breaker {
            Breaker::Closed => true,
            Breaker::Probing { .. } => role == Role::Probe,
            Breaker::Open { .. } => false,
        };
        let tenant = &self.tenants.table[key];
        let needed = tenant.waiters() > tenant.opening
            && tenant.slots() < tenant.allowance.ceiling
            && self.has_callers(tenant);
        let possible = allows(self.breaker, roles.cluster) && allows(tenant.breaker, roles.tenant);
        if needed && possible && self.free() > 0 {
            self.order(key, roles, out);
        } else {
            self.abandon(key, roles);
            self.resync(key);
        }
    }

    /// A login ended, or did not begin, without a verdict.
    pub(super) fn abandon(&mut self, key: u32, roles: Roles) {
        self.breaker.abandoned(self.now, roles.cluster);
        self.tenants.table[key].breaker.abandoned(self.now, roles.tenant);
    }

    fn slot_of(&self, permit: &Permit) -> Option<u32> {
        if permit.ledger() != self.config.ledger {
            return None;
        }
        self.slots.find(permit.server())
    }
}
