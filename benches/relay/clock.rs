//! The bench's only clock.
//!
//! Owns reading the time. Must not know what is measured.

use std::time::Instant;

/// The instant of the call.
#[expect(clippy::disallowed_methods, reason = "a benchmark is a driver: it measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
