//! The bounded page: whatever the number of tenants, at most K of them by name.
//!
//! Owns the order of the page and the memory between scrapes. Must not know HTTP.

use std::time::Duration;

use parking_lot::Mutex;

use super::process::Process;
use super::roster::{Roster, Selection};
use super::table::Table;
use super::tenants::{FAMILIES, INFO, Row};
use super::text::{Dialect, TextWriter};
use super::{OTHER, overall};
use crate::telemetry::ProxyReport;

/// What lasts from scrape to scrape.
#[derive(Debug)]
pub(in crate::telemetry) struct Exposition {
    process: Process,
    roster: Mutex<Roster>,
}

impl Exposition {
    /// Nothing scraped yet.
    ///
    /// # Errors
    /// If two series have one name.
    pub(in crate::telemetry) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self { process: Process::new()?, roster: Mutex::default() })
    }

    /// Counts one answered request. `page` must be one of a few: it is a label.
    pub(in crate::telemetry) fn count_request(&self, page: &str, code: u16) {
        self.process.count_request(page, code);
    }

    /// Counts the time of one scrape.
    pub(in crate::telemetry) fn observe_scrape(&self, took: Duration) {
        self.process.observe_scrape(took);
    }

    /// Writes the page. Takes some milliseconds per 10,000 tenants and blocks: not for a worker's thread.
    pub(in crate::telemetry) fn render(
        &self,
        mut report: ProxyReport,
        dialect: Dialect,
        now_ms: u64,
    ) -> String {
        let table = Table::new(report.settings.clone(), &mut report.workers);
        let mut text = TextWriter::new(dialect);
        // Held to the end: scrapes are printed in the order in which their sums were made.
        let mut roster = self.roster.lock();
        let selection = roster.select(&table, report.settings.metrics_top_tenants, now_ms);
        self.process.write(&mut text);
        overall::write_proxy(&mut text, &report);
        overall::write_tiers(&mut text, &report, &table);
        overall::write_clusters(&mut text, &report);
        overall::write_elided(&mut text, selection.elided);
        write_tenants(&mut text, &table, &selection);
        text.end();
        text.take()
    }
}

fn write_tenants(text: &mut TextWriter, table: &Table, selection: &Selection) {
    let named: Vec<_> = selection.named.iter().filter_map(|index| table.entries().get(*index)).collect();
    text.family(&INFO);
    for entry in &named {
        table.write_info(text, &entry.tenant);
    }
    let other = selection.other.as_ref().map(|other| Row {
        name: OTHER,
        floor: other.floor,
        share: other.share,
        ceiling: other.ceiling,
        counters: &other.counters,
        gauges: &other.gauges,
    });
    for family in FAMILIES {
        text.family(&family.family);
        for entry in &named {
            family.write(text, &entry.row());
        }
        if let Some(other) = &other {
            family.write(text, other);
        }
    }
}
