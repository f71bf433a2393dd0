//! Series that are few whatever the number of tenants: per tier, per cluster, and of the whole proxy.
//!
//! Owns their names and helps. Must not know how a tenant is printed.

use std::collections::BTreeMap;

use super::table::Table;
use super::text::{Family, Kind, TextWriter, Value};
use crate::stats::{Cause, ClusterReport, WaitHistogram, WorkerReport};
use crate::telemetry::ProxyReport;
use crate::tenant::Tier;

/// Everything of the whole proxy that is one sample.
pub(super) fn write_proxy(text: &mut TextWriter, report: &ProxyReport) {
    text.single(&START_TIME, Value::Micros(report.started_unix_ms.saturating_mul(1_000)));
    text.single(&DRAINING, report.draining.into());
    text.single(&CLIENTS, count(report.clients));
    text.single(&HALF_OPEN, count(report.half_open));
    text.single(&CLIENTS_LIMIT, count(report.settings.listen.max_clients));
    text.family(&LOGINS);
    let mut logins: BTreeMap<&str, u64> = BTreeMap::new();
    for (result, logged) in &report.logins {
        let sum = logins.entry(result).or_default();
        *sum = sum.saturating_add(*logged);
    }
    for (result, logged) in logins {
        text.sample(LOGINS.name, &[("result", result)], Value::Count(logged));
    }
    text.family(&WORKER_BUSY);
    for worker in &report.workers {
        let number = worker.worker.to_string();
        text.sample(WORKER_BUSY.name, &[("worker", &number)], Value::Micros(worker.busy_us));
    }
    text.family(&RELOADS);
    text.sample(RELOADS.name, &[("result", "ok")], Value::Count(report.config_reloads_ok));
    text.sample(RELOADS.name, &[("result", "failed")], Value::Count(report.config_reloads_failed));
    text.single(&RECORDING, report.trace.recording.into());
    text.single(&RECORDED, Value::Count(report.trace.records));
    text.single(&RECORDED_BYTES, Value::Count(report.trace.bytes));
    text.single(&UNRECORDED, Value::Count(report.trace.dropped));
    if let Some(not_after) = report.certificate_not_after {
        // Certificates that ended before 1970 do not happen; 0 says "long ago" well enough.
        text.single(&CERTIFICATE, Value::Count(u64::try_from(not_after).unwrap_or(0)));
    }
}

/// Tenants and waits by tier, and waits by cause.
pub(super) fn write_tiers(text: &mut TextWriter, report: &ProxyReport, table: &Table) {
    text.family(&TENANTS);
    for tier in Tier::ALL {
        let tenants = table.entries().iter().filter(|entry| entry.tenant.tier == tier).count();
        text.sample(TENANTS.name, &[("tier", tier.as_str())], count(tenants));
    }
    text.family(&WAIT);
    for (index, tier) in (0_usize..).zip(Tier::ALL) {
        let mut waits = WaitHistogram::default();
        for histogram in report.workers.iter().filter_map(|worker| worker.waits.get(index)) {
            waits.add(histogram);
        }
        text.wait_histogram(WAIT.name, ("tier", tier.as_str()), &waits);
    }
    text.family(&WAIT_CAUSE);
    for cause in Cause::ALL {
        let mut waits = WaitHistogram::default();
        for histogram in report.workers.iter().filter_map(|worker| worker.waits_by_cause.get(cause as usize))
        {
            waits.add(histogram);
        }
        text.wait_histogram(WAIT_CAUSE.name, ("cause", cause.as_str()), &waits);
    }
}

/// The ledger of every cluster of the configuration.
pub(super) fn write_clusters(text: &mut TextWriter, report: &ProxyReport) {
    let ledgers: Vec<_> = report
        .settings
        .clusters
        .iter()
        .map(|cluster| (&*cluster.name, sum_of(cluster.id, &report.workers)))
        .collect();
    for (family, read) in CLUSTER_FAMILIES {
        text.family(family);
        for (name, ledger) in &ledgers {
            text.sample(family.name, &[("cluster", name)], read(ledger));
        }
    }
    let lags: Vec<_> =
        ledgers.iter().filter_map(|(name, ledger)| ledger.replica_lag_us.map(|lag| (name, lag))).collect();
    if !lags.is_empty() {
        text.family(&REPLICA_LAG);
        for (name, lag_us) in lags {
            text.sample(REPLICA_LAG.name, &[("cluster", name)], Value::Micros(lag_us));
        }
    }
    text.family(&LOGIN_FAILURES);
    for (name, ledger) in &ledgers {
        for (reason, failures) in &ledger.login_failures {
            text.sample(
                LOGIN_FAILURES.name,
                &[("cluster", name), ("reason", reason)],
                Value::Count(*failures),
            );
        }
    }
}

/// How many tenants the page does not name.
pub(super) fn write_elided(text: &mut TextWriter, elided: usize) {
    text.single(&ELIDED, count(elided));
}

/// One cluster over all workers.
#[derive(Default)]
struct Ledger {
    budget: u64,
    used: u64,
    committed: u64,
    waiting_tenants: u64,
    breaker_open: bool,
    /// On the worker where it is known best.
    replica_lag_us: Option<u64>,
    login_failures: BTreeMap<&'static str, u64>,
}

impl Ledger {
    fn add(&mut self, report: &ClusterReport) {
        self.budget = self.budget.saturating_add(report.capacity.into());
        self.used = self.used.saturating_add(report.permits_used.into());
        self.committed = self.committed.saturating_add(report.permits_committed.into());
        self.waiting_tenants = self.waiting_tenants.saturating_add(report.waiting_tenants.into());
        self.breaker_open |= report.breaker_open;
        self.replica_lag_us = match (self.replica_lag_us, report.replica_lag_us) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for (reason, failures) in &report.login_failures {
            let sum = self.login_failures.entry(reason).or_default();
            *sum = sum.saturating_add(*failures);
        }
    }

    /// Committed permits as a part of the budget. Without a budget: full as soon as anything is committed.
    fn saturation(&self) -> f64 {
        match (self.budget, self.committed) {
            (0, 0) => 0.0,
            (0, _) => 1.0,
            (budget, committed) => ratio(committed, budget),
        }
    }
}

fn sum_of(cluster: crate::ids::ClusterId, workers: &[WorkerReport]) -> Ledger {
    let mut ledger = Ledger::default();
    let reports = workers.iter().flat_map(|worker| &worker.clusters);
    for report in reports.filter(|report| report.cluster == cluster) {
        ledger.add(report);
    }
    ledger
}

#[expect(clippy::cast_precision_loss, reason = "permits stay far below 2^53")]
const fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn count(number: usize) -> Value {
    Value::Count(number as u64)
}

const START_TIME: Family =
    Family::gauge("tenantry_start_time_seconds", "When the process started, since 1970.");
const DRAINING: Family = Family::gauge("tenantry_draining", "1 while the proxy is stopping.");
const CLIENTS: Family = Family::gauge("tenantry_clients", "Clients connected, from their startup packet on.");
const HALF_OPEN: Family =
    Family::gauge("tenantry_clients_half_open", "Clients that have not finished logging in.");
const CLIENTS_LIMIT: Family = Family::gauge("tenantry_clients_limit", "Clients that may be connected.");
const LOGINS: Family = Family::counter("tenantry_logins_total", "Client logins, by result.");
const WORKER_BUSY: Family = Family::counter(
    "tenantry_worker_busy_seconds_total",
    "Time that a worker's thread had something to do, with or without a CPU.",
);
const RELOADS: Family =
    Family::counter("tenantry_config_reloads_total", "Reloads, applied or refused whole.");
const RECORDING: Family = Family::gauge("tenantry_trace_recording", "1 while requests are recorded.");
const RECORDED: Family = Family::counter("tenantry_trace_records_total", "Requests recorded.");
const RECORDED_BYTES: Family =
    Family::counter("tenantry_trace_written_bytes_total", "Bytes written to traces.");
const UNRECORDED: Family = Family::counter(
    "tenantry_trace_dropped_records_total",
    "Requests that were not recorded because the disk was behind.",
);
const CERTIFICATE: Family = Family::gauge(
    "tenantry_certificate_not_after_timestamp_seconds",
    "When the listener's certificate ends, since 1970; absent without TLS.",
);
const TENANTS: Family = Family::gauge("tenantry_tenants", "Tenants in the catalog, by tier.");
const ELIDED: Family = Family::gauge(
    "tenantry_metrics_tenants_elided",
    "Tenants that this page does not name but sums up as tenant _other; /metrics/tenants has them all.",
);
const WAIT: Family = Family {
    name: "tenantry_wait_seconds",
    kind: Kind::Histogram,
    help: "Time that clients waited for a server, by tier.",
};
const WAIT_CAUSE: Family = Family {
    name: "tenantry_wait_cause_seconds",
    kind: Kind::Histogram,
    help: "Time that those clients waited who had to, by what they waited for.",
};
const REPLICA_LAG: Family = Family::gauge(
    "tenantry_replica_lag_seconds",
    "How far a replica is behind its primary at most; absent while nobody reads from it.",
);
const LOGIN_FAILURES: Family =
    Family::counter("tenantry_cluster_login_failures_total", "Server logins that failed, by reason.");

type ClusterFamily = (Family, fn(&Ledger) -> Value);

const CLUSTER_FAMILIES: &[ClusterFamily] = &[
    (Family::gauge("tenantry_cluster_budget_permits", "Server connections Tenantry may have."), |ledger| {
        Value::Count(ledger.budget)
    }),
    (Family::gauge("tenantry_cluster_used_permits", "Permits in use, in any state."), |ledger| {
        Value::Count(ledger.used)
    }),
    (
        Family::gauge(
            "tenantry_cluster_committed_permits",
            "Permits whose servers are leased or logging in.",
        ),
        |ledger| Value::Count(ledger.committed),
    ),
    (
        Family::gauge(
            "tenantry_cluster_saturation_ratio",
            "Committed permits as a part of the budget, 0 to 1.",
        ),
        |ledger| Value::Number(ledger.saturation()),
    ),
    (Family::gauge("tenantry_cluster_waiting_tenants", "Tenants that have waiting clients."), |ledger| {
        Value::Count(ledger.waiting_tenants)
    }),
    (Family::gauge("tenantry_cluster_breaker_open", "1 while connects to the cluster fail."), |ledger| {
        ledger.breaker_open.into()
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_is_defined_without_a_budget() {
        assert_eq!(Ledger::default().saturation(), 0.0);
        assert_eq!(Ledger { committed: 1, ..Ledger::default() }.saturation(), 1.0);
        assert_eq!(Ledger { budget: 40, committed: 30, ..Ledger::default() }.saturation(), 0.75);
    }
}
