//! The brake on reconnects: a token bucket for moves of servers between tenants that no guarantee asks for.
//!
//! Owns the bucket and the measure of transactions per second it is sized by. The limit on logins in flight is a plain
//! number in the configuration. Must not know who moves what.

use super::config::BudgetConfig;
use crate::time::Moment;

/// The reconnect budget.
#[derive(Clone, Debug)]
pub(super) struct ReconnectBudget {
    /// Tokens, in millionths.
    tokens: u64,
    at: Moment,
    releases: u64,
    window_from: Moment,
    /// Tokens per second, which is also millionths of a token per microsecond. It changes with each window only, and is
    /// looked at in each step.
    rate: u64,
}

impl ReconnectBudget {
    pub(super) fn new(config: &BudgetConfig) -> Self {
        let rate = rate(0, config);
        Self { tokens: limit(rate), at: Moment(0), releases: 0, window_from: Moment(0), rate }
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Moment, config: &BudgetConfig) {
        let passed = now.micros_since(self.at);
        self.at = self.at.max(now);
        let refill = passed.saturating_mul(self.rate);
        self.tokens = self.tokens.saturating_add(refill).min(limit(self.rate));
        let window = now.micros_since(self.window_from);
        if window >= SECOND {
            self.rate = rate(self.releases.saturating_mul(SECOND) / window, config);
            self.releases = 0;
            self.window_from = now;
        }
    }

    /// A transaction ended.
    pub(super) fn count_release(&mut self) {
        self.releases = self.releases.saturating_add(1);
    }

    pub(super) const fn has_token(&self) -> bool {
        self.tokens >= TOKEN
    }

    /// Spends a token, if there is one.
    pub(super) fn spend(&mut self) -> bool {
        let paid = self.has_token();
        if paid {
            self.tokens = self.tokens.saturating_sub(TOKEN);
        }
        paid
    }

    /// When there will be a token.
    pub(super) const fn next_token(&self, now: Moment) -> Moment {
        let missing = TOKEN.saturating_sub(self.tokens);
        Moment(now.0.saturating_add(missing.div_ceil(self.rate)))
    }
}

/// Tokens per second with so many transactions per second; at least one.
fn rate(per_second: u64, config: &BudgetConfig) -> u64 {
    let part = per_second.saturating_mul(u64::from(config.reconnects_per_mille)) / 1_000;
    part.max(u64::from(config.reconnects_per_second)).max(1)
}

/// The most that the bucket holds: a quarter of a second's worth, at least one.
fn limit(rate: u64) -> u64 {
    (rate.saturating_mul(TOKEN) / 4).max(TOKEN)
}

const SECOND: u64 = 1_000_000;
const TOKEN: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_gives_a_burst_and_then_its_rate() {
        let config = BudgetConfig::new(10);
        let mut budget = ReconnectBudget::new(&config);
        let burst = (0..100).filter(|_| budget.spend()).count();
        assert_eq!(burst, 12);
        budget.advance(Moment(1), &config);
        let at = budget.next_token(Moment(1));
        budget.advance(Moment(at.0 - 1), &config);
        assert!(!budget.has_token());
        budget.advance(at, &config);
        assert!(budget.spend() && !budget.spend());
    }

    #[test]
    fn the_rate_follows_the_transactions_per_second() {
        let config = BudgetConfig::new(10);
        let mut budget = ReconnectBudget::new(&config);
        for _ in 0..50_000 {
            budget.count_release();
        }
        budget.advance(Moment(SECOND), &config);
        assert_eq!(budget.rate, 1_000);
        budget.advance(Moment(3 * SECOND), &config);
        assert_eq!(budget.rate, 50);
    }
}
