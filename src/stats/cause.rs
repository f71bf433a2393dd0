//! Why a request waits, in one word.
//!
//! Owns the words. Which one it is, the budget knows.

/// Why a request waits, or waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The tenant's own servers will be free before another one would be logged in.
    OwnServers,
    /// All servers that the tenant may have are busy.
    Ceiling,
    /// One of these two, and the tenant's transactions take much longer than they used to.
    Slow,
    /// All servers of the cluster are busy, or others come first.
    Budget,
    /// Tenants with long transactions hold all that they may hold together.
    LongBorrowers,
    /// A server is logging in for it.
    Login,
    /// As many servers as there may be are logging in, or were moved between tenants lately.
    ReconnectBrake,
    /// The tenant begins more transactions than it may.
    RateLimit,
    /// An operator holds the tenant up.
    Paused,
    /// Postgres cannot be reached.
    ServerDown,
    /// Postgres does not let the tenant in.
    LoginRefused,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::OwnServers,
        Self::Ceiling,
        Self::Slow,
        Self::Budget,
        Self::LongBorrowers,
        Self::Login,
        Self::ReconnectBrake,
        Self::RateLimit,
        Self::Paused,
        Self::ServerDown,
        Self::LoginRefused,
    ];

    /// A stable word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OwnServers => "own_servers",
            Self::Ceiling => "ceiling",
            Self::Slow => "server_slow",
            Self::Budget => "budget_full",
            Self::LongBorrowers => "long_borrowers",
            Self::Login => "login",
            Self::ReconnectBrake => "reconnect_brake",
            Self::RateLimit => "rate_limit",
            Self::Paused => "paused",
            Self::ServerDown => "server_down",
            Self::LoginRefused => "login_refused",
        }
    }
}
