//! One client's life after login: greeting, waiting, relaying, leaving.
//!
//! Owns the relay between a client and the server it has leased. Must not know how servers are made or shared out
//! (`pool`), nor threads (`worker`).
//!
//! ```text
//!   greet ──► replicating ──► closing
//!     └─────► parked ──► waiting ──► leased ──► parked ...
//!               │  ▲________│ refused  │ vanished: server cleaned or closed
//!               └────────► closing ◄───┘
//! ```

mod admission;
mod arrival;
mod clocks;
mod closing;
mod expiry;
mod floor;
mod greet;
mod leased;
mod life;
mod listening;
mod outbox;
mod overdue;
mod parting;
mod reading;
mod registry;
mod replication;

pub use admission::Admission;
pub use expiry::keep_expiries;
pub use floor::Floor;
pub use greet::{Newcomer, SessionWishes, greet, turn_away, turn_away_early, turn_away_leaving};
pub use life::Session;
pub use overdue::keep_time;
pub use registry::{CancelKeys, ClientCell, Registry, Whereabouts};
