//! Tenants on read replicas: which of them read where.
//!
//! Owns what follows for a tenant from the replicas of its cluster. Must not know when a replica is fit (`pool`).

use std::rc::Rc;
use std::sync::Arc;

use super::Plan;
use super::allotments::Allotments;
use crate::backend::Profile;
use crate::config::settings::Settings;
use crate::pool::{Pool, ReplicaSpec, TenantState};
use crate::tenant::{ReplicaReads, Target, Tenant};

/// The replicas of all clusters.
pub(super) fn replicas(settings: &Settings) -> Vec<ReplicaSpec> {
    let spec = |cluster: &Arc<crate::config::settings::Cluster>| {
        let of = cluster.replica_of?;
        let (number, name) = (cluster.id, cluster.name.clone());
        let endpoints = format!("{:?} {:?}", settings.cluster(of.primary)?.endpoint, cluster.endpoint).into();
        Some(ReplicaSpec { cluster: number, primary: of.primary, name, endpoints, max_lag: of.max_lag })
    };
    settings.clusters.iter().filter_map(spec).collect()
}

/// The tenant reads where the plan says, if it reads anywhere; `asked` is what a client of it wants. `relogin`: its logins
/// are others than before.
pub(super) fn set(
    pool: &Pool,
    (plan, allotments): (&Plan, &Allotments),
    state: &Rc<TenantState>,
    asked: Target,
    relogin: bool,
) {
    let Some(tenant) = plan.settings.catalog.get(state.id) else { return };
    if asked == Target::Replica {
        state.note_wish_to_read();
    }
    let reads = match tenant.replica_reads {
        ReplicaReads::Never => false,
        // Most tenants never do: those that do are met when their first such client comes.
        ReplicaReads::Sessions => state.is_asked_to_read(),
        ReplicaReads::Transactions | ReplicaReads::Always => true,
    };
    if !reads && !state.has_readers() {
        return;
    }
    let here = allotments.here(tenant);
    let at = |(replica, _)| -> Option<(Arc<Tenant>, Profile)> {
        let tenant = Arc::new(here.on_replica(replica));
        let connector = plan.connectors.get(usize::from(replica.0))?;
        let profile = Profile::new(connector, &tenant);
        Some((tenant, profile))
    };
    let wanted =
        if reads { plan.settings.replicas_of(here.cluster).filter_map(at).collect() } else { Vec::new() };
    pool.set_readers(state, wanted, relogin);
}
