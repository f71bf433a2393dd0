//! Time as a value: microseconds since an origin that the driver chose.
//!
//! Owns [`Moment`]. Must not read a clock: pure layers are told what time it is.

use std::ops::Add;
use std::time::Duration;

/// A point in time, in microseconds since the origin of the process' clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time that has passed since `earlier`; zero if `earlier` lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Microseconds that have passed since `earlier`; zero if `earlier` lies in the future.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates at [`Moment::NEVER`].
    fn add(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Moment(5).since(Moment(9)), Duration::ZERO);
        assert_eq!(Moment(9).micros_since(Moment(5)), 4);
        assert_eq!(Moment(1) + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment(1) + Duration::from_millis(1), Moment(1_001));
    }
}
