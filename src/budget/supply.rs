//! Giving slots to tenants that want them.
//!
//! Owns rule 4.3 (the best lane first), the order of 4.4 (a free slot, then a victim's), the limits on logins, and the
//! decision at a release who comes next (4.5).

use super::breaker::Gate;
use super::lanes::{self, LANES};
use super::output::{CloseReason, Output};
use super::permit::Permit;
use super::scheduler::Scheduler;
use super::slots::{Promise, Roles};
use super::tenants::{Band, Place};
use super::victims::Obstacle;
use super::why::Blocked;
use crate::time::Moment;

impl Scheduler {
    /// Gives slots to wanting tenants until there is none left to give, none wants, or a brake holds.
    pub(super) fn supply(&mut self, out: &mut Vec<Output>) {
        self.retry_at = Moment::NEVER;
        if self.lanes.is_empty() && self.patients.is_empty() {
            return;
        }
        self.wake_patients();
        self.blocked = [None; LANES as usize];
        let mut barred = 0_u8;
        loop {
            match self.gate() {
                Gate::Open | Gate::Probe => {}
                Gate::Shut(until) => {
                    self.blocked = [Some(Blocked::Unreachable); LANES as usize];
                    self.retry_at = until;
                    self.note_obstacles();
                    return;
                }
            }
            let Some((lane, tenant)) = self.best(barred, None) else { break };
            if let Err((why, at)) = self.provide(lane, tenant, out) {
                self.retry_at = self.retry_at.min(at);
                barred |= self.bar(lane, why);
            }
        }
        self.note_obstacles();
        // Slack ends patience and loosens every brake.
        if (barred != 0 || !self.patients.is_empty()) && !self.slack() {
            let stale = self.slots.oldest_idle().map(|since| since.0.saturating_add(self.config.stale_us));
            self.retry_at = self.retry_at.min(Moment(stale.unwrap_or(u64::MAX)));
        }
    }

    /// The tenant that is served next, apart from one.
    pub(super) fn best(&mut self, barred: u8, except: Option<u32>) -> Option<(u8, u32)> {
        let mut best: Option<(lanes::Key, u8, u32)> = None;
        for lane in 0..LANES {
            if barred & (1 << lane) != 0 {
                continue;
            }
            if self.is_long_blocked(lane) {
                self.note(lane, Blocked::LongBorrowers);
                continue;
            }
            let Some((key, tenant)) = self.first_wanting(lane, except) else { continue };
            if lanes::band(lane) != Band::Burst {
                return Some((lane, tenant));
            }
            if best.is_none_or(|best| (key, lane, tenant) < best) {
                best = Some((key, lane, tenant));
            }
        }
        best.map(|(_, lane, tenant)| (lane, tenant))
    }

    /// Who gets the server that `owner` is about to release, if not the owner (rule 4.5).
    pub(super) fn successor(&mut self, slot: u32, owner: u32) -> Option<u32> {
        if (self.lanes.is_empty() && self.patients.is_empty()) || self.gate() != Gate::Open {
            return None;
        }
        self.resync_part(owner);
        self.wake_patients();
        let (lane, heir) = self.best(0, Some(owner))?;
        let (band, now) = (lanes::band(lane), self.now);
        if self.is_capped(band) {
            return None;
        }
        let (tenant, other) = (&self.tenants.table[owner], &self.tenants.table[heir]);
        if tenant.servers() > tenant.allowance.ceiling {
            return Some(heir);
        }
        if !tenant.is_above_reserve() {
            return None;
        }
        let held = tenant.band(tenant.servers().saturating_sub(1));
        let tenure_us = now.micros_since(self.slots.table[slot].born);
        if band < held {
            let due = tenure_us >= self.config.better_band_tenure_us || !self.has_callers(tenant);
            return due.then_some(heir);
        }
        let lead = super::fairness::cost(self.config.lead_us, 1);
        let ahead = tenant.virtual_time_now(now) > other.virtual_time_now(now).saturating_add(lead);
        if band != held || tenure_us < self.quantum_us() || !ahead {
            return None;
        }
        (band == Band::Floor || self.slack() || self.reconnects.spend()).then_some(heir)
    }

    /// Takes a slot for a tenant and orders its server.
    pub(super) fn order(&mut self, key: u32, roles: Roles, out: &mut Vec<Output>) {
        assert!(self.slots.used() < self.capacity.working(), "there is never a server beyond the capacity");
        let cost_us = self.latency.expected_us();
        let tenant = &mut self.tenants.table[key];
        let server = self.slots.order(self.now, key, tenant, roles);
        // A login is slot-time too, and it is on the account of the tenant that needs it.
        tenant.virtual_time =
            tenant.virtual_time.saturating_add(super::fairness::cost(cost_us, tenant.allowance.weight));
        let permit = Permit::new(server, self.config.ledger);
        out.push(Output::Open { permit, server, tenant: tenant.id });
        self.resync(key);
    }

    /// Closes a server that is not leased (any more), and promises its slot to `heir`.
    pub(super) fn hand_over(&mut self, slot: u32, heir: u32, why: CloseReason, out: &mut Vec<Output>) {
        let roles = self.begin_login(heir);
        self.close(slot, why, out);
        let tenant = &mut self.tenants.table[heir];
        self.slots.promise(slot, Promise { tenant: heir, roles }, tenant);
        self.resync(heir);
    }

    /// Closes a server that is not leased (any more).
    pub(super) fn close(&mut self, slot: u32, why: CloseReason, out: &mut Vec<Output>) {
        let (server, owner) = (self.slots.table[slot].id, self.slots.table[slot].tenant);
        self.slots.dismiss(self.now, slot, &mut self.tenants.table[owner]);
        out.push(Output::Close { server, why });
        self.resync(owner);
    }

    /// Tells both breakers that a login for this tenant begins.
    pub(super) fn begin_login(&mut self, key: u32) -> Roles {
        let cluster = self.breaker.begin(self.now);
        Roles { cluster, tenant: self.tenants.table[key].breaker.begin(self.now) }
    }

    /// Whether too many logins are under way for one more of that band.
    pub(super) fn is_capped(&self, band: Band) -> bool {
        let cap = self.config.opens_in_flight.get(band.index()).copied().unwrap_or(0);
        let cap = if self.slack() { cap.saturating_mul(2) } else { cap };
        self.slots.in_flight() >= cap
    }

    /// How long a tenant keeps a server while others of the same band wait: a full round among them takes the time that
    /// is meant for it, within limits.
    pub(super) fn quantum_us(&self) -> u64 {
        let waiting = u64::try_from(self.calling_tenants()).unwrap_or(u64::MAX).max(1);
        let slots = u64::from(self.capacity.limit());
        let share = self.config.round_us.saturating_mul(slots) / waiting;
        share.max(self.config.quantum_min_us).min(self.config.quantum_max_us)
    }

    /// Gives a slot to a tenant, or says what stands in the way.
    fn provide(&mut self, lane: u8, key: u32, out: &mut Vec<Output>) -> Result<(), Obstacle> {
        let band = lanes::band(lane);
        if self.is_capped(band) {
            return Err((Blocked::LoginsInFlight, Moment::NEVER));
        }
        let spare = if band == Band::Burst { self.config.headroom } else { 0 };
        if self.free() > spare {
            let roles = self.begin_login(key);
            self.order(key, roles, out);
            return Ok(());
        }
        let paid = band == Band::Burst && !self.slack();
        if paid && !self.reconnects.has_token() {
            return Err((Blocked::ReconnectBudget, self.reconnects.next_token(self.now)));
        }
        let victim = self.victim(key, band)?;
        if paid {
            self.reconnects.spend();
        }
        let successor = self.tenants.table[key].id;
        self.hand_over(victim, key, CloseReason::Evicted { successor }, out);
        Ok(())
    }

    /// The first tenant of a lane that still wants; those that do not (the slack is gone) are put where they belong.
    fn first_wanting(&mut self, lane: u8, except: Option<u32>) -> Option<(lanes::Key, u32)> {
        while let Some((key, tenant)) = self.lanes.first(lane, except) {
            self.resync_place(tenant);
            if self.tenants.table[tenant].place == Place::Lane(lane) {
                return Some((key, tenant));
            }
        }
        None
    }

    /// The lanes that must not be served before `lane` is. Bands are strict; long borrowers that wait for staler idle
    /// servers do not stand in the way of shorter ones.
    fn bar(&mut self, lane: u8, why: Blocked) -> u8 {
        let everything_below = match lanes::band(lane) {
            Band::Floor | Band::Share => true,
            Band::Burst => false,
        };
        let mut barred = 0_u8;
        for other in lane..LANES {
            if other == lane || everything_below {
                self.note(other, why);
                barred |= 1 << other;
            }
        }
        barred
    }

    fn note(&mut self, lane: u8, why: Blocked) {
        if let Some(blocked) = self.blocked.get_mut(usize::from(lane)) {
            *blocked = Some(why);
        }
    }

    /// Whether long borrowers hold all that they may hold together.
    pub(super) fn is_long_blocked(&self, lane: u8) -> bool {
        let [long, very_long] = self.totals.sum.long;
        let [long_divisor, very_long_divisor] = self.config.long_hold_divisor;
        let limit = |divisor: u32| (self.capacity.limit() / divisor.max(1)).max(1);
        match lane {
            3 => long.saturating_add(very_long) >= limit(long_divisor),
            4 => {
                very_long >= limit(very_long_divisor) || long.saturating_add(very_long) >= limit(long_divisor)
            }
            _ => false,
        }
    }
}
