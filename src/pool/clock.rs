//! The clock of a process: the one place of the data path that asks what time it is.
//!
//! Owns the origin. Everything below is told the [`Moment`].

use std::time::{Duration, Instant};

use crate::time::Moment;

/// Counts microseconds from its creation. Copies share the origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the driver that reads the clock")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The moment of one of the runtime's instants; the origin, if that is earlier.
    #[must_use]
    pub fn moment(&self, instant: tokio::time::Instant) -> Moment {
        let span = instant.into_std().saturating_duration_since(self.origin);
        Moment(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }

    /// The runtime's instant for a moment, for timers.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        let origin = tokio::time::Instant::from_std(self.origin);
        let span = Duration::from_micros(moment.0);
        origin.checked_add(span).unwrap_or_else(|| {
            // Further away than the clock can tell: a year is as good as never.
            let year = Duration::from_secs(365 * 24 * 3600);
            tokio::time::Instant::now().checked_add(year).unwrap_or(origin)
        })
    }
}
