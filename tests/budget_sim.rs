//! The budget scheduler under simulation (`docs/budgets.md`, Invariants).
//!
//! A virtual clock, seeded randomness, fake servers and fake clients; after each step the world checks what it can see
//! from outside, and the scheduler recounts itself. A failure prints its seed: put it into `SEEDS` of the test that
//! failed. `TENANTRY_SIM_EVENTS` and `TENANTRY_SIM_SEED` make the random runs longer or different.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail loudly, and its numbers are small"
)]

mod sim;
