//! Questions to the naive scheduler: each is a scan over everything.

use super::{Breaker, Reference, Server, State, Tenant, cost};

impl Reference {
    pub(super) fn count(&self, tenant: u32, is: impl Fn(State) -> bool) -> u32 {
        self.servers.iter().filter(|server| server.tenant == tenant && is(server.state)).count() as u32
    }
    pub(super) fn promised(&self, tenant: u32) -> u32 {
        let heir = |state| matches!(state, State::Closing { heir: Some((heir, _)) } if heir == tenant);
        self.servers.iter().filter(|server| heir(server.state)).count() as u32
    }
    pub(super) fn logging_in(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Opening { .. }))
    }
    pub(super) fn idle(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Idle { .. }))
    }
    pub(super) fn busy(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Busy { .. }))
    }
    pub(super) fn closing(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Closing { .. }))
    }
    pub(super) fn n(&self, tenant: u32) -> u32 {
        self.promised(tenant) + self.logging_in(tenant) + self.idle(tenant) + self.busy(tenant)
    }
    pub(super) fn queue(&self, tenant: u32) -> usize {
        self.waiters.iter().filter(|waiter| waiter.tenant == tenant).count()
    }
    /// Tenants that wait and are not stopped.
    pub(super) fn calling(&self) -> usize {
        self.tenants.keys().filter(|tenant| self.calls(**tenant)).count()
    }
    pub(super) fn used(&self) -> u32 {
        self.servers.iter().filter(|server| server.state != State::Gone).count() as u32
    }
    pub(super) fn staying(&self) -> u32 {
        self.used()
            - self.servers.iter().filter(|server| matches!(server.state, State::Closing { .. })).count()
                as u32
    }
    pub(super) fn free(&self) -> u32 {
        self.working.saturating_sub(self.used())
    }
    pub(super) fn idle_servers(&self) -> Vec<(u64, u64, usize)> {
        let idle = |(number, server): (usize, &Server)| match server.state {
            State::Idle { since, order } => Some((order, since, number)),
            _ => None,
        };
        let mut all: Vec<_> = self.servers.iter().enumerate().filter_map(idle).collect();
        all.sort_unstable();
        all
    }
    pub(super) fn slack(&self) -> bool {
        let stale = |since: u64| self.now - since >= self.c.stale_us;
        self.free() > self.c.headroom || self.idle_servers().first().is_some_and(|oldest| stale(oldest.1))
    }
    /// What is left of a tenant's share.
    pub(super) fn share(&self, tenant: u32) -> u32 {
        let share = self.tenants[&tenant].allowance.share;
        ((u64::from(share) * 256 / self.scale) as u32).max(1).min(share)
    }
    /// Shares of active tenants that are more than there are servers are scaled down; by something else when that is a
    /// quarter more or less, or when there are enough.
    pub(super) fn rescale(&mut self) {
        let active = self.tenants.iter().filter(|(id, _)| self.is_active(**id));
        let sum: u64 = active.map(|(_, t)| u64::from(t.allowance.share)).sum();
        let scale = (sum * 256 / u64::from(self.limit.max(1))).max(256);
        if scale == 256 || scale * 4 >= self.scale * 5 || scale * 4 <= self.scale * 3 {
            self.scale = scale;
        }
    }
    pub(super) fn band(&self, tenant: u32, n: u32) -> usize {
        let a = self.tenants[&tenant].allowance;
        if n < a.floor.max(a.reserve) {
            0
        } else if n < self.share(tenant) {
            1
        } else {
            2
        }
    }
    /// Reserves alone are more than there is room for.
    pub(super) fn overreserved(&self) -> bool {
        let reserved = |(id, t): (&u32, &Tenant)| {
            if t.leaving { 0 } else { (self.n(*id) - self.promised(*id)).min(t.allowance.reserve) }
        };
        self.tenants.iter().map(reserved).sum::<u32>() > self.working
    }

    pub(super) fn above_reserve(&self, tenant: u32) -> bool {
        self.n(tenant) - self.promised(tenant) > self.tenants[&tenant].allowance.reserve
    }
    pub(super) fn over_share(&self, tenant: u32) -> bool {
        self.n(tenant) > self.share(tenant) && self.above_reserve(tenant)
    }
    pub(super) fn ages(&self, tenant: u32) -> u64 {
        let age = |server: &Server| match server.state {
            State::Busy { since, .. } if server.tenant == tenant => self.now - since,
            _ => 0,
        };
        self.servers.iter().map(age).sum()
    }
    pub(super) fn hold(&self, tenant: u32) -> u64 {
        self.tenants[&tenant]
            .hold
            .max(self.ages(tenant).checked_div(u64::from(self.busy(tenant))).unwrap_or(0))
    }
    pub(super) fn v_now(&self, tenant: u32) -> u64 {
        let t = &self.tenants[&tenant];
        let charged = t.hold.min(100_000) * u64::from(self.busy(tenant));
        t.v + cost(self.ages(tenant).saturating_sub(charged), t.allowance.weight)
    }
    pub(super) fn class(&self, tenant: u32) -> usize {
        self.c.long_hold_us.iter().filter(|limit| self.tenants[&tenant].hold >= **limit).count()
    }
    pub(super) fn shut(&self, breaker: Breaker) -> bool {
        match breaker {
            Breaker::Closed => false,
            Breaker::Open { until, .. } => self.now < until,
            Breaker::Probing { .. } => true,
        }
    }
    pub(super) fn wants(&self, tenant: u32) -> bool {
        let t = &self.tenants[&tenant];
        let waiters = self.queue(tenant) as u32;
        let opening = self.promised(tenant) + self.logging_in(tenant);
        let slots = self.n(tenant) + self.closing(tenant);
        if !self.calls(tenant) || waiters <= opening || slots >= t.allowance.ceiling || self.shut(t.breaker) {
            return false;
        }
        let have = u64::from(self.busy(tenant) + opening);
        let burst = self.band(tenant, self.n(tenant)) == 2;
        let patience = self.c.open_latency.expected_us() * if burst { 4 } else { 2 };
        let head = self.ready(tenant).map_or(0, |ready| self.now - ready);
        have == 0
            || (opening == 0 && (self.slack() || head >= patience))
            || u64::from(waiters) * self.hold(tenant) > patience * have
    }
    pub(super) fn capped(&self, band: usize) -> bool {
        let in_flight = |state| matches!(state, State::Opening { .. } | State::Closing { heir: Some(_) });
        let cap = self.c.opens_in_flight[band] * if self.slack() { 2 } else { 1 };
        self.servers.iter().filter(|server| in_flight(server.state)).count() as u32 >= cap
    }
    pub(super) fn long_blocked(&self, class: usize) -> bool {
        let held = |from: usize| -> u32 {
            let long = self.tenants.keys().filter(|t| self.over_share(**t) && self.class(**t) >= from);
            long.map(|t| (self.n(*t) - self.share(*t)).saturating_sub(self.idle(*t))).sum()
        };
        (1..=class).any(|class| held(class) >= (self.limit / self.c.long_hold_divisor[class - 1]).max(1))
    }
    /// The tenant that is served next, with its lane: band 0, band 1, and the burst band by class of holds.
    pub(super) fn best(&self, barred: &[usize], except: Option<u32>) -> Option<(usize, u32)> {
        let lane = |t: u32| match self.band(t, self.n(t)) {
            2 => 2 + self.class(t),
            band => band,
        };
        let wanting = self.tenants.keys().copied().filter(|t| Some(*t) != except && self.wants(*t));
        let open = wanting
            .map(|t| (lane(t), t))
            .filter(|(lane, _)| !barred.contains(lane) && (*lane < 3 || !self.long_blocked(*lane - 2)));
        open.min_by_key(|(lane, t)| ((*lane).min(2), self.tenants[t].v, *t))
    }
}
