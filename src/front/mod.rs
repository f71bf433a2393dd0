//! Logging clients in: from `accept` to an [`Admitted`] client, which a worker takes over.
//!
//! Owns TLS towards clients, the startup conversation, authentication, and the limits of all of that: half-open logins,
//! clients in all, a deadline over the whole login. Must not know workers or servers: it ends at [`Reception`].
//!
//! ```text
//! accept ─► Handshake<Connected> ─locate─► Handshake<Accepted> ─open─► Handshake<Introduced> ─authenticate─►
//!            PROXY header                   SSLRequest, TLS,            startup packet read,    SCRAM or
//!                                           GSSENCRequest               slot taken              certificate
//!                                              └─► CancelRequest ─► Reception
//! ─► Handshake<Proved> ─admit─► Reception
//!     database checked
//! ```
//!
//! `docs/login.md` says the same from a client's side.

mod acceptor;
mod admitted;
mod authenticate;
mod conversation;
mod counters;
mod failure;
mod handshake;
mod introduction;
mod limits;
mod token;

pub use acceptor::Front;
pub use admitted::{Admitted, Reception};
pub use counters::{LoginCounters, LoginResult};
pub use limits::{ClientSlot, Clients};
