//! The pool of a worker: asks the scheduler, hands servers out and takes them back.
//!
//! Owns one [`Desk`] per cluster (scheduler and table) and the steps between sessions and scheduler. Opening, closing
//! and cleaning take time and live in `maintain`.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Clock;
use super::lease::{Lease, Ticket};
use super::maintain;
use super::note::Note;
use super::refusal::Refusal;
use super::replicas::Replica;
use super::server::Server;
use super::table::{Place, Slot, Table, Waiting};
use super::tape::{Recording, Tape};
use super::tenant::TenantState;
use super::tiers;
use crate::budget::{
    BudgetConfig, Condition, Explanation, Halt, Input, Output, RejectReason, Scheduler, TenantView,
};
use crate::error::ClientError;
use crate::ids::{ClusterId, RequestId, ServerId, TenantId};
use crate::stats::Cause;
use crate::tenant::{Ranks, Tiering};
use crate::time::Moment;
use crate::trace::Asked;

/// Limits on servers.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// A server older than this is closed at its next release. Zero: never.
    pub lifetime: Duration,
    /// A server idle for longer than this is closed. Zero: never.
    pub idle_timeout: Duration,
    /// Longest wait for a server to come back clean, and the pause between two tries to make a busy one go.
    pub cleanup_timeout: Duration,
    /// Prepared statements kept per server.
    pub max_prepared_statements: usize,
}

/// What became of the wish for a server.
#[derive(Debug)]
pub enum Acquired {
    /// Here it is.
    Now(Lease),
    /// It has to wait.
    Queued(Ticket),
    /// No.
    Refused(Refusal),
}

/// The servers of one worker. Clones share them.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) shared: Rc<Shared>,
}

pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) limits: Cell<PoolLimits>,
    pub(super) desks: RefCell<Vec<Desk>>,
    pub(super) tenants: RefCell<HashMap<TenantId, Rc<TenantState>>>,
    pub(super) timer: Notify,
    pub(super) replicas: RefCell<Vec<Replica>>,
    /// How tenants get their tiers, and where those stand that are ranked.
    pub(super) tiering: RefCell<(Tiering, Arc<Ranks>)>,
    /// What is recorded of it, if anything is.
    pub(super) tape: Tape,
    notes: Box<dyn Fn(Note)>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("desks", &self.desks).finish_non_exhaustive()
    }
}

/// One cluster's scheduler, and what its decisions are about.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) cluster: ClusterId,
    pub(super) scheduler: Scheduler,
    pub(super) table: Table,
    pub(super) wake_at: Moment,
    pub(super) login_failures: HashMap<&'static str, u64>,
    /// Servers that clients keep between transactions.
    pub(super) pins: u32,
    /// The newest failed login that was the cluster's fault.
    pub(super) unavailable: Option<Box<ClientError>>,
    outputs: Vec<Output>,
    last_request: u64,
    reachable: bool,
    /// Tenants whose need is worth looking at, by what they need.
    needs: Vec<(TenantId, u32)>,
    /// The request of the `acquire` that is running, and its outcome.
    immediate: Option<(RequestId, Rc<TenantState>, Option<Outcome>)>,
}

/// What became of a request, and what it waited for if it did.
pub(super) type Outcome = (Result<Box<Server>, Refusal>, Option<Cause>);

impl Pool {
    /// A pool without servers. `budgets` has one entry per cluster; `notes` is called with what others must know.
    #[must_use]
    pub fn new(
        clock: Clock,
        limits: PoolLimits,
        budgets: Vec<BudgetConfig>,
        notes: Box<dyn Fn(Note)>,
    ) -> Self {
        let desks =
            budgets.into_iter().zip(0_u16..).map(|(budget, n)| Desk::new(ClusterId(n), budget)).collect();
        Self {
            shared: Rc::new(Shared {
                clock,
                limits: Cell::new(limits),
                desks: RefCell::new(desks),
                tenants: RefCell::default(),
                timer: Notify::new(),
                replicas: RefCell::default(),
                tiering: RefCell::new((Tiering::Static, Arc::default())),
                tape: Tape::default(),
                notes,
            }),
        }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// A tenant that has been met.
    #[must_use]
    pub fn tenant(&self, id: TenantId) -> Option<Rc<TenantState>> {
        self.shared.tenants.borrow().get(&id).cloned()
    }

    /// All tenants that have been met.
    #[must_use]
    pub fn tenants(&self) -> Vec<Rc<TenantState>> {
        self.shared.tenants.borrow().values().cloned().collect()
    }

    /// Takes a tenant in, or tells the scheduler of its new allowance.
    pub fn set_tenant(&self, state: &Rc<TenantState>) {
        self.shared.tenants.borrow_mut().insert(state.id, state.clone());
        self.introduce(state);
    }

    /// Tells the scheduler of its cluster what a tenant may use.
    pub(super) fn introduce(&self, state: &Rc<TenantState>) {
        let tenant = state.tenant();
        self.shared.step(tenant.cluster, Input::SetTenant { tenant: tenant.id, allowance: tenant.allowance });
        self.set_rate(state);
    }

    /// The tenant keeps to another rate.
    pub fn set_rate(&self, state: &Rc<TenantState>) {
        let limit = state.transaction_rate();
        self.shared.step(state.cluster(), Input::SetRate { tenant: state.id, limit });
    }

    /// Holds a tenant up, until then. Draining, it gives up its servers, and those that are leased at their release.
    pub fn halt(&self, state: &Rc<TenantState>, halt: Halt, until: Moment) {
        if halt == Halt::Drain {
            state.renew();
        }
        self.shared.step(state.cluster(), Input::Halt { tenant: state.id, halt, until });
    }

    /// Lets a tenant go on.
    pub fn resume(&self, state: &Rc<TenantState>) {
        self.shared.step(state.cluster(), Input::Resume { tenant: state.id });
    }

    /// What its cluster's scheduler has to say about a tenant's waits, as of now.
    #[must_use]
    pub fn explain(&self, state: &TenantState) -> Option<Explanation> {
        self.shared.step(state.cluster(), Input::Tick);
        self.shared.desk(state.cluster())?.scheduler.explain(state.id)
    }

    /// Lets a tenant go: nobody gets a server any more, idle ones are closed, leased ones at their release.
    pub fn remove_tenant(&self, state: &Rc<TenantState>) {
        state.set_removed();
        self.shared.tiering.borrow().1.forget(state.rank.take());
        self.shared.tenants.borrow_mut().remove(&state.id);
        state.readers().iter().for_each(|reader| self.remove_reader(reader));
        self.shared.step(state.cluster(), Input::RemoveTenant { tenant: state.id });
    }

    /// Changes a cluster's capacity.
    pub fn set_capacity(&self, cluster: ClusterId, capacity: u32) {
        self.shared.step(cluster, Input::SetCapacity(capacity));
    }

    /// A new cluster.
    pub fn add_cluster(&self, budget: BudgetConfig) {
        let mut desks = self.shared.desks.borrow_mut();
        let id = ClusterId(u16::try_from(desks.len()).unwrap_or(u16::MAX));
        desks.push(Desk::new(id, budget));
    }

    /// How tenants without a written tier get one.
    pub fn set_tiering(&self, tiering: Tiering) {
        self.shared.tiering.borrow_mut().0 = tiering;
    }

    /// Who counts those that are ranked, for all workers together. To be set once, at the start.
    pub fn set_ranks(&self, ranks: Arc<Ranks>) {
        self.shared.tiering.borrow_mut().1 = ranks;
    }

    /// Whether requests are refused at once that would be served behind their deadlines only.
    pub fn set_refuses_hopeless_waits(&self, refuses: bool) {
        for desk in self.shared.desks.borrow_mut().iter_mut() {
            desk.scheduler.set_refuses_hopeless_waits(refuses);
        }
    }

    /// Changes the limits on servers.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.shared.limits.set(limits);
    }

    /// Records there from now on what is asked for; `None`: not at all.
    pub fn record(&self, recording: Option<Recording>) {
        self.shared.tape.record(recording);
    }

    /// Asks for a server. `prefer` is the one the client had last.
    pub fn acquire(
        &self,
        tenant: &Rc<TenantState>,
        prefer: Option<ServerId>,
        patience: Duration,
    ) -> Acquired {
        self.ask(tenant, prefer, patience, false)
    }

    /// Asks for a server on which no transaction of a client's begins: the tenant's rate does not hold for it.
    pub fn acquire_exempt(&self, tenant: &Rc<TenantState>, patience: Duration) -> Acquired {
        self.ask(tenant, None, patience, true)
    }

    fn ask(
        &self,
        tenant: &Rc<TenantState>,
        prefer: Option<ServerId>,
        patience: Duration,
        mut exempt: bool,
    ) -> Acquired {
        let (cluster, asked) = (tenant.cluster(), Asked::at_once(exempt));
        loop {
            let now = self.shared.clock.now();
            let Some(mut desk) = self.shared.desk(cluster) else {
                let (reason, login) = (RejectReason::UnknownTenant, None);
                return Acquired::Refused(Refusal::Rejected {
                    reason,
                    held: 0,
                    ceiling: 0,
                    workers: 1,
                    login,
                });
            };
            desk.last_request = desk.last_request.wrapping_add(1);
            let request = RequestId(desk.last_request);
            desk.immediate = Some((request, tenant.clone(), None));
            let (tenant_id, deadline) = (tenant.id, now + patience);
            let input = Input::Acquire { request, tenant: tenant_id, deadline, prefer, exempt };
            desk.handle(&self.shared, now, input);
            match desk.immediate.take().and_then(|(.., outcome)| outcome).map(|(outcome, _)| outcome) {
                Some(Ok(mut server)) => {
                    drop(desk);
                    if server.epoch == tenant.epoch() && server.is_silent() {
                        (server.since, server.asked) = (now, asked);
                        return Acquired::Now(Lease::new(self.clone(), tenant.clone(), server));
                    }
                    // It died, or spoke, while it was idle, or is logged in otherwise than the tenant is now. Try the
                    // next one; each try uses one up, and is the same transaction.
                    self.shared.retire(tenant, server);
                    exempt = true;
                }
                Some(Err(refusal)) => {
                    if self.shared.tape.is_on() {
                        self.shared.tape.note_unserved(tenant, asked, now);
                    }
                    return Acquired::Refused(refusal);
                }
                None => {
                    let waiting = Waiting { tenant: tenant.clone(), waker: None, outcome: None };
                    desk.table.waiting.insert(request, waiting);
                    drop(desk);
                    return Acquired::Queued(Ticket::new(
                        self.clone(),
                        tenant.clone(),
                        request,
                        (now, asked),
                    ));
                }
            }
        }
    }

    /// Sends a cancel request to a leased server, and again while `wanted` says that what it is for is unanswered. Until
    /// a request has been delivered the server serves nobody else.
    pub fn cancel(&self, cluster: ClusterId, server: ServerId, wanted: impl Fn() -> bool + 'static) {
        maintain::cancel(&self.shared, cluster, server, wanted);
    }

    /// Runs timers and sweeps for as long as the worker lives.
    pub async fn run(&self) {
        maintain::run(self.shared.clone()).await;
    }

    /// Calls `look` with each cluster's scheduler and what failed there.
    pub fn inspect<R>(
        &self,
        mut look: impl FnMut(ClusterId, &Scheduler, &HashMap<&'static str, u64>) -> R,
    ) -> Vec<R> {
        let desks = self.shared.desks.borrow();
        desks.iter().map(|desk| look(desk.cluster, &desk.scheduler, &desk.login_failures)).collect()
    }

    /// What the scheduler of its cluster knows of a tenant.
    #[must_use]
    pub fn view(&self, tenant: &TenantState) -> Option<TenantView> {
        self.shared.desk(tenant.cluster())?.scheduler.tenant(tenant.id)
    }

    /// Whether no server is left, in any state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.desks.borrow().iter().all(|desk| desk.scheduler.used() == 0)
    }

    /// Closes every idle server and lets no new one open.
    pub fn shut(&self) {
        let clusters = self.shared.desks.borrow().len();
        for cluster in 0..u16::try_from(clusters).unwrap_or(u16::MAX) {
            self.set_capacity(ClusterId(cluster), 0);
        }
    }
}

impl Shared {
    pub(super) fn desk(&self, cluster: ClusterId) -> Option<RefMut<'_, Desk>> {
        RefMut::filter_map(self.desks.borrow_mut(), |desks| desks.get_mut(usize::from(cluster.0))).ok()
    }

    /// A tenant on the cluster where it writes, or on one where it reads.
    pub(super) fn tenant_at(&self, cluster: ClusterId, tenant: TenantId) -> Option<Rc<TenantState>> {
        let state = self.tenants.borrow().get(&tenant).cloned()?;
        if state.cluster() == cluster {
            return Some(state);
        }
        state.reader_at(cluster)
    }

    /// Looks at the tenants whose need has changed.
    pub(super) fn look_at_needs(self: &Rc<Self>) {
        let now = self.clock.now();
        let of = |desk: &mut Desk| {
            let cluster = desk.cluster;
            std::mem::take(&mut desk.needs).into_iter().map(move |(tenant, need)| (cluster, tenant, need))
        };
        let needs: Vec<_> = self.desks.borrow_mut().iter_mut().flat_map(of).collect();
        for (cluster, tenant, need) in needs {
            if let Some(state) = self.tenant_at(cluster, tenant) {
                tiers::look_at(self, &state, now, need);
            }
        }
    }

    /// One step of a cluster's scheduler.
    pub(super) fn step(self: &Rc<Self>, cluster: ClusterId, input: Input) {
        let now = self.clock.now();
        if let Some(mut desk) = self.desk(cluster) {
            desk.handle(self, now, input);
        }
    }

    /// Whether a server has lived for long enough.
    pub(super) fn is_old(&self, server: &Server, now: Moment) -> bool {
        let lifetime = self.limits.get().lifetime;
        !lifetime.is_zero() && now.since(server.opened_at) >= lifetime
    }

    /// Takes a server back from its lease. The caller has made sure that it is clean, or says that it is not.
    pub(super) fn release(
        self: &Rc<Self>,
        tenant: &Rc<TenantState>,
        mut server: Box<Server>,
        leftover: Condition,
    ) {
        let now = self.clock.now();
        if self.tape.is_on() {
            self.tape.note_lease(tenant, &server, now);
        }
        {
            let mut counters = tenant.counters.borrow_mut();
            counters.lease_us = counters.lease_us.saturating_add(now.micros_since(server.since));
        }
        let old = self.is_old(&server, now);
        let usable = leftover == Condition::Clean
            && !old
            && !server.state.suspect
            && !server.state.condemned
            && server.epoch == tenant.epoch()
            && server.carry.is_empty();
        server.since = now;
        // What a broken one has made may still be committed: it is forgotten when it is gone.
        if usable && server.state.takes_new_functions() {
            tenant.functions.forget();
        }
        let condition = if usable { Condition::Clean } else { Condition::Broken };
        self.put_back(tenant.cluster(), now, server, condition);
    }

    /// Gives a server that nobody leases any more to the scheduler.
    pub(super) fn put_back(
        self: &Rc<Self>,
        cluster: ClusterId,
        now: Moment,
        server: Box<Server>,
        condition: Condition,
    ) {
        let Some(mut desk) = self.desk(cluster) else { return };
        let id = server.id;
        let Some(slot) = desk.table.slot(id) else {
            debug_assert!(false, "a server has a slot for as long as it has a permit");
            return;
        };
        debug_assert!(matches!(slot.place, Place::Leased), "only a leased server is released");
        if slot.cancelling {
            slot.place = Place::Held(server, condition);
            return;
        }
        // The tenant may have changed since the lease ended.
        let usable = server.epoch == slot.tenant.epoch() && !slot.marked;
        let condition = if usable { condition } else { Condition::Broken };
        match condition {
            Condition::Clean => slot.place = Place::Idle(server),
            Condition::Broken => {
                slot.place = Place::Closing;
                maintain::close(self, &slot.tenant.clone(), slot.cancel.clone(), server);
            }
        }
        desk.handle(self, now, Input::Release { server: id, condition });
    }

    /// Closes a server that was granted but turned out to be dead, or logged in as the tenant is no longer.
    pub(super) fn retire(self: &Rc<Self>, tenant: &Rc<TenantState>, server: Box<Server>) {
        tracing::info!(customer_id = %tenant.tenant().name, pid = server.pid, reason = "idle_server_unfit", "server closed");
        self.put_back(tenant.cluster(), self.clock.now(), server, Condition::Broken);
    }
}

impl Desk {
    fn new(cluster: ClusterId, mut budget: BudgetConfig) -> Self {
        budget.ledger = u32::from(cluster.0);
        Self {
            cluster,
            scheduler: Scheduler::new(budget),
            table: Table::default(),
            wake_at: Moment::NEVER,
            login_failures: HashMap::new(),
            pins: 0,
            unavailable: None,
            outputs: Vec::new(),
            last_request: 0,
            reachable: true,
            needs: Vec::new(),
            immediate: None,
        }
    }

    /// Tells the scheduler and does what it says.
    pub(super) fn handle(&mut self, shared: &Rc<Shared>, now: Moment, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Err(refusal) = self.scheduler.handle(now, input, &mut outputs) {
            tracing::error!(reason = "scheduler_refusal", %refusal, "the scheduler refused an input");
            debug_assert!(false, "the scheduler refused an input: {refusal}");
        }
        for output in outputs.drain(..) {
            self.carry_out(shared, output);
        }
        self.outputs = outputs;
        if self.reachable == self.scheduler.breaker_open() {
            self.reachable = !self.reachable;
            (shared.notes)(Note::Reachable { cluster: self.cluster, reachable: self.reachable });
        }
    }

    fn carry_out(&mut self, shared: &Rc<Shared>, output: Output) {
        match output {
            Output::Grant { request, server, cause } => {
                let Some(server) = self.table.take_idle(server, Place::Leased) else {
                    debug_assert!(false, "only an idle server is granted");
                    return;
                };
                self.settle(request, (Ok(server), cause));
            }
            Output::Reject { request, reason } => {
                let asking = self.immediate.as_ref().filter(|(asked, ..)| *asked == request);
                let waiting = self.table.waiting.get(&request).map(|waiting| waiting.tenant.clone());
                let tenant = waiting.or_else(|| asking.map(|(_, tenant, _)| tenant.clone()));
                let refusal = Refusal::by(self, reason, tenant.as_deref());
                self.settle(request, (Err(refusal), reason.cause()));
            }
            Output::Open { permit, server, tenant } => {
                let Some(tenant) = shared.tenant_at(self.cluster, tenant) else {
                    debug_assert!(false, "a server is opened for a tenant that was taken in");
                    return;
                };
                let slot = Slot {
                    id: server,
                    tenant: tenant.clone(),
                    place: Place::Opening,
                    cancel: None,
                    cancelling: false,
                    marked: false,
                };
                self.table.insert(slot);
                maintain::open(shared, tenant, permit);
            }
            Output::Close { server, why } => {
                let Some(idle) = self.table.take_idle(server, Place::Closing) else {
                    debug_assert!(false, "only an idle server is closed by the scheduler");
                    return;
                };
                if let Some(slot) = self.table.slot(server) {
                    count_close(&slot.tenant, why);
                    maintain::close(shared, &slot.tenant.clone(), slot.cancel.clone(), idle);
                }
            }
            Output::WakeAt(moment) => {
                self.wake_at = moment;
                shared.timer.notify_one();
            }
            Output::CapacitySettled { capacity } => {
                (shared.notes)(Note::Settled { cluster: self.cluster, capacity });
            }
            Output::StandingChanged => {
                (shared.notes)(Note::Standing { cluster: self.cluster, standing: self.scheduler.standing() });
            }
            Output::Needs { tenant, need } => {
                // Looked at by the pool's own task: it is in the middle of a step here.
                self.needs.push((tenant, need));
                shared.timer.notify_one();
            }
            Output::Drained { tenant } => tracing::debug!(%tenant, "tenant drained"),
        }
    }

    fn settle(&mut self, request: RequestId, outcome: Outcome) {
        if let Some((immediate, _, slot)) = &mut self.immediate
            && *immediate == request
        {
            *slot = Some(outcome);
        } else if let Some(waiting) = self.table.waiting.get_mut(&request) {
            waiting.outcome = Some(outcome);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        } else {
            debug_assert!(false, "a request that is answered waits");
        }
    }
}

fn count_close(tenant: &Rc<TenantState>, why: crate::budget::CloseReason) {
    use crate::budget::CloseReason;
    let mut counters = tenant.counters.borrow_mut();
    match why {
        CloseReason::Evicted { .. } | CloseReason::Turn { .. } => {
            counters.evictions = counters.evictions.saturating_add(1);
        }
        CloseReason::Capacity | CloseReason::Ceiling | CloseReason::TenantRemoved | CloseReason::Drained => {
            counters.closes = counters.closes.saturating_add(1);
        }
    }
}
