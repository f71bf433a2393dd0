//! How logins ended, counted since the start.
//!
//! Owns one atomic per result. Front threads add; metrics read copies.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a connection's login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginResult {
    /// Handed to a worker.
    Ok,
    /// Unknown tenant, unknown user, wrong password or wrong certificate.
    BadPassword,
    /// Plain where TLS is required.
    TlsRequired,
    /// The TLS handshake failed.
    TlsFailed,
    /// Something that is not the protocol.
    ProtocolViolation,
    /// A protocol version or feature that we do not have.
    Unsupported,
    /// A startup parameter that cannot be accepted, or none of those that must be there.
    BadParameter,
    /// A database that the tenant does not have.
    UnknownDatabase,
    /// More clients than allowed.
    TooManyClients,
    /// Not finished by the deadline.
    Timeout,
    /// The client left, or its connection broke.
    Disconnected,
    /// No login at all, but a cancel request.
    CancelRequest,
    /// The client asked where to get a token.
    Discovery,
    /// We were stopping.
    ShuttingDown,
    /// A fault of our own.
    Internal,
}

impl LoginResult {
    /// All results, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::BadPassword,
        Self::TlsRequired,
        Self::TlsFailed,
        Self::ProtocolViolation,
        Self::Unsupported,
        Self::BadParameter,
        Self::UnknownDatabase,
        Self::TooManyClients,
        Self::Timeout,
        Self::Disconnected,
        Self::CancelRequest,
        Self::Discovery,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadPassword => "bad_password",
            Self::TlsRequired => "tls_required",
            Self::TlsFailed => "tls_failed",
            Self::ProtocolViolation => "protocol_violation",
            Self::Unsupported => "unsupported",
            Self::BadParameter => "bad_parameter",
            Self::UnknownDatabase => "unknown_database",
            Self::TooManyClients => "too_many_clients",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::CancelRequest => "cancel_request",
            Self::Discovery => "discovery",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }
}

/// One counter per [`LoginResult`].
#[derive(Debug, Default)]
pub struct LoginCounters([AtomicU64; LoginResult::ALL.len()]);

impl LoginCounters {
    /// Counts one login.
    pub fn count(&self, result: LoginResult) {
        if let Some(counter) = self.0.get(result as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many logins ended like this.
    #[must_use]
    pub fn of(&self, result: LoginResult) -> u64 {
        self.0.get(result as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All results with their numbers, zeros included.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        LoginResult::ALL.iter().map(|result| (result.as_str(), self.of(*result))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_a_counter_and_a_name_of_its_own() {
        let counters = LoginCounters::default();
        for (index, result) in LoginResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, index);
            (0..=index).for_each(|_| counters.count(result));
        }
        let mut snapshot = counters.snapshot();
        assert!(snapshot.iter().map(|(_, count)| *count).eq(1..=15));
        snapshot.sort_unstable();
        snapshot.dedup_by_key(|(name, _)| *name);
        assert_eq!(snapshot.len(), 15);
    }
}
