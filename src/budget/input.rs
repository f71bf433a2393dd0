//! What happens to a scheduler: its inputs, and why one can be refused.
//!
//! Owns the types only.

use super::permit::Permit;
use super::stops::Halt;
use crate::ids::{RequestId, ServerId, TenantId};
use crate::tenant::{Allowance, RateLimit};
use crate::time::Moment;

/// One thing that happened, or that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// A client of a tenant needs a server. Ends in exactly one `Grant`, `Reject` or accepted `Cancel`.
    Acquire {
        /// Name of the request, unique among those that wait.
        request: RequestId,
        /// Whose.
        tenant: TenantId,
        /// When waiting has no use any more.
        deadline: Moment,
        /// The server the client had last, if it is worth asking for.
        prefer: Option<ServerId>,
        /// No transaction begins, or it was counted before: no rate holds for it, and no prediction.
        exempt: bool,
    },
    /// The client of a waiting request is gone, or cancelled. Refused if the request does not wait (any more).
    Cancel {
        /// Which request.
        request: RequestId,
    },
    /// A lease ended.
    Release {
        /// Which server.
        server: ServerId,
        /// Whether another client may have it.
        condition: Condition,
    },
    /// A server that was ordered is logged in.
    Opened {
        /// Which server.
        server: ServerId,
    },
    /// A server that was ordered could not be had. To be said only when its socket is gone: the slot is free with it.
    OpenFailed {
        /// The server's permit.
        permit: Permit,
        /// What went wrong.
        failure: OpenFailure,
    },
    /// A server is gone (end of file seen): its slot is free. Accepted in every state, since the permit is the proof.
    Closed {
        /// The server's permit.
        permit: Permit,
    },
    /// An idle server died or must go (age, idle limit); it is being closed and `Closed` follows. Refused if the server
    /// is not idle: if it was granted meanwhile, release it as broken.
    Lost {
        /// Which server.
        server: ServerId,
    },
    /// Time has passed.
    Tick,
    /// The number of servers changes. Nothing is closed that is leased.
    SetCapacity(u32),
    /// A tenant is new, or has another allowance, or is wanted again after `RemoveTenant`.
    SetTenant {
        /// Whose.
        tenant: TenantId,
        /// What it may use.
        allowance: Allowance,
    },
    /// Another limit on the transactions that the tenant begins; `None` is no limit.
    SetRate {
        /// Whose.
        tenant: TenantId,
        /// What holds from now on.
        limit: Option<RateLimit>,
    },
    /// An operator holds the tenant up, until then. Replaces the halt before.
    Halt {
        /// Whom.
        tenant: TenantId,
        /// How.
        halt: Halt,
        /// When the tenant goes on by itself.
        until: Moment,
    },
    /// The tenant goes on.
    Resume {
        /// Who.
        tenant: TenantId,
    },
    /// A tenant goes: its waiters are rejected, its servers closed as soon as they are not leased; `Drained` follows.
    RemoveTenant {
        /// Which.
        tenant: TenantId,
    },
}

/// Whether a released server may serve another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Clean: ready for the next client of the tenant.
    Clean,
    /// Broken, dirty or too old: the driver is closing it, and `Closed` follows.
    Broken,
}

/// Why a server could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// The server has no slot left for anybody (53300). A limit on one role is `Rejected`.
    ServerFull,
    /// The server cannot be reached, or is starting up or shutting down.
    Unavailable,
    /// The server does not let this tenant in (28xxx, 3D000, a limit on the role).
    Rejected,
}

/// Why an input was refused; it changed nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such server (any more).
    #[error("no such server")]
    UnknownServer,
    /// The server is in another state than the input supposes.
    #[error("the server is {0}")]
    WrongState(&'static str),
    /// No such request waits.
    #[error("no such request waits")]
    UnknownRequest,
    /// A request of that name waits already.
    #[error("a request of that name waits already")]
    DuplicateRequest,
    /// No such tenant.
    #[error("no such tenant")]
    UnknownTenant,
    /// The permit belongs to another ledger; here it is.
    #[error("the permit belongs to another ledger")]
    ForeignPermit(Permit),
}
