//! The budget scheduler: who gets the next server connection, and who must give one back.
//!
//! Owns the ledger of one cluster (or of one worker's part of it): every server in exactly one state, never more than
//! the capacity, shared among tenants by floors, shares, weights and ceilings. It is one pure function,
//! [`Scheduler::handle`]: what happened and what time it is in, what to do out. No clock, no randomness, no sockets, no
//! order that depends on a hash; the same inputs give the same outputs on every machine. `docs/budgets.md` has the
//! rules and the table of states and events. Must not know what a server connection is.
//!
//! ```text
//!  Acquire ──► an idle server? ── yes ─► Grant
//!                   │ no
//!                   ▼
//!              wait in the tenant's queue ──► does the tenant want another server? ([`wants`])
//!                   ▲                                  │ yes
//!                   │ the tenant's next release        ▼
//!                   │                       the best lane first ([`lanes`], [`supply`])
//!                   │                                  │
//!                   └────── Opened ◄── Open ◄── free slot, or a victim's ([`victims`])
//! ```

mod audit;
mod brakes;
mod breaker;
mod capacity;
mod cause;
mod config;
mod demand;
mod exchange;
mod fairness;
mod forecast;
mod heap;
mod input;
mod lanes;
mod leases;
mod limits;
mod links;
mod logins;
mod output;
mod permit;
mod rhythm;
mod scheduler;
mod shares;
mod slots;
mod stops;
mod supply;
mod table;
mod tenants;
mod victims;
mod waiters;
mod wants;
mod why;

pub use config::{BudgetConfig, OpenLatency};
pub use exchange::{Exchange, Instruction, Need, Standing};
pub use input::{Condition, Input, OpenFailure, Refusal};
pub use output::{CloseReason, Output, RejectReason};
pub use permit::Permit;
pub use scheduler::Scheduler;
pub use stops::{Command, Halt, Halted};
pub use tenants::Band;
pub use why::{Blocked, Explanation, TenantView, Why};
