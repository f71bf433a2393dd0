//! What keeps a tenant's requests waiting although there may be a server: an operator's halt, and the tenant's own rate.
//!
//! Owns both. Waiters keep their place, and the time of a halt is no part of their wait; other tenants notice nothing. A
//! halt ends by itself, at a time that is said when it begins.
//!
//! | | waiters | new requests | idle servers | released servers |
//! |---|---|---|---|---|
//! | `Pause` | stay | wait | stay | become idle |
//! | `Drain` | stay | wait | are closed | are closed |
//! | `Suspend` | are refused | are refused | stay | become idle |

use std::time::Duration;

use super::input::Refusal;
use super::output::{CloseReason, Output, RejectReason};
use super::scheduler::Scheduler;
use super::tenants::TenantState;
use crate::ids::TenantId;
use crate::tenant::RateLimit;
use crate::time::Moment;

/// How an operator holds a tenant up. Transactions that run go on in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// No transaction begins.
    Pause,
    /// The same, and the tenant gives up all servers.
    Drain,
    /// Whoever wants a server is refused at once.
    Suspend,
}

impl Halt {
    /// The halt's name in the interface and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Drain => "drain",
            Self::Suspend => "suspend",
        }
    }
}

/// What an operator orders for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// It is held up for so long.
    Halt(Halt, Duration),
    /// It may begin so many transactions for so long, whatever its configuration says.
    Throttle(RateLimit, Duration),
    /// It goes on as configured.
    Resume,
}

/// A halt, and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halted {
    /// Which.
    pub halt: Halt,
    /// When it began; another one that follows without a gap does not change that.
    pub since: Moment,
    /// When it is over.
    pub until: Moment,
}

/// What stops a tenant's first waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Halted,
    Rate,
}

impl Scheduler {
    pub(super) fn halt(
        &mut self,
        id: TenantId,
        halt: Halt,
        until: Moment,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let key = self.tenants.find(id).ok_or(Refusal::UnknownTenant)?;
        let now = self.now;
        if until <= now {
            return self.resume(id, out);
        }
        let tenant = &mut self.tenants.table[key];
        let since = tenant.halted(now).map_or(now, |halted| halted.since);
        tenant.halt = Some(Halted { halt, since, until });
        match halt {
            Halt::Pause => {}
            Halt::Drain => {
                self.close_idle_above(key, 0, CloseReason::Drained, out);
                self.take_promises_back(key);
            }
            Halt::Suspend => self.reject_all(key, RejectReason::Suspended, out),
        }
        self.resync(key);
        Ok(())
    }

    pub(super) fn resume(&mut self, id: TenantId, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let key = self.tenants.find(id).ok_or(Refusal::UnknownTenant)?;
        self.lift(key);
        self.serve_idle(key, out);
        self.resync(key);
        Ok(())
    }

    /// Whoever waits for the old rate waits for it no longer.
    pub(super) fn set_rate(
        &mut self,
        id: TenantId,
        limit: Option<RateLimit>,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let key = self.tenants.find(id).ok_or(Refusal::UnknownTenant)?;
        let tenant = &mut self.tenants.table[key];
        if tenant.rate.set(limit) {
            self.waiters.hurry(self.now, tenant);
            self.serve_idle(key, out);
            self.resync(key);
        }
        Ok(())
    }

    /// Looks at a tenant whose time has come: the end of its halt, a deadline, a request that may begin.
    pub(super) fn ring(&mut self, key: u32, out: &mut Vec<Output>) {
        if self.tenants.table[key].halted(self.now).is_none() {
            self.lift(key);
        }
        self.expire(key, out);
        self.serve_idle(key, out);
        self.resync(key);
    }

    /// Ends a halt: the waiters' time runs again. They use it also where nobody is let in at present: whoever ends a halt
    /// does so because that is about to change.
    fn lift(&mut self, key: u32) {
        let tenant = &mut self.tenants.table[key];
        let Some(halted) = tenant.halt.take() else { return };
        self.waiters.postpone(halted.since, halted.until.min(self.now), tenant);
        tenant.forecast.restart();
    }

    /// Gives idle servers to waiters that nothing stops any more.
    pub(super) fn serve_idle(&mut self, key: u32, out: &mut Vec<Output>) {
        loop {
            let tenant = &self.tenants.table[key];
            let Some(slot) = tenant.resting.front() else { return };
            if !self.has_callers(tenant) {
                return;
            }
            self.serve(slot, key, out);
        }
    }

    /// What stops a tenant's first waiter, and until when.
    pub(super) fn stop(&self, tenant: &TenantState) -> Option<(Stop, Moment)> {
        if let Some(halted) = tenant.halted(self.now) {
            return Some((Stop::Halted, halted.until));
        }
        let from = self.waiters.table[tenant.queue.front()?].from;
        (from > self.now).then_some((Stop::Rate, from))
    }

    /// Whether somebody waits whom nothing stops.
    pub(super) fn has_callers(&self, tenant: &TenantState) -> bool {
        !tenant.queue.is_empty() && self.stop(tenant).is_none()
    }

    /// Tenants that wait, apart from those that something stops.
    #[must_use]
    pub fn calling_tenants(&self) -> usize {
        self.timers.len().saturating_sub(self.totals.sum.stopped as usize)
    }
}
