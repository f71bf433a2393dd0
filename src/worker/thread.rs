//! A worker's thread: its runtime, its loop over orders, its end.
//!
//! Owns what an order does. Sessions and servers run as tasks beside the loop, on the same thread.

use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions, RuntimeMetrics};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use super::allotments::Allotments;
use super::steering::Steering;
use super::{Allotment, CancelDone, OnReplicas, Order, Plan, TenantExplanation, floor_report, readers};
use crate::backend::Profile;
use crate::budget::{BudgetConfig, TenantView};
use crate::config::settings::{Driver, Settings};
use crate::ids::{ClusterId, TenantId, WorkerId};
use crate::net;
use crate::pool::{Clock, Note, Pool, PoolLimits, TenantState};
use crate::session::{
    Admission, CancelKeys, ClientCell, Floor, Newcomer, Registry, Whereabouts, greet, keep_expiries,
    keep_time, turn_away, turn_away_early, turn_away_leaving,
};
use crate::tenant::{Ranks, Target, Tenant};
use crate::wire::startup::CancelKey;

pub(super) fn spawn(
    id: WorkerId,
    plan: Plan,
    (keys, ranks, notes): (CancelKeys, Arc<Ranks>, Notes),
    orders: mpsc::UnboundedReceiver<Order>,
    going: watch::Sender<bool>,
) -> std::io::Result<RuntimeMetrics> {
    let (told, started) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        // A local runtime, not a LocalSet: a task that is woken on its own thread goes straight to the run queue.
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        };
        // Now, because the ring is this thread's own.
        if let Err(error) = take_driver(id, plan.settings.threads.driver) {
            let _ = told.send(Err(error));
            return;
        }
        let _ = told.send(Ok(runtime.metrics()));
        runtime.block_on(async move {
            let mut work = Work::new(id, plan, keys, notes);
            work.floor.pool.set_ranks(ranks);
            work.run(orders).await;
            // What it has noted is sent, even if a task should keep the pool.
            work.floor.pool.record(None);
        });
        // Tasks that are left (a server that does not go) die with the runtime; their sockets are closed.
        runtime.shutdown_background();
        let _ = going.send(true);
    })?;
    started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the worker thread ended at once")))
}

/// Begins to send in batches, if that is wanted and the system lets us. The first worker says how it is.
fn take_driver(id: WorkerId, driver: Driver) -> std::io::Result<()> {
    let batches = match driver {
        Driver::Epoll => Ok(false),
        Driver::Auto | Driver::IoUring => net::send_in_batches().map(|()| true),
    };
    let (name, error) = match batches {
        Ok(true) => ("io_uring", None),
        Ok(false) => ("epoll", None),
        Err(error) if driver == Driver::Auto => ("epoll", Some(error)),
        Err(error) => {
            let text = format!("threads.driver is `io_uring`, and the system gives none: {error}");
            return Err(std::io::Error::new(error.kind(), text));
        }
    };
    if id.0 == 0 {
        let error = error.map(|error| error.to_string());
        let reason = error.is_some().then_some("no_io_uring");
        tracing::info!(driver = name, reason, error, "how workers send");
    }
    Ok(())
}

struct Work {
    id: WorkerId,
    plan: Plan,
    allotments: Allotments,
    steering: Steering,
    floor: Rc<Floor>,
}

impl Work {
    fn new(id: WorkerId, plan: Plan, keys: CancelKeys, notes: Notes) -> Self {
        let budgets = plan.capacities.iter().map(|capacity| budget(&plan, *capacity)).collect();
        let notes = Box::new(move |note| {
            let _ = notes.send((id, note));
        });
        let pool = Pool::new(Clock::start(), limits(&plan.settings), budgets, notes);
        pool.set_tiering(plan.settings.tiering);
        pool.set_replicas(readers::replicas(&plan.settings));
        pool.record(plan.recording.clone());
        let registry = Registry::new(id, keys);
        let max_statements = plan.settings.servers.max_client_statements;
        let floor = Rc::new(Floor::new(pool, registry, max_statements));
        floor.time.set_shortest(plan.shortest_limit);
        floor.slow_wait_us.set(slow_wait_us(&plan.settings));
        Self { id, plan, allotments: Allotments::default(), steering: Steering::default(), floor }
    }

    async fn run(&mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        spawn_local(net::keep_flushing());
        let pool = self.floor.pool.clone();
        spawn_local(async move { pool.run().await });
        spawn_local(keep_time(self.floor.clone()));
        spawn_local(keep_expiries(self.floor.clone()));
        spawn_local(give_back_after_storms(self.floor.clone()));
        while let Some(order) = orders.recv().await {
            match order {
                Order::Admit(newcomer) => self.admit(*newcomer),
                Order::Cancel { key, done } => self.cancel(&key, done),
                Order::Report(answer) => {
                    let _ = answer.send(floor_report::report(self.id, &self.floor));
                }
                Order::Apply(plan) => self.apply(*plan),
                Order::Allot(allotment) => self.allot(*allotment),
                Order::Steer(tenant, command) => {
                    let portion = self.allotments.portion(tenant);
                    self.steering.take(&self.floor.pool, tenant, portion, command);
                }
                Order::Explain(tenant, answer) => {
                    if let Some(explanation) = explain(&self.floor, tenant) {
                        let _ = answer.send(explanation);
                    }
                }
                Order::SetCapacity(cluster, capacity) => self.floor.pool.set_capacity(cluster, capacity),
                Order::Leave => {
                    self.floor.registry.close();
                    let floor = self.floor.clone();
                    tokio::select! {
                        () = everybody_gone(floor) => return,
                        () = answer_only(self.id, &self.floor, &mut orders) => {}
                    }
                    return self.cut_off().await;
                }
                Order::Stop => return self.cut_off().await,
            }
        }
    }

    /// Tells whoever is left that it is over, cancels what runs, and gives both a moment.
    async fn cut_off(&self) {
        self.floor.registry.cut_off();
        let _ = tokio::time::timeout(LAST_WORDS, everybody_gone(self.floor.clone())).await;
    }

    fn admit(&self, newcomer: Newcomer) {
        let Newcomer { tenant, stream, request_id, elsewhere, place, wishes } = newcomer;
        let Ok(mut stream) = stream.attach() else { return };
        let name = tenant.name.clone();
        let Some(state) = self.state(tenant.id) else {
            spawn_local(async move { turn_away_leaving(&mut stream, wishes.unsent).await });
            return;
        };
        let max_clients = state.tenant().max_clients;
        if state.clients.connected.get().saturating_add(elsewhere) >= max_clients {
            {
                let mut counters = state.counters.borrow_mut();
                counters.refused_clients = counters.refused_clients.saturating_add(1);
            }
            tracing::info!(customer_id = %name, request_id, reason = "too_many_clients", "client refused");
            spawn_local(async move {
                turn_away(&mut stream, wishes.unsent, max_clients).await;
                drop(place);
            });
            return;
        }
        let now = self.floor.pool.clock().now();
        let from = match state.may_log_in(now) {
            Ok(from) => from,
            Err(retry_us) => {
                {
                    let mut counters = state.counters.borrow_mut();
                    counters.refused_logins = counters.refused_logins.saturating_add(1);
                }
                tracing::info!(customer_id = %name, request_id, reason = "login_rate_limited", "client refused");
                spawn_local(async move {
                    turn_away_early(&mut stream, wishes.unsent, retry_us).await;
                    drop(place);
                });
                return;
            }
        };
        readers::set(&self.floor.pool, (&self.plan, &self.allotments), &state, wishes.target, false);
        self.steering.apply(&self.floor.pool, &state, self.allotments.portion(state.id));
        // Counted here and not by the task: other clients and a drain may come before its first poll.
        let admission = Admission::new(self.floor.clone(), state, request_id);
        spawn_local(async move {
            if from > now {
                tokio::time::sleep(from.since(now)).await;
            }
            // Greeting takes a large future and lasts milliseconds; a session takes a small one and lasts for days.
            if let Some(session) = greet(admission, stream, wishes).await {
                // What was said so far went by this task's waker, and the task ends here.
                net::send_queued();
                spawn_local(session.with_place(place));
            }
        });
    }

    /// The state of a tenant that the catalog has; made when its first client comes.
    fn state(&self, id: TenantId) -> Option<Rc<TenantState>> {
        if let Some(known) = self.floor.pool.tenant(id) {
            return Some(known);
        }
        let tenant = self.allotments.here(self.plan.settings.catalog.get(id)?);
        let profile = self.profile(&tenant)?;
        let state = TenantState::new(tenant, profile);
        self.allotments.share_functions(&state);
        self.floor.pool.set_tenant(&state);
        self.steering.apply(&self.floor.pool, &state, self.allotments.portion(id));
        Some(state)
    }

    fn profile(&self, tenant: &Tenant) -> Option<Profile> {
        let connector = self.plan.connectors.get(usize::from(tenant.cluster.0))?;
        Some(Profile::new(connector, tenant))
    }

    fn cancel(&self, key: &CancelKey, done: CancelDone) {
        let Some(cell) = self.floor.registry.find(key.pid, &key.secret) else { return };
        match cell.whereabouts() {
            Whereabouts::Parked => {}
            Whereabouts::Waiting => self.floor.registry.cancel_queued(&cell),
            Whereabouts::Leasing(..) | Whereabouts::Replicating(_) => cancel_leased(&self.floor, cell, done),
        }
    }

    /// Goes over to another plan. Clients that it does not concern notice nothing.
    fn apply(&mut self, plan: Plan) {
        let old = std::mem::replace(&mut self.plan, plan);
        let pool = &self.floor.pool;
        pool.set_limits(limits(&self.plan.settings));
        pool.set_tiering(self.plan.settings.tiering);
        pool.record(self.plan.recording.clone());
        self.floor.time.set_shortest(self.plan.shortest_limit);
        self.floor.max_client_statements.set(self.plan.settings.servers.max_client_statements);
        self.floor.slow_wait_us.set(slow_wait_us(&self.plan.settings));
        pool.set_refuses_hopeless_waits(self.plan.settings.servers.refuses_hopeless_waits);
        for capacity in self.plan.capacities.iter().skip(old.capacities.len()) {
            pool.add_cluster(budget(&self.plan, *capacity));
        }
        pool.set_replicas(readers::replicas(&self.plan.settings));
        for state in pool.tenants() {
            self.apply_to(&state, &old);
        }
        let_go(old.settings);
    }

    /// A tenant has another portion here.
    fn allot(&mut self, allotment: Allotment) {
        let Allotment { tenant: id, portion, clients, elsewhere, done } = allotment;
        self.allotments.set(id, portion, elsewhere);
        let pool = &self.floor.pool;
        if let (Some(state), Some(tenant)) = (pool.tenant(id), self.plan.settings.catalog.get(id)) {
            self.allotments.share_functions(&state);
            state.update(self.allotments.here(tenant), None);
            pool.set_tenant(&state);
            readers::set(pool, (&self.plan, &self.allotments), &state, Target::Primary, false);
            self.steering.apply(pool, &state, self.allotments.portion(id));
            if let Some(clients) = clients {
                let leave = state.clients.connected.get().saturating_sub(clients);
                self.floor.registry.ask_some_to_leave(&state, leave);
            }
        }
        // Also if nobody knows the tenant any more: what it had may still be there.
        spawn_local(kept_to(self.floor.clone(), id, done));
    }

    fn apply_to(&self, state: &Rc<TenantState>, old: &Plan) {
        let before = state.tenant();
        match self.plan.settings.catalog.get(state.id) {
            Some(after) if after.cluster == before.cluster => {
                let relogin = logs_in_otherwise(&before, after)
                    || cluster_differs(&old.settings, &self.plan.settings, before.cluster);
                let profile = if relogin { self.profile(after) } else { None };
                state.update(self.allotments.here(after), profile);
                if relogin {
                    self.allotments.share_functions(state);
                }
                if let Some(connector) = self.plan.connectors.get(usize::from(after.cluster.0)) {
                    state.connect_by(connector);
                }
                self.floor.pool.set_tenant(state);
                let replicas_differ = self
                    .plan
                    .settings
                    .replicas_of(after.cluster)
                    .any(|(replica, _)| cluster_differs(&old.settings, &self.plan.settings, replica));
                readers::set(
                    &self.floor.pool,
                    (&self.plan, &self.allotments),
                    state,
                    Target::Primary,
                    relogin || replicas_differ,
                );
                self.steering.apply(&self.floor.pool, state, self.allotments.portion(state.id));
                if !after.replication && state.clients.replicating.get() > 0 {
                    let may_not =
                        |cell: &ClientCell| Rc::ptr_eq(&cell.tenant, state) && cell.is_replicating();
                    self.floor.registry.ask_to_leave(may_not);
                }
            }
            // Gone, or on another cluster, where its servers and clients begin anew.
            Some(_) | None => {
                self.floor.pool.remove_tenant(state);
                self.floor.registry.ask_to_leave(|cell| Rc::ptr_eq(&cell.tenant, state));
            }
        }
    }
}

/// Where notes go.
type Notes = mpsc::UnboundedSender<(WorkerId, Note)>;

fn budget(plan: &Plan, capacity: u32) -> BudgetConfig {
    BudgetConfig {
        announce_need: plan.shares_budgets,
        refuses_hopeless_waits: plan.settings.servers.refuses_hopeless_waits,
        ..BudgetConfig::of_worker(capacity)
    }
}

/// Whether servers that are logged in by the old configuration must not be used by the new one.
fn logs_in_otherwise(old: &Tenant, new: &Tenant) -> bool {
    use crate::tenant::ServerAuth;
    let same_password = match (&old.server_auth, &new.server_auth) {
        (ServerAuth::Password(a), ServerAuth::Password(b)) => a == b,
        (ServerAuth::None, ServerAuth::None) => true,
        (ServerAuth::Password(_), ServerAuth::None) | (ServerAuth::None, ServerAuth::Password(_)) => false,
    };
    !same_password
        || old.role != new.role
        || old.database != new.database
        || old.search_path != new.search_path
        || old.settings != new.settings
}

fn cluster_differs(old: &Settings, new: &Settings, id: ClusterId) -> bool {
    match (old.cluster(id), new.cluster(id)) {
        (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && old.endpoint != new.endpoint,
        (None, _) | (_, None) => true,
    }
}

fn limits(settings: &Settings) -> PoolLimits {
    PoolLimits {
        lifetime: settings.servers.lifetime,
        idle_timeout: settings.servers.idle_timeout,
        cleanup_timeout: settings.servers.cleanup_timeout,
        max_prepared_statements: settings.servers.max_prepared_statements,
    }
}

/// From how long on a wait is logged.
fn slow_wait_us(settings: &Settings) -> u64 {
    settings.log.slow_wait.map_or(u64::MAX, |span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

fn explain(floor: &Floor, tenant: TenantId) -> Option<TenantExplanation> {
    let state = floor.pool.tenant(tenant)?;
    let mut replicas = OnReplicas::default();
    let add = |sum: &mut u32, count: u32| *sum = sum.saturating_add(count);
    for view in state.readers().iter().filter_map(|reader| floor.pool.view(reader)) {
        add(&mut replicas.opening, view.opening);
        add(&mut replicas.idle, view.idle);
        add(&mut replicas.busy, view.busy);
        add(&mut replicas.closing, view.closing);
        add(&mut replicas.waiters, view.waiters);
    }
    Some(TenantExplanation {
        replicas,
        budget: floor.pool.explain(&state)?,
        tier: state.tier(),
        clients: state.clients.connected.get(),
        pins: state.pins.get(),
        listeners: u32::from(state.listening.is_on()),
        login_error: state.login_error().map(|error| error.detail.unwrap_or(error.message).into()),
    })
}

/// Lets go of settings. Whoever is the last to do so frees every tenant that there was: not on a thread that serves clients.
fn let_go(settings: Arc<Settings>) {
    if let Some(settings) = Arc::into_inner(settings) {
        let _ = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            drop(settings);
            heap::give_back();
        });
    }
}

/// Cancels what runs for a client that holds a server.
fn cancel_leased(floor: &Rc<Floor>, cell: Rc<ClientCell>, done: CancelDone) {
    let (cluster, server) = match cell.whereabouts() {
        Whereabouts::Leasing(cluster, server) => (cluster, server),
        Whereabouts::Replicating(server) => (cell.tenant.cluster(), server),
        Whereabouts::Parked | Whereabouts::Waiting => return,
    };
    // Between two requests there is nothing to cancel; the next one must not be hit.
    if !cell.is_busy() {
        return;
    }
    let mark = cell.request_mark();
    floor.pool.cancel(cluster, server, move || {
        // Lives as long as the cancelling goes on.
        let _ = &done;
        cell.is_busy() && cell.request_mark() == mark
    });
}

/// Gives memory back when most of very many clients have gone: the allocator would keep it for those to come.
async fn give_back_after_storms(floor: Rc<Floor>) {
    let mut most = 0;
    let mut look = tokio::time::interval(STORM_LOOK);
    loop {
        look.tick().await;
        let now = floor.registry.len();
        most = most.max(now);
        if most - now >= STORM && now <= most / 2 {
            heap::give_back();
            most = now;
        }
    }
}

/// All clients have left and Postgres has let all servers go.
async fn everybody_gone(floor: Rc<Floor>) {
    let mut look = tokio::time::interval(LOOK);
    while !floor.registry.is_empty() {
        look.tick().await;
    }
    floor.pool.shut();
    while !floor.pool.is_empty() {
        look.tick().await;
    }
}

/// Drops `done` when the tenant has no more servers than its ceiling here. As far as they are too many, clients are asked to
/// leave that keep theirs for as long as they like; and if that does not help, those in a transaction when it is over: they
/// may be of session mode.
async fn kept_to(floor: Rc<Floor>, tenant: TenantId, done: CancelDone) {
    let slots_of = |view: TenantView| -> u32 {
        [view.opening, view.idle, view.busy, view.closing].into_iter().fold(0, u32::saturating_add)
    };
    // With what it has on replicas: there it may have as much.
    let excess_of = |state: &Rc<TenantState>| {
        let all = floor.pool.everywhere(state);
        let over = all.iter().map(|(one, view)| view.map_or(0, slots_of).saturating_sub(one.ceiling()));
        over.fold(0, u32::saturating_add)
    };
    let left = || {
        let views = floor.pool.inspect(|_, scheduler, _| scheduler.tenant(tenant));
        views.into_iter().flatten().map(slots_of).fold(0, u32::saturating_add)
    };
    let (mut pause, mut said) = (LOOK, false);
    loop {
        let state = floor.pool.tenant(tenant);
        let excess = state.as_ref().map_or_else(left, excess_of);
        if excess == 0 {
            return drop(done);
        }
        if let Some(state) = state {
            let is_slow = pause == LONGEST_LOOK;
            floor.registry.ask_holders_to_leave(&state, excess, is_slow);
            if is_slow && !said {
                let customer_id = &state.tenant().name;
                let reason = "workers_change_waits";
                let text = "the tenant's change of workers waits for transactions to end";
                tracing::warn!(%customer_id, reason, excess, "{text}");
            }
            said |= is_slow;
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_LOOK);
    }
}

/// While leaving, questions are answered and cancels carried out; newcomers are sent away; `Stop` ends it.
async fn answer_only(id: WorkerId, floor: &Rc<Floor>, orders: &mut mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Report(answer) => {
                let _ = answer.send(floor_report::report(id, floor));
            }
            Order::Cancel { key, done } => {
                if let Some(cell) = floor.registry.find(key.pid, &key.secret) {
                    cancel_leased(floor, cell, done);
                }
            }
            Order::Admit(newcomer) => {
                if let Ok(mut stream) = newcomer.stream.attach() {
                    let unsent = newcomer.wishes.unsent;
                    spawn_local(async move { turn_away_leaving(&mut stream, unsent).await });
                }
            }
            Order::Explain(tenant, answer) => {
                if let Some(explanation) = explain(floor, tenant) {
                    let _ = answer.send(explanation);
                }
            }
            Order::Apply(_) | Order::Allot(_) | Order::Steer(..) | Order::SetCapacity(..) | Order::Leave => {}
            Order::Stop => return,
        }
    }
}

/// How often a worker looks whether clients have gone, and how many are worth it: a megabyte.
const STORM_LOOK: std::time::Duration = std::time::Duration::from_secs(10);
const STORM: usize = 1_000;
/// How often a leaving worker looks whether everybody is gone.
const LOOK: std::time::Duration = std::time::Duration::from_millis(5);
/// How often it looks at last whether a tenant keeps to what it may have: a transaction may last for hours.
const LONGEST_LOOK: std::time::Duration = std::time::Duration::from_millis(500);
/// How long clients and servers that are cut off have to take note of it.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

#[cfg(test)]
mod tests;
