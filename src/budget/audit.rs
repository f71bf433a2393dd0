//! A recount: every sum, list and promise of the scheduler, checked against the servers and waiters alone.
//!
//! Owns the invariants in the form of code (`docs/budgets.md`, Invariants). O(n), for tests and debugging; the scheduler
//! never calls it.

use std::collections::BTreeMap;

use super::config::OpenLatency;
use super::scheduler::Scheduler;
use super::slots::State;
use super::stops::Halted;
use super::tenants::{Part, Place, Standing, TenantState};
use super::wants::Desire;
use crate::time::Moment;

/// What a tenant has, counted from the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    opening: u32,
    promised: u32,
    idle: u32,
    busy: u32,
    closing: u32,
    starts_us: u128,
}

impl Scheduler {
    /// Recounts everything.
    ///
    /// # Errors
    /// In words, the first invariant that does not hold.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_slots()?;
        let mut parts = Part::default();
        let (mut weights, mut shares, mut waiting, mut patients, mut waiters) =
            (0_u64, 0_u64, 0_usize, 0_u32, 0_usize);
        let counts = self.recount();
        for (key, tenant) in self.tenants.table.iter() {
            let count = counts.get(&key).copied().unwrap_or_default();
            self.audit_tenant(key, tenant, count).map_err(|rule| format!("{:?}: {rule}", tenant.id))?;
            add(&mut parts, tenant.part);
            weights = weights.saturating_add(if tenant.active { tenant.allowance.weight.into() } else { 0 });
            shares = shares.saturating_add(if tenant.active { tenant.allowance.share.into() } else { 0 });
            waiting = waiting.saturating_add(usize::from(!tenant.queue.is_empty()));
            patients = patients.saturating_add(u32::from(tenant.place == Place::Patient));
            waiters = waiters.saturating_add(tenant.queue.iter(&self.waiters.table).count());
        }
        rule(parts == self.totals.sum, "the sums are the sums of the parts")?;
        rule(weights == self.clock.weights(), "the sum of weights is that of active tenants")?;
        rule(shares == self.clock.shares(), "the sum of shares is that of active tenants")?;
        rule(waiting == self.timers.len(), "exactly the tenants with waiters have a timer")?;
        rule(patients == self.patients.len(), "the patient tenants are in the list of patients")?;
        rule(waiters == self.waiters.len(), "every waiter is in its tenant's queue")?;
        let lenders = self.totals.lenders.iter(&self.tenants.table).count();
        let lending = self.tenants.table.iter().filter(|(_, tenant)| tenant.part.idle_over > 0).count();
        rule(lenders == lending, "tenants with idle servers above their share are lenders")?;
        self.audit_supply()
    }

    fn audit_slots(&self) -> Result<(), String> {
        let slots = &self.slots;
        let mut all = Count::default();
        for (_, slot) in slots.table.iter() {
            all.add(slot.state);
        }
        rule(slots.used() as usize == slots.table.len(), "used is the number of servers")?;
        let counts = (slots.opening, slots.idle, slots.busy, slots.closing, slots.promised);
        rule(
            counts == (all.opening, all.idle, all.busy, all.closing, all.promised),
            "servers are counted by state",
        )?;
        rule(
            slots.by_age.iter(&slots.table).count() == all.idle as usize,
            "idle servers are in the list by age",
        )?;
        let ages: Vec<_> = slots.by_age.iter(&slots.table).map(|slot| slots.idle_since(slot)).collect();
        rule(ages.is_sorted(), "the list by age is in order")?;
        let alive = all.idle.saturating_add(all.busy) as usize;
        rule(
            slots.by_birth.iter(&slots.table).count() == alive,
            "idle and leased servers are in the list by birth",
        )
    }

    /// What each tenant has. Promises count for the heir, not for the owner of the closing server.
    fn recount(&self) -> BTreeMap<u32, Count> {
        let mut counts: BTreeMap<u32, Count> = BTreeMap::new();
        for (_, slot) in self.slots.table.iter() {
            let count = counts.entry(slot.tenant).or_default();
            let promised = count.promised;
            count.add(slot.state);
            count.promised = promised;
            if let State::Closing { next: Some(promise) } = slot.state {
                let heir = counts.entry(promise.tenant).or_default();
                heir.promised = heir.promised.saturating_add(1);
                heir.opening = heir.opening.saturating_add(1);
            }
        }
        counts
    }

    fn audit_tenant(&self, key: u32, tenant: &TenantState, count: Count) -> Result<(), String> {
        let (opening, promised, idle) = (tenant.opening, tenant.promised, tenant.idle);
        let (busy, closing, starts_us) = (tenant.busy, tenant.closing, tenant.starts_us);
        rule(
            count == Count { opening, promised, idle, busy, closing, starts_us },
            "its servers are counted by state",
        )?;
        rule(
            tenant.resting.iter(&self.slots.table).count() == tenant.idle as usize,
            "its idle list is its idle servers",
        )?;
        rule(
            tenant.idle == 0 || !self.has_callers(tenant),
            "no idle server beside a waiter that may be served",
        )?;
        rule(tenant.active == tenant.is_active(), "it is active while it works or waits")?;
        let is_concerned = tenant.slots() > 0 || !tenant.queue.is_empty();
        let share = self.scale.of(tenant.allowance.share);
        rule(!is_concerned || tenant.share == share, "its share is what is left of it")?;
        rule(tenant.part == self.part(tenant), "its part of the sums is up to date")?;
        let leaving = tenant.standing == Standing::Leaving;
        rule(
            !leaving || (tenant.queue.is_empty() && tenant.idle == 0),
            "who leaves neither waits nor keeps idle servers",
        )?;
        self.audit_place(key, tenant)
    }

    fn audit_place(&self, key: u32, tenant: &TenantState) -> Result<(), String> {
        let waiters = || tenant.queue.iter(&self.waiters.table).map(|waiter| &self.waiters.table[waiter]);
        let earliest = waiters().map(|waiter| waiter.deadline).min().unwrap_or(Moment::NEVER);
        rule(tenant.next_deadline <= earliest, "no deadline is earlier than the next one")?;
        let halted = tenant.halt.is_some();
        rule(halted || earliest > self.now || earliest == Moment::NEVER, "nobody waits past the deadline")?;
        rule(waiters().map(|waiter| waiter.since).is_sorted(), "the queue is in order of arrival")?;
        let head = waiters().next().map_or(Moment::NEVER, |waiter| waiter.since);
        rule(head == tenant.head_since, "the head's wait is known")?;
        let ready = waiters().next().map_or(Moment::NEVER, |waiter| waiter.since.max(waiter.from));
        rule(ready == tenant.head_ready, "since when the head could be served is known")?;
        let due = self.timers.key(key).map_or(Moment::NEVER, |(due, _)| due);
        rule(
            tenant.queue.is_empty() || halted || due <= tenant.next_deadline,
            "the timer rings at the deadline",
        )?;
        let over = |halt: Halted| !tenant.queue.is_empty() && (halt.until <= self.now || due > halt.until);
        rule(!tenant.halt.is_some_and(over), "the timer rings at the end of a halt")?;
        for lane in 0..super::lanes::LANES {
            let there = self.lanes.key(lane, key);
            let expected = (tenant.place == Place::Lane(lane)).then_some((tenant.virtual_time, tenant.id));
            rule(there == expected, "it is in its lane only, by its virtual time")?;
        }
        // With measured latencies the patience of a queue is what it was when the tenant was looked at last.
        let exact = matches!(self.config.open_latency, OpenLatency::Fixed { .. });
        let firm = exact && !tenant.queue.is_empty() && self.desire(tenant, false) == Desire::Another;
        rule(!firm || matches!(tenant.place, Place::Lane(_)), "who wants another server is in a lane")
    }

    /// No lost wake-up: at the end of a step nobody wants what could be given.
    fn audit_supply(&self) -> Result<(), String> {
        let closable = |(_, tenant): (_, &TenantState)| {
            tenant.idle > 0 && (tenant.is_above_reserve() || self.is_overreserved())
        };
        rule(
            self.slots.staying() <= self.capacity.working() || !self.tenants.table.iter().any(closable),
            "too many servers: none that may be closed is idle",
        )?;
        if !matches!(self.gate(), super::breaker::Gate::Open) || self.free() == 0 {
            return Ok(());
        }
        for (_, tenant) in self.tenants.table.iter() {
            let Place::Lane(lane) = tenant.place else { continue };
            let band = super::lanes::band(lane);
            let served = self.is_capped(band)
                || self.is_long_blocked(lane)
                || (band == super::tenants::Band::Burst && self.free() <= self.config.headroom)
                || self.desire(tenant, self.slack()) != Desire::Another;
            rule(served, "no tenant wants a server while a slot is free for it")?;
        }
        Ok(())
    }
}

impl Count {
    fn add(&mut self, state: State) {
        let counter = match state {
            State::Opening { .. } => &mut self.opening,
            State::Idle { .. } => &mut self.idle,
            State::Busy { since, .. } => {
                self.starts_us = self.starts_us.saturating_add(u128::from(since.0));
                &mut self.busy
            }
            State::Closing { next } => {
                self.promised = self.promised.saturating_add(u32::from(next.is_some()));
                &mut self.closing
            }
        };
        *counter = counter.saturating_add(1);
    }
}

fn add(sum: &mut Part, part: Part) {
    sum.idle_over = sum.idle_over.saturating_add(part.idle_over);
    sum.idle_within = sum.idle_within.saturating_add(part.idle_within);
    sum.idle_floor = sum.idle_floor.saturating_add(part.idle_floor);
    sum.reserved = sum.reserved.saturating_add(part.reserved);
    sum.returning = sum.returning.saturating_add(part.returning);
    sum.stopped = sum.stopped.saturating_add(part.stopped);
    for (sum, part) in sum.long.iter_mut().zip(part.long) {
        *sum = sum.saturating_add(part);
    }
}

fn rule(holds: bool, words: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(words.to_owned()) }
}
