//! Which tier a tenant belongs in that has none written: by what it needs, or by its place among the others.
//!
//! Owns the two rules and their slowness to demote. Pure: the need, the time and the others are arguments.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Tier;
use crate::time::Moment;

/// How tenants without a written tier get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiering {
    /// By the servers that they need.
    Demand,
    /// By their place among the tenants that are active: the first fifth is hot, the last fifth cold.
    Rank,
    /// They are warm.
    Static,
}

impl Tiering {
    /// The mode's name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::Rank => "rank",
            Self::Static => "static",
        }
    }
}

/// Where a tenant is, and since when it has been below that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    tier: Tier,
    below_since: Option<Moment>,
}

impl Standing {
    /// A tenant that begins in this tier.
    #[must_use]
    pub const fn new(tier: Tier) -> Self {
        Self { tier, below_since: None }
    }

    /// Its tier.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Looks at what it needs, in 1/256 servers. Up at once; down when it has needed less than seven tenths of its tier's
    /// least for five minutes. Returns whether its tier has changed.
    pub fn by_demand(&mut self, now: Moment, need: u32) -> bool {
        self.move_to(now, need, [HOT_FROM, WARM_FROM], (1, 1), (7, 10))
    }

    /// Looks at what it needs beside the others, whose first fifth needs at least `cuts[0]` and whose next three fifths at
    /// least `cuts[1]`. A tenth more or less does not count.
    pub fn by_rank(&mut self, now: Moment, need: u32, cuts: [u32; 2]) -> bool {
        self.move_to(now, need, cuts, (11, 10), (9, 10))
    }

    fn move_to(&mut self, now: Moment, need: u32, cuts: [u32; 2], up: (u32, u32), down: (u32, u32)) -> bool {
        let fitting = |(part, whole): (u32, u32)| {
            let above = |cut: u32| {
                u64::from(need).saturating_mul(u64::from(whole))
                    > u64::from(cut).saturating_mul(u64::from(part))
            };
            let [hot, warm] = cuts.map(above);
            if hot {
                Tier::Hot
            } else if warm {
                Tier::Warm
            } else {
                Tier::Cold
            }
        };
        let before = self.tier;
        // Hotter tiers are smaller.
        let (higher, lower) = (fitting(up), fitting(down));
        if higher < self.tier {
            (self.tier, self.below_since) = (higher, None);
        } else if lower > self.tier {
            let since = *self.below_since.get_or_insert(now);
            if now.micros_since(since) >= DEMOTION_US {
                (self.tier, self.below_since) = (lower, None);
            }
        } else {
            self.below_since = None;
        }
        self.tier != before
    }
}

/// How many active tenants need how much, in steps of about a fifth, counted by all workers.
#[derive(Debug)]
pub struct Ranks([AtomicU32; STEPS]);

impl Default for Ranks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Ranks {
    /// A tenant needs this much now, and was counted at that step before. Returns the step at which it is counted.
    #[must_use]
    pub fn count(&self, need: u32, before: Option<u8>) -> u8 {
        let step = step_of(need);
        if before != Some(step) {
            self.forget(before);
            if let Some(count) = self.0.get(usize::from(step)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        step
    }

    /// A tenant is not active any more.
    pub fn forget(&self, before: Option<u8>) {
        if let Some(count) = before.and_then(|step| self.0.get(usize::from(step))) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What the first fifth and the first four fifths need at least.
    #[must_use]
    pub fn cuts(&self) -> [u32; 2] {
        let counts: Vec<u32> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u32 = counts.iter().sum();
        [1, 4].map(|fifths| {
            let wanted = all.saturating_mul(fifths) / 5;
            let (mut seen, mut cut) = (0_u32, STEPS);
            while cut > 0 && seen < wanted.max(1) {
                cut = cut.saturating_sub(1);
                seen = seen.saturating_add(counts.get(cut).copied().unwrap_or(0));
            }
            least_of(cut)
        })
    }
}

/// The step of a need: four for each doubling.
fn step_of(need: u32) -> u8 {
    (0..STEPS)
        .rev()
        .find(|step| least_of(*step) <= need)
        .and_then(|step| u8::try_from(step).ok())
        .unwrap_or(0)
}

/// The least need of a step.
fn least_of(step: usize) -> u32 {
    let doublings = u32::try_from(step / 4).unwrap_or(0);
    let quarters = u32::try_from(step % 4).unwrap_or(0);
    let whole = 4_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    if step == 0 { 0 } else { whole.saturating_add((whole / 4).saturating_mul(quarters)) }
}

const STEPS: usize = 64;
/// More than two servers, and more than one, in 1/256.
const HOT_FROM: u32 = 2 * 256;
const WARM_FROM: u32 = 256;
const DEMOTION_US: u64 = 5 * 60 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000;

    #[test]
    fn a_tenant_goes_up_at_once_and_down_after_five_minutes_far_below() {
        let mut standing = Standing::new(Tier::Cold);
        assert!(!standing.by_demand(Moment(0), 256));
        assert!(standing.by_demand(Moment(1), 900) && standing.tier() == Tier::Hot);
        // A little below is not below.
        for minute in 1..20 {
            assert!(!standing.by_demand(Moment(minute * MINUTE), 400));
        }
        assert!(!standing.by_demand(Moment(20 * MINUTE), 350));
        assert!(!standing.by_demand(Moment(24 * MINUTE), 513), "once above, and the time begins anew");
        assert!(!standing.by_demand(Moment(25 * MINUTE), 350));
        assert!(!standing.by_demand(Moment(29 * MINUTE), 350));
        assert!(standing.by_demand(Moment(30 * MINUTE), 350) && standing.tier() == Tier::Warm);
        assert!(!standing.by_demand(Moment(31 * MINUTE), 3));
        assert!(standing.by_demand(Moment(36 * MINUTE), 3) && standing.tier() == Tier::Cold);
    }

    #[test]
    fn steps_are_in_order_and_hold_what_is_theirs() {
        let leasts: Vec<u32> = (0..STEPS).map(least_of).collect();
        assert!(leasts.windows(2).all(|pair| pair[0] < pair[1]), "{leasts:?}");
        for need in [0, 1, 5, 7, 256, 300, 100_000, u32::MAX] {
            let step = usize::from(step_of(need));
            assert!(
                least_of(step) <= need && (step + 1 == STEPS || least_of(step + 1) > need),
                "{need}: {step}"
            );
        }
    }

    #[test]
    fn the_first_fifth_is_hot_and_the_last_one_cold() {
        let ranks = Ranks::default();
        let needs: Vec<u32> = (0..100).map(|n| 64 << (n / 10)).collect();
        let mut steps: Vec<u8> = needs.iter().map(|need| ranks.count(*need, None)).collect();
        let cuts = ranks.cuts();
        let tiers = needs.iter().map(|need| {
            let mut standing = Standing::new(Tier::Cold);
            standing.by_rank(Moment(0), need * 5 / 4, cuts);
            standing.tier()
        });
        let mut counts = [0; 3];
        tiers.for_each(|tier| counts[tier as usize] += 1);
        assert_eq!(counts, [20, 60, 20]);
        // Those that leave count no more, and a tenant counts once however often it is looked at.
        for (need, step) in needs.iter().zip(&mut steps) {
            *step = ranks.count(*need, Some(*step));
        }
        assert_eq!(ranks.cuts(), cuts);
        steps.iter().for_each(|step| ranks.forget(Some(*step)));
        assert_eq!(ranks.0.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u32>(), 0);
    }
}
