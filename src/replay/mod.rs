//! A trace of requests against the scheduler of one cluster, on a virtual clock: what would have come of it?
//!
//! Owns the world around the scheduler, which is the proxy's own: clients that come when the trace says so and hold their
//! servers for as long as it says, servers that log in and go in a time that is given. Pure: the same trace and the same
//! stage give the same outcome. Must not know files, nor how an outcome is shown. `docs/operating.md` says what is left out.

mod machine;
mod outcome;
mod visits;

pub use machine::{Stage, replay};
pub use outcome::{Outcome, Tally};
pub use visits::{Visit, visits};

#[cfg(test)]
mod tests;
