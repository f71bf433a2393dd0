//! A worker's servers: who holds which, who waits, and what the scheduler decided about it.
//!
//! Owns the server connections of one worker and carries out what `budget` decides: opens, closes, hand-overs. Lives on
//! the worker's thread; nothing here is shared. Must not know what a client says (`session`).
//!
//! ```text
//!            acquire                    release, clean
//!   session ────────► Lease ──────────────────────────────► idle
//!              │         └─ dropped, dirty ─► clean-up ──────►┘
//!              ▼                                └─► closing ─► permit back
//!            Ticket (queued)
//! ```

mod clock;
mod desk;
mod lease;
mod listener;
mod listening;
mod maintain;
mod note;
mod pins;
mod refusal;
mod relogin;
mod replicas;
mod server;
mod table;
mod tape;
mod tenant;
mod tiers;

pub use clock::Clock;
pub use desk::{Acquired, Pool, PoolLimits};
pub use lease::{Lease, Leftover, Ticket};
pub use listening::Listening;
pub use note::Note;
pub use refusal::Refusal;
pub use relogin::Relogin;
pub use replicas::ReplicaSpec;
pub use server::Server;
pub use tape::{Batch, Recording};
pub use tenant::{ClientCounts, Greeting, TenantState};
