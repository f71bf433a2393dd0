//! Everything that is not per query: budgets, placement of tenants on workers, reload, drain.
//!
//! Owns the workers ([`Fleet`]) and what is decided for all of them. Talks to them by messages only. Must not know
//! sockets of clients, nor how things are shown (`telemetry`).

mod budgets;
mod fleet;
mod placement;
mod plans;
mod recorder;
mod spread;

pub use budgets::{BudgetError, budgets};
pub use fleet::{Fleet, FleetError, Notes};
pub use plans::{PlanError, connectors, plans};
pub use recorder::Recorder;
