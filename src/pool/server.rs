//! One server connection of one tenant, from login to its last byte.
//!
//! Owns the stream, what is remembered of it between clients, and the permit that makes it count.

use std::task::{Context, Poll, Waker};

use crate::budget::Permit;
use crate::ids::ServerId;
use crate::net::Stream;
use crate::time::Moment;
use crate::trace::Asked;
use crate::track::ServerState;

/// A server. Belongs to one tenant until it is closed.
#[derive(Debug)]
pub struct Server {
    /// Its number, and with it its slot in the budget.
    pub id: ServerId,
    /// The connection.
    pub stream: Stream,
    /// Settings, prepared statements, leftovers.
    pub state: ServerState,
    /// Bytes read from it that are the beginning of a message.
    pub carry: Vec<u8>,
    /// Postgres' process id.
    pub pid: u32,
    /// The right to exist.
    pub(super) permit: Permit,
    /// The version of the tenant's login (role, password, search_path) it was made with.
    pub(super) epoch: u32,
    /// When it logged in.
    pub(super) opened_at: Moment,
    /// When it was last leased or released.
    pub(super) since: Moment,
    /// How its lease was asked for.
    pub(super) asked: Asked,
}

impl Server {
    /// Whether an idle server is still there and silent. Costs no syscall unless something has arrived.
    ///
    /// Anything but silence retires it: Postgres has no reason to speak to an idle session except to end it, to report
    /// a changed configuration or to notify, and a login is cheaper than being wrong.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.stream.poll_read(&mut cx, &mut byte), Poll::Pending)
    }
}
