//! Errors that can reach a client: SQLSTATE, severity, text, detail, hint and a metric class.
//!
//! Owns the shape of such an error ([`ClientError`]) and the table of codes ([`sqlstate`]). Must not know
//! which module fails, nor how an error is put on the wire (that is `wire`).

pub mod sqlstate;

use std::borrow::Cow;
use std::fmt;

pub use sqlstate::SqlState;

/// Whether the session ends with the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed, the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    /// The word PostgreSQL uses on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The application.
    Client,
    /// Postgres or the network to it.
    Server,
    /// A limit or a decision of the proxy.
    Proxy,
}

/// An error as a client sees it (PostgreSQL manual, "Error and Notice Message Fields").
///
/// The texts hold nothing secret: no other tenant's name, no address, no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// Whether the session survives.
    pub severity: Severity,
    /// The five-character code.
    pub code: SqlState,
    /// Primary text.
    pub message: Cow<'static, str>,
    /// Which limit or rule, with its numbers.
    pub detail: Option<Cow<'static, str>>,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
    /// Stable class for metrics and logs, e.g. `queue_timeout`.
    pub reason: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
}

impl ClientError {
    /// A FATAL error without detail and hint.
    #[must_use]
    pub fn fatal(
        code: SqlState,
        fault: Fault,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            severity: Severity::Fatal,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            reason,
            fault,
        }
    }

    /// An ERROR (the session goes on) without detail and hint.
    #[must_use]
    pub fn error(
        code: SqlState,
        fault: Fault,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            reason,
            fault,
        }
    }

    /// The same error with a DETAIL.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same error with a HINT.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The routine of Postgres' that reports the same error, where drivers know it by that.
    #[must_use]
    pub fn routine(&self) -> Option<&'static str> {
        (self.reason == RESULT_TYPE_CHANGED).then_some("RevalidateCachedQuery")
    }
}

/// Reason of the error that a prepared statement's rows have another type than its client was told.
pub const RESULT_TYPE_CHANGED: &str = "result_type_changed";

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity.as_str(), self.code, self.message)
    }
}

/// What can be shown to a client.
pub trait ClientFacing {
    /// The error as the client is to see it.
    fn to_client(&self) -> ClientError;
}
