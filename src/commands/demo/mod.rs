//! `tenantry demo`: fifty tenants on one throwaway Postgres, a mixed load with a noisy neighbour, and checks.
//!
//! ```text
//!  args ─► plan (who) ─► cluster ─► provision (roles, schemas, rows) ─► place (a real config file)
//!                                                                          │ config::load
//!            report ◄─ checks ◄─ tally, sample ◄─ load over sockets ◄─ proxy::Proxy
//! ```
//!
//! Owns the demonstration. Nothing in it is needed by a proxy that serves.

mod args;
mod checks;
mod clock;
mod load;
mod output;
mod place;
mod plan;
mod provision;
mod report;
mod run;
mod sample;
mod tally;

pub use args::DemoArgs;
pub use run::run;
