//! What the clients counted, and percentiles of it.
//!
//! Owns the sums. Must not know how a client works.

use std::time::Duration;

/// What one client, or many together, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Clients.
    pub(super) clients: usize,
    /// Transactions that ended as they should.
    pub(super) transactions: u64,
    /// Answers that named the tenant, role and schema they came from.
    pub(super) answers: u64,
    /// Descriptions of answers that named another.
    pub(super) foreign: Vec<String>,
    /// Queue timeouts (53300): the session went on.
    pub(super) timeouts: u64,
    /// Errors that should not have been.
    pub(super) errors: Vec<String>,
    /// Times from the first message of a transaction to its first answer: the wait for a server and one quick statement.
    pub(super) waits_us: Vec<u64>,
}

impl Tally {
    /// Adds another's counts.
    pub(super) fn add(&mut self, other: Self) {
        self.clients += other.clients;
        self.transactions += other.transactions;
        self.answers += other.answers;
        self.foreign.extend(other.foreign);
        self.timeouts += other.timeouts;
        self.errors.extend(other.errors);
        self.waits_us.extend(other.waits_us);
    }

    /// Notes a wait.
    pub(super) fn waited(&mut self, wait: Duration) {
        self.waits_us.push(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
    }

    /// The wait that so many of 1,000 waits do not exceed; zero if there was none.
    pub(super) fn wait(&self, per_mille: usize) -> Duration {
        let mut sorted = self.waits_us.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * per_mille).div_ceil(1_000).saturating_sub(1);
        Duration::from_micros(sorted.get(rank).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let tally = Tally { waits_us: (1..=200).rev().collect(), ..Tally::default() };
        assert_eq!(tally.wait(500), Duration::from_micros(100));
        assert_eq!(tally.wait(990), Duration::from_micros(198));
        assert_eq!(tally.wait(1_000), Duration::from_micros(200));
        assert_eq!(Tally::default().wait(990), Duration::ZERO);
    }
}
