//! Counters as plain values: what a worker counts and what metrics print.
//!
//! Owns the structs and the fixed-bucket histogram. Must not know who counts, nor how it is printed.

mod cause;

pub use cause::Cause;

use crate::ids::{ClusterId, TenantId, WorkerId};

/// Upper bounds of the wait histogram's buckets, in microseconds. The last bucket is open.
pub const WAIT_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// A histogram of waits with fixed buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitHistogram {
    /// Observations per bucket (not cumulative); the last one counts waits above every bound.
    pub counts: [u64; WAIT_BOUNDS_US.len() + 1],
    /// Sum of all waits, in microseconds.
    pub sum_us: u64,
}

impl WaitHistogram {
    /// Counts one wait.
    pub fn observe(&mut self, wait_us: u64) {
        let bucket = WAIT_BOUNDS_US.partition_point(|bound| *bound < wait_us);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum_us = self.sum_us.saturating_add(wait_us);
    }

    /// Adds another histogram's observations.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine = mine.saturating_add(theirs);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// How many waits were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// What a worker counted for one tenant since it started. Plain numbers: the worker adds, metrics read copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantCounters {
    /// Transactions finished.
    pub transactions: u64,
    /// Queries (ReadyForQuery seen), at least one per transaction.
    pub queries: u64,
    /// Leases given.
    pub leases: u64,
    /// Leases of a replica's servers.
    pub replica_leases: u64,
    /// Transactions that went to the primary instead, because no replica was fit or had a server.
    pub replica_fallbacks: u64,
    /// Microseconds that servers were leased, all leases together.
    pub lease_us: u64,
    /// Microseconds that clients waited for a lease.
    pub wait_us: u64,
    /// The same by what was waited for, in the order of [`Cause::ALL`].
    pub wait_us_by_cause: [u64; Cause::ALL.len()],
    /// Leases that had to wait at all.
    pub waits: u64,
    /// Waits that ended in the queue timeout.
    pub queue_timeouts: u64,
    /// Requests refused at once: the queue was full.
    pub refused_queue_full: u64,
    /// Requests refused at once: they would have waited past their deadline.
    pub refused_hopeless: u64,
    /// Requests refused at once: the tenant begins more transactions than it may.
    pub refused_rate: u64,
    /// Requests refused because an operator has suspended the tenant.
    pub refused_suspended: u64,
    /// Requests refused because Postgres could not be reached.
    pub refused_unavailable: u64,
    /// Requests cancelled while queued.
    pub cancelled_queued: u64,
    /// Clients refused because their tenant's clients log in too often.
    pub refused_logins: u64,
    /// Clients refused because of a client limit.
    pub refused_clients: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Server logins that succeeded.
    pub server_logins: u64,
    /// Server logins that failed.
    pub server_login_failures: u64,
    /// Microseconds spent in successful server logins.
    pub server_login_us: u64,
    /// Servers closed because another tenant needed the slot.
    pub evictions: u64,
    /// Servers closed for another reason (age, idle, lost, drained, dirty).
    pub closes: u64,
    /// Times the tenant went to a hotter tier.
    pub promotions: u64,
    /// Times it went to a colder one.
    pub demotions: u64,
    /// Servers lost while leased.
    pub servers_lost: u64,
    /// Servers that had to be reset before another client could use them.
    pub resets: u64,
    /// Servers that clients began to keep between transactions.
    pub pins: u64,
    /// Notifications that the listener passed on, one per client that got it.
    pub notifications: u64,
    /// Times the listener was lost.
    pub listeners_lost: u64,
    /// Statements refused because they would keep one server too many.
    pub refused_pins: u64,
    /// Statements refused because they would have left the tenant.
    pub refused_outside: u64,
    /// Clients that were silent for too long between transactions.
    pub client_idle_timeouts: u64,
    /// Clients that were silent for too long inside a transaction.
    pub idle_transaction_timeouts: u64,
    /// Transactions that took too long.
    pub transaction_timeouts: u64,
    /// Clients that kept a server between transactions for too long without using it.
    pub pin_idle_timeouts: u64,
}

/// The servers and clients of one tenant at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantGauges {
    /// Clients connected and not waiting or leasing.
    pub cl_idle: u32,
    /// Clients that hold a server.
    pub cl_active: u32,
    /// Clients that wait for a server.
    pub cl_waiting: u32,
    /// Servers logging in.
    pub sv_login: u32,
    /// Servers idle.
    pub sv_idle: u32,
    /// Servers leased.
    pub sv_active: u32,
    /// Servers being closed (or being cancelled before that), still counted in the budget.
    pub sv_closing: u32,
    /// Servers that clients keep between transactions; among those leased.
    pub sv_pinned: u32,
    /// Clients that hear notifications through the listener.
    pub cl_listening: u32,
    /// Replication connections; each keeps a server.
    pub cl_replicating: u32,
    /// 1 if it is hot, needs more than its ceiling, and reads from no replica.
    pub replica_recommended: u32,
    /// Age of the oldest waiter, in microseconds; 0 if nobody waits.
    pub oldest_wait_us: u64,
}

/// One tenant as a worker reports it.
#[derive(Clone, Debug)]
pub struct TenantReport {
    /// Which tenant.
    pub tenant: TenantId,
    /// The place of its tier here among all tiers, if the proxy chooses it; the hottest is 0.
    pub tier: Option<u8>,
    /// Totals.
    pub counters: TenantCounters,
    /// The instant.
    pub gauges: TenantGauges,
}

/// One cluster's ledger as a worker reports it.
#[derive(Clone, Debug)]
pub struct ClusterReport {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Permits this worker may use.
    pub capacity: u32,
    /// Permits in use, by any state.
    pub permits_used: u32,
    /// Permits whose servers are leased or logging in.
    pub permits_committed: u32,
    /// Tenants that have waiters.
    pub waiting_tenants: u32,
    /// Whether connects to Postgres currently fail.
    pub breaker_open: bool,
    /// How far it is behind its primary at most, in microseconds, if it is a replica and somebody reads from it.
    pub replica_lag_us: Option<u64>,
    /// Server logins that failed, by stable reason.
    pub login_failures: Vec<(&'static str, u64)>,
}

/// All that one worker has to say, at one instant.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// Which worker.
    pub worker: WorkerId,
    /// Microseconds that its thread had something to do.
    pub busy_us: u64,
    /// Tenants that have been seen since start.
    pub tenants: Vec<TenantReport>,
    /// One per cluster.
    pub clusters: Vec<ClusterReport>,
    /// Waits per tier (hot, warm, cold).
    pub waits: [WaitHistogram; 3],
    /// Waits by what was waited for, in the order of [`Cause::ALL`].
    pub waits_by_cause: [WaitHistogram; Cause::ALL.len()],
}

/// What has been recorded of requests since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceReport {
    /// Whether they are recorded now.
    pub recording: bool,
    /// Records written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Records dropped because the writer was behind.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_on_a_bound_counts_below_it() {
        let mut histogram = WaitHistogram::default();
        histogram.observe(100);
        histogram.observe(101);
        histogram.observe(9_000_000);
        assert_eq!(histogram.counts[0], 1);
        assert_eq!(histogram.counts[1], 1);
        assert_eq!(histogram.counts[WAIT_BOUNDS_US.len()], 1);
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum_us, 9_000_201);
    }
}
