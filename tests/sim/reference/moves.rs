//! What the naive scheduler does to its servers, waiters and breakers.

use tenantry::budget::{BudgetConfig, CloseReason, RejectReason};

use super::{Breaker, Reference, Say, Server, State, cost};

impl Reference {
    pub(super) fn order(&mut self, tenant: u32, probes: (bool, bool)) {
        let latency = self.c.open_latency.expected_us();
        let t = self.tenants.get_mut(&tenant).expect("known");
        t.v += cost(latency, t.allowance.weight);
        let state = State::Opening { probes };
        self.servers.push(Server { tenant, state, born: self.now, birth: 0, visited: false });
        self.said.push(Say::Open(self.servers.len() - 1, tenant));
    }

    pub(super) fn begin(&mut self, tenant: u32) -> (bool, bool) {
        let now = self.now;
        let begin = |breaker: &mut Breaker| match *breaker {
            Breaker::Open { until, pause } if now >= until => {
                *breaker = Breaker::Probing { pause };
                true
            }
            _ => false,
        };
        (begin(&mut self.breaker), begin(&mut self.tenants.get_mut(&tenant).expect("known").breaker))
    }

    pub(super) fn abandon(&mut self, tenant: u32, probes: (bool, bool)) {
        abandon(&mut self.breaker, probes.0, self.now);
        abandon(&mut self.tenants.get_mut(&tenant).expect("known").breaker, probes.1, self.now);
    }

    pub(super) fn close(&mut self, server: usize, why: CloseReason, heir: Option<u32>) {
        let probes = heir.map(|heir| (heir, self.begin(heir)));
        self.leave_hand(server);
        self.servers[server].state = State::Closing { heir: probes };
        self.said.push(Say::Close(server, format!("{why:?}")));
    }

    pub(super) fn close_above(&mut self, tenant: u32, limit: u32, why: CloseReason) {
        while self.n(tenant) > limit {
            let mut idle = self.idle_servers().into_iter().map(|(_, _, number)| number);
            let Some(server) = idle.find(|number| self.servers[*number].tenant == tenant) else { return };
            self.close(server, why, None);
        }
    }

    pub(super) fn leave(&mut self, server: usize) {
        self.leave_hand(server);
        self.servers[server].state = State::Closing { heir: None };
    }

    pub(super) fn gone(&mut self, server: usize) {
        self.leave_hand(server);
        self.servers[server].state = State::Gone;
    }

    pub(super) fn leave_hand(&mut self, server: usize) {
        if self.hand == Some(server) {
            self.hand = self.alive().iter().skip_while(|number| **number != server).nth(1).copied();
        }
    }

    pub(super) fn born(&mut self, server: usize) {
        self.counter += 1;
        (self.servers[server].birth, self.servers[server].born) = (self.counter, self.now);
    }

    pub(super) fn rest(&mut self, server: usize) {
        self.counter += 1;
        self.servers[server].state = State::Idle { since: self.now, order: self.counter };
    }

    pub(super) fn serve(&mut self, server: usize) {
        let tenant = self.servers[server].tenant;
        if !self.calls(tenant) {
            return;
        }
        self.count_served(tenant);
        if let Some(head) = self.waiters.iter().position(|waiter| waiter.tenant == tenant) {
            let waiter = self.waiters.remove(head);
            self.grant(server, waiter.request);
        }
    }

    pub(super) fn grant(&mut self, server: usize, request: u64) {
        let tenant = self.servers[server].tenant;
        self.wake(tenant);
        let t = self.tenants.get_mut(&tenant).expect("known");
        let charged = t.hold.min(100_000);
        t.v += cost(charged, t.allowance.weight);
        self.servers[server].state = State::Busy { since: self.now, charged };
        self.said.push(Say::Grant(request, server));
    }

    pub(super) fn settle(&mut self, server: usize) {
        let State::Busy { since, charged } = self.servers[server].state else { return };
        let held = self.now - since;
        let most = self.v + cost(self.c.lag_max_us, 1);
        let t = self.tenants.get_mut(&self.servers[server].tenant).expect("known");
        let weight = t.allowance.weight;
        t.v = (t.v.saturating_sub(cost(charged, weight)) + cost(held, weight)).min(most);
        t.hold = (t.hold * 7 + held.min(5_000_000)) / 8;
        self.releases += 1;
    }

    pub(super) fn wake(&mut self, tenant: u32) {
        let (least, most) = (self.v, self.v + cost(self.c.lag_max_us, 1));
        let t = self.tenants.get_mut(&tenant).expect("known");
        if !std::mem::replace(&mut t.active, true) {
            t.v = t.v.clamp(least, most);
        }
    }

    pub(super) fn sleep_inactive(&mut self) {
        for tenant in self.tenants.keys().copied().collect::<Vec<_>>() {
            if !self.is_active(tenant) {
                self.tenants.get_mut(&tenant).expect("known").active = false;
            }
        }
    }

    pub(super) fn hopeless(&self, tenant: u32) -> Option<RejectReason> {
        let has_servers = self.busy(tenant) + self.idle(tenant) + self.logging_in(tenant) > 0;
        if has_servers || self.halted(tenant).is_some() {
            return None;
        }
        let promised = self.promised(tenant) > 0;
        let shut = |breaker| match breaker {
            Breaker::Probing { .. } => !promised,
            other => self.shut(other),
        };
        if shut(self.breaker) {
            return Some(RejectReason::Unavailable);
        }
        shut(self.tenants[&tenant].breaker).then_some(RejectReason::Rejected)
    }

    pub(super) fn reject_hopeless(&mut self, tenant: u32) {
        if let Some(reason) = self.hopeless(tenant) {
            self.reject_all(tenant, reason);
        }
    }

    pub(super) fn reject_all(&mut self, tenant: u32, reason: RejectReason) {
        for waiter in self.waiters.extract_if(.., |waiter| waiter.tenant == tenant) {
            self.said.push(Say::Reject(waiter.request, format!("{reason:?}")));
        }
    }

    pub(super) fn reject(&mut self, request: u64, reason: RejectReason) {
        self.said.push(Say::Reject(request, format!("{reason:?}")));
    }

    pub(super) fn forget_drained(&mut self) {
        let leaving =
            self.tenants.iter().filter(|(_, t)| t.leaving).map(|(tenant, _)| *tenant).collect::<Vec<_>>();
        for tenant in leaving {
            if self.count(tenant, |state| state != State::Gone) == 0 && self.promised(tenant) == 0 {
                self.tenants.remove(&tenant);
                self.said.push(Say::Drained(tenant));
            }
        }
    }
}

pub(super) fn abandon(breaker: &mut Breaker, probe: bool, now: u64) {
    if let (Breaker::Probing { pause }, true) = (*breaker, probe) {
        *breaker = Breaker::Open { until: now, pause };
    }
}

pub(super) fn fail(breaker: &mut Breaker, probe: bool, now: u64, c: &BudgetConfig) {
    let pause = match (*breaker, probe) {
        (Breaker::Closed, _) => c.backoff_min_us,
        (Breaker::Probing { pause }, true) => (pause * 2).min(c.backoff_max_us),
        _ => return,
    };
    *breaker = Breaker::Open { until: now + pause, pause };
}
