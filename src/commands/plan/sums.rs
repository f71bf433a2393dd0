//! What the tenants of each cluster may have together, before and after, beside what there is.
//!
//! Owns the table and the warnings. What a sum must keep to is `config::check`'s.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::Budgets;
use crate::config::check;
use crate::config::{Cluster, MaxConnections, Settings};
use crate::tenant::{Allowance, Tenant};

/// The sums of all clusters.
pub(super) struct Sums {
    pub(super) text: String,
    /// Whether a proxy can work by those of the new configuration.
    pub(super) works_out: bool,
}

/// Compares two configurations with their budgets.
pub(super) fn compare([old, new]: [&Settings; 2], budgets: &[Budgets; 2]) -> Sums {
    let mut sums = Sums { text: String::new(), works_out: true };
    for cluster in &new.clusters {
        let before = old.clusters.iter().find(|before| before.name == cluster.name);
        sums.cluster(cluster, (before.map(|before| members(old, before)), members(new, cluster)), budgets);
        sums.warn(new, cluster, budgets);
        sums.text.push('\n');
    }
    sums
}

impl Sums {
    fn cluster(
        &mut self,
        cluster: &Cluster,
        (old, new): (Option<Vec<&Tenant>>, Vec<&Tenant>),
        [old_budgets, new_budgets]: &[Budgets; 2],
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "cluster {}", cluster.name);
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["", "old", "new", ""]);
        let known = |budgets: &Budgets| budgets.get(&*cluster.name).copied();
        let (old_budget, new_budget) = (old.as_ref().and_then(|_| known(old_budgets)), known(new_budgets));
        let budget = |budget: Option<u32>| budget.map_or_else(|| "auto".to_owned(), |it| it.to_string());
        let absent = || "-".to_owned();
        let is_new = old.is_none();
        table.add_row([
            "server connections".to_owned(),
            if is_new { absent() } else { budget(old_budget) },
            budget(new_budget),
            String::new(),
        ]);
        let count = |tenants: &[&Tenant]| tenants.len().to_string();
        let before = old.as_deref().map_or_else(absent, count);
        table.add_row(["tenants".to_owned(), before, count(&new), String::new()]);
        for (name, of) in COUNTS {
            let (old, new) = (old.as_ref().map(|tenants| sum(tenants, of)), sum(&new, of));
            let part = new_budget.map_or_else(String::new, |budget| of_budget(new, budget));
            let old = old.map_or_else(absent, |old| old.to_string());
            table.add_row([name.to_owned(), old, new.to_string(), part]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.lines() {
            let _ = writeln!(self.text, "{}", line.trim_end());
        }
    }

    /// A budget that is not written in the file was not looked at when that was read.
    fn warn(&mut self, new: &Settings, cluster: &Cluster, [_, budgets]: &[Budgets; 2]) {
        if cluster.max_connections != MaxConnections::Auto {
            return;
        }
        let Some(budget) = budgets.get(&*cluster.name).copied() else {
            let _ = writeln!(
                self.text,
                "note: `max_connections` is \"auto\": say --budget {}=N to see whether it fits",
                cluster.name
            );
            return;
        };
        let tenants = members(new, cluster);
        match check::sums(cluster, budget, new.threads.workers, tenants.iter().copied()) {
            Ok(warnings) => {
                for warning in warnings {
                    let _ = writeln!(self.text, "warning: {}", warning.text);
                }
            }
            Err(error) => {
                self.works_out = false;
                let _ = writeln!(self.text, "error: {error}");
            }
        }
    }
}

/// The tenants of a cluster.
fn members<'s>(settings: &'s Settings, cluster: &Cluster) -> Vec<&'s Tenant> {
    let tenants = settings.catalog.iter().map(|tenant| &**tenant);
    tenants.filter(|tenant| tenant.cluster == cluster.id).collect()
}

/// One number of an allowance.
type Count = fn(&Allowance) -> u32;

fn sum(tenants: &[&Tenant], of: Count) -> u64 {
    tenants.iter().fold(0, |sum, tenant| sum.saturating_add(of(&tenant.allowance).into()))
}

/// `35 % of the budget`
fn of_budget(sum: u64, budget: u32) -> String {
    let percent = sum.saturating_mul(100).checked_div(budget.into()).unwrap_or(0);
    format!("{percent} % of the budget")
}

/// Those whose tier the proxy chooses count as cold, which they begin with.
const COUNTS: [(&str, Count); 4] = [
    ("reserves", |allowance| allowance.reserve),
    ("floors", |allowance| allowance.floor),
    ("shares", |allowance| allowance.share),
    ("ceilings", |allowance| allowance.ceiling),
];
