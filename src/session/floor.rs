//! What all sessions of a worker share: the pool, the registry of clients, and the scratch buffers.
//!
//! Owns the buffers that idle clients do not have. A session takes them for the time of one poll.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::Notify;

use super::leased::Conversation;
use super::registry::Registry;
use crate::budget::RejectReason;
use crate::pool::{Pool, Refusal, TenantState};
use crate::stats::{Cause, WaitHistogram};
use crate::tenant::Tier;
use crate::time::Moment;

/// The floor that a worker's sessions stand on.
pub struct Floor {
    /// The servers.
    pub pool: Pool,
    /// The clients.
    pub registry: Registry,
    /// Named prepared statements one client may hold.
    pub max_client_statements: Cell<usize>,
    /// Waits per tier: hot, warm, cold.
    pub waits: RefCell<[WaitHistogram; 3]>,
    /// Waits by what was waited for, in the order of [`Cause::ALL`].
    pub waits_by_cause: RefCell<[WaitHistogram; Cause::ALL.len()]>,
    /// The time limits of clients.
    pub time: TimeKeeping,
    /// Waits from this length on get a line in the log.
    pub slow_wait_us: Cell<u64>,
    scratch: Cell<Vec<u8>>,
    assembly: Cell<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept: sessions hold a pointer")]
    conversations: RefCell<Vec<Box<Conversation>>>,
}

/// Whether clients have to be looked after, and how closely.
#[derive(Debug, Default)]
pub struct TimeKeeping {
    pub(super) shortest: Cell<Option<Duration>>,
    pub(super) changed: Notify,
}

impl TimeKeeping {
    /// Sets the shortest time limit of any tenant; `None` if there is none.
    pub fn set_shortest(&self, shortest: Option<Duration>) {
        if self.shortest.replace(shortest) != shortest {
            self.changed.notify_one();
        }
    }
}

impl std::fmt::Debug for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Floor").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Floor {
    /// A floor for this pool and these clients.
    #[must_use]
    pub fn new(pool: Pool, registry: Registry, max_client_statements: usize) -> Self {
        Self {
            pool,
            registry,
            max_client_statements: Cell::new(max_client_statements),
            waits: RefCell::default(),
            waits_by_cause: RefCell::default(),
            time: TimeKeeping::default(),
            slow_wait_us: Cell::new(u64::MAX),
            scratch: Cell::new(vec![0; SCRATCH_BYTES]),
            assembly: Cell::default(),
            conversations: RefCell::default(),
        }
    }

    /// Counts a wait that is over, by what was waited for; `None` is a lease that was there at once.
    pub(super) fn observe_wait(&self, tenant: &TenantState, wait: Option<(Cause, u64)>) {
        let waited_us = wait.map_or(0, |(_, waited_us)| waited_us);
        let tier = match tenant.tier() {
            Tier::Hot => 0,
            Tier::Warm => 1,
            Tier::Cold => 2,
        };
        if let Some(histogram) = self.waits.borrow_mut().get_mut::<usize>(tier) {
            histogram.observe(waited_us);
        }
        if let Some((cause, _)) = wait {
            if let Some(histogram) = self.waits_by_cause.borrow_mut().get_mut(cause as usize) {
                histogram.observe(waited_us);
            }
            let mut counters = tenant.counters.borrow_mut();
            counters.waits = counters.waits.saturating_add(1);
            counters.wait_us = counters.wait_us.saturating_add(waited_us);
            if let Some(sum) = counters.wait_us_by_cause.get_mut(cause as usize) {
                *sum = sum.saturating_add(waited_us);
            }
            drop(counters);
            if waited_us >= self.slow_wait_us.get() {
                self.log_slow_wait(tenant, cause, waited_us);
            }
        }
    }

    /// One line per tenant and second: when everybody waits, one of them says it.
    fn log_slow_wait(&self, tenant: &TenantState, cause: Cause, waited_us: u64) {
        let now = self.pool.clock().now();
        let (logged, unsaid) = tenant.slow_waits.get();
        if logged != Moment(0) && now.since(logged) < SLOW_WAIT_PAUSE {
            return tenant.slow_waits.set((logged, unsaid.saturating_add(1)));
        }
        tenant.slow_waits.set((now, 0));
        let Some(explanation) = self.pool.explain(tenant) else { return };
        let view = explanation.tenant;
        tracing::warn!(
            customer_id = %tenant.tenant().name,
            reason = cause.as_str(),
            waited_ms = waited_us / 1_000,
            waiting = view.waiters,
            busy = view.busy,
            ceiling = view.allowance.ceiling,
            transaction_ms = view.hold_us / 1_000,
            budget_used = explanation.used,
            budget = explanation.capacity,
            unsaid,
            "a client waited long for a server"
        );
    }

    /// Counts a request that got no server.
    pub(super) fn count_refusal(&self, tenant: &TenantState, refusal: &Refusal) {
        let mut counters = tenant.counters.borrow_mut();
        let counter = match refusal {
            Refusal::Cancelled => &mut counters.cancelled_queued,
            Refusal::Rejected { reason, .. } => match reason {
                RejectReason::QueueTimeout { .. } => &mut counters.queue_timeouts,
                RejectReason::QueueFull => &mut counters.refused_queue_full,
                RejectReason::HopelessWait { .. } => &mut counters.refused_hopeless,
                RejectReason::RateLimited { .. } => &mut counters.refused_rate,
                RejectReason::Suspended => &mut counters.refused_suspended,
                RejectReason::Unavailable
                | RejectReason::Rejected
                | RejectReason::TenantRemoved
                | RejectReason::UnknownTenant => &mut counters.refused_unavailable,
            },
        };
        *counter = counter.saturating_add(1);
    }

    /// The read buffer, for one poll. Where it is missing (a poll panicked), a new one is made.
    pub(super) fn take_scratch(&self) -> Vec<u8> {
        let scratch = self.scratch.take();
        if scratch.is_empty() { vec![0; SCRATCH_BYTES] } else { scratch }
    }

    pub(super) fn put_scratch(&self, scratch: Vec<u8>) {
        self.scratch.set(scratch);
    }

    /// The buffer for output that differs from its input, empty, for one poll.
    pub(super) fn take_assembly(&self) -> Vec<u8> {
        let mut assembly = self.assembly.take();
        assembly.clear();
        assembly
    }

    pub(super) fn put_assembly(&self, assembly: Vec<u8>) {
        if assembly.capacity() <= MAX_KEPT_BYTES {
            self.assembly.set(assembly);
        }
    }

    pub(super) fn take_conversation(&self) -> Box<Conversation> {
        self.conversations.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put_conversation(&self, mut conversation: Box<Conversation>) {
        conversation.clear();
        let mut kept = self.conversations.borrow_mut();
        if kept.len() < MAX_KEPT_CONVERSATIONS {
            kept.push(conversation);
        }
    }
}

/// How often slow waits of one tenant are logged.
const SLOW_WAIT_PAUSE: Duration = Duration::from_secs(1);
/// Postgres writes 8 KiB at a time, but the kernel puts several writes together when a client is slow.
const SCRATCH_BYTES: usize = 64 * 1024;
const MAX_KEPT_BYTES: usize = 1024 * 1024;
const MAX_KEPT_CONVERSATIONS: usize = 1024;
