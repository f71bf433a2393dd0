//! Tenants whose tier the proxy chooses: when it is looked at, and what follows.
//!
//! Owns the moments: a window of a tenant's load has ended, or a promoted one has been quiet for a while. The rules are
//! `tenant`'s, the need is the scheduler's.

use std::rc::Rc;

use super::desk::Shared;
use super::tenant::TenantState;
use crate::budget::Input;
use crate::tenant::{Standing, Tier, Tiering};
use crate::time::Moment;

/// A tenant needs this much, in 1/256 servers.
pub(super) fn look_at(shared: &Rc<Shared>, state: &Rc<TenantState>, now: Moment, need: u32) {
    if state.becomes_crowded(need) {
        recommend_replica(state, need);
    }
    let (tiering, ranks) = &*shared.tiering.borrow();
    let Some(mut standing) = state.standing.get() else {
        // Its tier has been written meanwhile.
        return ranks.forget(state.rank.take());
    };
    let before = standing.tier();
    let changed = match tiering {
        Tiering::Static => false,
        Tiering::Demand => standing.by_demand(now, need),
        Tiering::Rank => {
            state.rank.set(Some(ranks.count(need, state.rank.get())));
            standing.by_rank(now, need, ranks.cuts())
        }
    };
    state.standing.set(Some(standing));
    if changed {
        enter(shared, state, (before, standing.tier()), need);
    }
}

/// Looks at tenants that are not cold, work, or are ranked, although nothing may have come of them.
pub(super) fn look_around(shared: &Rc<Shared>) {
    let now = shared.clock.now();
    let tenants: Vec<_> = shared
        .tenants
        .borrow()
        .values()
        .flat_map(|state| std::iter::once(state.clone()).chain(state.readers().to_vec()))
        .filter(|state| is_worth_it(state))
        .collect();
    for state in tenants {
        let view = shared.desk(state.cluster()).and_then(|desk| desk.scheduler.tenant(state.id));
        let Some(need) = view.map(|view| view.need) else { continue };
        look_at(shared, &state, now, need);
        if need == 0
            && let Some(rank) = state.rank.take()
        {
            shared.tiering.borrow().1.forget(Some(rank));
        }
    }
}

fn recommend_replica(state: &TenantState, need: u32) {
    let tenant = state.tenant();
    let ceiling = tenant.allowance.ceiling;
    tracing::info!(
        customer_id = %tenant.name,
        reason = "replica_recommended",
        needs = %servers(need),
        ceiling,
        "needs {} servers and has at most {ceiling}: reads on a replica, or a higher ceiling, would help",
        servers(need)
    );
}

/// 1/256 servers in words.
fn servers(need: u32) -> String {
    format!("{}.{}", need / 256, need % 256 * 10 / 256)
}

fn is_worth_it(state: &TenantState) -> bool {
    let is_chosen = |standing: Standing| standing.tier() != Tier::Cold || state.clients.active.get() > 0;
    state.rank.get().is_some() || state.standing.get().is_some_and(is_chosen)
}

/// The tenant has the limits of another tier from now on.
fn enter(shared: &Rc<Shared>, state: &Rc<TenantState>, (before, after): (Tier, Tier), need: u32) {
    let Some(tenant) = state.enter_tier(after) else { return };
    let is_up = after < before;
    {
        let mut counters = state.counters.borrow_mut();
        let counter = if is_up { &mut counters.promotions } else { &mut counters.demotions };
        *counter = counter.saturating_add(1);
    }
    let reason = if is_up { "promoted" } else { "demoted" };
    let needs = servers(need);
    tracing::info!(
        customer_id = %tenant.name,
        reason,
        tier = after.as_str(),
        before = before.as_str(),
        needs = %needs,
        share = tenant.allowance.share,
        ceiling = tenant.allowance.ceiling,
        "{}: needs {needs} servers at the peak of the last minutes",
        after.as_str()
    );
    shared.step(tenant.cluster, Input::SetTenant { tenant: tenant.id, allowance: tenant.allowance });
}
