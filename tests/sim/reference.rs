//! The rules once more, as plainly as possible: no lists, no heaps, no sums; every question is a scan over everything.
//!
//! Written from `docs/budgets.md`, for small worlds. It shares no code with the scheduler apart from the types of inputs
//! and outputs. Logins are taken to last a fixed time (`OpenLatency::Fixed`).

mod moves;
mod questions;
mod stops;
mod supply;

use std::collections::BTreeMap;

use moves::{abandon, fail};
use tenantry::budget::{BudgetConfig, CloseReason, Condition, Halt, OpenFailure, RejectReason};
use tenantry::ids::{RequestId, TenantId};
use tenantry::tenant::{Allowance, RateLimit};

/// An output; servers are numbered in the order in which they were ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Say {
    Timeout(u64, u64),
    Grant(u64, usize),
    Open(usize, u32),
    Close(usize, String),
    Reject(u64, String),
    Drained(u32),
}

/// An input, with servers by number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Acquire { request: RequestId, tenant: TenantId, deadline: u64, prefer: Option<usize> },
    Cancel(RequestId),
    Release(usize, Condition),
    Opened(usize),
    OpenFailed(usize, OpenFailure),
    Closed(usize),
    Lost(usize),
    Tick,
    SetCapacity(u32),
    SetTenant(TenantId, Allowance),
    SetRate(TenantId, Option<RateLimit>),
    Halt(TenantId, Halt, u64),
    Resume(TenantId),
    RemoveTenant(TenantId),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Breaker {
    Closed,
    Open { until: u64, pause: u64 },
    Probing { pause: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Opening { probes: (bool, bool) },
    Idle { since: u64, order: u64 },
    Busy { since: u64, charged: u64 },
    Closing { heir: Option<(u32, (bool, bool))> },
    Gone,
}

#[derive(Clone, Debug)]
struct Server {
    tenant: u32,
    state: State,
    born: u64,
    birth: u64,
    visited: bool,
}

#[derive(Clone, Debug)]
struct Tenant {
    allowance: Allowance,
    leaving: bool,
    v: u64,
    hold: u64,
    active: bool,
    breaker: Breaker,
    halt: Option<stops::Halted>,
    rate: Option<RateLimit>,
    /// When the next transaction would be due if they came evenly, in 1/256 us.
    due: u64,
    /// When the last request came, whether one has, and the mean and the least time between two.
    rhythm: (u64, bool, Option<(u64, u64)>),
    /// When those were served that waited in the present queue.
    gaps: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Waiter {
    request: u64,
    tenant: u32,
    since: u64,
    deadline: u64,
    from: u64,
}

/// The naive scheduler.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    c: BudgetConfig,
    now: u64,
    limit: u32,
    working: u32,
    grow_at: u64,
    servers: Vec<Server>,
    tenants: BTreeMap<u32, Tenant>,
    waiters: Vec<Waiter>,
    hand: Option<usize>,
    counter: u64,
    v: u64,
    contended: bool,
    /// By how much shares are scaled down, in 1/256.
    scale: u64,
    tokens: u64,
    releases: u64,
    window: u64,
    per_second: u64,
    breaker: Breaker,
    said: Vec<Say>,
}

fn cost(us: u64, weight: u32) -> u64 {
    us * 256 / u64::from(weight)
}

impl Reference {
    pub(super) fn new(c: BudgetConfig) -> Self {
        let tokens = (u64::from(c.reconnects_per_second).max(1) * 1_000_000 / 4).max(1_000_000);
        let (limit, working) = (c.capacity, c.capacity);
        let (servers, waiters, said) = (Vec::new(), Vec::new(), Vec::new());
        let breaker = Breaker::Closed;
        Self {
            c,
            now: 0,
            limit,
            working,
            grow_at: u64::MAX,
            servers,
            tenants: BTreeMap::new(),
            waiters,
            hand: None,
            counter: 0,
            v: 0,
            contended: false,
            scale: 256,
            tokens,
            releases: 0,
            window: 0,
            per_second: 0,
            breaker,
            said,
        }
    }

    pub(super) fn step(&mut self, now: u64, event: Event) -> Vec<Say> {
        self.pass(now);
        match event {
            Event::Acquire { request, tenant, deadline, prefer } => {
                self.acquire(request.0, tenant.0, deadline, prefer);
            }
            Event::Cancel(request) => {
                let gone =
                    self.waiters.iter().position(|waiter| waiter.request == request.0).expect("it waits");
                let tenant = self.waiters.remove(gone).tenant;
                self.serve_idle(tenant);
            }
            Event::Release(server, condition) => self.release(server, condition),
            Event::Opened(server) => self.opened(server),
            Event::OpenFailed(server, failure) => self.open_failed(server, failure),
            Event::Closed(server) => self.closed(server),
            Event::Lost(server) => self.leave(server),
            Event::Tick => {}
            Event::SetCapacity(limit) => {
                self.working = if self.working < self.limit { self.working.min(limit) } else { limit };
                self.limit = limit;
            }
            Event::SetTenant(tenant, allowance) => self.set_tenant(tenant.0, allowance),
            Event::SetRate(tenant, limit) => self.set_rate(tenant.0, limit),
            Event::Halt(tenant, halt, until) => self.halt(tenant.0, halt, until),
            Event::Resume(tenant) => {
                self.resume(tenant.0);
                self.serve_idle(tenant.0);
            }
            Event::RemoveTenant(tenant) => self.remove_tenant(tenant.0),
        }
        self.rescale();
        self.shed();
        self.supply();
        self.sleep_inactive();
        self.forget_drained();
        self.contended = self.free() == 0 && self.calling() > 0;
        std::mem::take(&mut self.said)
    }

    fn pass(&mut self, now: u64) {
        let passed = now - self.now;
        self.now = now;
        let weights: u64 =
            self.tenants.values().filter(|t| t.active).map(|t| u64::from(t.allowance.weight)).sum();
        if self.contended && weights > 0 {
            self.v += passed * u64::from(self.limit) * 256 / weights;
        }
        let rate = |per_second: u64, c: &BudgetConfig| {
            (per_second * u64::from(c.reconnects_per_mille) / 1_000)
                .max(u64::from(c.reconnects_per_second))
                .max(1)
        };
        let now_rate = rate(self.per_second, &self.c);
        self.tokens = (self.tokens + passed * now_rate).min((now_rate * 1_000_000 / 4).max(1_000_000));
        if now - self.window >= 1_000_000 {
            self.per_second = self.releases * 1_000_000 / (now - self.window);
            (self.releases, self.window) = (0, now);
        }
        while self.working < self.limit && now >= self.grow_at {
            self.working += 1;
            self.grow_at += self.c.capacity_recovery_us;
        }
        self.end_halts();
        self.expire();
        for tenant in self.tenants.keys().copied().collect::<Vec<_>>() {
            self.serve_idle(tenant);
        }
        self.sleep_inactive();
    }

    fn acquire(&mut self, request: u64, tenant: u32, deadline: u64, prefer: Option<usize>) {
        let now = self.now;
        let Some(t) = self.tenants.get_mut(&tenant) else {
            return self.reject(request, RejectReason::UnknownTenant);
        };
        let (last, asked, gaps) = t.rhythm;
        let since = (now - last).min(20_000_000);
        let gaps = match gaps {
            _ if !asked => None,
            None => Some((since, since)),
            Some((10_000_000.., least)) => Some((since, since.min(1_000.max(least * 2)))),
            Some((mean, least)) => {
                Some(((mean * 3 + since.min(mean * 4 + 1_000)) / 4, since.min(1_000.max(least * 2))))
            }
        };
        t.rhythm = (now, true, gaps);
        let t = &self.tenants[&tenant];
        let own = |number: &usize| self.servers[*number].tenant == tenant;
        let idle: Vec<usize> =
            self.idle_servers().into_iter().map(|(_, _, number)| number).filter(own).collect();
        let may_begin = self.may_begin(tenant);
        let is_free = may_begin == Ok(self.now) && self.halted(tenant).is_none() && self.queue(tenant) == 0;
        let chosen = prefer.filter(|server| idle.contains(server)).or(idle.last().copied());
        if let Some(server) = chosen.filter(|_| is_free) {
            self.servers[server].visited = true;
            self.count_begun(tenant);
            return self.grant(server, request);
        }
        if self.halted(tenant) == Some(Halt::Suspend) {
            return self.reject(request, RejectReason::Suspended);
        }
        if t.leaving {
            return self.reject(request, RejectReason::TenantRemoved);
        }
        if let Some(reason) = self.hopeless(tenant) {
            return self.reject(request, reason);
        }
        if self.queue(tenant) as u32 >= t.allowance.max_waiters
            || self.waiters.len() as u32 >= self.c.max_waiters
        {
            return self.reject(request, RejectReason::QueueFull);
        }
        if deadline <= self.now {
            return self.said.push(Say::Timeout(request, 0));
        }
        let from = match may_begin {
            Ok(from) => from,
            Err(retry_us) => return self.reject(request, RejectReason::RateLimited { retry_us }),
        };
        if from >= deadline {
            return self.reject(request, RejectReason::RateLimited { retry_us: from - deadline + 1 });
        }
        if let Some(reason) = self.hopeless_wait(tenant, deadline) {
            return self.reject(request, reason);
        }
        self.count_begun(tenant);
        if self.queue(tenant) == 0 {
            let least = self.v.saturating_sub(cost(self.c.lag_max_us, 1));
            let t = self.tenants.get_mut(&tenant).expect("known");
            t.v = t.v.max(least);
            t.gaps = Vec::new();
        }
        if self.halted(tenant).is_none() {
            self.wake(tenant);
        }
        self.waiters.push(Waiter { request, tenant, since: self.now, deadline, from });
    }

    fn release(&mut self, server: usize, condition: Condition) {
        let tenant = self.servers[server].tenant;
        self.settle(server);
        if condition == Condition::Broken {
            self.leave(server);
            return self.reject_hopeless(tenant);
        }
        self.rest(server);
        let t = &self.tenants[&tenant];
        let too_many = self.n(tenant) > t.allowance.ceiling;
        if t.leaving {
            self.close(server, CloseReason::TenantRemoved, None);
        } else if self.halted(tenant) == Some(Halt::Drain) {
            self.close(server, CloseReason::Drained, None);
        } else if self.staying() > self.working && (self.above_reserve(tenant) || self.overreserved()) {
            self.close(server, CloseReason::Capacity, None);
        } else if let Some(heir) = self.successor(server) {
            let turn = CloseReason::Turn { successor: TenantId(heir) };
            self.close(server, if too_many { CloseReason::Ceiling } else { turn }, Some(heir));
        } else if too_many {
            self.close(server, CloseReason::Ceiling, None);
        } else {
            self.serve(server);
        }
    }

    fn successor(&mut self, server: usize) -> Option<u32> {
        if self.breaker != Breaker::Closed {
            return None;
        }
        let owner = self.servers[server].tenant;
        let (lane, heir) = self.best(&[], Some(owner))?;
        let band = lane.min(2);
        if self.capped(band) {
            return None;
        }
        if self.n(owner) > self.tenants[&owner].allowance.ceiling {
            return Some(heir);
        }
        let held = self.band(owner, self.n(owner) - 1);
        let tenure = self.now - self.servers[server].born;
        if !self.above_reserve(owner) || band > held {
            return None;
        }
        if band < held {
            return (tenure >= self.c.better_band_tenure_us || !self.calls(owner)).then_some(heir);
        }
        let waiting = self.calling().max(1) as u64;
        let quantum = (self.c.round_us * u64::from(self.limit) / waiting)
            .max(self.c.quantum_min_us)
            .min(self.c.quantum_max_us);
        if tenure < quantum || self.v_now(owner) <= self.v_now(heir) + cost(self.c.lead_us, 1) {
            return None;
        }
        if band > 0 && !self.slack() {
            if self.tokens < 1_000_000 {
                return None;
            }
            self.tokens -= 1_000_000;
        }
        Some(heir)
    }

    fn opened(&mut self, server: usize) {
        let tenant = self.servers[server].tenant;
        self.breaker = Breaker::Closed;
        let t = self.tenants.get_mut(&tenant).expect("known");
        t.breaker = Breaker::Closed;
        let leaving = t.leaving;
        self.born(server);
        self.rest(server);
        if leaving {
            self.close(server, CloseReason::TenantRemoved, None);
        } else if self.halted(tenant) == Some(Halt::Drain) {
            self.close(server, CloseReason::Drained, None);
        } else if self.n(tenant) > self.tenants[&tenant].allowance.ceiling {
            self.close(server, CloseReason::Ceiling, None);
        } else {
            self.serve(server);
        }
    }

    fn open_failed(&mut self, server: usize, failure: OpenFailure) {
        let State::Opening { probes } = self.servers[server].state else { return self.closed(server) };
        let tenant = self.servers[server].tenant;
        self.gone(server);
        let (now, c) = (self.now, self.c.clone());
        let t = self.tenants.get_mut(&tenant).expect("known");
        match failure {
            OpenFailure::ServerFull => {
                self.breaker = Breaker::Closed;
                abandon(&mut t.breaker, probes.1, now);
                self.working = self.working.min(self.used());
                self.grow_at = now + self.c.capacity_recovery_us;
            }
            OpenFailure::Unavailable => {
                abandon(&mut t.breaker, probes.1, now);
                fail(&mut self.breaker, probes.0, now, &c);
                for tenant in self.tenants.keys().copied().collect::<Vec<_>>() {
                    if self.hopeless(tenant).is_some() {
                        self.reject_all(tenant, RejectReason::Unavailable);
                    }
                }
            }
            OpenFailure::Rejected => {
                self.breaker = Breaker::Closed;
                fail(&mut t.breaker, probes.1, now, &c);
                self.reject_hopeless(tenant);
            }
        }
    }

    fn closed(&mut self, server: usize) {
        let tenant = self.servers[server].tenant;
        let mut heir = None;
        match self.servers[server].state {
            State::Closing { heir: promised } => heir = promised,
            State::Busy { .. } => self.settle(server),
            State::Opening { probes } => self.abandon(tenant, probes),
            State::Idle { .. } | State::Gone => {}
        }
        self.gone(server);
        if let Some((heir, probes)) = heir {
            let t = &self.tenants[&heir];
            let allows = |breaker, probe| match breaker {
                Breaker::Closed => true,
                Breaker::Probing { .. } => probe,
                Breaker::Open { .. } => false,
            };
            let needed = self.queue(heir) as u32 > self.logging_in(heir) + self.promised(heir);
            let room = self.n(heir) + self.closing(heir) < t.allowance.ceiling && self.free() > 0;
            if needed
                && self.calls(heir)
                && room
                && allows(self.breaker, probes.0)
                && allows(t.breaker, probes.1)
            {
                self.order(heir, probes);
            } else {
                self.abandon(heir, probes);
            }
        }
        self.reject_hopeless(tenant);
    }

    fn set_tenant(&mut self, tenant: u32, a: Allowance) {
        let allowance = Allowance {
            reserve: a.reserve.min(a.ceiling),
            floor: a.floor.min(a.ceiling),
            share: a.share.min(a.ceiling),
            weight: a.weight.max(1),
            ..a
        };
        let new = Tenant {
            allowance,
            leaving: false,
            v: self.v,
            hold: 4_000,
            active: false,
            breaker: Breaker::Closed,
            halt: None,
            rate: None,
            due: 0,
            gaps: Vec::new(),
            rhythm: (self.now, false, None),
        };
        let t = self.tenants.entry(tenant).or_insert(new);
        (t.allowance, t.leaving) = (allowance, false);
        // A change of weight is taken like a fresh start.
        t.active = false;
        self.close_above(tenant, allowance.ceiling, CloseReason::Ceiling);
        if self.is_active(tenant) {
            self.wake(tenant);
        }
    }

    fn remove_tenant(&mut self, tenant: u32) {
        self.tenants.get_mut(&tenant).expect("known").leaving = true;
        self.reject_all(tenant, RejectReason::TenantRemoved);
        self.close_above(tenant, 0, CloseReason::TenantRemoved);
        self.take_promises_back(tenant);
    }
}
