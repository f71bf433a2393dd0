//! How long a request will wait, from how fast its tenant's queue moves.
//!
//! Owns the estimate of one queue while it lasts: the mean time between two that are served from it. What moves it, the
//! tenant's own servers, turns or brakes, does not matter. One long pause is no slow queue: a gap counts as four times the
//! mean at most.

use crate::time::Moment;

/// How fast a queue moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forecast {
    /// When the last one was served.
    last: Moment,
    gap_us: u64,
    /// How many gaps that is learnt from.
    gaps: u32,
}

impl Default for Forecast {
    fn default() -> Self {
        Self { last: Moment::NEVER, gap_us: 0, gaps: 0 }
    }
}

impl Forecast {
    /// The queue begins.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Its first request was served.
    pub(super) fn count(&mut self, now: Moment) {
        if self.last <= now {
            let gap_us = now.micros_since(self.last);
            self.gap_us = match self.gaps {
                0 => gap_us,
                _ => {
                    let most_us = self.gap_us.saturating_mul(4).saturating_add(SHORT_US);
                    self.gap_us.saturating_mul(7).saturating_add(gap_us.min(most_us)) / 8
                }
            };
            self.gaps = self.gaps.saturating_add(1);
        }
        self.last = now;
    }

    /// How long the request takes to be served that has so many before it. Unknown while few were served.
    pub(super) fn wait_us(self, before: u32) -> Option<u64> {
        (self.gaps >= FEW).then(|| self.gap_us.saturating_mul(u64::from(before).saturating_add(1)))
    }
}

const FEW: u32 = 8;
/// However short the gaps are, a longer one counts at least so much.
const SHORT_US: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(forecast: &mut Forecast, now: &mut u64, gap: u64, times: u32) {
        for _ in 0..times {
            *now += gap;
            forecast.count(Moment(*now));
        }
    }

    #[test]
    fn it_learns_how_fast_the_queue_moves_and_forgets_how_fast_it_was() {
        let (mut forecast, mut now) = (Forecast::default(), 1_000_000);
        serve(&mut forecast, &mut now, 100_000, 8);
        assert_eq!(forecast.wait_us(9), None);
        serve(&mut forecast, &mut now, 100_000, 1);
        assert_eq!(forecast.wait_us(9), Some(1_000_000));
        serve(&mut forecast, &mut now, 1_000, 60);
        let wait = forecast.wait_us(9).unwrap();
        assert!((9_000..13_000).contains(&wait), "{wait}");
    }

    #[test]
    fn one_long_pause_is_no_slow_queue_and_many_are() {
        let (mut forecast, mut now) = (Forecast::default(), 0);
        serve(&mut forecast, &mut now, 20_000, 20);
        serve(&mut forecast, &mut now, 4_000_000, 1);
        let wait = forecast.wait_us(39).unwrap();
        assert!(wait < 1_200_000, "{wait}");
        serve(&mut forecast, &mut now, 4_000_000, 30);
        let wait = forecast.wait_us(39).unwrap();
        assert!(wait > 100_000_000, "{wait}");
    }
}
