//! What must have held: the list that decides the exit code.
//!
//! Owns the rules and their wording. Must not measure.

use std::time::Duration;

use super::plan::Habit;
use super::sample::{Ledger, Seen};
use super::tally::Tally;

/// One rule and whether it held.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// Whether it held.
    pub(super) held: bool,
    /// The rule with its numbers.
    pub(super) text: String,
}

/// All that the rules look at.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// The budget, computed from the server's own settings.
    pub(super) budget: u32,
    /// One tally per [`Habit`].
    pub(super) tallies: &'a [Tally; 4],
    /// Tenants of each [`Habit`].
    pub(super) tenants: [usize; 4],
    /// What `pg_stat_activity` showed.
    pub(super) seen: Seen,
    /// The proxy's count at its highest.
    pub(super) ledger: Ledger,
    /// Servers that Postgres still had after the proxy had drained; `None` if the proxy is still up.
    pub(super) left_over: Option<u32>,
}

impl Evidence<'_> {
    /// Applies every rule.
    pub(super) fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.no_foreign_row(), self.budget_held(), self.quiet_tenants_waited_little()];
        checks.push(self.everybody_was_served());
        checks.push(self.no_error());
        checks.extend(self.nothing_left());
        checks
    }

    fn no_foreign_row(&self) -> Check {
        let answers: u64 = self.tallies.iter().map(|tally| tally.answers).sum();
        let foreign: Vec<&String> = self.tallies.iter().flat_map(|tally| &tally.foreign).collect();
        let text = match foreign.first() {
            None => format!(
                "no tenant saw a foreign row: {answers} answers named the tenant, role and schema that asked"
            ),
            Some(first) => format!("{} answers came from another tenant, e.g. {first}", foreign.len()),
        };
        Check { held: foreign.is_empty() && answers > 0, text }
    }

    fn budget_held(&self) -> Check {
        let Self { budget, seen, ledger, .. } = self;
        let held =
            seen.most <= *budget && ledger.used <= *budget && ledger.capacity <= *budget && seen.looks > 0;
        let text = format!(
            "the budget held: at most {} of {budget} servers in {} looks at pg_stat_activity, {} by the proxy's own count",
            seen.most, seen.looks, ledger.used
        );
        Check { held, text }
    }

    fn quiet_tenants_waited_little(&self) -> Check {
        let mut quiet = Tally::default();
        for habit in Habit::ALL.into_iter().filter(|habit| *habit != Habit::Noisy) {
            if let Some(tally) = self.tallies.get(habit.index()) {
                quiet.add(tally.clone());
            }
        }
        let p99 = quiet.wait(990);
        let text = format!(
            "the noisy neighbour disturbed nobody: the others waited {} ms at p99 (limit {} ms), {} of them into a timeout",
            millis(p99),
            QUIET_LIMIT.as_millis(),
            quiet.timeouts
        );
        Check { held: p99 <= QUIET_LIMIT && quiet.timeouts == 0, text }
    }

    fn everybody_was_served(&self) -> Check {
        let clients: usize = self.tallies.iter().map(|tally| tally.clients).sum();
        let expected: usize =
            Habit::ALL.iter().zip(self.tenants).map(|(habit, tenants)| habit.clients() * tenants).sum();
        let idle = self
            .tallies
            .iter()
            .zip(self.tenants)
            .any(|(tally, tenants)| tenants > 0 && tally.transactions == 0);
        let text = format!("every tier was served, {clients} of {expected} clients logged in");
        Check { held: clients == expected && !idle, text }
    }

    fn no_error(&self) -> Check {
        let errors: Vec<&String> = self.tallies.iter().flat_map(|tally| &tally.errors).collect();
        let text = match errors.first() {
            None => "no client met an error that it had not asked for".to_owned(),
            Some(first) => format!("{} clients met an error, e.g. {first}", errors.len()),
        };
        Check { held: errors.is_empty(), text }
    }

    fn nothing_left(&self) -> Option<Check> {
        let left = self.left_over?;
        let text = format!("after the drain Postgres has {left} of the proxy's servers left");
        Some(Check { held: left == 0, text })
    }
}

/// Milliseconds with one digit.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1_000.0)
}

/// Generous, because the machine may be small and busy: the queue timeout is ten times as long. What is built for debugging
/// is slower.
const QUIET_LIMIT: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 500 });

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(clients: usize) -> Tally {
        Tally { clients, transactions: 1, answers: 1, waits_us: vec![10], ..Tally::default() }
    }

    fn held(tallies: &[Tally; 4], seen: Seen) -> Vec<bool> {
        let ledger = Ledger { capacity: 52, used: 52, waiting: 0 };
        let evidence =
            Evidence { budget: 52, tallies, tenants: [1, 1, 1, 1], seen, ledger, left_over: Some(0) };
        evidence.checks().iter().map(|check| check.held).collect()
    }

    #[test]
    fn a_foreign_row_a_server_too_many_and_a_quiet_timeout_are_each_found() {
        let good = [tally(4), tally(60), tally(2), tally(1)];
        let seen = Seen { looks: 1, most: 52, ..Seen::default() };
        assert_eq!(held(&good, seen), [true; 6]);
        let mut foreign = good.clone();
        foreign[1].foreign.push("hot10 was answered as warm01".into());
        assert!(!held(&foreign, seen)[0]);
        assert!(!held(&good, Seen { most: 53, ..seen })[1]);
        let mut late = good.clone();
        late[3].timeouts = 1;
        assert!(!held(&late, seen)[2]);
        let mut noisy = good;
        noisy[1].timeouts = 1;
        assert_eq!(held(&noisy, seen), [true; 6]);
    }
}
