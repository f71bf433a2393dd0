//! Halts, rates and predicted waits, naively: each request's time is computed when it comes, and moved when a halt ends.

use tenantry::budget::{CloseReason, Halt, RejectReason};
use tenantry::tenant::RateLimit;

use super::{Reference, Say, State};

/// An operator's halt: how, since when, until when.
pub(super) type Halted = (Halt, u64, u64);

impl Reference {
    pub(super) fn halted(&self, tenant: u32) -> Option<Halt> {
        self.tenants[&tenant].halt.filter(|(_, _, until)| self.now < *until).map(|(halt, ..)| halt)
    }

    /// Whether somebody waits who may be served.
    pub(super) fn calls(&self, tenant: u32) -> bool {
        let head = self.waiters.iter().find(|waiter| waiter.tenant == tenant);
        self.halted(tenant).is_none() && head.is_some_and(|waiter| waiter.from <= self.now)
    }

    pub(super) fn is_active(&self, tenant: u32) -> bool {
        self.busy(tenant) > 0 || (self.queue(tenant) > 0 && self.tenants[&tenant].halt.is_none())
    }

    pub(super) fn halt(&mut self, tenant: u32, halt: Halt, until: u64) {
        if until <= self.now {
            self.resume(tenant);
            return self.serve_idle(tenant);
        }
        let since =
            self.tenants[&tenant].halt.filter(|(_, _, until)| self.now < *until).map(|(_, since, _)| since);
        let now = self.now;
        self.tenants.get_mut(&tenant).expect("known").halt = Some((halt, since.unwrap_or(now), until));
        match halt {
            Halt::Pause => {}
            Halt::Suspend => self.reject_all(tenant, RejectReason::Suspended),
            Halt::Drain => {
                self.close_above(tenant, 0, CloseReason::Drained);
                self.take_promises_back(tenant);
            }
        }
    }

    pub(super) fn take_promises_back(&mut self, tenant: u32) {
        for number in 0..self.servers.len() {
            if let State::Closing { heir: Some((heir, probes)) } = self.servers[number].state
                && heir == tenant
            {
                self.servers[number].state = State::Closing { heir: None };
                self.abandon(tenant, probes);
            }
        }
    }

    /// Ends a halt.
    pub(super) fn resume(&mut self, tenant: u32) {
        let now = self.now;
        let Some((_, since, until)) = self.tenants.get_mut(&tenant).expect("known").halt.take() else {
            return;
        };
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.tenant == tenant) {
            waiter.deadline += until.min(now).saturating_sub(since.max(waiter.since));
            waiter.from = waiter.from.max(until.min(now));
        }
        self.tenants.get_mut(&tenant).expect("known").gaps = Vec::new();
    }

    pub(super) fn end_halts(&mut self) {
        for tenant in self.tenants.keys().copied().collect::<Vec<_>>() {
            if self.halted(tenant).is_none() {
                self.resume(tenant);
            }
        }
    }

    pub(super) fn expire(&mut self) {
        let halted: Vec<u32> = self.tenants.keys().copied().filter(|t| self.halted(*t).is_some()).collect();
        let now = self.now;
        let is_over = |waiter: &mut super::Waiter| waiter.deadline <= now && !halted.contains(&waiter.tenant);
        for waiter in self.waiters.extract_if(.., is_over) {
            self.said.push(Say::Timeout(waiter.request, now - waiter.since));
        }
    }

    /// Whoever may be served by now, and whose tenant has an idle server, has it.
    pub(super) fn serve_idle(&mut self, tenant: u32) {
        if self.is_active(tenant) {
            self.wake(tenant);
        }
        loop {
            let mut idle = self.idle_servers().into_iter().rev().map(|(_, _, number)| number);
            let Some(server) = idle.find(|number| self.servers[*number].tenant == tenant) else { return };
            if !self.calls(tenant) {
                return;
            }
            self.serve(server);
        }
    }

    pub(super) fn set_rate(&mut self, tenant: u32, limit: Option<RateLimit>) {
        let t = self.tenants.get_mut(&tenant).expect("known");
        if t.rate == limit {
            return;
        }
        (t.rate, t.due) = (limit, 0);
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.tenant == tenant) {
            waiter.from = waiter.from.min(self.now);
        }
        self.serve_idle(tenant);
    }

    /// When one more may begin, or after how long it is worth trying again.
    pub(super) fn may_begin(&self, tenant: u32) -> Result<u64, u64> {
        let t = &self.tenants[&tenant];
        let Some(limit) = t.rate else { return Ok(self.now) };
        let pause = 256_000_000 / u64::from(limit.per_second);
        let from = t.due.saturating_sub(pause * u64::from(limit.burst - 1)).div_ceil(256).max(self.now);
        let latest = self.now + u64::from(limit.delay_us);
        if from > latest { Err(from - latest) } else { Ok(from) }
    }

    pub(super) fn count_begun(&mut self, tenant: u32) {
        let now = self.now;
        let t = self.tenants.get_mut(&tenant).expect("known");
        if let Some(limit) = t.rate {
            t.due = t.due.max(now * 256) + 256_000_000 / u64::from(limit.per_second);
        }
    }

    /// How long one more would wait, if that is too long: as many gaps between two that are served as there are before it,
    /// and one. A gap counts as four times the mean at most.
    pub(super) fn hopeless_wait(&self, tenant: u32, deadline: u64) -> Option<RejectReason> {
        let times = &self.tenants[&tenant].gaps;
        if times.len() < 9 || self.queue(tenant) == 0 || self.halted(tenant).is_some() {
            return None;
        }
        let mut gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let first = gaps.next().expect("eight gaps");
        let gap = gaps.fold(first, |mean, gap| (mean * 7 + gap.min(mean * 4 + 1_000)) / 8);
        let expected_us = gap * (self.queue(tenant) as u64 + 1);
        let retry_us = expected_us.saturating_sub(deadline - self.now);
        (retry_us > 0).then_some(RejectReason::HopelessWait { expected_us, retry_us })
    }

    pub(super) fn count_served(&mut self, tenant: u32) {
        let now = self.now;
        self.tenants.get_mut(&tenant).expect("known").gaps.push(now);
    }

    /// Since when the tenant's first waiter could have been served.
    pub(super) fn ready(&self, tenant: u32) -> Option<u64> {
        self.waiters.iter().find(|waiter| waiter.tenant == tenant).map(|waiter| waiter.since.max(waiter.from))
    }
}
