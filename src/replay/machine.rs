//! The world around one scheduler: a queue of what is due, and the servers.
//!
//! Owns the virtual clock and the order of events: at one moment first what was due (leases, logins, servers that go), then
//! the scheduler's own timer, then who comes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::outcome::{Outcome, Tally};
use super::visits::Visit;
use crate::budget::{BudgetConfig, Condition, Input, Output, Permit, Scheduler};
use crate::ids::{RequestId, ServerId, TenantId};
use crate::tenant::{Ranks, Standing, Tenant, Tier, Tiering};
use crate::time::Moment;

/// One cluster with its tenants, as a configuration has them.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// Servers that there may be.
    pub capacity: u32,
    /// Workers among which the proxy divides them. Here one scheduler has them all, and what each worker may do at a time.
    pub workers: u32,
    /// `pool.refuse_hopeless_waits`
    pub refuses_hopeless_waits: bool,
    /// How tenants without a written tier get one.
    pub tiering: Tiering,
    /// The tenants.
    pub tenants: &'a BTreeMap<TenantId, Arc<Tenant>>,
    /// How long a server's login takes, in microseconds.
    pub login_us: u64,
}

/// What comes of these visits, which are in the order of their time. Those of tenants that are not there are left out.
#[must_use]
pub fn replay(stage: &Stage<'_>, visits: &[Visit]) -> Outcome {
    let mut machine = Machine::new(stage, visits);
    machine.run();
    let Machine { mut outcome, .. } = machine;
    outcome.all.finish();
    outcome.tenants.values_mut().for_each(Tally::finish);
    outcome
}

/// What a server is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    LoggedIn(ServerId),
    Released(ServerId),
    Gone(ServerId),
}

/// A tenant that has come.
struct Met {
    tenant: Arc<Tenant>,
    /// Where it stands, if its tier is chosen.
    standing: Option<Standing>,
    rank: Option<u8>,
}

struct Machine<'a> {
    stage: &'a Stage<'a>,
    visits: &'a [Visit],
    scheduler: Scheduler,
    now: Moment,
    wake_at: Moment,
    looks_at: Moment,
    /// With a number that rises, so that of one moment the first comes first.
    due: BinaryHeap<Reverse<(Moment, u64, Due)>>,
    number: u64,
    servers: BTreeMap<ServerId, (TenantId, Permit)>,
    met: BTreeMap<TenantId, Met>,
    ranks: Ranks,
    needs: Vec<(TenantId, u32)>,
    waiting: usize,
    out: Vec<Output>,
    outcome: Outcome,
}

impl<'a> Machine<'a> {
    fn new(stage: &'a Stage<'a>, visits: &'a [Visit]) -> Self {
        Self {
            stage,
            visits,
            scheduler: Scheduler::new(config(stage)),
            now: Moment(0),
            wake_at: Moment::NEVER,
            looks_at: Moment(LOOK_US),
            due: BinaryHeap::new(),
            number: 0,
            servers: BTreeMap::new(),
            met: BTreeMap::new(),
            ranks: Ranks::default(),
            needs: Vec::new(),
            waiting: 0,
            out: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    fn run(&mut self) {
        let mut next = 0_usize;
        loop {
            let visit = self.visits.get(next);
            let comes = visit.map_or(Moment::NEVER, |visit| Moment(visit.at_us));
            let due = self.due.peek().map_or(Moment::NEVER, |Reverse((at, ..))| *at);
            // When nobody comes any more, and nobody waits, the rest is of no interest.
            if visit.is_none() && self.waiting == 0 {
                return;
            }
            let at = comes.min(due).min(self.wake_at);
            if at == Moment::NEVER && visit.is_none() {
                return self.leave_waiting();
            }
            self.now = self.now.max(at);
            if self.looks_at <= self.now {
                self.look_around();
            }
            if due <= at {
                self.next_due();
            } else if self.wake_at <= at {
                self.step(Input::Tick);
            } else if let Some(visit) = visit {
                self.come(next, visit);
                next = next.saturating_add(1);
            }
            while let Some((tenant, need)) = self.needs.pop() {
                self.look_at(tenant, need);
            }
        }
    }

    /// A client comes.
    fn come(&mut self, number: usize, visit: &Visit) {
        let Some(tenant) = self.meet(visit.tenant) else { return };
        for tally in self.tallies(visit.tenant) {
            tally.arrivals = tally.arrivals.saturating_add(1);
        }
        self.waiting = self.waiting.saturating_add(1);
        self.step(Input::Acquire {
            request: RequestId(number as u64),
            tenant: visit.tenant,
            deadline: self.now + tenant.queue_timeout,
            prefer: None,
            exempt: visit.exempt,
        });
    }

    /// A tenant is taken in when its first client comes, as a worker does it.
    fn meet(&mut self, id: TenantId) -> Option<Arc<Tenant>> {
        if let Some(met) = self.met.get(&id) {
            return Some(met.tenant.clone());
        }
        let tenant = self.stage.tenants.get(&id)?.clone();
        let standing = tenant.tiers.is_some().then(|| Standing::new(tenant.tier));
        self.met.insert(id, Met { tenant: tenant.clone(), standing, rank: None });
        self.step(Input::SetTenant { tenant: id, allowance: tenant.allowance });
        let limit = tenant.rates.as_ref().and_then(|rates| rates.transactions);
        self.step(Input::SetRate { tenant: id, limit });
        Some(tenant)
    }

    fn next_due(&mut self) {
        let Some(Reverse((_, _, due))) = self.due.pop() else { return };
        match due {
            Due::LoggedIn(server) => self.step(Input::Opened { server }),
            Due::Released(server) => self.step(Input::Release { server, condition: Condition::Clean }),
            Due::Gone(server) => {
                let Some((tenant, permit)) = self.servers.remove(&server) else { return };
                self.tallies(tenant).into_iter().for_each(Tally::count_gone);
                self.step(Input::Closed { permit });
            }
        }
    }

    fn step(&mut self, input: Input) {
        if self.wake_at <= self.now {
            self.wake_at = Moment::NEVER;
        }
        let mut out = std::mem::take(&mut self.out);
        let refused = self.scheduler.handle(self.now, input, &mut out);
        debug_assert!(refused.is_ok(), "the scheduler refused an input: {refused:?}");
        for output in out.drain(..) {
            self.carry_out(output);
        }
        self.out = out;
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Grant { request, server, .. } => {
                let Some(visit) = self.visit(request) else { return };
                self.waiting = self.waiting.saturating_sub(1);
                let wait_us = self.now.micros_since(Moment(visit.at_us));
                for tally in self.tallies(visit.tenant) {
                    tally.count_served(wait_us);
                }
                self.later(visit.hold_us.into(), Due::Released(server));
            }
            Output::Reject { request, reason } => {
                let Some(visit) = self.visit(request) else { return };
                self.waiting = self.waiting.saturating_sub(1);
                for tally in self.tallies(visit.tenant) {
                    tally.count_refusal(reason.as_str());
                }
            }
            Output::Open { permit, server, tenant } => {
                self.servers.insert(server, (tenant, permit));
                self.tallies(tenant).into_iter().for_each(Tally::count_login);
                self.later(self.stage.login_us, Due::LoggedIn(server));
            }
            Output::Close { server, .. } => self.later(CLOSE_US, Due::Gone(server)),
            Output::WakeAt(moment) => self.wake_at = moment,
            Output::Needs { tenant, need } => self.needs.push((tenant, need)),
            Output::CapacitySettled { .. } | Output::StandingChanged | Output::Drained { .. } => {}
        }
    }

    fn later(&mut self, span_us: u64, due: Due) {
        self.number = self.number.saturating_add(1);
        self.due.push(Reverse((Moment(self.now.0.saturating_add(span_us)), self.number, due)));
    }

    fn visit(&self, request: RequestId) -> Option<&'a Visit> {
        self.visits.get(usize::try_from(request.0).ok()?)
    }

    /// Where something of a tenant is counted.
    fn tallies(&mut self, tenant: TenantId) -> [&mut Tally; 2] {
        let Outcome { tenants, all } = &mut self.outcome;
        [tenants.entry(tenant).or_default(), all]
    }

    /// A tenant whose tier is chosen needs this much, in 1/256 servers (`pool::tiers` does the same).
    fn look_at(&mut self, id: TenantId, need: u32) {
        let Some(met) = self.met.get_mut(&id) else { return };
        let Some(standing) = &mut met.standing else { return };
        let changed = match self.stage.tiering {
            Tiering::Static => false,
            Tiering::Demand => standing.by_demand(self.now, need),
            Tiering::Rank => {
                met.rank = Some(self.ranks.count(need, met.rank));
                standing.by_rank(self.now, need, self.ranks.cuts())
            }
        };
        if let Some(tenant) = met.tenant.in_tier(standing.tier()).filter(|_| changed) {
            let allowance = tenant.allowance;
            met.tenant = Arc::new(tenant);
            self.step(Input::SetTenant { tenant: id, allowance });
        }
    }

    /// Those that are not cold any more, or are ranked, although nothing may have come of them.
    fn look_around(&mut self) {
        self.looks_at = Moment(self.now.0.saturating_add(LOOK_US));
        let is_chosen =
            |met: &Met| met.rank.is_some() || met.standing.is_some_and(|it| it.tier() != Tier::Cold);
        let ids: Vec<TenantId> =
            self.met.iter().filter(|(_, met)| is_chosen(met)).map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            self.step(Input::Tick);
        }
        for id in ids {
            let Some(need) = self.scheduler.tenant(id).map(|view| view.need) else { continue };
            self.look_at(id, need);
            if need == 0
                && let Some(met) = self.met.get_mut(&id)
            {
                self.ranks.forget(met.rank.take());
            }
        }
    }

    /// Nothing will ever be due, and some wait: that is not what the scheduler promises, and must not go unseen.
    fn leave_waiting(&mut self) {
        debug_assert!(false, "nobody waits without a timer or an event to come");
        let left = std::mem::take(&mut self.waiting) as u64;
        self.outcome.all.refusals.insert("left_waiting", left);
    }
}

/// The rules of a worker, for all of them.
fn config(stage: &Stage<'_>) -> BudgetConfig {
    let one = BudgetConfig::of_worker(stage.capacity);
    let workers = stage.workers.max(1);
    BudgetConfig {
        refuses_hopeless_waits: stage.refuses_hopeless_waits,
        opens_in_flight: one.opens_in_flight.map(|opens| opens.saturating_mul(workers)),
        reconnects_per_second: one.reconnects_per_second.saturating_mul(workers),
        ..one
    }
}

/// From the decision to close a server until Postgres has let it go.
const CLOSE_US: u64 = 1_000;
/// How often tenants are looked at whose tier is chosen.
const LOOK_US: u64 = 10_000_000;
