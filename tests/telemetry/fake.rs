//! A proxy that is only numbers.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry::budget::Command;
use tenantry::config::{self, Settings};
use tenantry::ids::{ClusterId, TenantId, WorkerId};
use tenantry::stats::{
    Cause, ClusterReport, TenantCounters, TenantGauges, TenantReport, TraceReport, WaitHistogram,
    WorkerReport,
};
use tenantry::telemetry::{ClusterHealth, Explained, Phase, ProxyReport, Readiness, Source};
use tenantry::tenant::{Allowance, Catalog, PoolMode, Secret, ServerAuth, Tenant, Tier, TimeLimits};

/// Names as nobody should choose them; every one must come out of a parser as it went in.
pub(crate) const HOSTILE: [&str; 6] =
    ["a\"b", "back\\slash", "two\nlines", "x\"} 1\ntenantry_fake{a=\"", "späte-Größe-日本", "_other"];

/// Answers with what it was given.
pub(crate) struct Fake {
    /// What a scrape sees; `None` never answers.
    pub(crate) report: Option<ProxyReport>,
    /// What a probe sees.
    pub(crate) readiness: Mutex<Readiness>,
    /// Orders that came.
    pub(crate) orders: Mutex<Vec<(String, Command)>>,
    /// Who shows this may order.
    pub(crate) token: Option<Secret>,
}

impl Fake {
    /// Ready, with this report.
    pub(crate) fn new(report: ProxyReport) -> Self {
        let readiness = Mutex::new(readiness(Phase::Serving, &[true, true]));
        Self { report: Some(report), readiness, orders: Mutex::default(), token: None }
    }
}

impl Source for Fake {
    fn report(&self) -> Pin<Box<dyn Future<Output = ProxyReport> + Send + '_>> {
        Box::pin(async {
            match &self.report {
                Some(report) => report.clone(),
                None => std::future::pending().await,
            }
        })
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().clone()
    }

    fn explain(&self, tenant: &str) -> Pin<Box<dyn Future<Output = Option<Explained>> + Send + '_>> {
        let catalog = self.report.as_ref().map(|report| report.settings.catalog.clone());
        let tenant = catalog.and_then(|catalog| catalog.by_name(tenant).cloned());
        Box::pin(async { Some(Explained { tenant: tenant?, cluster: "main".into(), workers: Vec::new() }) })
    }

    fn steer(&self, tenant: &str, command: Command) -> bool {
        let knows =
            self.report.as_ref().is_some_and(|report| report.settings.catalog.by_name(tenant).is_some());
        self.orders.lock().extend(knows.then(|| (tenant.to_owned(), command)));
        knows
    }

    fn token(&self) -> Option<Secret> {
        self.token.clone()
    }
}

/// A readiness with clusters `c0`, `c1`, ...
pub(crate) fn readiness(phase: Phase, reachable: &[bool]) -> Readiness {
    let clusters = (0..)
        .zip(reachable)
        .map(|(index, reachable)| ClusterHealth { name: format!("c{index}").into(), reachable: *reachable })
        .collect();
    Readiness { phase, clusters }
}

/// A tenant of the first cluster.
pub(crate) fn tenant(name: &str, tier: Tier) -> Tenant {
    Tenant {
        id: TenantId(0),
        name: name.into(),
        cluster: ClusterId(0),
        database: "app".into(),
        database_aliases: Vec::new(),
        role: name.into(),
        search_path: "app".into(),
        allowed_schemas: None,
        uses_lastval: false,
        replication: false,
        replica_reads: tenantry::tenant::ReplicaReads::Sessions,
        settings: Vec::new(),
        tier,
        allowance: Allowance { reserve: 0, floor: 1, share: 5, ceiling: 20, weight: 5, max_waiters: 50 },
        mode: PoolMode::Transaction,
        max_clients: 100,
        workers: 1,
        queue_timeout: Duration::from_secs(5),
        time_limits: TimeLimits::default(),
        tiers: None,
        rates: None,
        users: Vec::new(),
        server_auth: ServerAuth::Password(Secret::new("role-password".into())),
    }
}

/// Settings of two clusters with these tenants.
pub(crate) fn settings(tenants: Vec<Tenant>) -> Settings {
    let text = r#"
        [listen]
        address = "127.0.0.1:6432"
        [cluster.main]
        url = "postgres://127.0.0.1:5432/app?sslmode=disable"
        max_connections = 60
        admin = { user = "watcher", password = { env = "ADMIN_PASSWORD" } }
        [cluster.second]
        url = "postgres://127.0.0.1:5433/app?sslmode=disable"
        max_connections = 20
    "#;
    let env = |name: &str| (name == "ADMIN_PASSWORD").then(|| "admin-password".to_owned());
    let settings = config::load_text(text, Path::new("."), &env, None).unwrap().settings;
    Settings { catalog: Arc::new(Catalog::default().next(tenants).unwrap()), ..settings }
}

/// A report in which every counter of every tenant has another value, from two workers.
pub(crate) fn report(tenants: Vec<Tenant>) -> ProxyReport {
    let settings = settings(tenants);
    let mut workers = vec![worker(0, &settings), worker(1, &settings)];
    let mut ids: Vec<_> = settings.catalog.iter().map(|tenant| tenant.id).collect();
    ids.sort();
    for id in ids {
        workers[id.0 as usize % 2].tenants.push(tenant_report(id));
    }
    ProxyReport {
        workers,
        settings: Arc::new(settings),
        logins: vec![("ok", 120), ("wrong_password", 3), ("timeout", 1)],
        clients: 70,
        half_open: 2,
        certificate_not_after: Some(1_900_000_000),
        started_unix_ms: 1_770_000_000_123,
        config_reloads_ok: 4,
        config_reloads_failed: 1,
        trace: TraceReport { recording: true, records: 90_000, bytes: 700_000, dropped: 12 },
        draining: false,
    }
}

fn worker(number: u16, settings: &Settings) -> WorkerReport {
    let clusters = settings.clusters.iter().map(|cluster| ClusterReport {
        cluster: cluster.id,
        capacity: 20,
        permits_used: 12,
        permits_committed: 5 + u32::from(number),
        waiting_tenants: 1,
        breaker_open: cluster.id == ClusterId(1),
        replica_lag_us: (cluster.id == ClusterId(1)).then_some(250_000 + u64::from(number)),
        login_failures: vec![("server_full", 2), ("rejected", 1)],
    });
    let mut waits = [(); 3].map(|()| WaitHistogram::default());
    for (tier, histogram) in (1..).zip(&mut waits) {
        for step in 0..200 {
            histogram.observe(step * step * tier * 97);
        }
    }
    let mut waits_by_cause = Cause::ALL.map(|_| WaitHistogram::default());
    for (cause, histogram) in (1..).zip(&mut waits_by_cause) {
        (0..20).for_each(|step| histogram.observe(step * step * cause * 97));
    }
    let busy_us = 1_500_000 + u64::from(number);
    WorkerReport {
        worker: WorkerId(number),
        busy_us,
        tenants: Vec::new(),
        clusters: clusters.collect(),
        waits,
        waits_by_cause,
    }
}

fn tenant_report(id: TenantId) -> TenantReport {
    let n = u64::from(id.0) + 1;
    let counters = TenantCounters {
        transactions: 1_000 + n,
        queries: 2_000 + n,
        leases: 1_001 + n,
        replica_leases: 100 * u64::from(n % 10 == 1),
        replica_fallbacks: u64::from(n % 10 == 1),
        lease_us: 7_000_001 * n,
        wait_us: 1_000_003 * n,
        wait_us_by_cause: Cause::ALL.map(|cause| (n * 90_909) * u64::from(cause as usize % 3 == 1)),
        waits: 10 + n,
        queue_timeouts: n % 3,
        refused_queue_full: n % 2,
        refused_hopeless: n % 3,
        refused_rate: n % 5,
        refused_suspended: n % 2,
        refused_unavailable: n % 5,
        cancelled_queued: n % 7,
        refused_logins: n % 3,
        refused_clients: n % 4,
        bytes_in: 100_000 + n,
        bytes_out: 900_000 + n,
        server_logins: 5 + n,
        server_login_failures: n % 6,
        server_login_us: 5_001 * n,
        evictions: n % 8,
        closes: 3 + n,
        promotions: u64::from(n % 7 == 1),
        demotions: u64::from(n % 6 == 1),
        servers_lost: n % 9,
        resets: n % 10,
        pins: n % 11,
        notifications: n,
        listeners_lost: n % 4,
        refused_pins: n % 12,
        refused_outside: n % 13,
        client_idle_timeouts: n % 14,
        idle_transaction_timeouts: n % 15,
        transaction_timeouts: n % 16,
        pin_idle_timeouts: n % 17,
    };
    let gauges = TenantGauges {
        cl_idle: 10,
        cl_active: 2,
        cl_waiting: id.0 % 2,
        sv_login: 1,
        sv_idle: 3,
        sv_active: 2,
        sv_closing: 1,
        sv_pinned: 1,
        cl_listening: 3,
        cl_replicating: 1,
        replica_recommended: u32::from(id.0.is_multiple_of(10)),
        oldest_wait_us: 1_234_567 * u64::from(id.0 % 2),
    };
    TenantReport { tenant: id, tier: None, counters, gauges }
}
