//! Does a tenant want another server? And keeping every list in step with the answer.
//!
//! Owns rule 4.2: not one server per waiter (that makes storms of logins), but one more when the tenant's own servers
//! would not drain its queue in about the time that two logins take. Also expires deadlines, since a queue is looked at
//! either way then.

use super::breaker::Gate;
use super::lanes;
use super::output::{Output, RejectReason};
use super::scheduler::Scheduler;
use super::tenants::{Band, Place, TenantState};
use crate::time::Moment;

/// What a tenant with waiters wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Desire {
    /// Nothing until something happens to it, or that time comes.
    Nothing { until: Moment },
    /// Its own servers will do, unless slots lie about unused or that time comes.
    Patience { until: Moment },
    /// Another server.
    Another,
}

impl Scheduler {
    /// What the tenant wants now. A pure function of its state, the time and `slack`.
    pub(super) fn desire(&self, tenant: &TenantState, slack: bool) -> Desire {
        let nothing = Desire::Nothing { until: Moment::NEVER };
        if let Some((_, until)) = self.stop(tenant) {
            return Desire::Nothing { until };
        }
        let waiters = tenant.waiters();
        if waiters <= tenant.opening || tenant.slots() >= tenant.allowance.ceiling {
            return nothing;
        }
        if let Gate::Shut(until) = tenant.breaker.gate(self.now) {
            return Desire::Nothing { until };
        }
        let have = tenant.busy.saturating_add(tenant.opening);
        let patience_us = self.patience_us(tenant.band(tenant.servers()));
        let ripe = tenant.head_ready.0.saturating_add(patience_us);
        let alone = tenant.opening == 0;
        if have == 0 || (alone && (slack || self.now.0 >= ripe)) {
            return Desire::Another;
        }
        let (waiters, have) = (u128::from(waiters), u128::from(have));
        let budget = u128::from(patience_us).saturating_mul(have);
        let work = waiters.saturating_mul(u128::from(tenant.expected_hold_us(self.now)));
        if work > budget {
            return Desire::Another;
        }
        // The mean age of the running leases grows with time: past this moment it alone says that help is needed.
        let busy = u128::from(tenant.busy);
        let outgrown = tenant
            .starts_us
            .saturating_mul(waiters)
            .saturating_add(budget.saturating_mul(busy))
            .checked_div(busy.saturating_mul(waiters))
            .and_then(|at| u64::try_from(at).ok())
            .map_or(u64::MAX, |at| at.saturating_add(1));
        Desire::Patience { until: Moment(if alone { outgrown.min(ripe) } else { outgrown }) }
    }

    /// How long waiting for the tenant's own releases is better than another server: two logins, four for a burst.
    pub(super) fn patience_us(&self, band: Band) -> u64 {
        let factor = match band {
            Band::Floor | Band::Share => 2,
            Band::Burst => 4,
        };
        self.latency.expected_us().saturating_mul(factor)
    }

    /// Class of a tenant's holds: short, long, very long.
    pub(super) fn hold_class(&self, tenant: &TenantState) -> u8 {
        let [long, very_long] = self.config.long_hold_us;
        u8::from(tenant.hold_us >= long).saturating_add(u8::from(tenant.hold_us >= very_long.max(long)))
    }

    /// Brings everything that is derived from a tenant's state up to date. To be called whenever it changed.
    pub(super) fn resync(&mut self, key: u32) {
        self.clock.follow(&mut self.tenants.table[key]);
        self.resync_active(key);
    }

    /// The same for a tenant whose activity the clock knows already.
    pub(super) fn resync_active(&mut self, key: u32) {
        let tenant = &mut self.tenants.table[key];
        tenant.share = self.scale.of(tenant.allowance.share);
        self.resync_part(key);
        self.resync_place(key);
    }

    /// Puts the tenant where it belongs among those that wait.
    pub(super) fn resync_place(&mut self, key: u32) {
        let tenant = &self.tenants.table[key];
        let before = tenant.place;
        if tenant.queue.is_empty() {
            self.timers.remove(key);
            if before != Place::Nowhere {
                self.set_place(key, Place::Nowhere);
            }
            return;
        }
        let slack = self.slack();
        let (place, until) = match self.desire(tenant, slack) {
            Desire::Nothing { until } => (Place::Nowhere, until),
            Desire::Patience { until } if tenant.opening == 0 => (Place::Patient, until),
            Desire::Patience { until } => (Place::Nowhere, until),
            Desire::Another => {
                let band = tenant.band(tenant.servers());
                (Place::Lane(lanes::lane(band, self.hold_class(tenant))), Moment::NEVER)
            }
        };
        let deadline = if tenant.halt.is_some() { Moment::NEVER } else { tenant.next_deadline };
        let due = until.max(Moment(self.now.0.saturating_add(1))).min(deadline);
        self.timers.set(key, (due, tenant.id));
        self.set_place(key, place);
        let tenant = &self.tenants.table[key];
        let cause = self.cause_of_patience(tenant);
        if before != place || tenant.cause.0 != cause {
            self.tenants.table[key].cause = (cause, self.now);
        }
    }

    /// Lets every patient tenant ask while slots lie about unused.
    pub(super) fn wake_patients(&mut self) {
        if !self.slack() {
            return;
        }
        while let Some(key) = self.patients.front() {
            self.resync_place(key);
            if self.tenants.table[key].place == Place::Patient {
                return;
            }
        }
    }

    /// Rejects the waiters of a tenant whose deadline has come.
    pub(super) fn expire(&mut self, key: u32, out: &mut Vec<Output>) {
        if self.tenants.table[key].halt.is_some() {
            return;
        }
        while let Some(gone) = self.waiters.pop_expired(self.now, &mut self.tenants.table[key]) {
            let cause = self.cause_of_wait(&self.tenants.table[key], gone.since, gone.began_with);
            let reason = RejectReason::QueueTimeout { waited_us: self.now.micros_since(gone.since), cause };
            out.push(Output::Reject { request: gone.request, reason });
        }
    }

    fn set_place(&mut self, key: u32, place: Place) {
        let tenant = &mut self.tenants.table[key];
        let order = (tenant.virtual_time, tenant.id);
        let before = std::mem::replace(&mut tenant.place, place);
        if before != place {
            match before {
                Place::Nowhere => {}
                Place::Lane(lane) => self.lanes.remove(lane, key),
                Place::Patient => self.patients.remove(&mut self.tenants.table, key),
            }
        }
        match place {
            Place::Lane(lane) => self.lanes.set(lane, key, order),
            Place::Patient if before != place => self.patients.push_back(&mut self.tenants.table, key),
            Place::Nowhere | Place::Patient => {}
        }
    }
}
