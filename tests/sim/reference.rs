//! The rules once more, as plainly as possible: no lists, no heaps, no sums; every question is a scan over everything.
//!
//! Written from `docs/budgets.md`, for small worlds. It shares no code with the scheduler apart from the types of inputs
//! and outputs. Logins are taken to last a fixed time (`OpenLatency::Fixed`).

use std::collections::BTreeMap;

use tenantry::budget::{BudgetConfig, CloseReason, Condition, OpenFailure, RejectReason};
use tenantry::ids::{RequestId, TenantId};
use tenantry::tenant::Allowance;

/// An output; servers are numbered in the order in which they were ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Say {
    Timeout(u64, u64),
    Grant(u64, usize),
    Open(usize, u32),
    Close(usize, String),
    Reject(u64, &'static str),
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
}

#[derive(Clone, Debug)]
struct Waiter {
    request: u64,
    tenant: u32,
    since: u64,
    deadline: u64,
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
        Self { c, now: 0, limit, working, grow_at: u64::MAX, servers, tenants: BTreeMap::new(), waiters, hand: None,
            counter: 0, v: 0, contended: false, tokens, releases: 0, window: 0, per_second: 0, breaker, said }
    }

    pub(super) fn step(&mut self, now: u64, event: Event) -> Vec<Say> {
        self.pass(now);
        match event {
            Event::Acquire { request, tenant, deadline, prefer } => self.acquire(request.0, tenant.0, deadline, prefer),
            Event::Cancel(request) => self.waiters.retain(|waiter| waiter.request != request.0),
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
            Event::RemoveTenant(tenant) => self.remove_tenant(tenant.0),
        }
        self.shed();
        self.supply();
        self.sleep_inactive();
        self.forget_drained();
        self.contended = self.free() == 0 && !self.waiters.is_empty();
        std::mem::take(&mut self.said)
    }

    fn pass(&mut self, now: u64) {
        let passed = now - self.now;
        self.now = now;
        let weights: u64 = self.tenants.values().filter(|t| t.active).map(|t| u64::from(t.allowance.weight)).sum();
        if self.contended && weights > 0 {
            self.v += passed * u64::from(self.limit) * 256 / weights;
        }
        let rate = |per_second: u64, c: &BudgetConfig| {
            (per_second * u64::from(c.reconnects_per_mille) / 1_000).max(u64::from(c.reconnects_per_second)).max(1)
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
        for waiter in self.waiters.extract_if(.., |waiter| waiter.deadline <= now) {
            self.said.push(Say::Timeout(waiter.request, now - waiter.since));
        }
        self.said.sort();
        self.sleep_inactive();
    }

    // ---- questions ----

    fn count(&self, tenant: u32, is: impl Fn(State) -> bool) -> u32 {
        self.servers.iter().filter(|server| server.tenant == tenant && is(server.state)).count() as u32
    }
    fn promised(&self, tenant: u32) -> u32 {
        let heir = |state| matches!(state, State::Closing { heir: Some((heir, _)) } if heir == tenant);
        self.servers.iter().filter(|server| heir(server.state)).count() as u32
    }
    fn logging_in(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Opening { .. }))
    }
    fn idle(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Idle { .. }))
    }
    fn busy(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Busy { .. }))
    }
    fn closing(&self, tenant: u32) -> u32 {
        self.count(tenant, |state| matches!(state, State::Closing { .. }))
    }
    fn n(&self, tenant: u32) -> u32 {
        self.promised(tenant) + self.logging_in(tenant) + self.idle(tenant) + self.busy(tenant)
    }
    fn queue(&self, tenant: u32) -> usize {
        self.waiters.iter().filter(|waiter| waiter.tenant == tenant).count()
    }
    fn used(&self) -> u32 {
        self.servers.iter().filter(|server| server.state != State::Gone).count() as u32
    }
    fn staying(&self) -> u32 {
        self.used() - self.servers.iter().filter(|server| matches!(server.state, State::Closing { .. })).count() as u32
    }
    fn free(&self) -> u32 {
        self.working.saturating_sub(self.used())
    }
    fn idle_servers(&self) -> Vec<(u64, u64, usize)> {
        let idle = |(number, server): (usize, &Server)| match server.state {
            State::Idle { since, order } => Some((order, since, number)),
            _ => None,
        };
        let mut all: Vec<_> = self.servers.iter().enumerate().filter_map(idle).collect();
        all.sort_unstable();
        all
    }
    fn slack(&self) -> bool {
        let stale = |since: u64| self.now - since >= self.c.stale_us;
        self.free() > self.c.headroom || self.idle_servers().first().is_some_and(|oldest| stale(oldest.1))
    }
    fn band(&self, tenant: u32, n: u32) -> usize {
        let a = self.tenants[&tenant].allowance;
        if n < a.floor.max(a.reserve) { 0 } else if n < a.share { 1 } else { 2 }
    }
    fn above_reserve(&self, tenant: u32) -> bool {
        self.n(tenant) - self.promised(tenant) > self.tenants[&tenant].allowance.reserve
    }
    fn over_share(&self, tenant: u32) -> bool {
        self.n(tenant) > self.tenants[&tenant].allowance.share && self.above_reserve(tenant)
    }
    fn ages(&self, tenant: u32) -> u64 {
        let age = |server: &Server| match server.state {
            State::Busy { since, .. } if server.tenant == tenant => self.now - since,
            _ => 0,
        };
        self.servers.iter().map(age).sum()
    }
    fn hold(&self, tenant: u32) -> u64 {
        self.tenants[&tenant].hold.max(self.ages(tenant).checked_div(u64::from(self.busy(tenant))).unwrap_or(0))
    }
    fn v_now(&self, tenant: u32) -> u64 {
        let t = &self.tenants[&tenant];
        let charged = t.hold.min(100_000) * u64::from(self.busy(tenant));
        t.v + cost(self.ages(tenant).saturating_sub(charged), t.allowance.weight)
    }
    fn class(&self, tenant: u32) -> usize {
        self.c.long_hold_us.iter().filter(|limit| self.tenants[&tenant].hold >= **limit).count()
    }
    fn shut(&self, breaker: Breaker) -> bool {
        match breaker {
            Breaker::Closed => false,
            Breaker::Open { until, .. } => self.now < until,
            Breaker::Probing { .. } => true,
        }
    }
    fn wants(&self, tenant: u32) -> bool {
        let t = &self.tenants[&tenant];
        let waiters = self.queue(tenant) as u32;
        let opening = self.promised(tenant) + self.logging_in(tenant);
        let slots = self.n(tenant) + self.closing(tenant);
        if waiters <= opening || slots >= t.allowance.ceiling || self.shut(t.breaker) {
            return false;
        }
        let have = u64::from(self.busy(tenant) + opening);
        let burst = self.band(tenant, self.n(tenant)) == 2;
        let patience = self.c.open_latency.expected_us() * if burst { 4 } else { 2 };
        let head = self.waiters.iter().find(|waiter| waiter.tenant == tenant).map_or(0, |waiter| self.now - waiter.since);
        have == 0
            || (opening == 0 && (self.slack() || head >= patience))
            || u64::from(waiters) * self.hold(tenant) > patience * have
    }
    fn capped(&self, band: usize) -> bool {
        let in_flight = |state| matches!(state, State::Opening { .. } | State::Closing { heir: Some(_) });
        let cap = self.c.opens_in_flight[band] * if self.slack() { 2 } else { 1 };
        self.servers.iter().filter(|server| in_flight(server.state)).count() as u32 >= cap
    }
    fn long_blocked(&self, class: usize) -> bool {
        let held = |from: usize| -> u32 {
            let long = self.tenants.keys().filter(|t| self.over_share(**t) && self.class(**t) >= from);
            long.map(|t| self.n(*t) - self.tenants[t].allowance.share).sum()
        };
        (1..=class).any(|class| held(class) >= (self.limit / self.c.long_hold_divisor[class - 1]).max(1))
    }
    /// The tenant that is served next, with its lane: band 0, band 1, and the burst band by class of holds.
    fn best(&self, barred: &[usize], except: Option<u32>) -> Option<(usize, u32)> {
        let lane = |t: u32| match self.band(t, self.n(t)) {
            2 => 2 + self.class(t),
            band => band,
        };
        let wanting = self.tenants.keys().copied().filter(|t| Some(*t) != except && self.wants(*t));
        let open = wanting.map(|t| (lane(t), t)).filter(|(lane, _)| {
            !barred.contains(lane) && (*lane < 3 || !self.long_blocked(*lane - 2))
        });
        open.min_by_key(|(lane, t)| ((*lane).min(2), self.tenants[t].v, *t))
    }

    // ---- inputs ----

    fn acquire(&mut self, request: u64, tenant: u32, deadline: u64, prefer: Option<usize>) {
        let Some(t) = self.tenants.get(&tenant) else { return self.reject(request, RejectReason::UnknownTenant) };
        let own = |number: &usize| self.servers[*number].tenant == tenant;
        let idle: Vec<usize> = self.idle_servers().into_iter().map(|(_, _, number)| number).filter(own).collect();
        if let Some(server) = prefer.filter(|server| idle.contains(server)).or(idle.last().copied()) {
            self.servers[server].visited = true;
            return self.grant(server, request);
        }
        if t.leaving {
            return self.reject(request, RejectReason::TenantRemoved);
        }
        if let Some(reason) = self.hopeless(tenant) {
            return self.reject(request, reason);
        }
        if self.queue(tenant) as u32 >= t.allowance.max_waiters || self.waiters.len() as u32 >= self.c.max_waiters {
            return self.reject(request, RejectReason::QueueFull);
        }
        if deadline <= self.now {
            return self.said.push(Say::Timeout(request, 0));
        }
        if self.queue(tenant) == 0 {
            let least = self.v.saturating_sub(cost(self.c.lag_max_us, 1));
            let t = self.tenants.get_mut(&tenant).expect("known");
            t.v = t.v.max(least);
        }
        self.wake(tenant);
        self.waiters.push(Waiter { request, tenant, since: self.now, deadline });
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
        } else if self.staying() > self.working {
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
            return (tenure >= self.c.better_band_tenure_us || self.queue(owner) == 0).then_some(heir);
        }
        let waiting = self.tenants.keys().filter(|t| self.queue(**t) > 0).count().max(1) as u64;
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
            if needed && room && allows(self.breaker, probes.0) && allows(t.breaker, probes.1) {
                self.order(heir, probes);
            } else {
                self.abandon(heir, probes);
            }
        }
        self.reject_hopeless(tenant);
    }

    fn set_tenant(&mut self, tenant: u32, a: Allowance) {
        let allowance = Allowance { reserve: a.reserve.min(a.ceiling), floor: a.floor.min(a.ceiling),
            share: a.share.min(a.ceiling), weight: a.weight.max(1), ..a };
        let new = Tenant { allowance, leaving: false, v: self.v, hold: 4_000, active: false, breaker: Breaker::Closed };
        let t = self.tenants.entry(tenant).or_insert(new);
        (t.allowance, t.leaving) = (allowance, false);
        // A change of weight is taken like a fresh start.
        t.active = false;
        self.close_above(tenant, allowance.ceiling, CloseReason::Ceiling);
        if self.busy(tenant) > 0 || self.queue(tenant) > 0 {
            self.wake(tenant);
        }
    }

    fn remove_tenant(&mut self, tenant: u32) {
        self.tenants.get_mut(&tenant).expect("known").leaving = true;
        self.reject_all(tenant, RejectReason::TenantRemoved);
        self.close_above(tenant, 0, CloseReason::TenantRemoved);
        for number in 0..self.servers.len() {
            if let State::Closing { heir: Some((heir, probes)) } = self.servers[number].state
                && heir == tenant
            {
                self.servers[number].state = State::Closing { heir: None };
                self.abandon(tenant, probes);
            }
        }
    }

    // ---- supply ----

    fn supply(&mut self) {
        let mut barred = Vec::new();
        while !self.shut(self.breaker) {
            let Some((lane, tenant)) = self.best(&barred, None) else { return };
            if !self.provide(lane.min(2), tenant) {
                barred.extend(if lane < 2 { lane..5 } else { lane..lane + 1 });
            }
        }
    }

    fn provide(&mut self, band: usize, tenant: u32) -> bool {
        if self.capped(band) {
            return false;
        }
        if self.free() > if band == 2 { self.c.headroom } else { 0 } {
            let probes = self.begin(tenant);
            self.order(tenant, probes);
            return true;
        }
        let paid = band == 2 && !self.slack();
        if paid && self.tokens < 1_000_000 {
            return false;
        }
        let Some(victim) = self.victim(tenant, band) else { return false };
        if paid {
            self.tokens -= 1_000_000;
        }
        self.close(victim, CloseReason::Evicted { successor: TenantId(tenant) }, Some(tenant));
        true
    }

    fn victim(&mut self, borrower: u32, band: usize) -> Option<usize> {
        let served_more = |owner| self.v_now(borrower) + cost(self.c.lead_us, 1) < self.tenants[&owner].v;
        let age = |owner| match band {
            0 | 1 => 0,
            _ if served_more(owner) => self.c.burst_idle_age_us,
            _ => self.c.stale_us.max(self.c.burst_idle_age_us),
        };
        if let Some(server) = self.borrowed(|owner, since| since + age(owner) <= self.now) {
            return Some(server);
        }
        let mut need = self.c.idle_age_us;
        if band == 2 {
            need = self.c.burst_idle_age_us.max(self.hold(borrower).min(self.c.collateral_max_us));
        } else {
            let head = self.waiters.iter().find(|waiter| waiter.tenant == borrower).map_or(0, |waiter| waiter.since);
            let borrowers = self.tenants.keys().filter(|t| self.over_share(**t) && self.class(**t) == 0);
            let returning = borrowers.map(|t| (self.n(*t) - self.tenants[t].allowance.share).min(self.busy(*t)));
            if returning.sum::<u32>() >= self.c.releases_awaited && self.now < head + self.c.release_patience_us {
                return None;
            }
        }
        self.sieve(need)
    }

    /// The longest idle server of each tenant above its share, the longest idle of these.
    fn borrowed(&self, ripe: impl Fn(u32, u64) -> bool) -> Option<usize> {
        let idle = self.idle_servers();
        let oldest = |tenant: u32| idle.iter().find(|(_, _, number)| self.servers[*number].tenant == tenant);
        let over = self.tenants.keys().filter(|t| self.over_share(**t));
        let ripe = over.filter_map(|t| oldest(*t).filter(|(_, since, _)| ripe(*t, *since)).map(|o| (o.1, *t, o.2)));
        ripe.min().map(|(_, _, number)| number)
    }

    fn sieve(&mut self, need: u64) -> Option<usize> {
        let ripe = |number: usize| match self.servers[number].state {
            State::Idle { since, .. } => {
                let owner = self.servers[number].tenant;
                since + need <= self.now && !self.over_share(owner) && self.above_reserve(owner)
            }
            _ => false,
        };
        let mut alive = self.alive();
        let start = self.hand.and_then(|hand| alive.iter().position(|number| *number == hand));
        alive.rotate_left(start.unwrap_or(0));
        let candidates: Vec<usize> = alive.into_iter().filter(|number| ripe(*number)).collect();
        let passed = candidates.iter().position(|number| !self.servers[*number].visited);
        for number in candidates.iter().take(passed.unwrap_or(candidates.len())) {
            self.servers[*number].visited = false;
        }
        let found = *candidates.get(passed.unwrap_or(0))?;
        let alive = self.alive();
        self.hand = alive.iter().skip_while(|number| **number != found).nth(1).copied();
        Some(found)
    }

    fn alive(&self) -> Vec<usize> {
        let lives = |number: &usize| matches!(self.servers[*number].state, State::Idle { .. } | State::Busy { .. });
        let mut alive: Vec<usize> = (0..self.servers.len()).filter(lives).collect();
        alive.sort_by_key(|number| self.servers[*number].birth);
        alive
    }

    fn shed(&mut self) {
        while self.staying() > self.working {
            let oldest = self.idle_servers().first().map(|(_, _, number)| *number);
            let Some(victim) = self.borrowed(|_, _| true).or_else(|| self.sieve(0)).or(oldest) else { return };
            self.close(victim, CloseReason::Capacity, None);
        }
    }

    // ---- moves ----

    fn order(&mut self, tenant: u32, probes: (bool, bool)) {
        let latency = self.c.open_latency.expected_us();
        let t = self.tenants.get_mut(&tenant).expect("known");
        t.v += cost(latency, t.allowance.weight);
        let state = State::Opening { probes };
        self.servers.push(Server { tenant, state, born: self.now, birth: 0, visited: false });
        self.said.push(Say::Open(self.servers.len() - 1, tenant));
    }

    fn begin(&mut self, tenant: u32) -> (bool, bool) {
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

    fn abandon(&mut self, tenant: u32, probes: (bool, bool)) {
        abandon(&mut self.breaker, probes.0, self.now);
        abandon(&mut self.tenants.get_mut(&tenant).expect("known").breaker, probes.1, self.now);
    }

    fn close(&mut self, server: usize, why: CloseReason, heir: Option<u32>) {
        let probes = heir.map(|heir| (heir, self.begin(heir)));
        self.leave_hand(server);
        self.servers[server].state = State::Closing { heir: probes };
        self.said.push(Say::Close(server, format!("{why:?}")));
    }

    fn close_above(&mut self, tenant: u32, limit: u32, why: CloseReason) {
        while self.n(tenant) > limit {
            let mut idle = self.idle_servers().into_iter().map(|(_, _, number)| number);
            let Some(server) = idle.find(|number| self.servers[*number].tenant == tenant) else { return };
            self.close(server, why, None);
        }
    }

    fn leave(&mut self, server: usize) {
        self.leave_hand(server);
        self.servers[server].state = State::Closing { heir: None };
    }

    fn gone(&mut self, server: usize) {
        self.leave_hand(server);
        self.servers[server].state = State::Gone;
    }

    fn leave_hand(&mut self, server: usize) {
        if self.hand == Some(server) {
            self.hand = self.alive().iter().skip_while(|number| **number != server).nth(1).copied();
        }
    }

    fn born(&mut self, server: usize) {
        self.counter += 1;
        (self.servers[server].birth, self.servers[server].born) = (self.counter, self.now);
    }

    fn rest(&mut self, server: usize) {
        self.counter += 1;
        self.servers[server].state = State::Idle { since: self.now, order: self.counter };
    }

    fn serve(&mut self, server: usize) {
        let tenant = self.servers[server].tenant;
        if let Some(head) = self.waiters.iter().position(|waiter| waiter.tenant == tenant) {
            let waiter = self.waiters.remove(head);
            self.grant(server, waiter.request);
        }
    }

    fn grant(&mut self, server: usize, request: u64) {
        let tenant = self.servers[server].tenant;
        self.wake(tenant);
        let t = self.tenants.get_mut(&tenant).expect("known");
        let charged = t.hold.min(100_000);
        t.v += cost(charged, t.allowance.weight);
        self.servers[server].state = State::Busy { since: self.now, charged };
        self.said.push(Say::Grant(request, server));
    }

    fn settle(&mut self, server: usize) {
        let State::Busy { since, charged } = self.servers[server].state else { return };
        let held = self.now - since;
        let most = self.v + cost(self.c.lag_max_us, 1);
        let t = self.tenants.get_mut(&self.servers[server].tenant).expect("known");
        let weight = t.allowance.weight;
        t.v = (t.v.saturating_sub(cost(charged, weight)) + cost(held, weight)).min(most);
        t.hold = (t.hold * 7 + held.min(5_000_000)) / 8;
        self.releases += 1;
    }

    fn wake(&mut self, tenant: u32) {
        let (least, most) = (self.v, self.v + cost(self.c.lag_max_us, 1));
        let t = self.tenants.get_mut(&tenant).expect("known");
        if !std::mem::replace(&mut t.active, true) {
            t.v = t.v.clamp(least, most);
        }
    }

    fn sleep_inactive(&mut self) {
        for tenant in self.tenants.keys().copied().collect::<Vec<_>>() {
            if self.busy(tenant) == 0 && self.queue(tenant) == 0 {
                self.tenants.get_mut(&tenant).expect("known").active = false;
            }
        }
    }

    fn hopeless(&self, tenant: u32) -> Option<RejectReason> {
        if self.busy(tenant) + self.logging_in(tenant) > 0 {
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

    fn reject_hopeless(&mut self, tenant: u32) {
        if let Some(reason) = self.hopeless(tenant) {
            self.reject_all(tenant, reason);
        }
    }

    fn reject_all(&mut self, tenant: u32, reason: RejectReason) {
        for waiter in self.waiters.extract_if(.., |waiter| waiter.tenant == tenant) {
            self.said.push(Say::Reject(waiter.request, reason.as_str()));
        }
    }

    fn reject(&mut self, request: u64, reason: RejectReason) {
        self.said.push(Say::Reject(request, reason.as_str()));
    }

    fn forget_drained(&mut self) {
        let leaving = self.tenants.iter().filter(|(_, t)| t.leaving).map(|(tenant, _)| *tenant).collect::<Vec<_>>();
        for tenant in leaving {
            if self.count(tenant, |state| state != State::Gone) == 0 && self.promised(tenant) == 0 {
                self.tenants.remove(&tenant);
                self.said.push(Say::Drained(tenant));
            }
        }
    }
}

fn abandon(breaker: &mut Breaker, probe: bool, now: u64) {
    if let (Breaker::Probing { pause }, true) = (*breaker, probe) {
        *breaker = Breaker::Open { until: now, pause };
    }
}

fn fail(breaker: &mut Breaker, probe: bool, now: u64, c: &BudgetConfig) {
    let pause = match (*breaker, probe) {
        (Breaker::Closed, _) => c.backoff_min_us,
        (Breaker::Probing { pause }, true) => (pause * 2).min(c.backoff_max_us),
        _ => return,
    };
    *breaker = Breaker::Open { until: now + pause, pause };
}
