//! The workers, and which tenants live on which.
//!
//! Owns the workers. Where a tenant lives is looked up once per login; a query never comes here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::placement::{Place, Placements};
use super::spread::{Change, Step};
use crate::budget::{Command, Exchange, Instruction};
use crate::front::{Admitted, Reception};
use crate::ids::{ClusterId, TenantId, WorkerId};
use crate::pool::Note;
use crate::session::{CancelKeys, Newcomer, SessionWishes};
use crate::stats::WorkerReport;
use crate::tenant::Ranks;
use crate::wire::startup::CancelKey;
use crate::worker::{Allotment, Order, Plan, TenantExplanation, Worker};

/// All workers of a process.
#[derive(Debug)]
pub struct Fleet {
    workers: Vec<Worker>,
    placements: Mutex<Placements>,
    /// How each cluster's budget is divided, by cluster number.
    exchanges: Mutex<Vec<Exchange>>,
    /// Which clusters which workers cannot reach.
    unreachable: Mutex<BTreeSet<(ClusterId, WorkerId)>>,
}

/// What workers say about their parts of the budgets; to be given to [`Fleet::note`].
pub type Notes = mpsc::UnboundedReceiver<(WorkerId, Note)>;

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The system gives no thread.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Fleet {
    /// Starts one worker per plan. `budgets` are the clusters' totals, `seed` makes the cancel keys.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(plans: Vec<Plan>, budgets: &[u32], seed: &[u8; 32]) -> Result<(Self, Notes), FleetError> {
        let (said, notes) = mpsc::unbounded_channel();
        let (keys, ranks) = (CancelKeys::new(seed), Arc::new(Ranks::default()));
        let mut workers = Vec::with_capacity(plans.len());
        for (plan, number) in plans.into_iter().zip(0_u16..) {
            workers.push(Worker::spawn(WorkerId(number), plan, (keys.clone(), ranks.clone()), said.clone())?);
        }
        let exchanges = budgets.iter().map(|total| Exchange::new(*total, workers.len())).collect();
        let placements = Mutex::new(Placements::new(workers.len()));
        Ok((
            Self { workers, placements, exchanges: Mutex::new(exchanges), unreachable: Mutex::default() },
            notes,
        ))
    }

    /// A worker said something about its part of a budget.
    pub fn note(&self, worker: WorkerId, note: Note) {
        let mut instructions = Vec::new();
        let mut exchanges = self.exchanges.lock();
        let cluster = match note {
            Note::Settled { cluster, .. } | Note::Standing { cluster, .. } => cluster,
            Note::Reachable { cluster, reachable } => {
                let mut unreachable = self.unreachable.lock();
                if reachable {
                    unreachable.remove(&(cluster, worker));
                } else {
                    unreachable.insert((cluster, worker));
                }
                return;
            }
        };
        let Some(exchange) = exchanges.get_mut(usize::from(cluster.0)) else { return };
        match note {
            Note::Settled { capacity, .. } => {
                exchange.handle_settled(usize::from(worker.0), capacity, &mut instructions);
            }
            Note::Reachable { .. } => {}
            Note::Standing { standing, .. } => {
                exchange.handle_standing(usize::from(worker.0), standing, &mut instructions);
            }
        }
        self.carry_out(cluster, &instructions);
    }

    /// Whether every worker that tried could reach the cluster.
    #[must_use]
    pub fn reaches(&self, cluster: ClusterId) -> bool {
        !self.unreachable.lock().iter().any(|(unreachable, _)| *unreachable == cluster)
    }

    /// The clusters' totals have changed; clusters that are new get what their plans said.
    pub fn set_budgets(&self, budgets: &[u32]) {
        let mut exchanges = self.exchanges.lock();
        for (total, number) in budgets.iter().zip(0_u16..) {
            match exchanges.get_mut(usize::from(number)) {
                Some(exchange) => {
                    let mut instructions = Vec::new();
                    exchange.handle_total(*total, &mut instructions);
                    self.carry_out(ClusterId(number), &instructions);
                }
                None => exchanges.push(Exchange::new(*total, self.workers.len())),
            }
        }
    }

    fn carry_out(&self, cluster: ClusterId, instructions: &[Instruction]) {
        for Instruction { worker, capacity } in instructions {
            if let Some(worker) = self.workers.get(*worker) {
                worker.order(Order::SetCapacity(cluster, *capacity));
            }
        }
    }

    /// Looks how busy the workers are; `elapsed` has passed since the last time. Tenants that come are placed by that.
    pub fn observe(&self, elapsed: Duration) {
        self.placements.lock().observe(elapsed, self.workers.iter().map(Worker::busy));
    }

    /// How many workers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there is no worker.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Gives every worker its new plan. Tenants whose number of workers has changed go over to it in the background. Must
    /// be called in a runtime.
    pub fn apply(self: &Arc<Self>, plans: Vec<Plan>) {
        let catalog = plans.first().map(|plan| plan.settings.catalog.clone());
        // First, so that the portions that follow are those of the new limits.
        for (worker, plan) in self.workers.iter().zip(plans) {
            worker.order(Order::Apply(Box::new(plan)));
        }
        let Some(catalog) = catalog else { return };
        let tenants = self.placements.lock().tenants();
        for tenant in tenants.into_iter().filter_map(|id| catalog.get(id)) {
            let mut placements = self.placements.lock();
            let change = placements.resize(tenant.id, tenant.workers);
            self.begin(tenant.id, change);
        }
    }

    /// Begins a change of a tenant's workers, under the lock of the placements. When all keep to what they were told, the
    /// portions get their new sizes.
    fn begin(self: &Arc<Self>, tenant: TenantId, change: Option<Change>) {
        let Some(Change { number, steps }) = change else { return };
        let settled = self.take(tenant, steps);
        let fleet = self.clone();
        tokio::spawn(async move {
            // Nobody says anything: the last one drops it.
            let _ = settled.await;
            let mut placements = fleet.placements.lock();
            let (last, next) = placements.resized(tenant, number);
            drop(fleet.take(tenant, last));
            fleet.begin(tenant, next);
        });
    }

    /// Has steps taken, in the order of calls: under the lock of the placements. What is returned ends when all have been.
    fn take(&self, tenant: TenantId, steps: Vec<Step>) -> oneshot::Receiver<()> {
        let (done, settled) = oneshot::channel();
        let done = Arc::new(done);
        for Step { worker, portion, clients, elsewhere } in steps {
            if let Some(worker) = self.workers.get(usize::from(worker.0)) {
                let done = done.clone();
                let allotment = Allotment { tenant, portion, clients, elsewhere, done };
                worker.order(Order::Allot(Box::new(allotment)));
            }
        }
        settled
    }

    /// Has all workers carry out what an operator has ordered for a tenant, whether it has been there or not.
    pub fn steer(&self, tenant: TenantId, command: Command) {
        for worker in &self.workers {
            worker.order(Order::Steer(tenant, command));
        }
    }

    /// Why a tenant's clients wait, on each worker that has met it.
    pub async fn explain(&self, tenant: TenantId) -> Vec<TenantExplanation> {
        let mut explanations = Vec::new();
        for worker in &self.workers {
            explanations.extend(worker.explain(tenant).await);
        }
        explanations
    }

    /// What all workers say about themselves.
    pub async fn report(&self) -> Vec<WorkerReport> {
        let mut reports = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            reports.extend(worker.report().await);
        }
        reports
    }

    /// Lets all clients finish their transactions and all servers close; returns when that is done.
    pub async fn leave(&self) {
        for worker in &self.workers {
            worker.order(Order::Leave);
        }
        self.gone().await;
    }

    /// Ends all workers now.
    pub async fn stop(&self) {
        for worker in &self.workers {
            worker.order(Order::Stop);
        }
        self.gone().await;
    }

    async fn gone(&self) {
        for worker in &self.workers {
            worker.gone().await;
        }
    }
}

impl Reception for Fleet {
    fn admit(&self, client: Admitted) {
        // Held until the order is given: a client must not come where its tenant has just left, or is not yet.
        let mut placements = self.placements.lock();
        let place = placements.place(client.tenant.id, client.tenant.workers);
        let Some(Place { worker, elsewhere, seat, steps }) = place else { return };
        let Some(worker) = self.workers.get(usize::from(worker.0)) else { return };
        // Nobody has anything of a tenant that has just come: there is nothing to wait for.
        drop(self.take(client.tenant.id, steps));
        worker.order(Order::Admit(Box::new(Newcomer {
            tenant: client.tenant,
            stream: client.stream,
            request_id: client.request_id,
            elsewhere,
            place: Box::new((client.slot, seat)),
            wishes: SessionWishes {
                mode: client.mode,
                replication: client.replication,
                target: client.target,
                ends_at: client.ends_at,
                protocol_minor: client.protocol_minor,
                parameters: client.parameters,
                unread: client.unread,
                unsent: client.unsent,
            },
        })));
    }

    fn cancel(&self, key: CancelKey, done: oneshot::Sender<()>) {
        // The process id may be a server's, and then says nothing about the worker. `done` goes with its last holder.
        let (key, done) = (Arc::new(key), Arc::new(done));
        for worker in &self.workers {
            worker.order(Order::Cancel { key: key.clone(), done: done.clone() });
        }
    }
}

/// A fleet is shared by front threads and control.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Fleet>>();
};
