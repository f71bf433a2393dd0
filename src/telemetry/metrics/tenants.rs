//! The table of a tenant's series: which families there are and where their values come from.
//!
//! Owns names, helps and labels of everything that carries a `tenant` label. Must not know which tenants are printed,
//! nor in how many pieces.

use super::text::{Family, Kind, TextWriter, Value};
use crate::stats::{Cause, TenantCounters, TenantGauges};
use crate::tenant::TimeLimit;

/// What one tenant's samples are made of; for the sum of several tenants, their sum.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    /// The value of the `tenant` label.
    pub(super) name: &'a str,
    /// Servers granted before anybody's wish above a floor.
    pub(super) floor: u64,
    /// Servers held without being the first to give back.
    pub(super) share: u64,
    /// Servers never exceeded.
    pub(super) ceiling: u64,
    /// Totals.
    pub(super) counters: &'a TenantCounters,
    /// The instant.
    pub(super) gauges: &'a TenantGauges,
}

/// One family of every tenant, with one sample per point.
pub(super) struct TenantFamily {
    /// Name, kind and help.
    pub(super) family: Family,
    split: Option<&'static str>,
    /// Samples are left out as long as they are zero.
    sparse: bool,
    points: &'static [Point],
}

/// A label value (empty if the family is not split) and how to read its sample.
type Point = (&'static str, fn(&Row<'_>) -> Value);

impl TenantFamily {
    /// This family's samples of one tenant.
    pub(super) fn write(&self, text: &mut TextWriter, row: &Row<'_>) {
        for (value, read) in self.points {
            let sample = read(row);
            match self.split {
                Some(_) if self.sparse && sample.is_zero() => {}
                Some(label) => {
                    text.sample(self.family.name, &[("tenant", row.name), (label, value)], sample);
                }
                None => text.sample(self.family.name, &[("tenant", row.name)], sample),
            }
        }
    }
}

/// What a tenant is; printed for named tenants only.
pub(super) const INFO: Family = Family {
    name: "tenantry_tenant_info",
    kind: Kind::Info,
    help: "A tenant's cluster, tier and pool mode. Join it to other series by tenant.",
};

const fn gauge(name: &'static str, help: &'static str, points: &'static [Point]) -> TenantFamily {
    TenantFamily { family: Family::gauge(name, help), split: None, sparse: false, points }
}

const fn counter(name: &'static str, help: &'static str, points: &'static [Point]) -> TenantFamily {
    TenantFamily { family: Family::counter(name, help), split: None, sparse: false, points }
}

const fn cause(index: usize) -> &'static str {
    Cause::ALL[index].as_str()
}

fn waited(row: &Row<'_>, cause: usize) -> Value {
    Value::Micros(row.counters.wait_us_by_cause.get(cause).copied().unwrap_or(0))
}

/// Every family of a tenant except [`INFO`], in the order printed.
pub(super) const FAMILIES: &[TenantFamily] = &[
    TenantFamily {
        family: Family::gauge(
            "tenantry_tenant_servers",
            "Server connections by state; all states count in the budget.",
        ),
        split: Some("state"),
        sparse: false,
        points: &[
            ("login", |row| Value::Count(row.gauges.sv_login.into())),
            ("idle", |row| Value::Count(row.gauges.sv_idle.into())),
            ("active", |row| Value::Count(row.gauges.sv_active.into())),
            ("closing", |row| Value::Count(row.gauges.sv_closing.into())),
        ],
    },
    TenantFamily {
        family: Family::gauge("tenantry_tenant_clients", "Clients by state; waiting ones want a server."),
        split: Some("state"),
        sparse: false,
        points: &[
            ("idle", |row| Value::Count(row.gauges.cl_idle.into())),
            ("active", |row| Value::Count(row.gauges.cl_active.into())),
            ("waiting", |row| Value::Count(row.gauges.cl_waiting.into())),
        ],
    },
    gauge(
        "tenantry_tenant_servers_floor",
        "Servers a tenant gets before any wish above a floor is looked at.",
        &[("", |row| Value::Count(row.floor))],
    ),
    gauge(
        "tenantry_tenant_servers_share",
        "Servers a tenant may hold without being the first to give back.",
        &[("", |row| Value::Count(row.share))],
    ),
    gauge(
        "tenantry_tenant_servers_ceiling",
        "Servers a tenant never exceeds.",
        &[("", |row| Value::Count(row.ceiling))],
    ),
    gauge(
        "tenantry_tenant_servers_pinned",
        "Servers that clients keep between transactions, for what works there only; among the active ones.",
        &[("", |row| Value::Count(row.gauges.sv_pinned.into()))],
    ),
    gauge(
        "tenantry_tenant_listening_clients",
        "Clients that hear notifications through the tenant's listener; it is one of the pinned servers.",
        &[("", |row| Value::Count(row.gauges.cl_listening.into()))],
    ),
    gauge(
        "tenantry_tenant_replication_connections",
        "Replication connections; the server of each is one of the pinned servers.",
        &[("", |row| Value::Count(row.gauges.cl_replicating.into()))],
    ),
    gauge(
        "tenantry_tenant_oldest_wait_seconds",
        "How long the client at the head of the queue has waited; 0 if nobody waits.",
        &[("", |row| Value::Micros(row.gauges.oldest_wait_us))],
    ),
    counter(
        "tenantry_tenant_transactions_total",
        "Transactions finished.",
        &[("", |row| Value::Count(row.counters.transactions))],
    ),
    counter(
        "tenantry_tenant_queries_total",
        "Queries finished, at least one per transaction.",
        &[("", |row| Value::Count(row.counters.queries))],
    ),
    counter(
        "tenantry_tenant_client_received_bytes_total",
        "Bytes received from clients.",
        &[("", |row| Value::Count(row.counters.bytes_in))],
    ),
    counter(
        "tenantry_tenant_client_sent_bytes_total",
        "Bytes sent to clients.",
        &[("", |row| Value::Count(row.counters.bytes_out))],
    ),
    counter(
        "tenantry_tenant_leases_total",
        "Leases given: how often a client got a server.",
        &[("", |row| Value::Count(row.counters.leases))],
    ),
    counter(
        "tenantry_tenant_lease_seconds_total",
        "Time that servers were leased, all leases together.",
        &[("", |row| Value::Micros(row.counters.lease_us))],
    ),
    counter(
        "tenantry_tenant_waits_total",
        "Requests for a server that had to wait at all.",
        &[("", |row| Value::Count(row.counters.waits))],
    ),
    counter(
        "tenantry_tenant_wait_seconds_total",
        "Time that clients waited for a server.",
        &[("", |row| Value::Micros(row.counters.wait_us))],
    ),
    TenantFamily {
        family: Family::counter(
            "tenantry_tenant_wait_cause_seconds_total",
            "The same by what was waited for; causes that have never held are left out.",
        ),
        split: Some("cause"),
        sparse: true,
        points: &[
            (cause(0), |row| waited(row, 0)),
            (cause(1), |row| waited(row, 1)),
            (cause(2), |row| waited(row, 2)),
            (cause(3), |row| waited(row, 3)),
            (cause(4), |row| waited(row, 4)),
            (cause(5), |row| waited(row, 5)),
            (cause(6), |row| waited(row, 6)),
            (cause(7), |row| waited(row, 7)),
            (cause(8), |row| waited(row, 8)),
            (cause(9), |row| waited(row, 9)),
            (cause(10), |row| waited(row, 10)),
        ],
    },
    counter(
        "tenantry_tenant_queue_timeouts_total",
        "Waits that ended in the queue timeout (SQLSTATE 53300).",
        &[("", |row| Value::Count(row.counters.queue_timeouts))],
    ),
    TenantFamily {
        family: Family::counter(
            "tenantry_tenant_refusals_total",
            "Requests and clients refused at once, by reason.",
        ),
        split: Some("reason"),
        sparse: false,
        points: &[
            ("queue_full", |row| Value::Count(row.counters.refused_queue_full)),
            ("hopeless_wait", |row| Value::Count(row.counters.refused_hopeless)),
            ("rate_limit", |row| Value::Count(row.counters.refused_rate)),
            ("suspended", |row| Value::Count(row.counters.refused_suspended)),
            ("unavailable", |row| Value::Count(row.counters.refused_unavailable)),
            ("login_rate_limit", |row| Value::Count(row.counters.refused_logins)),
            ("client_limit", |row| Value::Count(row.counters.refused_clients)),
            ("pin_limit", |row| Value::Count(row.counters.refused_pins)),
            ("outside_tenant", |row| Value::Count(row.counters.refused_outside)),
        ],
    },
    TenantFamily {
        family: Family::counter(
            "tenantry_tenant_time_limits_total",
            "Clients whose sessions ended because they were over a time limit, by limit.",
        ),
        split: Some("limit"),
        sparse: false,
        points: &[
            (TimeLimit::ClientIdle.as_str(), |row| Value::Count(row.counters.client_idle_timeouts)),
            (TimeLimit::IdleTransaction.as_str(), |row| Value::Count(row.counters.idle_transaction_timeouts)),
            (TimeLimit::Transaction.as_str(), |row| Value::Count(row.counters.transaction_timeouts)),
            (TimeLimit::PinIdle.as_str(), |row| Value::Count(row.counters.pin_idle_timeouts)),
        ],
    },
    counter(
        "tenantry_tenant_queue_cancels_total",
        "Requests that their client cancelled while they were queued.",
        &[("", |row| Value::Count(row.counters.cancelled_queued))],
    ),
    TenantFamily {
        family: Family::gauge(
            "tenantry_tenant_replica_recommended",
            "1 while a hot tenant needs more servers than its ceiling and reads from no replica.",
        ),
        split: None,
        sparse: true,
        points: &[("", |row| Value::Count(row.gauges.replica_recommended.into()))],
    },
    TenantFamily {
        family: Family::counter(
            "tenantry_tenant_replica_transactions_total",
            "Transactions that could be a replica's, by where they went.",
        ),
        split: Some("to"),
        sparse: true,
        points: &[
            ("replica", |row| Value::Count(row.counters.replica_leases)),
            ("primary", |row| Value::Count(row.counters.replica_fallbacks)),
        ],
    },
    counter(
        "tenantry_tenant_server_logins_total",
        "Server logins that succeeded.",
        &[("", |row| Value::Count(row.counters.server_logins))],
    ),
    counter(
        "tenantry_tenant_server_login_failures_total",
        "Server logins that failed.",
        &[("", |row| Value::Count(row.counters.server_login_failures))],
    ),
    counter(
        "tenantry_tenant_server_login_seconds_total",
        "Time spent in server logins that succeeded.",
        &[("", |row| Value::Micros(row.counters.server_login_us))],
    ),
    counter(
        "tenantry_tenant_evictions_total",
        "Idle servers closed because another tenant needed the permit.",
        &[("", |row| Value::Count(row.counters.evictions))],
    ),
    counter(
        "tenantry_tenant_server_closes_total",
        "Servers closed for any other reason: age, idleness, drained, dirty, lost.",
        &[("", |row| Value::Count(row.counters.closes))],
    ),
    TenantFamily {
        family: Family::counter(
            "tenantry_tenant_tier_changes_total",
            "Times the proxy put the tenant into another tier, by direction.",
        ),
        split: Some("direction"),
        sparse: true,
        points: &[
            ("up", |row| Value::Count(row.counters.promotions)),
            ("down", |row| Value::Count(row.counters.demotions)),
        ],
    },
    counter(
        "tenantry_tenant_servers_lost_total",
        "Servers lost while a client held them.",
        &[("", |row| Value::Count(row.counters.servers_lost))],
    ),
    counter(
        "tenantry_tenant_server_resets_total",
        "Servers that had to be reset before another client could use them.",
        &[("", |row| Value::Count(row.counters.resets))],
    ),
    counter(
        "tenantry_tenant_server_pins_total",
        "Servers that clients began to keep between transactions.",
        &[("", |row| Value::Count(row.counters.pins))],
    ),
    counter(
        "tenantry_tenant_notifications_total",
        "Notifications that the listener passed on, one per client that got it.",
        &[("", |row| Value::Count(row.counters.notifications))],
    ),
    counter(
        "tenantry_tenant_listener_restarts_total",
        "Times the listener was lost; its clients were told that notifications may be missing.",
        &[("", |row| Value::Count(row.counters.listeners_lost))],
    ),
];
