//! The front alone, over real loopback sockets: everything between `accept` and an admitted client.
//!
//! Method: a `Front` with a reception that greets whoever is admitted, so that real clients (tokio-postgres) come up, and
//! a client that speaks the protocol byte by byte. There is no Postgres. No test sleeps: each waits for an answer or
//! for the end of the connection.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]

mod limits;
mod opening;
mod papers;
mod passwords;
mod proxies;
mod raw;
mod rig;
mod tls;
mod tokens;
