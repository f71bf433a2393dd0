//! Explanations: what a tenant has, and why its waiters wait.
//!
//! Owns the values that metrics and the console show. Must not change anything.

use super::breaker::Gate;
use super::lanes;
use super::scheduler::Scheduler;
use super::stops::{Halted, Stop};
use super::tenants::{Band, Place, Standing};
use crate::ids::TenantId;
use crate::stats::Cause;
use crate::tenant::{Allowance, RateLimit};
use crate::time::Moment;

/// What keeps a tenant that wants another server from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Logins fail for lack of an answer from Postgres.
    Unreachable,
    /// As many logins are under way as there may be.
    LoginsInFlight,
    /// Too many servers were moved between tenants lately.
    ReconnectBudget,
    /// Running transactions of tenants above their shares will end in a moment.
    AwaitingRelease,
    /// All servers are leased, or idle for too short a time to be taken.
    NoIdleServer,
    /// Tenants with long transactions hold all that they may hold together above their shares.
    LongBorrowers,
}

/// Why a tenant's waiters wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody waits.
    NobodyWaits,
    /// An operator holds the tenant up.
    Paused,
    /// The tenant begins more transactions than it may.
    RateLimit,
    /// A server is logging in, or about to, for each waiter.
    LoggingIn,
    /// The tenant has all the servers it may have.
    Ceiling,
    /// Postgres does not let the tenant in at present.
    Rejected,
    /// The tenant's own servers will be free before another one would be logged in.
    OwnRelease,
    /// The tenant wants another server, in this band, and has to wait for that.
    Wants {
        /// How much it matters.
        band: Band,
        /// What is in the way; `None` if better tenants come first.
        blocked: Option<Blocked>,
    },
}

/// One tenant at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// Servers logging in.
    pub opening: u32,
    /// Slots promised to the tenant, of others' servers on their way out.
    pub promised: u32,
    /// Idle servers.
    pub idle: u32,
    /// Leased servers.
    pub busy: u32,
    /// Its servers on their way out.
    pub closing: u32,
    /// Requests that wait.
    pub waiters: u32,
    /// Since when the oldest of them waits.
    pub head_wait_since: Option<Moment>,
    /// Mean time that a server is leased.
    pub hold_us: u64,
    /// The same, or the mean age of the running leases if that is more.
    pub expected_hold_us: u64,
    /// What it may use.
    pub allowance: Allowance,
    /// What is left of its share while those of all active tenants are more than there are servers.
    pub share: u32,
    /// Whether it is being removed.
    pub leaving: bool,
    /// Whether Postgres rejects its logins at present.
    pub rejected: bool,
    /// Why its waiters wait.
    pub why: Why,
    /// The same in one word, and since when it is so; `None` if nobody waits.
    pub cause: Option<(Cause, Moment)>,
    /// What an operator has put on it.
    pub halted: Option<Halted>,
    /// How often it may begin a transaction.
    pub rate: Option<RateLimit>,
    /// What a hold usually took; unknown at first.
    pub usual_hold_us: Option<u64>,
    /// Servers that it needs, in 1/256, by what came lately.
    pub need: u32,
}

/// One tenant beside the others of its ledger: what a sentence on its waits is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The tenant.
    pub tenant: TenantView,
    /// When this holds.
    pub now: Moment,
    /// Servers that there may be, of all tenants.
    pub capacity: u32,
    /// The same as long as Postgres had no room for more.
    pub working_capacity: u32,
    /// Servers in any state.
    pub used: u32,
    /// Idle servers, of all tenants.
    pub idle: u32,
    /// Leased servers, of all tenants.
    pub busy: u32,
    /// Servers logging in, of all tenants.
    pub opening: u32,
    /// Tenants that have waiters.
    pub waiting_tenants: u32,
    /// How long a login takes.
    pub login_us: u64,
}

impl Scheduler {
    /// What can be said of a tenant's waits at this instant; `None` if it is unknown.
    #[must_use]
    pub fn explain(&self, id: TenantId) -> Option<Explanation> {
        Some(Explanation {
            tenant: self.tenant(id)?,
            now: self.now,
            capacity: self.capacity(),
            working_capacity: self.working_capacity(),
            used: self.used(),
            idle: self.idle(),
            busy: self.slots.busy,
            opening: self.slots.opening,
            waiting_tenants: u32::try_from(self.waiting_tenants()).unwrap_or(u32::MAX),
            login_us: self.open_latency_us(),
        })
    }

    /// The state of a tenant; `None` if it is unknown.
    #[must_use]
    pub fn tenant(&self, id: TenantId) -> Option<TenantView> {
        let tenant = &self.tenants.table[self.tenants.find(id)?];
        Some(TenantView {
            opening: tenant.opening.saturating_sub(tenant.promised),
            promised: tenant.promised,
            idle: tenant.idle,
            busy: tenant.busy,
            closing: tenant.closing,
            waiters: tenant.waiters(),
            head_wait_since: (!tenant.queue.is_empty()).then_some(tenant.head_since),
            hold_us: tenant.hold_us,
            expected_hold_us: tenant.expected_hold_us(self.now),
            allowance: tenant.allowance,
            share: self.scale.of(tenant.allowance.share),
            leaving: tenant.standing == Standing::Leaving,
            rejected: !tenant.breaker.is_closed(),
            why: self.why(id)?,
            cause: (!tenant.queue.is_empty()).then(|| self.cause(tenant)),
            halted: tenant.halted(self.now),
            rate: tenant.rate.limit(),
            usual_hold_us: tenant.demand.usual_us(),
            need: tenant.need(self.now),
        })
    }

    /// Why a tenant's waiters wait, as of the last step; `None` if the tenant is unknown.
    #[must_use]
    pub fn why(&self, id: TenantId) -> Option<Why> {
        let tenant = &self.tenants.table[self.tenants.find(id)?];
        Some(match tenant.place {
            _ if tenant.queue.is_empty() => Why::NobodyWaits,
            _ if let Some((stop, _)) = self.stop(tenant) => match stop {
                Stop::Halted => Why::Paused,
                Stop::Rate => Why::RateLimit,
            },
            Place::Lane(lane) => {
                let blocked = self.blocked.get(usize::from(lane)).copied().flatten();
                Why::Wants { band: lanes::band(lane), blocked }
            }
            Place::Nowhere if tenant.waiters() <= tenant.opening => Why::LoggingIn,
            Place::Nowhere if tenant.slots() >= tenant.allowance.ceiling => Why::Ceiling,
            Place::Nowhere if matches!(tenant.breaker.gate(self.now), Gate::Shut(_)) => Why::Rejected,
            Place::Nowhere | Place::Patient => Why::OwnRelease,
        })
    }

    /// How many tenants want another server below their floor, below their share, and above it.
    #[must_use]
    pub fn wanting(&self) -> [usize; 3] {
        let burst = (2..lanes::LANES).fold(0_usize, |sum, lane| sum.saturating_add(self.lanes.len(lane)));
        [self.lanes.len(0), self.lanes.len(1), burst]
    }
}
