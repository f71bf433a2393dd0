//! A client that is logged in, on its way to its worker.
//!
//! Owns what crosses the threads, once per client.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::limits::ClientSlot;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::net::PortableStream;
use crate::tenant::{PoolMode, Replication, Target, Tenant};
use crate::wire::startup::CancelKey;

/// A client that has proved who it is. AuthenticationOk and what follows it have not been sent.
pub struct Admitted {
    /// Its tenant, as the catalog had it when the login began.
    pub tenant: Arc<Tenant>,
    /// Its user name within the tenant.
    pub user: Arc<str>,
    /// How long it keeps a server.
    pub mode: PoolMode,
    /// The token it has shown is good for no login from then on, and its session ends.
    pub ends_at: Option<Instant>,
    /// It wants a replication connection, and its tenant may have one.
    pub replication: Option<Replication>,
    /// Where it wants its transactions to go.
    pub target: Target,
    /// The database it asked for, one that the tenant allows; the tenant's own if it asked for none.
    pub database: String,
    /// The connection, registered with no runtime.
    pub stream: PortableStream,
    /// 0, or 2 for a client with long cancel keys.
    pub protocol_minor: u32,
    /// Settings it asked for: those of `options` first, then the other startup parameters; each name once.
    pub parameters: Vec<(String, String)>,
    /// Bytes read past the login: the client's first messages, or a part of them.
    pub unread: Vec<u8>,
    /// The last words of the login, yet to be sent: they go out with the greeting.
    pub unsent: Vec<u8>,
    /// Where it comes from; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Number of this connection in the logs.
    pub request_id: u64,
    /// Its place among `max_clients`, given back when dropped.
    pub slot: ClientSlot,
}

impl fmt::Debug for Admitted {
    /// Names who, not what it sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted")
            .field("tenant", &self.tenant.name)
            .field("user", &self.user)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// Where clients go after the login. Called on front threads; must not block.
pub trait Reception: Send + Sync + 'static {
    /// Takes over a client.
    fn admit(&self, client: Admitted);

    /// Cancels a query, if the key is right; drops `done` when that has been carried out, or is not going to be. The sender
    /// learns nothing else.
    fn cancel(&self, key: CancelKey, done: oneshot::Sender<()>);
}
