//! How long clients of a tenant may keep what they have: names and values of the time limits.
//!
//! Owns the words. Must not know a clock, nor what happens to a client that is over a limit (`session`).

use std::time::Duration;

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// On a client's silence between transactions.
    ClientIdle,
    /// On a client's silence inside a transaction.
    IdleTransaction,
    /// On a transaction.
    Transaction,
    /// On a client's silence while it keeps its server between transactions, in transaction mode.
    PinIdle,
}

impl TimeLimit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ClientIdle, Self::IdleTransaction, Self::Transaction, Self::PinIdle];

    /// Its key in the configuration, and its name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientIdle => "client_idle_timeout",
            Self::IdleTransaction => "idle_transaction_timeout",
            Self::Transaction => "transaction_timeout",
            Self::PinIdle => "pin_idle_timeout",
        }
    }
}

/// The time limits of one tenant; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// [`TimeLimit::ClientIdle`].
    pub client_idle: Option<Duration>,
    /// [`TimeLimit::IdleTransaction`].
    pub idle_transaction: Option<Duration>,
    /// [`TimeLimit::Transaction`].
    pub transaction: Option<Duration>,
    /// [`TimeLimit::PinIdle`].
    pub pin_idle: Option<Duration>,
}

impl TimeLimits {
    /// The value of one.
    #[must_use]
    pub const fn of(&self, limit: TimeLimit) -> Option<Duration> {
        match limit {
            TimeLimit::ClientIdle => self.client_idle,
            TimeLimit::IdleTransaction => self.idle_transaction,
            TimeLimit::Transaction => self.transaction,
            TimeLimit::PinIdle => self.pin_idle,
        }
    }

    /// The shortest; `None` if there is no limit at all.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        TimeLimit::ALL.into_iter().filter_map(|limit| self.of(limit)).min()
    }
}
