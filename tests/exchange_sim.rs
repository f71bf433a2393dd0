//! The protocol tracking (`track`) under simulation: what a client sees through the proxy is what it sees without it.
//!
//! Random scripts of several clients run over several model servers through `Exchange`, driven as `session` drives it:
//! a lease at the first message worth one, its end at `is_over`, bytes cut anywhere, sides in any order. Beside it, each
//! script runs over a model server of the client's own. `exchange::world` has the checks, `exchange::compare` the list of
//! what may differ. A failure prints its seed: `TENANTRY_SIM_SEED` runs that one alone, `TENANTRY_SIM_WORLDS` sets how
//! many are run.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail loudly, and its numbers are small"
)]

mod exchange;
