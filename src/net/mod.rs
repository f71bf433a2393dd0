//! Sockets and TLS: what carries bytes between clients, the proxy and Postgres.
//!
//! Owns [`Stream`] (one connection, plain or TLS), [`PortableStream`] (the same between two runtimes), [`Listener`],
//! [`dial`] and [`tls`]. Must not know a PostgreSQL message: SSLRequest and its answer belong to `front` and `backend`.

pub mod dial;
pub mod listen;
mod plain;
mod portable;
mod socket;
mod stream;
pub mod tls;

pub use listen::Listener;
pub use plain::give_way;
/// What makes a thread send the small messages of all its plain sockets together ([`Stream::queue`]), the task that
/// does it, and how to do it at once.
pub use sendring::{flush as send_queued, keep_flushing, start as send_in_batches};

pub use portable::PortableStream;
pub use stream::Stream;
