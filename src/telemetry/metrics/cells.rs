//! A tenant's counters as an array, so that sums and differences are loops.
//!
//! Owns the order of the cells. A counter added to [`TenantCounters`] does not compile here until it has one.

use crate::stats::{TenantCounters, TenantGauges};

/// How many counters a tenant has.
pub(super) const CELLS: usize = 48;

/// A tenant's counters, one per cell.
pub(super) type Cells = [u64; CELLS];

/// The counters as cells.
pub(super) const fn cells(counters: &TenantCounters) -> Cells {
    let TenantCounters {
        transactions,
        queries,
        leases,
        replica_leases,
        replica_fallbacks,
        lease_us,
        wait_us,
        waits,
        queue_timeouts,
        refused_queue_full,
        refused_hopeless,
        refused_rate,
        refused_suspended,
        refused_unavailable,
        cancelled_queued,
        refused_logins,
        refused_clients,
        bytes_in,
        bytes_out,
        server_logins,
        server_login_failures,
        server_login_us,
        evictions,
        closes,
        promotions,
        demotions,
        servers_lost,
        resets,
        pins,
        notifications,
        listeners_lost,
        refused_pins,
        refused_outside,
        client_idle_timeouts,
        idle_transaction_timeouts,
        transaction_timeouts,
        pin_idle_timeouts,
        wait_us_by_cause: [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10],
    } = *counters;
    [
        transactions,
        queries,
        leases,
        replica_leases,
        replica_fallbacks,
        lease_us,
        wait_us,
        waits,
        queue_timeouts,
        refused_queue_full,
        refused_hopeless,
        refused_rate,
        refused_suspended,
        refused_unavailable,
        cancelled_queued,
        refused_logins,
        refused_clients,
        bytes_in,
        bytes_out,
        server_logins,
        server_login_failures,
        server_login_us,
        evictions,
        closes,
        promotions,
        demotions,
        servers_lost,
        resets,
        pins,
        notifications,
        listeners_lost,
        refused_pins,
        refused_outside,
        client_idle_timeouts,
        idle_transaction_timeouts,
        transaction_timeouts,
        pin_idle_timeouts,
        w0,
        w1,
        w2,
        w3,
        w4,
        w5,
        w6,
        w7,
        w8,
        w9,
        w10,
    ]
}

/// The counters that have these cells.
pub(super) const fn counters(cells: Cells) -> TenantCounters {
    let [
        transactions,
        queries,
        leases,
        replica_leases,
        replica_fallbacks,
        lease_us,
        wait_us,
        waits,
        queue_timeouts,
        refused_queue_full,
        refused_hopeless,
        refused_rate,
        refused_suspended,
        refused_unavailable,
        cancelled_queued,
        refused_logins,
        refused_clients,
        bytes_in,
        bytes_out,
        server_logins,
        server_login_failures,
        server_login_us,
        evictions,
        closes,
        promotions,
        demotions,
        servers_lost,
        resets,
        pins,
        notifications,
        listeners_lost,
        refused_pins,
        refused_outside,
        client_idle_timeouts,
        idle_transaction_timeouts,
        transaction_timeouts,
        pin_idle_timeouts,
        w0,
        w1,
        w2,
        w3,
        w4,
        w5,
        w6,
        w7,
        w8,
        w9,
        w10,
    ] = cells;
    TenantCounters {
        transactions,
        queries,
        leases,
        replica_leases,
        replica_fallbacks,
        lease_us,
        wait_us,
        waits,
        queue_timeouts,
        refused_queue_full,
        refused_hopeless,
        refused_rate,
        refused_suspended,
        refused_unavailable,
        cancelled_queued,
        refused_logins,
        refused_clients,
        bytes_in,
        bytes_out,
        server_logins,
        server_login_failures,
        server_login_us,
        evictions,
        closes,
        promotions,
        demotions,
        servers_lost,
        resets,
        pins,
        notifications,
        listeners_lost,
        refused_pins,
        refused_outside,
        client_idle_timeouts,
        idle_transaction_timeouts,
        transaction_timeouts,
        pin_idle_timeouts,
        wait_us_by_cause: [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10],
    }
}

/// Adds the second to the first, cell by cell.
pub(super) fn add(sum: &mut Cells, more: &Cells) {
    for (cell, more) in sum.iter_mut().zip(more) {
        *cell = cell.saturating_add(*more);
    }
}

/// Adds one tenant's instant to another's: states are summed, the oldest wait is the older one.
pub(super) fn add_gauges(sum: &mut TenantGauges, more: &TenantGauges) {
    let TenantGauges {
        cl_idle,
        cl_active,
        cl_waiting,
        sv_login,
        sv_idle,
        sv_active,
        sv_closing,
        sv_pinned,
        cl_listening,
        cl_replicating,
        replica_recommended,
        oldest_wait_us,
    } = *more;
    sum.cl_idle = sum.cl_idle.saturating_add(cl_idle);
    sum.cl_active = sum.cl_active.saturating_add(cl_active);
    sum.cl_waiting = sum.cl_waiting.saturating_add(cl_waiting);
    sum.sv_login = sum.sv_login.saturating_add(sv_login);
    sum.sv_idle = sum.sv_idle.saturating_add(sv_idle);
    sum.sv_active = sum.sv_active.saturating_add(sv_active);
    sum.sv_closing = sum.sv_closing.saturating_add(sv_closing);
    sum.sv_pinned = sum.sv_pinned.saturating_add(sv_pinned);
    sum.cl_listening = sum.cl_listening.saturating_add(cl_listening);
    sum.cl_replicating = sum.cl_replicating.saturating_add(cl_replicating);
    sum.replica_recommended = sum.replica_recommended.max(replica_recommended);
    sum.oldest_wait_us = sum.oldest_wait_us.max(oldest_wait_us);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_counters_are_the_same_thing() {
        let mut some = [0; CELLS];
        for (index, cell) in some.iter_mut().enumerate() {
            *cell = index as u64 * 7 + 1;
        }
        assert_eq!(cells(&counters(some)), some);
    }

    #[test]
    fn a_sum_keeps_the_oldest_wait() {
        let mut sum = TenantGauges { cl_waiting: 1, oldest_wait_us: 5, ..TenantGauges::default() };
        add_gauges(&mut sum, &TenantGauges { cl_waiting: 2, oldest_wait_us: 3, ..TenantGauges::default() });
        assert_eq!((sum.cl_waiting, sum.oldest_wait_us), (3, 5));
    }
}
