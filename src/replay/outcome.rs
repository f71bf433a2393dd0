//! What came of a trace: sums per tenant and of the cluster.
//!
//! Owns the counting. Must not know what is good or bad.

use std::collections::BTreeMap;

use crate::ids::TenantId;

/// What came of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of each tenant that came.
    pub tenants: BTreeMap<TenantId, Tally>,
    /// Of all of them; its most servers are those that there were at once.
    pub all: Tally,
}

/// Sums of one tenant, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests.
    pub arrivals: u64,
    /// Requests that got a server.
    pub served: u64,
    /// How long they waited together, in microseconds.
    pub wait_us: u64,
    /// Requests that got none, by the reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Server logins that were begun.
    pub logins: u64,
    /// The most servers at once, in any state.
    pub servers_max: u32,
    pub(super) servers: u32,
    /// The waits of those that had to, in microseconds.
    waits: Vec<u32>,
}

impl Tally {
    /// Requests that got no server.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refusals.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The mean wait of those that got a server, in microseconds.
    #[must_use]
    pub fn mean_wait_us(&self) -> u64 {
        self.wait_us.checked_div(self.served).unwrap_or(0)
    }

    /// What 99 of 100 that got a server waited at most, in microseconds.
    #[must_use]
    pub fn p99_wait_us(&self) -> u64 {
        // Nearest rank. Those that did not have to wait come first, and are not written down.
        let rank = self.served.saturating_mul(99).div_ceil(100);
        let at_once = self.served.saturating_sub(self.waits.len() as u64);
        let Some(behind) = rank.checked_sub(at_once).and_then(|rank| rank.checked_sub(1)) else { return 0 };
        let waited = usize::try_from(behind).ok().and_then(|index| self.waits.get(index));
        waited.copied().unwrap_or(0).into()
    }

    pub(super) fn count_served(&mut self, wait_us: u64) {
        self.served = self.served.saturating_add(1);
        self.wait_us = self.wait_us.saturating_add(wait_us);
        if wait_us > 0 {
            self.waits.push(u32::try_from(wait_us).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn count_refusal(&mut self, reason: &'static str) {
        let count = self.refusals.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn count_login(&mut self) {
        self.logins = self.logins.saturating_add(1);
        self.servers = self.servers.saturating_add(1);
        self.servers_max = self.servers_max.max(self.servers);
    }

    pub(super) fn count_gone(&mut self) {
        self.servers = self.servers.saturating_sub(1);
    }

    /// Everything is counted.
    pub(super) fn finish(&mut self) {
        self.waits.sort_unstable();
    }
}
