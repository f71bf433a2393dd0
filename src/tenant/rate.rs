//! A limit on how often something begins, and the meter that holds somebody to it.
//!
//! Owns the arithmetic: GCRA (the leaky bucket of ITU-T I.371 as a meter), in one number. Pure: the time is an argument.

use crate::time::Moment;

/// How often something may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many a second, in the long run; at least 1.
    pub per_second: u32,
    /// So many at once, after a pause; at least 1.
    pub burst: u32,
    /// Who comes too early waits for so long at most, in microseconds; who would have to wait longer is refused.
    pub delay_us: u32,
}

/// How often a tenant's transactions and logins may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Transactions; in session mode, sessions.
    pub transactions: Option<RateLimit>,
    /// Client logins.
    pub logins: Option<RateLimit>,
}

/// What has begun, as far as a limit has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    limit: Option<RateLimit>,
    /// When the next one would be due if they came evenly, in units of time.
    due: u64,
}

impl Meter {
    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> Option<RateLimit> {
        self.limit
    }

    /// Holds to another limit from now on; what came before is forgotten. Returns whether it is another one.
    pub fn set(&mut self, limit: Option<RateLimit>) -> bool {
        let limit = limit.map(|limit| RateLimit {
            per_second: limit.per_second.max(1),
            burst: limit.burst.max(1),
            ..limit
        });
        let is_other = self.limit != limit;
        if is_other {
            *self = Self { limit, due: 0 };
        }
        is_other
    }

    /// From when on one more may begin.
    ///
    /// # Errors
    /// With the microseconds after which it is worth asking again, if that is too late.
    pub fn ask(&self, now: Moment) -> Result<Moment, u64> {
        let Some(limit) = self.limit else { return Ok(now) };
        let tolerance = interval(limit).saturating_mul(u64::from(limit.burst.saturating_sub(1)));
        let from = self.due.saturating_sub(tolerance).div_ceil(UNITS).max(now.0);
        let wait_us = from.saturating_sub(now.0);
        match wait_us.checked_sub(u64::from(limit.delay_us)) {
            None | Some(0) => Ok(Moment(from)),
            Some(too_early_us) => Err(too_early_us),
        }
    }

    /// One more begins, or will: [`ask`](Self::ask) has said when.
    pub fn count(&mut self, now: Moment) {
        if let Some(limit) = self.limit {
            self.due = self.due.max(now.0.saturating_mul(UNITS)).saturating_add(interval(limit));
        }
    }
}

/// The pause between two that come evenly, in units of time.
const fn interval(limit: RateLimit) -> u64 {
    SECOND / limit.per_second as u64
}

/// Units in a microsecond: at high rates the pause is no whole number of those.
const UNITS: u64 = 1 << 8;
const SECOND: u64 = 1_000_000 * UNITS;

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(per_second: u32, burst: u32, delay_us: u32) -> Meter {
        let mut meter = Meter::default();
        meter.set(Some(RateLimit { per_second, burst, delay_us }));
        meter
    }

    /// How many of those that come at these times may begin, and when the last one does.
    fn admitted(meter: &mut Meter, times: impl Iterator<Item = u64>) -> (u32, u64) {
        times.fold((0, 0), |(count, last), now| match meter.ask(Moment(now)) {
            Ok(from) => {
                meter.count(Moment(now));
                (count + 1, from.0)
            }
            Err(_) => (count, last),
        })
    }

    #[test]
    fn a_burst_begins_at_once_and_then_one_after_the_other() {
        let mut meter = meter(100, 5, 50_000);
        assert_eq!(admitted(&mut meter, (0..100).map(|_| 1_000)), (10, 51_000));
        assert_eq!(meter.ask(Moment(1_000)), Err(10_000));
        assert_eq!(meter.ask(Moment(11_000)), Ok(Moment(61_000)));
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        for rate in [1, 7, 333, 70_000] {
            let mut meter = meter(rate, 2, 0);
            let (count, _) = admitted(&mut meter, (0..3_000_000).step_by(5));
            assert!(count.abs_diff(rate * 3) <= 2 + rate / 100, "{count} at {rate} a second");
        }
    }

    #[test]
    fn the_same_limit_again_forgets_nothing_and_none_lets_all_begin() {
        let mut meter = meter(1, 1, 0);
        meter.count(Moment(0));
        assert_eq!(meter.ask(Moment(400_000)), Err(600_000));
        meter.set(Some(RateLimit { per_second: 1, burst: 0, delay_us: 0 }));
        assert_eq!(meter.ask(Moment(400_000)), Err(600_000));
        meter.set(None);
        assert_eq!(meter.ask(Moment(400_000)), Ok(Moment(400_000)));
    }
}
