//! One row per tenant: the catalog joined with what all workers counted.
//!
//! Owns the join. A tenant of the catalog that no worker has seen is there with zeros; one that the catalog no longer
//! has is only part of [`Table::departed`].

use std::sync::Arc;

use super::cells;
use super::tenants::{INFO, Row};
use super::text::{TextWriter, Value};
use crate::config::settings::Settings;
use crate::ids::TenantId;
use crate::stats::{TenantCounters, TenantGauges, TenantReport, WorkerReport};
use crate::tenant::{PoolMode, Tenant, Tier};

/// All tenants at one instant, in the order of their ids.
pub(super) struct Table {
    entries: Vec<Entry>,
    departed: TenantReport,
    settings: Arc<Settings>,
}

/// One tenant of the catalog. Boxed counters keep a tenant that nobody has seen small.
pub(super) struct Entry {
    /// The tenant.
    pub(super) tenant: Arc<Tenant>,
    seen: Option<Box<TenantReport>>,
}

impl Entry {
    /// Its totals; zeros if no worker has seen it.
    pub(super) fn counters(&self) -> &TenantCounters {
        self.seen.as_ref().map_or(&NO_COUNTERS, |report| &report.counters)
    }

    /// Its instant; zeros if no worker has seen it.
    pub(super) fn gauges(&self) -> &TenantGauges {
        self.seen.as_ref().map_or(&NO_GAUGES, |report| &report.gauges)
    }

    /// Whether a worker has seen it since the start.
    pub(super) const fn is_seen(&self) -> bool {
        self.seen.is_some()
    }

    /// Its samples' values.
    pub(super) fn row(&self) -> Row<'_> {
        let allowance = &self.tenant.allowance;
        Row {
            name: &self.tenant.name,
            floor: allowance.floor.into(),
            share: allowance.share.into(),
            ceiling: allowance.ceiling.into(),
            counters: self.counters(),
            gauges: self.gauges(),
        }
    }
}

impl Table {
    /// Joins the catalog with the workers' reports.
    pub(super) fn new(settings: Arc<Settings>, workers: &mut [WorkerReport]) -> Self {
        let mut tenants: Vec<_> = settings.catalog.iter().cloned().collect();
        tenants.sort_unstable_by_key(|tenant| tenant.id);
        let mut departed = empty();
        let mut reports = merged(workers).into_iter().peekable();
        let mut entries = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            while let Some(gone) = reports.next_if(|report| report.tenant < tenant.id) {
                merge(&mut departed, &gone);
            }
            let seen = reports.next_if(|report| report.tenant == tenant.id).map(Box::new);
            // The tier in which it is, where the proxy chooses it.
            let chosen = seen.as_ref().and_then(|seen| {
                let tier = *Tier::ALL.get(usize::from(seen.tier?))?;
                tenant.in_tier(tier).map(Arc::new)
            });
            entries.push(Entry { tenant: chosen.unwrap_or(tenant), seen });
        }
        for gone in reports {
            merge(&mut departed, &gone);
        }
        Self { entries, departed, settings }
    }

    /// The tenants of the catalog.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The sum of tenants that were removed while servers or clients of theirs remain.
    pub(super) const fn departed(&self) -> &TenantReport {
        &self.departed
    }

    /// Keeps only the tenants for which the condition holds.
    pub(super) fn retain(&mut self, holds: impl Fn(&Tenant) -> bool) {
        self.entries.retain(|entry| holds(&entry.tenant));
    }

    /// The info sample of one tenant.
    pub(super) fn write_info(&self, text: &mut TextWriter, tenant: &Tenant) {
        let cluster = self.settings.cluster(tenant.cluster).map_or("", |cluster| &cluster.name);
        let mode = match tenant.mode {
            PoolMode::Transaction => "transaction",
            PoolMode::Session => "session",
        };
        let labels =
            [("tenant", &*tenant.name), ("cluster", cluster), ("tier", tenant.tier.as_str()), ("mode", mode)];
        text.sample(INFO.name, &labels, Value::Count(1));
    }
}

/// The reports of all workers in the order of ids, one per tenant.
fn merged(workers: &mut [WorkerReport]) -> Vec<TenantReport> {
    let mut reports: Vec<_> =
        workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.tenants)).collect();
    reports.sort_unstable_by_key(|report| report.tenant);
    reports.dedup_by(|later, kept| {
        let same = later.tenant == kept.tenant;
        if same {
            merge(kept, later);
        }
        same
    });
    reports
}

fn merge(sum: &mut TenantReport, more: &TenantReport) {
    let mut total = cells::cells(&sum.counters);
    cells::add(&mut total, &cells::cells(&more.counters));
    sum.counters = cells::counters(total);
    cells::add_gauges(&mut sum.gauges, &more.gauges);
    // The hottest, where workers differ.
    sum.tier = [sum.tier, more.tier].into_iter().flatten().min();
}

const fn empty() -> TenantReport {
    TenantReport { tenant: TenantId(u32::MAX), tier: None, counters: NO_COUNTERS, gauges: NO_GAUGES }
}

const NO_COUNTERS: TenantCounters = cells::counters([0; cells::CELLS]);

const NO_GAUGES: TenantGauges = TenantGauges {
    cl_idle: 0,
    cl_active: 0,
    cl_waiting: 0,
    sv_login: 0,
    sv_idle: 0,
    sv_active: 0,
    sv_closing: 0,
    sv_pinned: 0,
    cl_listening: 0,
    cl_replicating: 0,
    replica_recommended: 0,
    oldest_wait_us: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::fixture::{report, settings, tenant, worker};
    use crate::tenant::Catalog;

    #[test]
    fn workers_are_summed_the_unseen_are_zero_and_the_removed_apart() {
        let all = vec![tenant("a", Tier::Hot), tenant("b", Tier::Hot), tenant("c", Tier::Hot)];
        let first = Catalog::default().next(all).unwrap();
        let second = first.next(vec![tenant("a", Tier::Hot), tenant("c", Tier::Hot)]).unwrap();
        let mut workers =
            [worker(vec![report(1, 5), report(0, 2)]), worker(vec![report(0, 40), report(9, 1)])];
        let table = Table::new(settings(second), &mut workers);
        let counted: Vec<_> = table
            .entries()
            .iter()
            .map(|entry| (&*entry.tenant.name, entry.counters().transactions))
            .collect();
        assert_eq!(counted, [("a", 42), ("c", 0)]);
        assert_eq!(table.departed().counters.transactions, 6);
    }
}
