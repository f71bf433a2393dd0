//! The portions of tenants that have clients on other workers too.
//!
//! Owns what of such a tenant's limits holds on this worker. All other tenants are here as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::TenantId;
use crate::pool::TenantState;
use crate::tenant::{Part, Portion, Tenant};
use crate::track::Elsewhere;

/// Portions by tenant.
#[derive(Debug, Default)]
pub(super) struct Allotments(HashMap<TenantId, (Portion, Elsewhere)>);

impl Allotments {
    /// The tenant has this portion from now on.
    pub(super) fn set(&mut self, tenant: TenantId, portion: Portion, elsewhere: Elsewhere) {
        self.0.insert(tenant, (portion, elsewhere));
    }

    /// The tenant with what it may use on this worker.
    pub(super) fn here(&self, tenant: &Arc<Tenant>) -> Arc<Tenant> {
        match self.0.get(&tenant.id) {
            Some((portion, _)) if !portion.is_whole() => Arc::new(portion.of_tenant(tenant)),
            Some(_) | None => tenant.clone(),
        }
    }

    /// How much of what a tenant may use it may use on this worker.
    pub(super) fn portion(&self, tenant: TenantId) -> Portion {
        self.0.get(&tenant).map_or(Portion::of_part(Part::WHOLE), |(portion, _)| *portion)
    }

    /// What is known of the tenant's functions is shared with its other workers, if there are some.
    pub(super) fn share_functions(&self, state: &TenantState) {
        if let Some((_, elsewhere)) = self.0.get(&state.id) {
            let tenant = state.tenant();
            let Tenant { cluster, database, role, search_path, settings, .. } = &*tenant;
            let login = format!("{cluster} {database:?} {role:?} {search_path:?} {settings:?}");
            state.functions.share(elsewhere, &login);
        }
    }
}
