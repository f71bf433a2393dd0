//! When a tenant will probably ask again: from when it asked before.
//!
//! Owns the mean time between two requests of one tenant. A pause counts as four times that at most, so that the end of a
//! session is not taken for a slower one. Must not know servers, nor who compares tenants.

use crate::time::Moment;

/// How often a tenant asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// When the last request came.
    last: Moment,
    /// The mean time between two; from [`RARE_US`] on nothing is known of the next one.
    gap_us: u32,
}

impl Rhythm {
    pub(super) const fn new(now: Moment) -> Self {
        Self { last: now, gap_us: NO_REQUEST }
    }

    /// A request came.
    pub(super) fn count(&mut self, now: Moment) {
        let gap_us = u32::try_from(now.micros_since(self.last)).unwrap_or(u32::MAX).min(RARE_US);
        self.gap_us = match self.gap_us {
            NO_REQUEST => RARE_US,
            mean_us if mean_us < RARE_US => {
                let gap_us = gap_us.min(mean_us.saturating_mul(LATE).saturating_add(LEAST_US));
                mean_us.saturating_mul(3).saturating_add(gap_us) / 4
            }
            _ => gap_us,
        };
        self.last = now;
    }

    /// Whether a server that is idle since then, of so many, has a next use that can be foreseen: its tenant has a
    /// rhythm, and has not stopped.
    pub(super) fn is_expected(self, now: Moment, idle: u32, since: Moment) -> bool {
        self.gap_us < RARE_US && now.micros_since(since) < self.span_us(idle).saturating_mul(LATE.into())
    }

    /// How long from now on the one that was used longest ago of so many idle servers will probably lie idle: they are
    /// used one after the other, each as long behind the one before as requests come. Who is late will probably be as much
    /// later still, but no more than it has been idle: its last transaction may have been a long one. Nothing is known of
    /// tenants that ask rarely, and they have the benefit of the doubt; who has stopped needs none.
    pub(super) fn idles_for_us(self, now: Moment, idle: u32, since: Moment) -> u64 {
        if self.gap_us >= RARE_US {
            return 0;
        }
        if !self.is_expected(now, idle, since) {
            return u64::MAX;
        }
        let (passed_us, span_us) = (now.micros_since(self.last), self.span_us(idle));
        match passed_us.checked_sub(span_us) {
            None | Some(0) => span_us.saturating_sub(passed_us),
            Some(late_us) => late_us.min(now.micros_since(since)),
        }
    }

    fn span_us(self, idle: u32) -> u64 {
        u64::from(self.gap_us).saturating_mul(u64::from(idle.max(1)))
    }
}

/// No request has come yet: there is no time between two.
const NO_REQUEST: u32 = u32::MAX;
/// Who asks more rarely than this has no rhythm that is worth waiting for.
const RARE_US: u32 = 10_000_000;
/// Who is so many times late has stopped.
const LATE: u32 = 4;
/// On top of that, for tenants whose requests come at the same moment.
const LEAST_US: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;
    const SECOND: u64 = 1_000_000;

    /// A tenant that has asked so many times, with so long in between, and the time of its last request.
    fn asked(times: u64, gap_us: u64) -> (Rhythm, u64) {
        let mut rhythm = Rhythm::new(Moment(0));
        for n in 1..=times {
            rhythm.count(Moment(n * gap_us));
        }
        (rhythm, times * gap_us)
    }

    /// How long it will be idle whose one server is idle since its last request, at this time behind it.
    fn idles_for(rhythm: Rhythm, passed_us: u64) -> u64 {
        let Moment(last) = rhythm.last;
        rhythm.idles_for_us(Moment(last + passed_us), 1, rhythm.last)
    }

    #[test]
    fn two_requests_make_a_rhythm_and_one_does_not() {
        let (rhythm, now) = asked(1, 20 * MS);
        assert!(!rhythm.is_expected(Moment(now), 1, Moment(now)));
        assert_eq!(idles_for(rhythm, 9), 0, "nothing is known of it");
        let (rhythm, now) = asked(2, 500 * MS);
        assert!(rhythm.is_expected(Moment(now + SECOND), 1, Moment(now)));
        assert_eq!(idles_for(rhythm, 100 * MS), 400 * MS);
        let third = rhythm.idles_for_us(Moment(now + 100 * MS), 3, Moment(now));
        assert_eq!(third, 1_400 * MS, "the third of three");
    }

    #[test]
    fn who_is_late_is_expected_later_and_who_has_stopped_is_not() {
        let (rhythm, now) = asked(20, 20 * MS);
        assert_eq!(idles_for(rhythm, 30 * MS), 10 * MS);
        assert!(rhythm.is_expected(Moment(now + 79 * MS), 1, Moment(now)));
        assert!(!rhythm.is_expected(Moment(now + 80 * MS), 1, Moment(now)));
        assert_eq!(idles_for(rhythm, 80 * MS), u64::MAX);
    }

    #[test]
    fn who_worked_for_long_is_not_late() {
        let (rhythm, now) = asked(20, 20 * MS);
        let (now, since) = (Moment(now + 90 * MS), Moment(now + 89 * MS));
        assert!(rhythm.is_expected(now, 1, since));
        assert_eq!(rhythm.idles_for_us(now, 1, since), MS);
    }

    #[test]
    fn a_pause_is_no_rhythm_and_a_slower_one_is_learnt() {
        let (mut rhythm, now) = asked(20, 20 * MS);
        rhythm.count(Moment(now + 3_600 * SECOND));
        assert!(rhythm.gap_us < 40_000, "{rhythm:?}");
        for n in 1..=12 {
            rhythm.count(Moment(now + 3_600 * SECOND + n * SECOND));
        }
        assert!(rhythm.gap_us > 700_000, "{rhythm:?}");
    }

    #[test]
    fn who_asks_rarely_has_none() {
        let (rhythm, now) = asked(9, 60 * SECOND);
        assert!(!rhythm.is_expected(Moment(now), 1, Moment(now)));
        assert_eq!(idles_for(rhythm, SECOND), 0);
    }
}
