//! What a session and a server owe each other: answers still expected, prepared statements, settings, leftovers.
//!
//! Pure: bytes in, bytes and facts out. The relay (`session`) feeds [`Exchange`] with what it read from either side
//! and writes what comes out; nothing here knows a socket.
//!
//! ```text
//!   client bytes ──► Exchange::client_bytes ──► to the server (renamed, completed)
//!                       │ expects answers
//!   client      ◄── Exchange::server_bytes ◄── server bytes
//! ```

mod downstream;
mod exchange;
mod expect;
pub mod lexer;
pub mod params;
mod refuse;
mod sink;
pub mod statement;
mod upstream;

pub use downstream::{ServerFault, Turn};
pub use exchange::{ClientState, Exchange, ServerState, TxStatus};
pub use params::{Extras, Params, Settings};
pub use refuse::{Skipped, skip_request, skip_to_sync};
pub use sink::Sink;
pub use statement::{ServerStatements, StatementCache};
pub use upstream::{Fed, Unleased, Violation, is_worth_a_lease, unleased_bytes};
