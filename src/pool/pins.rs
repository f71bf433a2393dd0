//! Servers that clients keep between transactions: how many there may be.
//!
//! Owns the limits of budgets.md 4.10. A kept server cannot be taken back, so one tenant may never keep all it can have, and
//! all tenants of a cluster together never more than half of it.

use std::rc::Rc;

use super::desk::Pool;
use super::tenant::TenantState;
use crate::track::PinsLeft;

impl Pool {
    /// How many more clients of this tenant may keep their servers.
    #[must_use]
    pub fn pins_left(&self, tenant: &Rc<TenantState>) -> PinsLeft {
        let of_tenant = tenant.ceiling().saturating_sub(1).max(1);
        let own = PinsLeft { left: of_tenant.saturating_sub(tenant.pins.get()), of: of_tenant };
        let Some(desk) = self.shared.desk(tenant.cluster()) else { return own };
        let of_cluster = (desk.scheduler.capacity() / 2).max(1);
        let all = PinsLeft { left: of_cluster.saturating_sub(desk.pins), of: of_cluster };
        if all.left < own.left { all } else { own }
    }

    pub(super) fn count_pin(&self, tenant: &Rc<TenantState>, pinned: bool) {
        let changed = |count: u32| if pinned { count.saturating_add(1) } else { count.saturating_sub(1) };
        tenant.pins.set(changed(tenant.pins.get()));
        if pinned {
            let mut counters = tenant.counters.borrow_mut();
            counters.pins = counters.pins.saturating_add(1);
        }
        if let Some(mut desk) = self.shared.desk(tenant.cluster()) {
            desk.pins = changed(desk.pins);
        }
    }
}
