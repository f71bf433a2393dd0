//! What a tenant needs, and how long its transactions usually take: from what came and how long it was held.
//!
//! Owns the estimates of one tenant, in fixed point and without a clock: they move when something happens to it, and decay
//! by the time that has passed since. The load that is offered (Little's law: arrivals per second times mean hold) does not
//! depend on how long requests had to wait, so that a brake does not hide the need for servers.

use super::rhythm::Rhythm;
use crate::time::Moment;

/// What is remembered of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The window that runs.
    from: Moment,
    arrivals: u32,
    finished: u32,
    held_us: u64,
    /// When requests come.
    pub(super) rhythm: Rhythm,
    /// The highest load of past windows, decayed, in 1/256 servers, as of then.
    peak: u32,
    peak_at: Moment,
    /// What a hold usually takes, and how many holds that was learnt from at first.
    usual_us: u32,
    learnt: u32,
}

impl Demand {
    pub(super) const fn new(now: Moment) -> Self {
        Self {
            from: now,
            arrivals: 0,
            finished: 0,
            held_us: 0,
            rhythm: Rhythm::new(now),
            peak: 0,
            peak_at: now,
            usual_us: 0,
            learnt: 0,
        }
    }

    /// A request came. Returns whether a window has ended, so that the need is worth looking at.
    /// `busy` servers work for it meanwhile: what has not ended is needed as well.
    pub(super) fn count_arrival(&mut self, now: Moment, expected_us: u64, busy: u32) -> bool {
        let ended = now.micros_since(self.from) >= WINDOW_US;
        if ended {
            self.end_window(now, expected_us, busy);
        }
        self.arrivals = self.arrivals.saturating_add(1);
        self.rhythm.count(now);
        ended
    }

    /// A lease ended.
    pub(super) fn count_hold(&mut self, held_us: u64) {
        self.finished = self.finished.saturating_add(1);
        self.held_us = self.held_us.saturating_add(held_us);
        if self.learnt < LEARNING {
            self.learnt = self.learnt.saturating_add(1);
            self.approach(held_us, i64::from(self.learnt));
        }
    }

    /// Servers that the tenant needs, in 1/256: the load at its highest, lately, and what its swings ask for on top
    /// (square-root staffing).
    pub(super) fn need(&self, now: Moment) -> u32 {
        let load = u64::from(decayed(self.peak, now.micros_since(self.peak_at)));
        let swing = (load << 8).isqrt();
        u32::try_from(load.saturating_add(swing.saturating_mul(3) / 2)).unwrap_or(u32::MAX)
    }

    /// What a hold usually takes; `None` as long as few are known.
    pub(super) fn usual_us(&self) -> Option<u64> {
        (self.learnt >= LEARNT).then_some(u64::from(self.usual_us))
    }

    /// Whether holds that take so long are something else than usual.
    pub(super) fn is_slow(&self, expected_us: u64) -> bool {
        self.usual_us().is_some_and(|usual_us| {
            expected_us >= usual_us.saturating_mul(4) && expected_us >= usual_us.saturating_add(SLOW_US)
        })
    }

    fn end_window(&mut self, now: Moment, expected_us: u64, busy: u32) {
        let mean_us = self.held_us.checked_div(u64::from(self.finished)).unwrap_or(expected_us);
        let span = now.micros_since(self.from).max(1);
        let work = u128::from(self.arrivals).saturating_mul(u128::from(mean_us)) << 8;
        let load = u32::try_from(work / u128::from(span)).unwrap_or(u32::MAX);
        let peak = decayed(self.peak, now.micros_since(self.peak_at));
        (self.peak, self.peak_at) = (peak.max(load).max(busy.saturating_mul(256)), now);
        if self.finished > 0 && self.learnt >= LEARNING {
            self.approach(mean_us, USUAL_WINDOWS);
        }
        (self.from, self.arrivals, self.finished, self.held_us) = (now, 0, 0, 0);
    }

    /// Moves what is usual towards this, by one n-th.
    fn approach(&mut self, held_us: u64, n: i64) {
        let held = i64::try_from(held_us).unwrap_or(i64::MAX).min(i64::from(u32::MAX));
        let usual = i64::from(self.usual_us);
        let step = held.saturating_sub(usual).checked_div(n).unwrap_or(0);
        self.usual_us = u32::try_from(usual.saturating_add(step)).unwrap_or(u32::MAX);
    }
}

/// What is left of a peak after so long: half of it after each half-life, in a straight line in between.
fn decayed(peak: u32, passed_us: u64) -> u32 {
    let halvings = u32::try_from(passed_us / HALF_LIFE_US).unwrap_or(u32::MAX);
    let whole = u64::from(peak.checked_shr(halvings).unwrap_or(0));
    let part = whole.saturating_mul(passed_us % HALF_LIFE_US) / (2 * HALF_LIFE_US);
    u32::try_from(whole.saturating_sub(part)).unwrap_or(u32::MAX)
}

/// A window of the load.
const WINDOW_US: u64 = 5_000_000;
/// After so long a peak counts half.
const HALF_LIFE_US: u64 = 6 * 60 * 1_000_000;
/// What is usual is learnt from so many holds at first, and used from so many on.
const LEARNING: u32 = 64;
const LEARNT: u32 = 16;
/// Later it moves by one n-th with each window in which something happened: about an hour of activity.
const USUAL_WINDOWS: i64 = 512;
/// Holds that are longer by less than this are not worth a word.
const SLOW_US: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// So many arrivals a second, each held for so long, for so many seconds.
    fn run(demand: &mut Demand, from: u64, seconds: u64, rate: u64, held_us: u64) -> u64 {
        for n in 0..seconds * rate {
            demand.count_arrival(Moment(from + n * SECOND / rate), held_us, 0);
            demand.count_hold(held_us);
        }
        from + seconds * SECOND
    }

    #[test]
    fn the_need_is_the_load_at_its_peak_and_its_swings() {
        let mut demand = Demand::new(Moment(0));
        let now = run(&mut demand, 0, 20, 400, 10_000);
        // Four servers are busy all the time; 4 + 1.5 x 2 are needed.
        let need = demand.need(Moment(now));
        assert!((6 * 256..=7 * 256 + 8).contains(&need), "{need}");
        let later = run(&mut demand, now, 300, 4, 10_000);
        let less = demand.need(Moment(later));
        assert!(less < need && less > need / 2, "{less}: the peak is remembered for minutes");
        assert!(demand.need(Moment(later + 3_600 * SECOND)) < 20);
    }

    #[test]
    fn what_is_usual_moves_slowly_and_slow_is_far_from_it() {
        let mut demand = Demand::new(Moment(0));
        assert!(!demand.is_slow(SECOND), "nothing is known yet");
        let now = run(&mut demand, 0, 2, 50, 9_000);
        assert_eq!(demand.usual_us(), Some(9_000));
        assert!(demand.is_slow(212_000) && !demand.is_slow(28_000));
        run(&mut demand, now, 60, 50, 212_000);
        assert!(demand.is_slow(212_000), "a minute does not make it usual: {:?}", demand.usual_us());
    }

    #[test]
    fn a_peak_halves_with_each_half_life() {
        assert_eq!(decayed(1_000, 0), 1_000);
        assert_eq!(decayed(1_000, HALF_LIFE_US / 2), 750);
        assert_eq!(decayed(1_000, HALF_LIFE_US), 500);
        assert_eq!(decayed(1_000, 3 * HALF_LIFE_US), 125);
        assert_eq!(decayed(u32::MAX, u64::MAX), 0);
    }
}
