//! The workers, and which tenant lives on which.
//!
//! Owns the workers. Where a tenant lives is looked up once per login; a query never comes here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::placement::{Placement, Placements};
use crate::budget::{Exchange, Instruction};
use crate::front::{Admitted, Reception};
use crate::ids::{ClusterId, TenantId, WorkerId};
use crate::pool::Note;
use crate::session::{CancelKeys, Newcomer, SessionWishes};
use crate::stats::WorkerReport;
use crate::wire::startup::CancelKey;
use crate::worker::{Order, Plan, Worker};

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
        let keys = CancelKeys::new(seed);
        let mut workers = Vec::with_capacity(plans.len());
        for (plan, number) in plans.into_iter().zip(0_u16..) {
            workers.push(Worker::spawn(WorkerId(number), plan, keys.clone(), said.clone())?);
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

    /// Gives every worker its new plan.
    pub fn apply(&self, plans: Vec<Plan>) {
        for (worker, plan) in self.workers.iter().zip(plans) {
            worker.order(Order::Apply(Box::new(plan)));
        }
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

    fn worker_for(&self, tenant: TenantId) -> Option<&Worker> {
        match self.placements.lock().place(tenant)? {
            Placement::Pinned(worker) => self.workers.get(usize::from(worker.0)),
        }
    }
}

impl Reception for Fleet {
    fn admit(&self, client: Admitted) {
        let Some(worker) = self.worker_for(client.tenant.id) else { return };
        worker.order(Order::Admit(Box::new(Newcomer {
            tenant: client.tenant,
            stream: client.stream,
            request_id: client.request_id,
            place: Box::new(client.slot),
            wishes: SessionWishes {
                mode: client.mode,
                replication: client.replication,
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
