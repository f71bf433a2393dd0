//! What would have come of a trace under the old and the new configuration, as a table.
//!
//! Owns the layout and who comes first in it. The replay is `replay`'s. Pure: settings and a trace in, text out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::{Budgets, some_of};
use crate::commands::Failure;
use crate::config::{Cluster, Settings};
use crate::ids::TenantId;
use crate::replay::{Outcome, Stage, Tally, Visit, replay, visits};
use crate::tenant::Tenant;
use crate::trace::{Ending, Trace};

/// How a trace is to be tried out.
pub(super) struct Forecast<'a> {
    pub(super) trace: &'a Trace,
    /// How long a login takes, if that is given.
    pub(super) login_us: Option<u64>,
    /// Rows of each table.
    pub(super) top: usize,
}

impl Forecast<'_> {
    /// The head, and a table per cluster on which anything happened.
    ///
    /// # Errors
    /// If the budget of such a cluster is not known.
    pub(super) fn text(&self, settings: [&Settings; 2], budgets: &[Budgets; 2]) -> Result<String, Failure> {
        let mut text = self.head(settings);
        let [old, new] = settings;
        let names: BTreeSet<&str> =
            old.clusters.iter().chain(&new.clusters).map(|cluster| &*cluster.name).collect();
        for name in names {
            let outcomes = [self.outcome(name, old, &budgets[0])?, self.outcome(name, new, &budgets[1])?];
            if outcomes.iter().any(|outcome| outcome.all.arrivals > 0) {
                let _ = writeln!(text, "\ncluster {name}");
                self.rows(&mut text, settings, &outcomes);
            }
        }
        Ok(text)
    }

    /// What the trace is, and what was left out of it.
    fn head(&self, [old, new]: [&Settings; 2]) -> String {
        let trace = self.trace;
        let last_us = trace.requests.last().map_or(0, |request| request.at_us);
        let mut text = format!(
            "trace: {} requests of {} tenants in {}; a login takes {}\n",
            trace.requests.len(),
            trace.names.len(),
            seconds(last_us),
            milliseconds(self.login_us()),
        );
        let mut note = |line: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "note: {line}");
        };
        if trace.dropped > 0 {
            note(format!(
                "{} more requests could not be recorded in time: there was more load",
                trace.dropped
            ));
        }
        let ending = match trace.ending {
            Ending::Complete => None,
            Ending::Open => {
                Some("the trace has no end: it was cut off, or is still being written".to_owned())
            }
            Ending::Damaged { at } => {
                Some(format!("the trace is damaged from byte {at} on, and read up to there"))
            }
        };
        ending.into_iter().for_each(&mut note);
        for (which, settings) in [("old", old), ("new", new)] {
            let is_unknown = |name: &&str| settings.catalog.by_name(name).is_none();
            let unknown: BTreeSet<&str> = trace.names.iter().map(|name| &**name).filter(is_unknown).collect();
            if !unknown.is_empty() {
                let (_, others) =
                    visits(trace, |name| settings.catalog.by_name(name).map(|tenant| tenant.id));
                let names = some_of(unknown, self.top.min(5));
                note(format!(
                    "requests of tenants that the {which} configuration does not have are left out: {others} ({names})"
                ));
            }
        }
        text
    }

    /// What comes of the trace on one cluster of a configuration.
    fn outcome(&self, name: &str, settings: &Settings, budgets: &Budgets) -> Result<Outcome, Failure> {
        let Some(cluster) = settings.clusters.iter().find(|cluster| *cluster.name == *name) else {
            return Ok(Outcome::default());
        };
        let (tenants, visits) = self.on(cluster, settings);
        if visits.is_empty() {
            return Ok(Outcome::default());
        }
        let Some(capacity) = budgets.get(name).copied() else {
            return Err(Failure::usage(format_args!(
                "cluster `{name}` has max_connections = \"auto\": say how many that is with --budget {name}=N"
            )));
        };
        let stage = Stage {
            capacity,
            workers: u32::try_from(settings.threads.workers).unwrap_or(u32::MAX),
            refuses_hopeless_waits: settings.servers.refuses_hopeless_waits,
            tiering: settings.tiering,
            tenants: &tenants,
            login_us: self.login_us(),
        };
        Ok(replay(&stage, &visits))
    }

    /// The tenants of a cluster, and what their clients do.
    fn on(&self, cluster: &Cluster, settings: &Settings) -> (BTreeMap<TenantId, Arc<Tenant>>, Vec<Visit>) {
        let tenants: BTreeMap<TenantId, Arc<Tenant>> = settings
            .catalog
            .iter()
            .filter(|tenant| tenant.cluster == cluster.id)
            .map(|tenant| (tenant.id, tenant.clone()))
            .collect();
        let number = |name: &str| {
            let id = settings.catalog.by_name(name)?.id;
            tenants.contains_key(&id).then_some(id)
        };
        let (visits, _) = visits(self.trace, number);
        (tenants, visits)
    }

    fn login_us(&self) -> u64 {
        let (logins, took_us) = self.trace.logins;
        self.login_us.or_else(|| took_us.checked_div(logins)).unwrap_or(USUAL_LOGIN_US)
    }

    /// The sum of all tenants, and those that change most.
    fn rows(&self, text: &mut String, [old, new]: [&Settings; 2], outcomes: &[Outcome; 2]) {
        let nothing = Tally::default();
        let [before, after] = outcomes;
        let ids: BTreeSet<TenantId> = before.tenants.keys().chain(after.tenants.keys()).copied().collect();
        let mut rows: Vec<(String, [&Tally; 2])> = ids
            .into_iter()
            .filter_map(|id| {
                let tenant = new.catalog.get(id).or_else(|| old.catalog.get(id))?;
                let tallies = [before, after].map(|it| it.tenants.get(&id).unwrap_or(&nothing));
                Some((tenant.name.to_string(), tallies))
            })
            .collect();
        rows.sort_by_cached_key(|(name, tallies)| (std::cmp::Reverse(weight(*tallies)), name.clone()));
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header([
            "tenant",
            "arrivals",
            "mean wait ms",
            "p99 wait ms",
            "refused",
            "logins",
            "most servers",
        ]);
        table.add_row(row("(all)", [&before.all, &after.all]));
        for (name, tallies) in rows.iter().take(self.top) {
            table.add_row(row(name, *tallies));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if let Some(more @ 1..) = rows.len().checked_sub(self.top) {
            let _ = writeln!(text, " and {more} more tenants, which change less");
        }
        refusals(text, "all", [&before.all, &after.all]);
        for (name, tallies) in rows.iter().take(self.top) {
            refusals(text, name, *tallies);
        }
    }
}

/// What changes most comes first, then what is worst afterwards, then what is busiest.
fn weight([before, after]: [&Tally; 2]) -> [u64; 5] {
    [
        before.refused().abs_diff(after.refused()),
        before.wait_us.abs_diff(after.wait_us),
        after.refused(),
        after.wait_us,
        before.arrivals.max(after.arrivals),
    ]
}

fn row(name: &str, tallies: [&Tally; 2]) -> [String; 7] {
    let each = |of: fn(&Tally) -> String| change(tallies.map(of));
    [
        name.to_owned(),
        each(|tally| tally.arrivals.to_string()),
        each(|tally| tenths(tally.mean_wait_us())),
        each(|tally| tenths(tally.p99_wait_us())),
        each(|tally| tally.refused().to_string()),
        each(|tally| tally.logins.to_string()),
        each(|tally| tally.servers_max.to_string()),
    ]
}

/// `queue_timeout 0 -> 12`
fn refusals(text: &mut String, name: &str, [before, after]: [&Tally; 2]) {
    let reasons: BTreeSet<&str> = before.refusals.keys().chain(after.refusals.keys()).copied().collect();
    if reasons.is_empty() {
        return;
    }
    let count = |tally: &Tally, reason: &str| tally.refusals.get(reason).copied().unwrap_or(0).to_string();
    let reason = |reason: &str| format!("{reason} {}", change([count(before, reason), count(after, reason)]));
    let reasons: Vec<String> = reasons.into_iter().map(reason).collect();
    let _ = writeln!(text, " refused of {name}: {}", reasons.join(", "));
}

fn change([before, after]: [String; 2]) -> String {
    if before == after { after } else { format!("{before} -> {after}") }
}

/// Milliseconds with one digit behind the point.
fn tenths(us: u64) -> String {
    let tenths = us.saturating_add(50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn milliseconds(us: u64) -> String {
    format!("{} ms", tenths(us))
}

fn seconds(us: u64) -> String {
    format!("{}.{} s", us / 1_000_000, us / 100_000 % 10)
}

/// Of a trace in which nobody logged in.
const USUAL_LOGIN_US: u64 = 10_000;
