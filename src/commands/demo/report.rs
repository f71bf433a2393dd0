//! Tables and lines of the demo, as text.
//!
//! Owns their layout. Must not print.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use super::checks::{Check, millis};
use super::plan::{Habit, Member};
use super::provision::DATABASE;
use super::sample::{Ledger, Seen};
use super::tally::Tally;

/// One row per kind of tenant, and the sum.
pub(super) fn table(tallies: &[Tally; 4], tenants: [usize; 4], seen: &Seen, budget: u32) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "tier",
        "tenants",
        "clients",
        "transactions",
        "wait p50 ms",
        "wait p99 ms",
        "timeouts",
        "servers at most",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut all = Tally::default();
    for (habit, ((tally, tenants), servers)) in
        Habit::ALL.into_iter().zip(tallies.iter().zip(tenants).zip(seen.most_of))
    {
        table.add_row(row(habit.name(), tenants, tally, servers.to_string()));
        all.add(tally.clone());
    }
    table.add_row(row("all", tenants.iter().sum(), &all, format!("{} of {budget}", seen.most)));
    format!("{table}\nWait: from a transaction's first message to its first answer, as the clients see it.")
}

fn row(name: &str, tenants: usize, tally: &Tally, servers: String) -> [String; 8] {
    [
        name.to_owned(),
        tenants.to_string(),
        tally.clients.to_string(),
        tally.transactions.to_string(),
        millis(tally.wait(500)),
        millis(tally.wait(990)),
        tally.timeouts.to_string(),
        servers,
    ]
}

/// The header of the live lines.
pub(super) const LIVE_HEADER: &str = " time     tx/s  waiting  timeouts  servers   hot  noisy  warm  cold";

/// One line per second.
pub(super) fn live(second: u64, per_second: u64, timeouts: u64, seen: &Seen, ledger: Ledger) -> String {
    let [hot, noisy, warm, cold] = seen.now;
    let servers: u32 = seen.now.iter().sum();
    format!(
        "{second:>3} s {per_second:>8} {:>8} {timeouts:>9} {:>8} {hot:>5} {noisy:>6} {warm:>5} {cold:>5}",
        ledger.waiting,
        format!("{servers}/{}", ledger.capacity),
    )
}

/// The checks, one per line.
pub(super) fn checks(checks: &[Check]) -> String {
    let lines: Vec<String> = checks
        .iter()
        .map(|check| format!("  {}  {}", if check.held { "ok    " } else { "FAILED" }, check.text))
        .collect();
    lines.join("\n")
}

/// A `psql` line for the first tenant of each tier.
pub(super) fn psql_lines(members: &[Member], port: u16) -> String {
    let lines: Vec<String> = [Habit::Hot, Habit::Warm, Habit::Cold]
        .into_iter()
        .filter_map(|habit| members.iter().find(|member| member.habit == habit))
        .map(|member| {
            let Member { name, password, .. } = member;
            format!("  psql \"postgres://{name}:{password}@127.0.0.1:{port}/{DATABASE}\" -c 'SELECT * FROM notes LIMIT 3'")
        })
        .collect();
    lines.join("\n")
}
