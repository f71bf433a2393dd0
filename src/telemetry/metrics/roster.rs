//! Who is named on the bounded page, and the honest sum of the rest.
//!
//! Owns two decisions and the memory they need. Must not know a clock: the time of a scrape is an argument.
//!
//! **Who is named.** At most K tenants: those in trouble first (waiting, timing out, refused, failing to log in), then
//! those with the most transactions in the last one to two minutes. The window moves with time and not with scrapes,
//! so that a second Prometheus, or a curious `curl`, changes nothing. Whoever is named already counts double: two
//! tenants that are about equally busy do not take turns.
//!
//! **The rest.** `_other` has counters too, and a counter must never fall, nor jump when a tenant moves between its own
//! series and the sum: `rate()` would show work that never happened. So the sum is kept as an offset:
//!
//! | a tenant | then |
//! |---|---|
//! | stays in the sum | its increase shows in the sum |
//! | gets a name | what it had counted so far stays in the sum |
//! | loses its name | what was printed under its name is not counted again |
//! | is removed | what it had counted stays in the sum |
//!
//! The price: `_other` is not "the total of all the others since start"; it is right under `rate()` and `increase()`.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::OTHER;
use super::cells::{self, CELLS, Cells};
use super::table::{Entry, Table};
use crate::ids::TenantId;
use crate::stats::{TenantCounters, TenantGauges};

/// The memory from scrape to scrape: K tenants' counters, and two marks per tenant that was ever seen.
#[derive(Debug)]
pub(super) struct Roster {
    named: HashMap<TenantId, Cells>,
    past: HashMap<TenantId, Past>,
    rotated_at_ms: Option<u64>,
    offset: [i128; CELLS],
    printed: Cells,
}

impl Default for Roster {
    fn default() -> Self {
        let (named, past) = (HashMap::new(), HashMap::new());
        Self { named, past, rotated_at_ms: None, offset: [0; CELLS], printed: [0; CELLS] }
    }
}

/// What one scrape prints.
#[derive(Debug)]
pub(super) struct Selection {
    /// Indexes of the named tenants, in the order of their names.
    pub(super) named: Vec<usize>,
    /// Tenants that are not named.
    pub(super) elided: usize,
    /// Their sum; `None` as long as there was nothing to sum up.
    pub(super) other: Option<Other>,
}

/// The sum of the tenants that are not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Other {
    /// Totals that only rise.
    pub(super) counters: TenantCounters,
    /// States, and the oldest wait of all.
    pub(super) gauges: TenantGauges,
    /// Sum of floors.
    pub(super) floor: u64,
    /// Sum of shares.
    pub(super) share: u64,
    /// Sum of ceilings.
    pub(super) ceiling: u64,
}

/// A tenant's activity at the beginning of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    transactions: u64,
    trouble: u64,
}

/// The last two beginnings. Activity is counted since the older one, so a fresh window never starts empty.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    older: Mark,
    newer: Mark,
}

impl Roster {
    /// Chooses the named tenants and sums up the rest.
    pub(super) fn select(&mut self, table: &Table, limit: usize, now_ms: u64) -> Selection {
        let chosen = self.choose(table.entries(), limit);
        let is_named: HashSet<usize> = chosen.iter().copied().collect();
        let (raw, mut other) = sum_of_others(table, &is_named);
        self.move_names(table.entries(), &chosen);
        other.counters = cells::counters(self.advance(&raw));
        self.remember(table.entries(), now_ms);

        let elided = table.entries().len().saturating_sub(chosen.len());
        let has_counted = self.printed.iter().any(|cell| *cell > 0);
        Selection { named: chosen, elided, other: (elided > 0 || has_counted).then_some(other) }
    }

    /// Indexes of the tenants to name, in the order of their names.
    fn choose(&self, entries: &[Entry], limit: usize) -> Vec<usize> {
        // A tenant that is really called `_other` would be a second series of that name.
        let mut candidates: Vec<_> = (0_usize..)
            .zip(entries)
            .filter(|(_, entry)| *entry.tenant.name != *OTHER)
            .map(|(index, entry)| (Reverse(self.importance(entry)), index))
            .collect();
        if candidates.len() > limit {
            // Index `limit` exists, so the first `limit` are the most important ones afterwards.
            candidates.select_nth_unstable(limit);
            candidates.truncate(limit);
        }
        let mut chosen: Vec<_> = candidates.into_iter().map(|(_, index)| index).collect();
        chosen.sort_unstable_by_key(|index| entries.get(*index).map(|entry| &entry.tenant.name));
        chosen
    }

    /// Larger is more important.
    fn importance(&self, entry: &Entry) -> (bool, u64, bool, u64, Reverse<TenantId>) {
        let id = entry.tenant.id;
        let now = mark(entry.counters());
        let then = self.past.get(&id).map_or_else(Mark::default, |past| past.older);
        let troubled = now.trouble > then.trouble || entry.gauges().cl_waiting > 0;
        let named = self.named.contains_key(&id);
        let recent = now.transactions.saturating_sub(then.transactions);
        let weighed = if named { recent.saturating_mul(2) } else { recent };
        (troubled, weighed, named, now.transactions, Reverse(id))
    }

    /// Moves the offset for tenants that got or lost a name, and keeps what the named ones print now.
    fn move_names(&mut self, entries: &[Entry], chosen: &[usize]) {
        let mut before = std::mem::take(&mut self.named);
        for entry in chosen.iter().filter_map(|index| entries.get(*index)) {
            let now = cells::cells(entry.counters());
            let had_a_name = before.remove(&entry.tenant.id).is_some();
            if !had_a_name && self.past.contains_key(&entry.tenant.id) {
                self.shift(&now, 1);
            }
            self.named.insert(entry.tenant.id, now);
        }
        for printed in before.values() {
            self.shift(printed, -1);
        }
    }

    fn shift(&mut self, by: &Cells, sign: i128) {
        for (offset, cell) in self.offset.iter_mut().zip(by) {
            *offset = offset.saturating_add(sign.saturating_mul(i128::from(*cell)));
        }
    }

    /// The sum to print: never less than the one printed before.
    fn advance(&mut self, raw: &Cells) -> Cells {
        for ((offset, printed), raw) in self.offset.iter_mut().zip(&mut self.printed).zip(raw) {
            let sum = i128::from(*raw).saturating_add(*offset);
            let missing = i128::from(*printed).saturating_sub(sum).max(0);
            *offset = offset.saturating_add(missing);
            *printed = u64::try_from(sum.saturating_add(missing)).unwrap_or(u64::MAX);
        }
        self.printed
    }

    /// Adds tenants seen for the first time and moves the window when it is due.
    fn remember(&mut self, entries: &[Entry], now_ms: u64) {
        let due = self.rotated_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= WINDOW_MS);
        if due {
            self.rotated_at_ms = Some(now_ms);
        }
        let mut past =
            if due { HashMap::with_capacity(self.past.len()) } else { std::mem::take(&mut self.past) };
        for entry in entries.iter().filter(|entry| entry.is_seen()) {
            let id = entry.tenant.id;
            if due {
                let older = self.past.get(&id).map_or_else(Mark::default, |past| past.newer);
                past.insert(id, Past { older, newer: mark(entry.counters()) });
            } else {
                past.entry(id).or_default();
            }
        }
        self.past = past;
    }
}

fn sum_of_others(table: &Table, is_named: &HashSet<usize>) -> (Cells, Other) {
    let departed = table.departed();
    let mut raw = cells::cells(&departed.counters);
    let mut other = Other { gauges: departed.gauges, ..Other::default() };
    for (index, entry) in (0_usize..).zip(table.entries()) {
        if is_named.contains(&index) {
            continue;
        }
        let row = entry.row();
        cells::add(&mut raw, &cells::cells(row.counters));
        cells::add_gauges(&mut other.gauges, row.gauges);
        other.floor = other.floor.saturating_add(row.floor);
        other.share = other.share.saturating_add(row.share);
        other.ceiling = other.ceiling.saturating_add(row.ceiling);
    }
    (raw, other)
}

const fn mark(counters: &TenantCounters) -> Mark {
    let trouble = counters
        .queue_timeouts
        .saturating_add(counters.refused_queue_full)
        .saturating_add(counters.refused_unavailable)
        .saturating_add(counters.refused_clients)
        .saturating_add(counters.server_login_failures)
        .saturating_add(counters.servers_lost);
    Mark { transactions: counters.transactions, trouble }
}

/// How long a window of activity lasts at least.
const WINDOW_MS: u64 = 60_000;

#[cfg(test)]
mod tests;
