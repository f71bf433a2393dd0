//! Server connections: logging in to Postgres as a tenant's role, cancelling, closing.
//!
//! Owns everything between "a server is wanted" and "a server is ready for its first query". Must not know pools,
//! budgets or clients.
//!
//! ```text
//! Connector (a cluster: hosts, TLS, timeouts)          CancelHandle::send ─► CancelRequest
//!     └─ Profile (a tenant: startup packet, keys)      close(stream) ──────► end of stream, both ways
//!          └─ login() ─► hosts in order ─► one attempt: connect, TLS, startup, authentication, greeting
//!                              └─ LoginError                └─ Server
//! ```
//!
//! | module | what |
//! |---|---|
//! | `login` | which host, which transport, which error in the end |
//! | `attempt` | one host, one address, one transport |
//! | `handshake` | the messages between startup packet and ReadyForQuery |
//! | `link` | whole messages from a server, with limits |
//! | `keys` | one PBKDF2 per tenant |
//! | `attrs` | `target_session_attrs` |
//! | `startup` | the startup packet |

pub mod admin;
mod attempt;
mod attrs;
mod cancel;
mod close;
mod connector;
mod error;
mod handshake;
mod keys;
mod link;
mod login;
mod profile;
mod query;
mod startup;

pub use cancel::CancelHandle;
pub use close::{Farewell, close, close_with};
pub use connector::Connector;
pub use error::{FailureClass, LoginError, LoginFailure, Stage};
pub use login::{Server, login};
pub use profile::Profile;
