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

mod answers;
mod by_sql;
mod downstream;
mod exchange;
mod expect;
#[cfg(test)]
mod fixture;
mod forbid;
mod functions;
mod heal;
mod hearing;
pub mod lexer;
mod names_in_errors;
mod naming;
mod notes;
pub mod params;
mod prepared;
mod reading;
mod refuse;
mod renaming;
mod restore;
mod rows;
mod settle;
mod sink;
mod state;
pub mod statement;
mod unleased;
mod unread;
mod upstream;
mod violation;

pub use answers::first_value;
pub use downstream::{ServerFault, Turn};
pub use exchange::Exchange;
pub use forbid::{Bounds, PinsLeft, pinning};
pub use functions::{Elsewhere, Functions};
pub use hearing::{
    Channel, Channels, Hearing, MAX_UNREAD_BYTES, Mailbox, Return, Switch, frames, is_return_of,
    marker_payload, notification, quoted, return_payload,
};
pub use params::{Extras, Params, Settings};
pub use prepared::ServerStatements;
pub use refuse::{Skipped, skip_request, skip_to_sync};
pub use sink::Sink;
pub use state::{ClientState, ServerState, TxStatus, Unnamed};
pub use statement::StatementCache;
pub use unleased::{Unleased, begins_read_only, is_worth_a_lease, unleased_bytes};
pub use upstream::Fed;
pub use violation::Violation;
