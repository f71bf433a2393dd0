//! The demo's only clock.
//!
//! Owns reading the time. Must not know what is timed.

use std::time::Instant;

/// The instant of the call.
#[expect(clippy::disallowed_methods, reason = "the demo's load is a driver: it times its own clients")]
pub(super) fn now() -> Instant {
    Instant::now()
}
