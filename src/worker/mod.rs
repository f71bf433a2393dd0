//! Worker threads: each owns its tenants, with their sessions, servers and counters.
//!
//! Owns the thread, its runtime and the orders it takes. Everything inside is single-threaded; the outside talks to it
//! by [`Order`]s only. Must not know how clients log in (`front`) or where settings come from.

mod allotments;
mod floor_report;
mod readers;
mod steering;
mod thread;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::sync::{mpsc, oneshot};

use crate::backend::Connector;
use crate::budget::{Command, Explanation};
use crate::config::settings::Settings;
use crate::ids::{ClusterId, TenantId, WorkerId};
use crate::pool::{Note, Recording};
use crate::session::{CancelKeys, Newcomer};
use crate::stats::WorkerReport;
use crate::tenant::{Portion, Ranks, Tier};
use crate::track::Elsewhere;
use crate::wire::startup::CancelKey;

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    /// Take over a client.
    Admit(Box<Newcomer>),
    /// Cancel what the client of this key does, if it is one of this worker's.
    Cancel {
        /// The key.
        key: Arc<CancelKey>,
        /// Dropped when the request has been carried out, or is not going to be.
        done: CancelDone,
    },
    /// Say how things are.
    Report(oneshot::Sender<WorkerReport>),
    /// Work by these settings from now on.
    Apply(Box<Plan>),
    /// Let a tenant use this much from now on.
    Allot(Box<Allotment>),
    /// Carry out what an operator has ordered for a tenant.
    Steer(TenantId, Command),
    /// Say why a tenant's clients wait; nothing if no client of it has been here.
    Explain(TenantId, oneshot::Sender<TenantExplanation>),
    /// Use at most this many servers of a cluster.
    SetCapacity(ClusterId, u32),
    /// Ask all clients to leave when their transactions are over, then close all servers and end.
    Leave,
    /// End now.
    Stop,
}

/// What a worker may let a tenant use that has clients on several workers.
#[derive(Clone, Debug)]
pub struct Allotment {
    /// The tenant.
    pub tenant: TenantId,
    /// So much of what it has in all.
    pub portion: Portion,
    /// Clients that may stay, the others are asked to leave; `None`: all.
    pub clients: Option<u32>,
    /// How its workers hear that its functions have changed.
    pub elsewhere: Elsewhere,
    /// Dropped when it has no more servers here than that.
    pub done: Arc<oneshot::Sender<()>>,
}

/// What a tenant has on all its read replicas together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnReplicas {
    /// Servers logging in.
    pub opening: u32,
    /// Idle servers.
    pub idle: u32,
    /// Leased servers.
    pub busy: u32,
    /// Servers on their way out.
    pub closing: u32,
    /// Requests that wait for one.
    pub waiters: u32,
}

/// Why a tenant's clients wait on a worker.
#[derive(Clone, Debug)]
pub struct TenantExplanation {
    /// What the budget says.
    pub budget: Explanation,
    /// Its servers and waiters on read replicas.
    pub replicas: OnReplicas,
    /// Its tier there.
    pub tier: Tier,
    /// Clients.
    pub clients: u32,
    /// Servers that clients keep between transactions.
    pub pins: u32,
    /// Servers that listen for all of its clients: one, or none.
    pub listeners: u32,
    /// Why its last server login failed, if none has succeeded since.
    pub login_error: Option<Box<str>>,
}

/// Settings with what follows from them for one worker.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The settings.
    pub settings: Arc<Settings>,
    /// How to reach each cluster, by cluster number.
    pub connectors: Vec<Connector>,
    /// Servers this worker may have at first, by cluster number. Of a cluster it knows already the capacity is changed
    /// by [`Order::SetCapacity`] only.
    pub capacities: Vec<u32>,
    /// Whether other workers share the budgets, so that what is lacking here is worth saying.
    pub shares_budgets: bool,
    /// Where what is asked for is recorded, if it is.
    pub recording: Option<Recording>,
    /// The shortest time limit of any tenant, on whichever worker it is: a worker that looked through all tenants would
    /// serve nobody meanwhile.
    pub shortest_limit: Option<Duration>,
}

/// Whoever sent a cancel request waits until all of these are dropped.
pub(crate) type CancelDone = Arc<oneshot::Sender<()>>;

/// A worker thread, seen from outside.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    orders: mpsc::UnboundedSender<Order>,
    gone: tokio::sync::watch::Receiver<bool>,
    metrics: RuntimeMetrics,
}

impl Worker {
    /// Starts a worker thread.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime.
    pub fn spawn(
        id: WorkerId,
        plan: Plan,
        (keys, ranks): (CancelKeys, Arc<Ranks>),
        notes: mpsc::UnboundedSender<(WorkerId, Note)>,
    ) -> std::io::Result<Self> {
        // Unbounded, but each sender is bounded: clients by max_clients and the half-open limit, the rest is control.
        let (orders, receiver) = mpsc::unbounded_channel();
        let (going, gone) = tokio::sync::watch::channel(false);
        let metrics = thread::spawn(id, plan, (keys, ranks, notes), receiver, going)?;
        Ok(Self { id, orders, gone, metrics })
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> WorkerId {
        self.id
    }

    /// How long its thread has had something to do since it started; `None` if it has ended.
    #[must_use]
    pub fn busy(&self) -> Option<Duration> {
        (!self.orders.is_closed()).then(|| busy(&self.metrics))
    }

    /// Gives an order. One that comes too late is dropped, and with it what it holds (a client's connection is closed).
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Asks how things are; `None` if the worker has ended.
    pub async fn report(&self) -> Option<WorkerReport> {
        let (answer, report) = oneshot::channel();
        self.order(Order::Report(answer));
        report.await.ok()
    }

    /// Asks why a tenant's clients wait; `None` if none of them has been here, or the worker has ended.
    pub async fn explain(&self, tenant: TenantId) -> Option<TenantExplanation> {
        let (answer, explanation) = oneshot::channel();
        self.order(Order::Explain(tenant, answer));
        explanation.await.ok()
    }

    /// Waits until the worker has ended.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

/// The runtime of a worker has one thread.
fn busy(metrics: &RuntimeMetrics) -> Duration {
    metrics.worker_total_busy_duration(0)
}
