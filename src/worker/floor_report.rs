//! What a worker says about itself: copies of its counters and of the scheduler's.
//!
//! Owns the collecting. Runs when asked, never on the query path.

use std::rc::Rc;

use tokio::runtime::Handle;

use crate::ids::{ClusterId, WorkerId};
use crate::pool::TenantState;
use crate::session::Floor;
use crate::stats::{ClusterReport, TenantGauges, TenantReport, WorkerReport};

pub(super) fn report(worker: WorkerId, floor: &Rc<Floor>) -> WorkerReport {
    let clusters = floor.pool.inspect(|cluster, scheduler, failures| ClusterReport {
        cluster,
        capacity: scheduler.capacity(),
        permits_used: scheduler.used(),
        permits_committed: scheduler.committed(),
        waiting_tenants: u32::try_from(scheduler.waiting_tenants()).unwrap_or(u32::MAX),
        breaker_open: scheduler.breaker_open(),
        replica_lag_us: lag_us(floor, cluster),
        login_failures: failures.iter().map(|(reason, count)| (*reason, *count)).collect(),
    });
    let tenants = floor.pool.tenants().iter().map(|state| tenant(floor, state)).collect();
    let busy_us = super::busy(&Handle::current().metrics()).as_micros();
    WorkerReport {
        worker,
        busy_us: u64::try_from(busy_us).unwrap_or(u64::MAX),
        tenants,
        clusters,
        waits: floor.waits.borrow().clone(),
        waits_by_cause: floor.waits_by_cause.borrow().clone(),
    }
}

/// How far a replica is behind at most.
fn lag_us(floor: &Floor, cluster: ClusterId) -> Option<u64> {
    let lag = floor.pool.replica_lag(cluster)??;
    Some(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX))
}

fn tenant(floor: &Rc<Floor>, state: &Rc<TenantState>) -> TenantReport {
    let now = floor.pool.clock().now();
    let (connected, active) = (state.clients.connected.get(), state.clients.active.get());
    let mut gauges = TenantGauges { cl_active: active, ..TenantGauges::default() };
    for (state, view) in floor.pool.everywhere(state) {
        let add = |sum: &mut u32, count: u32| *sum = sum.saturating_add(count);
        add(&mut gauges.sv_pinned, state.pins.get());
        let Some(view) = view else { continue };
        add(&mut gauges.cl_waiting, view.waiters);
        add(&mut gauges.sv_login, view.opening);
        add(&mut gauges.sv_idle, view.idle);
        add(&mut gauges.sv_active, view.busy);
        add(&mut gauges.sv_closing, view.closing);
        let wait_us = view.head_wait_since.map_or(0, |since| now.micros_since(since));
        gauges.oldest_wait_us = gauges.oldest_wait_us.max(wait_us);
    }
    gauges.replica_recommended = u32::from(state.is_crowded());
    gauges.cl_listening = state.listening.clients();
    gauges.cl_replicating = state.clients.replicating.get();
    gauges.cl_idle = connected.saturating_sub(active).saturating_sub(gauges.cl_waiting);
    let tier = state.tenant().tiers.is_some().then(|| state.tier() as u8);
    TenantReport { tenant: state.id, tier, counters: state.counters.borrow().clone(), gauges }
}
