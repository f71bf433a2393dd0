//! When a tenant will probably ask again: from when it asked before.
//!
//! Owns the mean and the least time between two requests of one tenant. Waits for servers are within these times. Must not
//! know servers, nor who compares tenants.

use crate::time::Moment;

/// How often a tenant asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// When the last request came.
    last: Moment,
    /// The mean time between two, a longer pause counted as four times that.
    mean_us: u32,
    /// The least time between two, lately: it doubles with each request.
    least_us: u32,
    /// Requests, as far as they matter: none, one, more.
    asked: u8,
}

impl Rhythm {
    pub(super) const fn new(now: Moment) -> Self {
        Self { last: now, mean_us: 0, least_us: 0, asked: 0 }
    }

    /// A request came.
    pub(super) fn count(&mut self, now: Moment) {
        let gap_us = u32::try_from(now.micros_since(self.last)).unwrap_or(u32::MAX).min(2 * RARE_US);
        match self.asked {
            0 => {}
            1 => (self.mean_us, self.least_us) = (gap_us, gap_us),
            _ => {
                let is_rare = self.mean_us >= RARE_US;
                let most_us = self.mean_us.saturating_mul(LATE).saturating_add(LEAST_US);
                let mean_us = self.mean_us.saturating_mul(3).saturating_add(gap_us.min(most_us)) / 4;
                self.mean_us = if is_rare { gap_us } else { mean_us };
                self.least_us = gap_us.min(self.least_us.saturating_mul(2).max(LEAST_US));
            }
        }
        (self.last, self.asked) = (now, self.asked.saturating_add(1).min(2));
    }

    /// Whether a server that is idle since then, of so many, has a next use that can be foreseen: its tenant has a
    /// rhythm, and has not stopped.
    pub(super) fn is_expected(self, now: Moment, idle: u32, since: Moment) -> bool {
        let stops_us = span_us(self.mean_us, idle).saturating_mul(LATE.into());
        self.asked > 1 && self.mean_us < RARE_US && now.micros_since(since) < stops_us
    }

    /// How long from now on the one that was used longest ago of so many idle servers will probably lie idle: they are
    /// used one after the other, each as long behind the one before as requests come. Who is late will probably be as much
    /// later still, but no more than it has been idle: its last transaction may have been a long one. Of who has asked once
    /// nothing is known, and it has the benefit of the doubt; who asks rarely has it for a moment, as more may follow; who
    /// has stopped needs none.
    pub(super) fn idles_for_us(self, now: Moment, idle: u32, since: Moment) -> u64 {
        let idle_us = now.micros_since(since);
        if self.asked < 2 || (self.mean_us >= RARE_US && idle_us < DOUBT_US) {
            return 0;
        }
        if !self.is_expected(now, idle, since) {
            return u64::MAX;
        }
        let (passed_us, span_us) = (now.micros_since(self.last), span_us(self.mean_us, idle));
        match passed_us.checked_sub(span_us) {
            None | Some(0) => span_us.saturating_sub(passed_us),
            Some(late_us) => late_us.min(idle_us),
        }
    }

    /// The same, if its next request came as soon as one has come lately. Not more than was ever seen.
    pub(super) fn idles_at_least_us(self, now: Moment, idle: u32, since: Moment) -> u64 {
        let foreseen = self.is_expected(now, idle, since);
        let least_us = span_us(self.least_us, idle).saturating_sub(now.micros_since(self.last));
        if foreseen { least_us } else { 0 }
    }
}

fn span_us(gap_us: u32, idle: u32) -> u64 {
    u64::from(gap_us).saturating_mul(u64::from(idle.max(1)))
}

/// Who asks more rarely than this has no rhythm that is worth waiting for.
const RARE_US: u32 = 10_000_000;
/// Who is so many times late has stopped.
const LATE: u32 = 4;
/// On top of that, for tenants whose requests come at the same moment.
const LEAST_US: u32 = 1_000;
/// How long more may follow upon the request of somebody who asks rarely.
const DOUBT_US: u64 = 20_000;

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
        assert!(rhythm.mean_us < 40_000, "{rhythm:?}");
        for n in 1..=12 {
            rhythm.count(Moment(now + 3_600 * SECOND + n * SECOND));
        }
        assert!(rhythm.mean_us > 700_000, "{rhythm:?}");
    }

    #[test]
    fn who_asks_rarely_has_none() {
        let (mut rhythm, now) = asked(20, 20 * MS);
        for n in 1..=20 {
            rhythm.count(Moment(now + n * 60 * SECOND));
        }
        for rhythm in [rhythm, asked(9, 60 * SECOND).0] {
            assert!(!rhythm.is_expected(Moment(rhythm.last.0 + MS), 1, rhythm.last));
            assert_eq!(idles_for(rhythm, 19 * MS), 0, "more may follow");
            assert_eq!(idles_for(rhythm, 20 * MS), u64::MAX);
        }
    }

    #[test]
    fn what_comes_in_pairs_may_come_at_once() {
        let mut rhythm = Rhythm::new(Moment(0));
        for page in 1..20 {
            for query in 0..2 {
                rhythm.count(Moment(page * 500 * MS + query * 3 * MS));
                let since = Moment(rhythm.last.0 + MS);
                let soon = Moment(since.0 + MS);
                assert!(rhythm.idles_at_least_us(soon, 1, since) < 10 * MS, "{rhythm:?}");
            }
        }
        let (steady, now) = asked(20, 20 * MS);
        assert_eq!(steady.idles_at_least_us(Moment(now + MS), 1, Moment(now)), 19 * MS);
    }
}
