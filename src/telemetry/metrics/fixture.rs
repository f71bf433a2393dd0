//! Tenants and reports for tests of this module.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Settings};
use crate::ids::{ClusterId, TenantId, WorkerId};
use crate::stats::{TenantCounters, TenantGauges, TenantReport, WorkerReport};
use crate::tenant::{Allowance, Catalog, PoolMode, ServerAuth, Tenant, Tier, TimeLimits};

/// A tenant of the only cluster.
pub(super) fn tenant(name: &str, tier: Tier) -> Tenant {
    let name: Arc<str> = name.into();
    Tenant {
        id: TenantId(0),
        name: name.clone(),
        cluster: ClusterId(0),
        database: "app".into(),
        database_aliases: Vec::new(),
        role: name.clone(),
        search_path: name,
        allowed_schemas: None,
        uses_lastval: false,
        replication: false,
        replica_reads: crate::tenant::ReplicaReads::Sessions,
        settings: Vec::new(),
        tier,
        allowance: Allowance { reserve: 0, floor: 1, share: 2, ceiling: 4, weight: 2, max_waiters: 50 },
        mode: PoolMode::Transaction,
        max_clients: 100,
        workers: 1,
        queue_timeout: Duration::from_secs(5),
        time_limits: TimeLimits::default(),
        tiers: None,
        rates: None,
        users: Vec::new(),
        server_auth: ServerAuth::None,
    }
}

/// Settings with these tenants.
pub(super) fn settings(catalog: Catalog) -> Arc<Settings> {
    let text = r#"
        [listen]
        address = "127.0.0.1:6432"
        [cluster.main]
        url = "postgres://127.0.0.1:5432/app?sslmode=disable"
        max_connections = 60
    "#;
    let settings = config::load_text(text, Path::new("."), &|_| None, None).unwrap().settings;
    Arc::new(Settings { catalog: Arc::new(catalog), ..settings })
}

/// A tenant's report with only transactions.
pub(super) fn report(tenant: u32, transactions: u64) -> TenantReport {
    TenantReport {
        tenant: TenantId(tenant),
        tier: None,
        counters: TenantCounters { transactions, ..TenantCounters::default() },
        gauges: TenantGauges::default(),
    }
}

/// A worker with these tenants.
pub(super) fn worker(tenants: Vec<TenantReport>) -> WorkerReport {
    let (waits, waits_by_cause) = Default::default();
    WorkerReport { worker: WorkerId(0), busy_us: 0, tenants, clusters: Vec::new(), waits, waits_by_cause }
}
