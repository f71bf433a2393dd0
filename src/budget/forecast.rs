//! How long a request will wait, from how fast its tenant's queue moves.
//!
//! Owns the estimate of one queue, in two numbers. What moves it, the tenant's own servers, turns or brakes, does not
//! matter: only how many were served since it has not been empty.

use crate::time::Moment;

/// How fast a queue moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forecast {
    from: Moment,
    served: u32,
}

impl Forecast {
    /// The queue begins.
    pub(super) fn restart(&mut self, now: Moment) {
        *self = Self { from: now, served: 0 };
    }

    /// Its first request was served. Older ones count less and less.
    pub(super) fn count(&mut self, now: Moment) {
        self.served = self.served.saturating_add(1);
        if self.served >= MANY {
            self.served /= 2;
            self.from = Moment(now.0.saturating_sub(now.micros_since(self.from) / 2));
        }
    }

    /// How long the request takes to be served that has so many before it. Unknown while few were served.
    pub(super) fn wait_us(self, now: Moment, before: u32) -> Option<u64> {
        if self.served < FEW {
            return None;
        }
        let span = u128::from(now.micros_since(self.from));
        let wait = span.saturating_mul(u128::from(before).saturating_add(1)) / u128::from(self.served);
        u64::try_from(wait).ok()
    }
}

const FEW: u32 = 8;
const MANY: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_how_fast_the_queue_moves_and_forgets_how_fast_it_was() {
        let mut forecast = Forecast::default();
        forecast.restart(Moment(1_000_000));
        let mut now = 1_000_000;
        for _ in 0..7 {
            now += 100_000;
            forecast.count(Moment(now));
            assert_eq!(forecast.wait_us(Moment(now), 9), None);
        }
        now += 100_000;
        forecast.count(Moment(now));
        assert_eq!(forecast.wait_us(Moment(now), 9), Some(1_000_000));
        for _ in 0..400 {
            now += 1_000;
            forecast.count(Moment(now));
        }
        let wait = forecast.wait_us(Moment(now), 9).unwrap();
        assert!((9_000..13_000).contains(&wait), "{wait}");
    }
}
