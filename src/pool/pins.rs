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
        let own = PinsLeft::new(of_tenant, tenant.pins.get());
        let Some(desk) = self.shared.desk(tenant.cluster()) else { return own };
        let capacity = desk.scheduler.capacity();
        let all = PinsLeft::new((capacity / 2).max(1), desk.pins);
        let mut least = if all.left < own.left { all } else { own };
        // The listener is a server that is kept, and its clients need another one.
        let can_have = tenant.listening.is_on() || least.left > 0 && capacity > 1;
        least.listens = tenant.ceiling() > 1 && can_have;
        least
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
