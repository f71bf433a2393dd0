//! The scheduler: its parts, its one entry point, and what can be asked of it.
//!
//! Owns the order of things within a step. The rules themselves are next door: `leases` (acquire, cancel, release),
//! `logins` (opened, failed, closed, lost), `limits` (capacity, tenants), `wants`, `supply` and `victims`.

use super::brakes::ReconnectBudget;
use super::breaker::{Breaker, Gate};
use super::capacity::Capacity;
use super::config::{BudgetConfig, OpenLatency};
use super::exchange::{Need, Standing};
use super::fairness::VirtualClock;
use super::heap::Heap;
use super::input::{Input, Refusal};
use super::lanes::{self, LANES, Lanes};
use super::leases::Asked;
use super::links::List;
use super::output::Output;
use super::shares::Scale;
use super::slots::Slots;
use super::tenants::{Band, Patients, Tenants};
use super::victims::Totals;
use super::waiters::Waiters;
use super::why::Blocked;
use crate::ids::TenantId;
use crate::time::Moment;

/// The ledger of one budget: a pure state machine over servers, tenants and waiting requests.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) config: BudgetConfig,
    pub(super) capacity: Capacity,
    pub(super) slots: Slots,
    pub(super) tenants: Tenants,
    pub(super) waiters: Waiters,

    /// Tenants that want another server.
    pub(super) lanes: Lanes,
    /// Tenants whose own servers will do, unless slots lie about unused.
    pub(super) patients: List<Patients>,
    /// Tenants with waiters, by when they must be looked at: a deadline, or a wish that ripens.
    pub(super) timers: Heap<(Moment, TenantId)>,
    pub(super) totals: Totals,

    pub(super) clock: VirtualClock,
    pub(super) scale: Scale,
    pub(super) reconnects: ReconnectBudget,
    pub(super) breaker: Breaker,
    pub(super) latency: OpenLatency,

    pub(super) now: Moment,
    /// When supply is worth trying again although nothing happened.
    pub(super) retry_at: Moment,
    /// What stopped each lane the last time.
    pub(super) blocked: [Option<Blocked>; LANES as usize],
    /// The same, and since when it does.
    pub(super) obstacles: [(Option<Blocked>, Moment); LANES as usize],
    /// The request that has begun to wait in this step.
    pub(super) newcomer: Option<u32>,
    armed: Moment,
    contended: bool,
    /// A capacity that was set and is not reached yet, and since when.
    settling: Option<(u32, Moment)>,
    /// The part of the standing that is worth a message, as others know it.
    announced: (Option<Need>, u32, bool),
}

impl Scheduler {
    /// A scheduler without tenants and servers.
    #[must_use]
    pub fn new(config: BudgetConfig) -> Self {
        Self {
            capacity: Capacity::new(config.capacity, config.capacity_recovery_us),
            slots: Slots::new(),
            tenants: Tenants::new(),
            waiters: Waiters::new(),
            lanes: Lanes::new(),
            patients: List::new(),
            timers: Heap::new(),
            totals: Totals::new(),
            clock: VirtualClock::new(config.lag_max_us),
            scale: Scale::WHOLE,
            reconnects: ReconnectBudget::new(&config),
            breaker: Breaker::Closed,
            latency: config.open_latency,
            now: Moment(0),
            retry_at: Moment::NEVER,
            blocked: [None; LANES as usize],
            obstacles: [(None, Moment(0)); LANES as usize],
            newcomer: None,
            armed: Moment::NEVER,
            contended: false,
            settling: None,
            announced: (None, 0, false),
            config,
        }
    }

    /// Whether requests are refused at once that would be served behind their deadlines only.
    pub const fn set_refuses_hopeless_waits(&mut self, refuses: bool) {
        self.config.refuses_hopeless_waits = refuses;
    }

    /// Servers the scheduler may have.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity.limit()
    }

    /// Servers it uses at most at present: less than [`capacity`](Self::capacity) after Postgres had no room for more.
    #[must_use]
    pub const fn working_capacity(&self) -> u32 {
        self.capacity.working()
    }

    /// Servers in any state, from the order to log in until they are gone: permits out of the house.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.slots.used()
    }

    /// Servers that are leased or logging in: the part of [`used`](Self::used) that is not merely kept warm.
    #[must_use]
    pub const fn committed(&self) -> u32 {
        self.slots.busy.saturating_add(self.slots.opening)
    }

    /// Idle servers.
    #[must_use]
    pub const fn idle(&self) -> u32 {
        self.slots.idle
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.waiters.len()
    }

    /// Tenants with requests that wait.
    #[must_use]
    pub fn waiting_tenants(&self) -> usize {
        self.timers.len()
    }

    /// Whether logins to the cluster currently fail for lack of an answer.
    #[must_use]
    pub const fn breaker_open(&self) -> bool {
        !self.breaker.is_closed()
    }

    /// How long a login is expected to take.
    #[must_use]
    pub const fn open_latency_us(&self) -> u64 {
        self.latency.expected_us()
    }

    /// Takes note of what happened at `now` and appends what is to be done to `out`. Time does not run backwards: an
    /// earlier `now` counts as the latest one.
    ///
    /// # Errors
    /// If the input makes no sense in the present state (unknown, late, twice). Then it changed nothing, apart from
    /// time having passed.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) -> Result<(), Refusal> {
        self.begin_step(now, out);
        let handled = match input {
            Input::Acquire { request, tenant, deadline, prefer, exempt } => {
                self.acquire(Asked { request, tenant, deadline, prefer, exempt }, out)
            }
            Input::Cancel { request } => self.cancel(request, out),
            Input::Release { server, condition } => self.release(server, condition, out),
            Input::Opened { server } => self.opened(server, out),
            Input::OpenFailed { permit, failure } => self.open_failed(permit, failure, out),
            Input::Closed { permit } => self.closed(permit, out),
            Input::Lost { server } => self.lost(server),
            Input::Tick => Ok(()),
            Input::SetCapacity(limit) => {
                self.capacity.set(limit);
                self.settling = Some((limit, self.now));
                Ok(())
            }
            Input::SetTenant { tenant, allowance } => {
                self.set_tenant(tenant, allowance, out);
                Ok(())
            }
            Input::SetRate { tenant, limit } => self.set_rate(tenant, limit, out),
            Input::Halt { tenant, halt, until } => self.halt(tenant, halt, until, out),
            Input::Resume { tenant } => self.resume(tenant, out),
            Input::RemoveTenant { tenant } => self.remove_tenant(tenant, out),
        };
        self.rescale();
        self.shed(out);
        self.supply(out);
        self.note_newcomer();
        self.finish_step(out);
        handled
    }

    /// What an exchange between workers wants to know.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            committed: self.committed(),
            reserved: self.totals.sum.reserved,
            need: self.need(),
            stuck: self.stuck_at().is_some_and(|at| at <= self.now),
        }
    }

    /// Free slots.
    pub(super) const fn free(&self) -> u32 {
        self.capacity.working().saturating_sub(self.slots.used())
    }

    /// Whether evicting is nearly harmless at present: a slot is free, or an idle server is long unused. Then the brakes
    /// are off.
    pub(super) fn slack(&self) -> bool {
        self.free() > self.config.headroom
            || self
                .slots
                .oldest_idle()
                .is_some_and(|since| self.now.micros_since(since) >= self.config.stale_us)
    }

    pub(super) fn gate(&self) -> Gate {
        self.breaker.gate(self.now)
    }

    /// What is lacking: tenants of the best band that want a server and cannot have one here.
    fn need(&self) -> Option<Need> {
        let lacks = |blocked: Option<Blocked>| match blocked {
            Some(Blocked::AwaitingRelease | Blocked::NoIdleServer | Blocked::ReconnectBudget) => true,
            Some(Blocked::Unreachable | Blocked::LoginsInFlight | Blocked::LongBorrowers) | None => false,
        };
        // A server that Postgres has no room for is not to be had from another worker either.
        if self.capacity.working() < self.capacity.limit() || self.slots.used() < self.capacity.limit() {
            return None;
        }
        let lane = (0..LANES).find(|lane| self.lanes.len(*lane) > 0)?;
        let reason = self.blocked.get(usize::from(lane)).copied().flatten();
        let slots = u32::try_from(self.lanes.len(lane)).unwrap_or(u32::MAX);
        lacks(reason).then(|| Need {
            band: self.written_band(lane),
            slots: slots.checked_next_power_of_two().unwrap_or(slots),
        })
    }

    /// The band of a lane's tenants as other workers see it: shares are scaled down for want of servers here, and somebody
    /// else may have too many.
    fn written_band(&self, lane: u8) -> Band {
        let is_short = |lane| {
            let first = self.lanes.first(lane, None).map(|(_, key)| &self.tenants.table[key]);
            first.is_some_and(|tenant| tenant.servers() < tenant.allowance.share)
        };
        match lanes::band(lane) {
            Band::Burst if self.scale.is_down() && (lane..LANES).any(is_short) => Band::Share,
            band => band,
        }
    }

    fn announce(&mut self, out: &mut Vec<Output>) {
        if let Some((capacity, _)) = self.settling
            && self.slots.used() <= capacity
        {
            self.settling = None;
            out.push(Output::CapacitySettled { capacity });
        }
        if !self.config.announce_need {
            return;
        }
        let Standing { reserved, need, stuck, .. } = self.standing();
        if self.announced != (need, reserved, stuck) {
            self.announced = (need, reserved, stuck);
            out.push(Output::StandingChanged);
        }
    }

    /// From when on others do not wait any longer for what it was told to give up.
    fn stuck_at(&self) -> Option<Moment> {
        let (_, since) = self.settling.filter(|_| self.config.announce_need)?;
        Some(Moment(since.0.saturating_add(STUCK_US)))
    }

    fn begin_step(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.clock.advance(self.now, self.capacity.limit(), self.contended);
        self.reconnects.advance(self.now, &self.config);
        self.capacity.recover(self.now);
        while let Some(((due, _), tenant)) = self.timers.first() {
            if due > self.now || due == Moment::NEVER {
                break;
            }
            self.ring(tenant, out);
        }
    }

    fn finish_step(&mut self, out: &mut Vec<Output>) {
        assert!(self.slots.used() >= self.slots.closing, "closing servers are counted");
        self.contended = self.free() == 0 && self.calling_tenants() > 0;
        self.announce(out);
        let mut next = self.retry_at;
        if let Some(((due, _), _)) = self.timers.first() {
            next = next.min(due).min(self.capacity.grows_at());
        }
        if let Some(stuck_at) = self.stuck_at().filter(|at| *at > self.now) {
            next = next.min(stuck_at);
        }
        if self.armed <= self.now {
            self.armed = Moment::NEVER;
        }
        let next = next.max(Moment(self.now.0.saturating_add(1)));
        if next < self.armed {
            self.armed = next;
            out.push(Output::WakeAt(next));
        }
    }
}

/// A worker that has not given up by now what it was told to has leases that last.
const STUCK_US: u64 = 100_000;
