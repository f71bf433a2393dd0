//! Tenants for the tests of this module.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{ClusterId, TenantId};
use crate::tenant::{Allowance, Catalog, ClientAuth, PoolMode, ServerAuth, Tenant, Tier, TimeLimits, User};

/// A tenant with these users; their verifier is of no use.
pub(super) fn tenant(name: &str, users: &[&str]) -> Tenant {
    let user = |name: &&str| User { name: Arc::from(*name), auth: ClientAuth::Scram("-".into()), mode: None };
    Tenant {
        id: TenantId(0),
        name: name.into(),
        cluster: ClusterId(0),
        database: "app".into(),
        database_aliases: Vec::new(),
        role: name.into(),
        search_path: name.into(),
        allowed_schemas: None,
        uses_lastval: false,
        replication: false,
        replica_reads: crate::tenant::ReplicaReads::Sessions,
        settings: Vec::new(),
        tier: Tier::Warm,
        allowance: Allowance { reserve: 0, floor: 1, share: 2, ceiling: 4, weight: 2, max_waiters: 100 },
        mode: PoolMode::Transaction,
        max_clients: 100,
        workers: 1,
        queue_timeout: Duration::from_secs(5),
        time_limits: TimeLimits::default(),
        tiers: None,
        rates: None,
        users: users.iter().map(user).collect(),
        server_auth: ServerAuth::None,
    }
}

/// A catalog of tenants, each with its users.
pub(super) fn catalog(tenants: &[(&str, &[&str])]) -> Catalog {
    let tenants = tenants.iter().map(|(name, users)| tenant(name, users)).collect();
    Catalog::default().next(tenants).unwrap()
}
