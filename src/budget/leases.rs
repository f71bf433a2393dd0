//! Leases: a request comes, waits, is cancelled; a server is granted and released.
//!
//! Owns rules 4.1, 4.5 and 4.6. The straight path, an idle server at hand and a release without anybody wanting it, is
//! O(1) and allocates nothing.

use super::breaker::Breaker;
use super::input::{Condition, Refusal};
use super::output::{CloseReason, Output, RejectReason};
use super::scheduler::Scheduler;
use super::slots::State;
use super::stops::Halt;
use super::tenants::{Standing, TenantState};
use crate::ids::{RequestId, ServerId, TenantId};
use crate::stats::Cause;
use crate::time::Moment;

/// What a request is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) request: RequestId,
    pub(super) tenant: TenantId,
    pub(super) deadline: Moment,
    pub(super) prefer: Option<ServerId>,
    pub(super) exempt: bool,
}

impl Scheduler {
    pub(super) fn acquire(&mut self, asked: Asked, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let Asked { request, tenant, deadline, prefer, exempt } = asked;
        if self.waiters.find(request).is_some() {
            return Err(Refusal::DuplicateRequest);
        }
        let Some(key) = self.tenants.find(tenant) else {
            out.push(Output::Reject { request, reason: RejectReason::UnknownTenant });
            return Ok(());
        };
        let state = &mut self.tenants.table[key];
        if state.demand.count_arrival(self.now, state.hold_us, state.busy) {
            out.push(Output::Needs { tenant, need: state.need(self.now) });
        }
        state.forget_past_halt(self.now);
        let may_begin = if exempt { Ok(self.now) } else { state.rate.ask(self.now) };
        // With a queue there is an idle server only behind something that stops it.
        let is_held_up = state.halt.is_some() || !state.queue.is_empty();
        if may_begin == Ok(self.now)
            && !is_held_up
            && let Some(slot) = self.idle_server(key, prefer)
        {
            self.slots.table[slot].visited = true;
            if !exempt {
                self.tenants.table[key].rate.count(self.now);
            }
            self.grant(slot, key, request, None, out);
            return Ok(());
        }
        let from = match self.admit(&self.tenants.table[key], deadline, may_begin, exempt) {
            Ok(from) => from,
            Err(reason) => {
                out.push(Output::Reject { request, reason });
                return Ok(());
            }
        };
        let state = &mut self.tenants.table[key];
        if !exempt {
            state.rate.count(self.now);
        }
        if state.queue.is_empty() {
            self.clock.bound_credit(state);
            state.forecast.restart();
        }
        self.newcomer = Some(self.waiters.push(self.now, request, (from, deadline), key, state));
        self.resync(key);
        Ok(())
    }

    pub(super) fn cancel(&mut self, request: RequestId, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let waiter = self.waiters.find(request).ok_or(Refusal::UnknownRequest)?;
        let key = self.waiters.table[waiter].tenant;
        self.waiters.remove(waiter, &mut self.tenants.table[key]);
        // Whoever stood behind it may not have to wait for what it waited for.
        self.serve_idle(key, out);
        self.resync(key);
        Ok(())
    }

    pub(super) fn release(
        &mut self,
        server: ServerId,
        condition: Condition,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let slot = self.slots.find(server).ok_or(Refusal::UnknownServer)?;
        let state = self.slots.table[slot].state;
        let State::Busy { since, charged_us } = state else {
            return Err(Refusal::WrongState(state.as_str()));
        };
        let key = self.slots.table[slot].tenant;
        self.settle(key, since, charged_us);
        match condition {
            Condition::Clean => {
                self.slots.rest(self.now, slot, &mut self.tenants.table[key]);
                self.pass_on(slot, key, out);
            }
            Condition::Broken => {
                self.slots.dismiss(self.now, slot, &mut self.tenants.table[key]);
                self.reject_hopeless(key, out);
            }
        }
        self.resync(key);
        Ok(())
    }

    /// Settles the account of a lease that ended.
    pub(super) fn settle(&mut self, key: u32, since: Moment, charged_us: u64) {
        let held_us = self.now.micros_since(since);
        self.tenants.table[key].settle(held_us, charged_us, self.clock.latest());
        self.reconnects.count_release();
    }

    /// Gives a server that is not leased (any more) to a request of its tenant.
    pub(super) fn grant(
        &mut self,
        slot: u32,
        key: u32,
        request: RequestId,
        cause: Option<Cause>,
        out: &mut Vec<Output>,
    ) {
        let tenant = &mut self.tenants.table[key];
        assert!(self.slots.table[slot].tenant == key, "a server serves its own tenant only");
        let charged_us = tenant.advance_us();
        let cost = super::fairness::cost(charged_us, tenant.allowance.weight);
        self.slots.lend(self.now, slot, tenant, charged_us);
        self.clock.follow(tenant);
        tenant.virtual_time = tenant.virtual_time.saturating_add(cost);
        out.push(Output::Grant { request, server: self.slots.table[slot].id, cause });
        self.resync_active(key);
    }

    /// Gives an idle server to the tenant's next waiter, if there is one and nothing stops it.
    pub(super) fn serve(&mut self, slot: u32, key: u32, out: &mut Vec<Output>) {
        if !self.has_callers(&self.tenants.table[key]) {
            return;
        }
        let Some(waiter) = self.waiters.pop(&mut self.tenants.table[key]) else { return };
        let tenant = &mut self.tenants.table[key];
        tenant.forecast.count(self.now);
        let cause = self.cause_of_wait(&self.tenants.table[key], waiter.since, waiter.began_with);
        self.grant(slot, key, waiter.request, Some(cause), out);
    }

    /// Decides who has a cleanly released, now idle server next: nobody, another tenant, its own tenant's next waiter,
    /// or whoever asks for it.
    fn pass_on(&mut self, slot: u32, key: u32, out: &mut Vec<Output>) {
        let tenant = &self.tenants.table[key];
        if tenant.standing == Standing::Leaving {
            return self.close(slot, CloseReason::TenantRemoved, out);
        }
        if tenant.is_draining(self.now) {
            return self.close(slot, CloseReason::Drained, out);
        }
        let spared = !tenant.is_above_reserve() && !self.is_overreserved();
        if self.slots.staying() > self.capacity.working() && !spared {
            return self.close(slot, CloseReason::Capacity, out);
        }
        let too_many = tenant.servers() > tenant.allowance.ceiling;
        match self.successor(slot, key) {
            Some(heir) if too_many => self.hand_over(slot, heir, CloseReason::Ceiling, out),
            Some(heir) => {
                let successor = self.tenants.table[heir].id;
                self.hand_over(slot, heir, CloseReason::Turn { successor }, out);
            }
            None if too_many => self.close(slot, CloseReason::Ceiling, out),
            None => self.serve(slot, key, out),
        }
    }

    /// Whether a request that is not served at once may wait, and from when on it may be served.
    fn admit(
        &self,
        tenant: &TenantState,
        deadline: Moment,
        may_begin: Result<Moment, u64>,
        exempt: bool,
    ) -> Result<Moment, RejectReason> {
        let halted = tenant.halted(self.now);
        if halted.is_some_and(|halted| halted.halt == Halt::Suspend) {
            return Err(RejectReason::Suspended);
        }
        if tenant.standing == Standing::Leaving {
            return Err(RejectReason::TenantRemoved);
        }
        if let Some(reason) = self.hopeless(tenant) {
            return Err(reason);
        }
        let all = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        if tenant.waiters() >= tenant.allowance.max_waiters || all >= self.config.max_waiters {
            return Err(RejectReason::QueueFull);
        }
        if deadline <= self.now {
            return Err(RejectReason::QueueTimeout { waited_us: 0, cause: self.cause(tenant).0 });
        }
        let from = may_begin.map_err(|retry_us| RejectReason::RateLimited { retry_us })?;
        if from >= deadline {
            // Whoever is not served takes no place in the rate.
            let retry_us = from.micros_since(deadline).saturating_add(1);
            return Err(RejectReason::RateLimited { retry_us });
        }
        // What an earlier queue was like says nothing.
        if !tenant.queue.is_empty()
            && let Some(expected_us) = tenant.forecast.wait_us(tenant.waiters())
            && self.config.refuses_hopeless_waits
            && !exempt
            && halted.is_none()
            && let retry_us = expected_us.saturating_sub(deadline.micros_since(self.now))
            && retry_us > 0
        {
            return Err(RejectReason::HopelessWait { expected_us, retry_us });
        }
        Ok(from)
    }

    /// Why waiting is of no use for a tenant: nothing can be opened for it, and none of its servers is running or
    /// logging in that could serve its waiters.
    pub(super) fn hopeless(&self, tenant: &TenantState) -> Option<RejectReason> {
        // An idle server stands beside waiters that something stops.
        let has_servers = tenant.busy > 0 || tenant.idle > 0 || tenant.opening > tenant.promised;
        if has_servers || tenant.halted(self.now).is_some() {
            return None;
        }
        // A promised slot helps only if its login is to be the probe.
        let shut = |breaker: Breaker| match breaker {
            Breaker::Closed => false,
            Breaker::Open { until, .. } => self.now < until,
            Breaker::Probing { .. } => tenant.promised == 0,
        };
        if shut(self.breaker) {
            return Some(RejectReason::Unavailable);
        }
        shut(tenant.breaker).then_some(RejectReason::Rejected)
    }

    /// Rejects the waiters of a tenant if waiting is of no use any more.
    pub(super) fn reject_hopeless(&mut self, key: u32, out: &mut Vec<Output>) {
        let Some(reason) = self.hopeless(&self.tenants.table[key]) else { return };
        self.reject_all(key, reason, out);
    }

    pub(super) fn reject_all(&mut self, key: u32, reason: RejectReason, out: &mut Vec<Output>) {
        while let Some(waiter) = self.waiters.pop(&mut self.tenants.table[key]) {
            out.push(Output::Reject { request: waiter.request, reason });
        }
        self.resync(key);
    }

    /// The tenant's idle server that the client had last, or the one that was used last.
    fn idle_server(&self, key: u32, prefer: Option<ServerId>) -> Option<u32> {
        let preferred = prefer.and_then(|server| self.slots.find(server)).filter(|slot| {
            let slot = &self.slots.table[*slot];
            slot.tenant == key && matches!(slot.state, State::Idle { .. })
        });
        preferred.or_else(|| self.tenants.table[key].resting.front())
    }
}

impl State {
    /// The state's name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Opening { .. } => "logging in",
            Self::Idle { .. } => "idle",
            Self::Busy { .. } => "leased",
            Self::Closing { .. } => "closing",
        }
    }
}
