//! The right to have one server.
//!
//! Owns [`Permit`]. It is made by the scheduler when it orders a server, lies beside the server for its whole life, and
//! is given back when the server is gone. It cannot be copied, so a slot cannot be given back twice; one that is lost
//! keeps its slot taken for ever, which is the safe side.

use crate::ids::ServerId;

/// The right to have one server, from before its login until Postgres has let it go.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit is given back with `Closed` or `OpenFailed`; a lost one is a lost server"]
pub struct Permit {
    server: ServerId,
    ledger: u32,
}

impl Permit {
    pub(super) const fn new(server: ServerId, ledger: u32) -> Self {
        Self { server, ledger }
    }

    /// The server that this permit is for.
    #[must_use]
    pub const fn server(&self) -> ServerId {
        self.server
    }

    pub(super) const fn ledger(&self) -> u32 {
        self.ledger
    }
}
