//! What a scheduler wants done: its outputs.
//!
//! Owns the types only. The driver carries out the outputs of one step in order.

use super::permit::Permit;
use crate::ids::{RequestId, ServerId, TenantId};
use crate::stats::Cause;
use crate::time::Moment;

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// The request has its server, until `Release`.
    Grant {
        /// Which request.
        request: RequestId,
        /// Its server, which belongs to the request's tenant.
        server: ServerId,
        /// What it waited for, if it did.
        cause: Option<Cause>,
    },
    /// Log a server in as this tenant; answer with `Opened` or `OpenFailed`.
    Open {
        /// To be kept with the server, and given back with `Closed` or `OpenFailed`.
        permit: Permit,
        /// The new server's name.
        server: ServerId,
        /// Whose it will be for its whole life.
        tenant: TenantId,
    },
    /// Close this server (it is not leased); answer with `Closed` once it is gone.
    Close {
        /// Which server.
        server: ServerId,
        /// Why.
        why: CloseReason,
    },
    /// The request gets no server.
    Reject {
        /// Which request.
        request: RequestId,
        /// Why not.
        reason: RejectReason,
    },
    /// Call with `Tick` at this time, at the latest. Replaces the time said before.
    WakeAt(Moment),
    /// After `SetCapacity`, once: no more servers than that are in use (which is at once, unless it was lowered).
    CapacitySettled {
        /// The capacity that holds now.
        capacity: u32,
    },
    /// What the scheduler lacks, or has under reserves, has changed: see `Scheduler::standing`. Only if the configuration
    /// asks for it.
    StandingChanged,
    /// A window of a tenant's load has ended: what it needs is worth looking at.
    Needs {
        /// Which.
        tenant: TenantId,
        /// Servers that it needs, in 1/256.
        need: u32,
    },
    /// A removed tenant has no server left and is forgotten.
    Drained {
        /// Which.
        tenant: TenantId,
    },
}

/// Why a server is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It was idle, and another tenant needs the slot.
    Evicted {
        /// Who.
        successor: TenantId,
    },
    /// Its tenant had its turn, and the slot goes to another one at this release.
    Turn {
        /// Who.
        successor: TenantId,
    },
    /// The capacity was lowered.
    Capacity,
    /// The tenant has more than its ceiling.
    Ceiling,
    /// The tenant is being removed.
    TenantRemoved,
    /// An operator drains the tenant.
    Drained,
}

impl CloseReason {
    /// A stable word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted { .. } => "evicted",
            Self::Turn { .. } => "turn",
            Self::Capacity => "capacity",
            Self::Ceiling => "ceiling",
            Self::TenantRemoved => "tenant_removed",
            Self::Drained => "drained",
        }
    }
}

/// Why a request gets no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Its deadline came.
    QueueTimeout {
        /// How long it waited.
        waited_us: u64,
        /// What for.
        cause: Cause,
    },
    /// Too many requests of the tenant (or of all) wait already.
    QueueFull,
    /// It would have waited past its deadline.
    HopelessWait {
        /// How long it would have waited.
        expected_us: u64,
        /// After so long it is worth trying again.
        retry_us: u64,
    },
    /// The tenant begins more transactions than it may.
    RateLimited {
        /// After so long it is worth trying again.
        retry_us: u64,
    },
    /// An operator has suspended the tenant.
    Suspended,
    /// Postgres cannot be reached.
    Unavailable,
    /// Postgres does not let the tenant in.
    Rejected,
    /// The tenant is being removed.
    TenantRemoved,
    /// The scheduler was never told of the tenant.
    UnknownTenant,
}

impl RejectReason {
    /// What a request waited for that ends so; `None` if it did not wait.
    #[must_use]
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Self::QueueTimeout { cause, .. } => Some(cause),
            Self::Unavailable => Some(Cause::ServerDown),
            Self::Rejected => Some(Cause::LoginRefused),
            Self::Suspended => Some(Cause::Paused),
            Self::QueueFull
            | Self::HopelessWait { .. }
            | Self::RateLimited { .. }
            | Self::TenantRemoved
            | Self::UnknownTenant => None,
        }
    }

    /// A stable word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::QueueFull => "queue_full",
            Self::HopelessWait { .. } => "hopeless_wait",
            Self::RateLimited { .. } => "rate_limited",
            Self::Suspended => "tenant_suspended",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::TenantRemoved => "tenant_removed",
            Self::UnknownTenant => "unknown_tenant",
        }
    }
}
