//! The SQLSTATE codes that the proxy itself sends (PostgreSQL manual, appendix A).
//!
//! Owns the table. `docs/errors.md` lists the same codes; a test compares the two. A server's own errors pass
//! through untouched and are not listed here.

use std::fmt;

/// A five-character SQLSTATE code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(&'static str);

impl SqlState {
    /// The code as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Every code the proxy may send.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

codes! {
    /// `warning`: notifications may have been lost.
    WARNING = "01000";
    /// `sqlclient_unable_to_establish_sqlconnection`: Postgres cannot be reached.
    CANNOT_CONNECT = "08001";
    /// `connection_failure`: the server was lost in a transaction.
    CONNECTION_FAILURE = "08006";
    /// `protocol_violation`.
    PROTOCOL_VIOLATION = "08P01";
    /// `feature_not_supported`: the mode does not allow it.
    FEATURE_NOT_SUPPORTED = "0A000";
    /// `invalid_parameter_value`: a startup parameter cannot be applied.
    INVALID_PARAMETER_VALUE = "22023";
    /// `idle_in_transaction_session_timeout`: silent for too long inside a transaction.
    IDLE_IN_TRANSACTION_TIMEOUT = "25P03";
    /// `transaction_timeout`: a transaction that takes too long.
    TRANSACTION_TIMEOUT = "25P04";
    /// `invalid_authorization_specification`: TLS required, no user, or a way to name the tenant that is switched off.
    INVALID_AUTHORIZATION = "28000";
    /// `invalid_password`: unknown tenant, unknown user and wrong password look the same.
    INVALID_PASSWORD = "28P01";
    /// `invalid_catalog_name`: a database the tenant does not have.
    INVALID_CATALOG_NAME = "3D000";
    /// `insufficient_privilege`: the wall between tenants.
    INSUFFICIENT_PRIVILEGE = "42501";
    /// `too_many_connections`: no server within the wait limit, or too many clients.
    TOO_MANY_CONNECTIONS = "53300";
    /// `configuration_limit_exceeded`: a limit of the configuration, e.g. prepared statements per client.
    CONFIGURATION_LIMIT_EXCEEDED = "53400";
    /// `program_limit_exceeded`: a message too large.
    PROGRAM_LIMIT_EXCEEDED = "54000";
    /// `query_canceled`: cancelled while still queued.
    QUERY_CANCELED = "57014";
    /// `admin_shutdown`: draining, or the tenant was removed.
    ADMIN_SHUTDOWN = "57P01";
    /// `cannot_connect_now`: not accepting new clients.
    CANNOT_CONNECT_NOW = "57P03";
    /// `idle_session_timeout`: silent for too long between transactions.
    IDLE_SESSION_TIMEOUT = "57P05";
    /// `internal_error`: a bug; the session ends and the server is closed.
    INTERNAL_ERROR = "XX000";
}
