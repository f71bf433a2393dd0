//! A worker's portion of what a tenant may use.
//!
//! Owns the division: of servers, the portions of all workers add up to the whole, exactly, at every moment. Must not know
//! workers.

use std::sync::Arc;

use super::{Allowance, RateLimit, Rates, Tenant};

/// One of several even parts, or nothing. What does not divide evenly goes to the first parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    Nothing,
    /// The part of this number, from 0.
    Of {
        /// Its number.
        number: u32,
        /// How many there are.
        parts: u32,
    },
}

impl Part {
    /// The only part.
    pub const WHOLE: Self = Self::Of { number: 0, parts: 1 };

    /// The part of this number among so many; nothing if it is none of them.
    #[must_use]
    pub const fn new(number: u32, parts: u32) -> Self {
        if number < parts { Self::Of { number, parts } } else { Self::Nothing }
    }

    /// So much of the whole.
    #[must_use]
    pub fn of(self, whole: u32) -> u32 {
        let Self::Of { number, parts } = self else { return 0 };
        let even = whole.checked_div(parts).unwrap_or(0);
        let rest = whole.checked_rem(parts).unwrap_or(0);
        even.saturating_add(u32::from(number < rest))
    }
}

/// What a worker may let a tenant use: its part, and while that changes no more than the new one either. So the portions
/// never add up to more than the whole, whoever hears of a change first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    part: Part,
    next: Part,
}

impl Portion {
    /// This part.
    #[must_use]
    pub const fn of_part(part: Part) -> Self {
        Self { part, next: part }
    }

    /// A part that is to become another one.
    #[must_use]
    pub const fn between(part: Part, next: Part) -> Self {
        Self { part, next }
    }

    /// So much of the whole.
    #[must_use]
    pub fn of(self, whole: u32) -> u32 {
        self.part.of(whole).min(self.next.of(whole))
    }

    /// Whether it is all there is.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::of_part(Part::WHOLE)
    }

    /// The tenant with this much of the budget. Clients are counted by who lets them in; all else is everybody's.
    #[must_use]
    pub fn of_tenant(self, tenant: &Tenant) -> Tenant {
        let rates = tenant.rates.as_ref().map(|rates| {
            // Logins are counted where the client is put; each worker has its part of them too.
            let Rates { transactions, logins } = **rates;
            let of = |limit: Option<RateLimit>| limit.map(|limit| self.of_rate(limit));
            Arc::new(Rates { transactions: of(transactions), logins: of(logins) })
        });
        let of_all =
            |tiers: &Arc<[Allowance; 3]>| Arc::new(tiers.map(|allowance| self.of_allowance(allowance)));
        let tiers = tenant.tiers.as_ref().map(of_all);
        Tenant { allowance: self.of_allowance(tenant.allowance), tiers, rates, ..tenant.clone() }
    }

    /// Its part of a rate; where anything may begin, one may now and then.
    #[must_use]
    pub fn of_rate(self, whole: RateLimit) -> RateLimit {
        let RateLimit { per_second, burst, delay_us } = whole;
        RateLimit { per_second: self.of(per_second).max(1), burst: self.of(burst).max(1), delay_us }
    }

    fn of_allowance(self, whole: Allowance) -> Allowance {
        let Allowance { reserve, floor, share, ceiling, weight, max_waiters } = whole;
        let ceiling = self.of(ceiling);
        Allowance {
            reserve: self.of(reserve),
            // A priority and no number of servers: parts of it may add up to more.
            floor: self.of(floor).max(u32::from(floor > 0 && ceiling > 0)),
            share: self.of(share),
            ceiling,
            weight: self.of(weight).max(1),
            // Where somebody may be served, somebody may wait, if anybody may.
            max_waiters: self.of(max_waiters).max(u32::from(max_waiters > 0 && ceiling > 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole_and_differ_by_one_at_most() {
        for whole in 0..40 {
            for parts in 1..9 {
                let all: Vec<u32> = (0..parts).map(|number| Part::new(number, parts).of(whole)).collect();
                assert_eq!(all.iter().sum::<u32>(), whole, "{all:?}");
                assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1, "{all:?}");
                assert!(all.is_sorted_by(|a, b| a >= b), "{all:?}");
                assert_eq!(Part::new(parts, parts).of(whole), 0);
            }
        }
    }

    /// Workers hear of a change one after the other: some have their old part, some both; and later some both, some the new.
    #[test]
    fn a_change_exceeds_the_whole_at_no_moment() {
        for whole in [1, 2, 5, 17, 100] {
            for (from, to) in [(1, 2), (2, 1), (2, 3), (3, 2), (1, 7), (7, 1), (5, 6)] {
                let part = |number, parts| Part::new(number, parts);
                let old = |number| Portion::of_part(part(number, from));
                let both = |number| Portion::between(part(number, from), part(number, to));
                let new = |number| Portion::of_part(part(number, to));
                for heard in 0..=7 {
                    let sum = |before: &dyn Fn(u32) -> Portion, after: &dyn Fn(u32) -> Portion| {
                        (0..7).map(|n| if n < heard { after(n) } else { before(n) }.of(whole)).sum::<u32>()
                    };
                    assert!(sum(&old, &both) <= whole, "{from} to {to}, first step, {heard} have heard");
                    assert!(sum(&both, &new) <= whole, "{from} to {to}, second step, {heard} have heard");
                }
                assert_eq!((0..7).map(|n| new(n).of(whole)).sum::<u32>(), whole);
            }
        }
    }

    #[test]
    fn whoever_may_be_served_may_wait_and_has_a_weight() {
        let whole = Allowance { reserve: 1, floor: 1, share: 3, ceiling: 5, weight: 1, max_waiters: 1 };
        let of = |part, whole| Portion::of_part(part).of_allowance(whole);
        let second = Allowance { reserve: 0, floor: 1, share: 1, ceiling: 2, weight: 1, max_waiters: 1 };
        assert_eq!(of(Part::new(1, 2), whole), second);
        assert_eq!(of(Part::new(1, 2), Allowance { max_waiters: 0, ..whole }).max_waiters, 0);
        assert_eq!(of(Part::Nothing, whole).max_waiters, 0);
        assert!(Portion::of_part(Part::WHOLE).is_whole() && of(Part::WHOLE, whole) == whole);
        assert!(!Portion::of_part(Part::new(0, 2)).is_whole());
    }
}
