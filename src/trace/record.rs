//! What is kept of one request until it is written: 16 bytes.
//!
//! Owns the layout in memory. Whoever asks for a server is told nothing of it.

use crate::ids::TenantId;

/// A request that is over, as its worker notes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub tenant: TenantId,
    /// When it was over, in microseconds since the beginning of its batch.
    pub end_us: u32,
    /// How long the server was held; of a server's login how long that took.
    pub hold_us: u32,
    /// How it was asked for.
    pub asked: Asked,
}

/// How a server was asked for: the wait, and marks. Four bytes, so that a server can carry it through its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked(u32);

/// What is special about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No transaction began with it: no rate holds for it.
    Exempt = 0,
    /// The client kept the server between transactions.
    Pinned = 1,
    /// It got no server: it was refused, or its client went.
    Unserved = 2,
    /// No request at all, but a server's login.
    Login = 3,
}

impl Asked {
    /// After this wait. What is longer than four minutes counts as that.
    #[must_use]
    pub fn waited(wait_us: u64) -> Self {
        Self(u32::try_from(wait_us).unwrap_or(u32::MAX).min(WAIT_MAX))
    }

    /// A request that was served at once; `exempt` if no transaction begins with it.
    #[must_use]
    pub const fn at_once(exempt: bool) -> Self {
        // Without a branch: this is on the path of every transaction.
        Self((exempt as u32) << WAIT_BITS)
    }

    /// The same after a wait.
    #[must_use]
    pub fn after(self, wait_us: u64) -> Self {
        Self(self.0 & !WAIT_MAX | Self::waited(wait_us).0)
    }

    /// The same with a mark.
    #[must_use]
    pub const fn with(self, mark: Mark) -> Self {
        Self(self.0 | 1 << (WAIT_BITS + mark as u32))
    }

    /// Whether it has a mark.
    #[must_use]
    pub const fn has(self, mark: Mark) -> bool {
        self.0 & 1 << (WAIT_BITS + mark as u32) != 0
    }

    /// How long it waited, in microseconds.
    #[must_use]
    pub const fn wait_us(self) -> u32 {
        self.0 & WAIT_MAX
    }

    /// All marks, four bits.
    pub(super) const fn marks(self) -> u32 {
        self.0 >> WAIT_BITS
    }

    pub(super) const fn from_parts(wait_us: u32, marks: u32) -> Self {
        let wait_us = if wait_us > WAIT_MAX { WAIT_MAX } else { wait_us };
        Self((marks & 0xf) << WAIT_BITS | wait_us)
    }
}

const WAIT_BITS: u32 = 28;
const WAIT_MAX: u32 = (1 << WAIT_BITS) - 1;
