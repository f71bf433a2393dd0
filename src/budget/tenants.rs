//! What the scheduler knows of a tenant: its allowance, its servers by state, its queue, its past.
//!
//! Owns the table of tenants and what can be computed from one tenant alone: bands, expected holds, virtual time. Must
//! not know other tenants, nor decide who is served.

use super::breaker::Breaker;
use super::demand::Demand;
use super::fairness;
use super::forecast::Forecast;
use super::links::{Link, Linked, List};
use super::slots::OfTenant;
use super::stops::{Halt, Halted};
use super::table::{IdMap, Table};
use super::waiters::Queue;
use crate::ids::TenantId;
use crate::stats::Cause;
use crate::tenant::{Allowance, Meter};
use crate::time::Moment;

/// One tenant.
#[derive(Clone, Debug)]
pub(super) struct TenantState {
    pub(super) id: TenantId,
    pub(super) allowance: Allowance,
    /// Its share as far as there are servers for the shares of all, as of when it was looked at last.
    pub(super) share: u32,
    pub(super) standing: Standing,

    /// Servers logging in, promised ones included.
    pub(super) opening: u32,
    /// Slots of other servers that are closing and will be ours.
    pub(super) promised: u32,
    pub(super) idle: u32,
    pub(super) busy: u32,
    /// Our own servers on their way out; no part of [`TenantState::servers`].
    pub(super) closing: u32,
    /// Idle servers, the one used last in front.
    pub(super) resting: List<OfTenant>,

    /// Waiting requests, the oldest in front.
    pub(super) queue: List<Queue>,
    /// When the oldest one came.
    pub(super) head_since: Moment,
    /// Since when it could have been served: what stopped it before is no reason to hurry.
    pub(super) head_ready: Moment,
    /// No waiter's deadline is earlier than this.
    pub(super) next_deadline: Moment,
    /// Whether deadlines rise along the queue (they do unless the driver shortened its limit).
    pub(super) deadlines_rise: bool,

    /// Slot-time used, by weight (see [`fairness`]).
    pub(super) virtual_time: u64,
    /// Mean hold of finished leases.
    pub(super) hold_us: u64,
    /// Sum of the starts of running leases.
    pub(super) starts_us: u128,
    /// Whether it counts in the sum of weights.
    pub(super) active: bool,
    /// Whether Postgres lets it in.
    pub(super) breaker: Breaker,
    /// What it needs and what is usual for it.
    pub(super) demand: Demand,
    /// How fast its queue moves.
    pub(super) forecast: Forecast,

    /// The halt that an operator has put on it; it may be over already.
    pub(super) halt: Option<Halted>,
    /// What it has begun of the transactions that it may begin.
    pub(super) rate: Meter,

    /// What it adds to the sums over all tenants.
    pub(super) part: Part,
    /// Where it stands among those that wait.
    pub(super) place: Place,
    /// Why it waits, unless it is in a lane, and since when it stands there.
    pub(super) cause: (Cause, Moment),
    pub(super) lenders: Link,
    pub(super) patients: Link,
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is.
    Active,
    /// It is being removed.
    Leaving,
}

/// What a tenant adds to the sums over all tenants ([`super::victims::Totals`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Idle servers of a tenant above its share; it is in the list of lenders if there are any.
    pub(super) idle_over: u32,
    /// Idle servers of a tenant within its share, above its reserve.
    pub(super) idle_within: u32,
    /// Those of them whose owner has no more than its floor.
    pub(super) idle_floor: u32,
    /// Servers under the reserve, in any state but closing.
    pub(super) reserved: u32,
    /// Running short leases above the share.
    pub(super) returning: u32,
    /// Servers above the share, of long and very long borrowers.
    pub(super) long: [u32; 2],
    /// 1 if it waits, and something stops it.
    pub(super) stopped: u32,
}

/// Where a tenant stands among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It wants nothing.
    Nowhere,
    /// It wants another server.
    Lane(u8),
    /// Its own servers will do, unless slots lie about unused.
    Patient,
}

/// How much a tenant's next (or last) server matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// Below the floor (or a reserve): always first.
    Floor,
    /// Below the share.
    Share,
    /// Above the share: borrowed.
    Burst,
}

impl Band {
    /// Its number: 0 to 2, the smaller the better.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Floor => 0,
            Self::Share => 1,
            Self::Burst => 2,
        }
    }
}

impl TenantState {
    pub(super) fn new(id: TenantId, allowance: Allowance, now: Moment, virtual_time: u64) -> Self {
        let allowance = coherent(allowance);
        Self {
            id,
            share: allowance.share,
            allowance,
            standing: Standing::Active,
            opening: 0,
            promised: 0,
            idle: 0,
            busy: 0,
            closing: 0,
            resting: List::new(),
            queue: List::new(),
            head_since: Moment::NEVER,
            head_ready: Moment::NEVER,
            next_deadline: Moment::NEVER,
            deadlines_rise: true,
            virtual_time,
            hold_us: FIRST_HOLD_US,
            starts_us: 0,
            active: false,
            breaker: Breaker::Closed,
            demand: Demand::new(now),
            forecast: Forecast::default(),
            halt: None,
            rate: Meter::default(),
            part: Part::default(),
            place: Place::Nowhere,
            cause: (Cause::OwnServers, now),
            lenders: Link::default(),
            patients: Link::default(),
        }
    }

    /// Servers it has or is about to have.
    pub(super) const fn servers(&self) -> u32 {
        self.opening.saturating_add(self.idle).saturating_add(self.busy)
    }

    /// All of Postgres' slots that are taken in its name.
    pub(super) const fn slots(&self) -> u32 {
        self.servers().saturating_add(self.closing)
    }

    pub(super) const fn waiters(&self) -> u32 {
        self.queue.len()
    }

    /// Servers that it needs, in 1/256: by what came lately, and at least those that work for it.
    pub(super) fn need(&self, now: Moment) -> u32 {
        self.demand.need(now).max(self.busy.saturating_mul(256))
    }

    /// A halt that is over leaves nothing behind, unless somebody waited for that.
    pub(super) fn forget_past_halt(&mut self, now: Moment) {
        if self.queue.is_empty() && self.halted(now).is_none() {
            self.halt = None;
        }
    }

    /// Whether it works or waits, and so takes part in the sharing out of time.
    pub(super) fn is_active(&self) -> bool {
        self.busy > 0 || (!self.queue.is_empty() && self.halt.is_none())
    }

    /// The halt that holds now.
    pub(super) fn halted(&self, now: Moment) -> Option<Halted> {
        self.halt.filter(|halted| now < halted.until)
    }

    /// Whether an operator wants it to give up its servers.
    pub(super) fn is_draining(&self, now: Moment) -> bool {
        self.halted(now).is_some_and(|halted| halted.halt == Halt::Drain)
    }

    /// The band of the next server when it has `servers`.
    pub(super) fn band(&self, servers: u32) -> Band {
        if servers < self.allowance.floor.max(self.allowance.reserve) {
            Band::Floor
        } else if servers < self.share {
            Band::Share
        } else {
            Band::Burst
        }
    }

    /// Whether it has borrowed servers that others may have back.
    pub(super) fn is_over_share(&self) -> bool {
        self.servers() > self.share && self.is_above_reserve()
    }

    /// Whether its servers may be taken for others at all. A slot that is only promised is no server yet.
    pub(super) const fn is_above_reserve(&self) -> bool {
        self.servers().saturating_sub(self.promised) > self.allowance.reserve
    }

    /// How long a lease is held: the mean of the finished ones, or the mean age of the running ones if that is more.
    pub(super) fn expected_hold_us(&self, now: Moment) -> u64 {
        let ages = u128::from(now.0).saturating_mul(u128::from(self.busy)).saturating_sub(self.starts_us);
        let mean = ages.checked_div(u128::from(self.busy)).unwrap_or(0);
        self.hold_us.max(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// Virtual time with the running leases, as far as they were not charged in advance.
    pub(super) fn virtual_time_now(&self, now: Moment) -> u64 {
        let ages = u128::from(now.0).saturating_mul(u128::from(self.busy)).saturating_sub(self.starts_us);
        let charged = u128::from(self.advance_us()).saturating_mul(u128::from(self.busy));
        let extra = u64::try_from(ages.saturating_sub(charged)).unwrap_or(u64::MAX);
        self.virtual_time.saturating_add(fairness::cost(extra, self.allowance.weight))
    }

    /// The hold that a new lease is charged for in advance.
    pub(super) fn advance_us(&self) -> u64 {
        self.hold_us.min(ADVANCE_MAX_US)
    }

    /// Learns from a finished lease that was charged `charged_us` in advance. Over-use is remembered up to `v_max`.
    pub(super) fn settle(&mut self, held_us: u64, charged_us: u64, v_max: u64) {
        let paid = self.virtual_time.saturating_sub(fairness::cost(charged_us, self.allowance.weight));
        self.virtual_time = paid.saturating_add(fairness::cost(held_us, self.allowance.weight)).min(v_max);
        let sample = held_us.min(HOLD_MAX_US);
        self.hold_us = self.hold_us.saturating_mul(7).saturating_add(sample) / 8;
        self.demand.count_hold(sample);
    }
}

/// The table of tenants and the map from their ids.
#[derive(Clone, Debug)]
pub(super) struct Tenants {
    pub(super) table: Table<TenantState>,
    keys: IdMap<TenantId>,
}

impl Tenants {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), keys: IdMap::default() }
    }

    pub(super) fn find(&self, id: TenantId) -> Option<u32> {
        self.keys.get(&id).copied()
    }

    pub(super) fn insert(&mut self, state: TenantState) -> u32 {
        let id = state.id;
        let key = self.table.insert(state);
        let before = self.keys.insert(id, key);
        assert!(before.is_none(), "a tenant is in the table once");
        key
    }

    pub(super) fn remove(&mut self, key: u32) {
        if let Some(state) = self.table.remove(key) {
            self.keys.remove(&state.id);
        }
    }
}

/// The list of tenants with idle servers above their share.
#[derive(Clone, Debug)]
pub(super) struct Lenders;
/// The list of tenants whose own servers will do for their waiters.
#[derive(Clone, Debug)]
pub(super) struct Patients;

impl Linked<Lenders> for TenantState {
    fn link(&self) -> &Link {
        &self.lenders
    }
    fn link_mut(&mut self) -> &mut Link {
        &mut self.lenders
    }
}

impl Linked<Patients> for TenantState {
    fn link(&self) -> &Link {
        &self.patients
    }
    fn link_mut(&mut self) -> &mut Link {
        &mut self.patients
    }
}

/// An allowance whose parts do not contradict each other: the ceiling wins, and a weight is at least 1.
pub(super) fn coherent(allowance: Allowance) -> Allowance {
    let ceiling = allowance.ceiling;
    Allowance {
        reserve: allowance.reserve.min(ceiling),
        floor: allowance.floor.min(ceiling),
        share: allowance.share.min(ceiling),
        ceiling,
        weight: allowance.weight.max(1),
        max_waiters: allowance.max_waiters,
    }
}

/// What a lease is expected to take before the first one ended.
const FIRST_HOLD_US: u64 = 4_000;
/// Longer holds say no more than this about the next one.
const HOLD_MAX_US: u64 = 5_000_000;
/// The most that a lease is charged before it ended.
const ADVANCE_MAX_US: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantState {
        let allowance = Allowance { reserve: 0, floor: 1, share: 3, ceiling: 6, weight: 2, max_waiters: 9 };
        TenantState::new(TenantId(1), allowance, Moment(0), 0)
    }

    #[test]
    fn the_band_of_the_next_server_follows_floor_and_share() {
        let mut tenant = tenant();
        assert_eq!(
            [0, 1, 2, 3].map(|n| tenant.band(n)),
            [Band::Floor, Band::Share, Band::Share, Band::Burst]
        );
        tenant.allowance.reserve = 2;
        assert_eq!(tenant.band(1), Band::Floor);
    }

    #[test]
    fn an_unknown_long_lease_raises_the_expected_hold() {
        let mut tenant = tenant();
        assert_eq!(tenant.expected_hold_us(Moment(50_000)), FIRST_HOLD_US);
        tenant.busy = 2;
        tenant.starts_us = 10_000;
        assert_eq!(tenant.expected_hold_us(Moment(50_000)), 45_000);
    }

    #[test]
    fn a_lease_costs_what_it_took_whatever_was_charged_before() {
        let mut tenant = tenant();
        let charged = tenant.advance_us();
        tenant.virtual_time = fairness::cost(charged, 2);
        tenant.settle(10_000, charged, u64::MAX);
        assert_eq!(tenant.virtual_time, fairness::cost(10_000, 2));
        assert_eq!(tenant.hold_us, 4_750);
        tenant.settle(10_000_000, 0, 5_000);
        assert_eq!(tenant.virtual_time, 5_000);
    }

    /// There may be a hundred thousand of them.
    #[test]
    fn what_is_known_of_a_tenant_stays_small() {
        let bytes = size_of::<TenantState>();
        assert!(bytes <= 384, "{bytes} bytes");
    }

    #[test]
    fn a_contradictory_allowance_is_cut_to_its_ceiling() {
        let wild = Allowance { reserve: 9, floor: 8, share: 7, ceiling: 2, weight: 0, max_waiters: 1 };
        let tame = Allowance { reserve: 2, floor: 2, share: 2, ceiling: 2, weight: 1, max_waiters: 1 };
        assert_eq!(coherent(wild), tame);
    }
}
