//! Why a server login failed: for logs, for the scheduler and for clients.
//!
//! Owns [`LoginError`]. It is cheap to clone, because one answer goes to all who wait. Clients see neither hosts nor
//! roles (`ClientFacing`); logs see both (`Display`).

use std::fmt;
use std::io;
use std::sync::Arc;

use super::startup::StartupRefusal;
use crate::auth::scram_client::ScramError;
use crate::error::{ClientError, ClientFacing, Fault, SqlState};

/// What a failure means for whoever wants servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Postgres has no free slot: it works, and has fewer slots than we thought.
    ServerFull,
    /// Postgres cannot be reached or does not take logins now: everybody's problem, passes by itself.
    Unavailable,
    /// This login is refused: this tenant's problem, stays until somebody changes something.
    Rejected,
}

/// How far an attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Resolving the name.
    Resolve,
    /// Connecting the socket.
    Connect,
    /// Asking for TLS, and the TLS handshake.
    Tls,
    /// Startup packet, authentication, greeting.
    Login,
}

/// Why one attempt at one host failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginFailure {
    /// The host's name has no address.
    #[error("cannot resolve the name: {0}")]
    Resolve(io::Error),
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The connection cannot be made.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It took longer than `connect_timeout`.
    #[error("timeout after {after_ms} ms ({stage:?})")]
    Timeout {
        /// What it was doing.
        stage: Stage,
        /// The limit.
        after_ms: u128,
    },
    /// TLS is wanted and the server does not offer it.
    #[error("the server does not support TLS, which sslmode requires")]
    TlsNotOffered,
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    /// The server's certificate is not trusted.
    #[error("server certificate: {0}")]
    Certificate(rustls::Error),
    /// The server closed the connection, or it broke, during the login.
    #[error("the server closed the connection during the login{}", detail(.0))]
    Closed(Option<io::Error>),
    /// The server answered with an error.
    #[error("{code}: {message}")]
    Server {
        /// Its SQLSTATE.
        code: Box<str>,
        /// Its text, in the server's language.
        message: Box<str>,
        /// Whether the limit that was hit belongs to the role or the database, not to the server.
        own_limit: bool,
        /// Whether it came before the server asked for authentication (`pg_hba.conf` has no line for us).
        early: bool,
    },
    /// The server wants an authentication that is not done on principle or not known.
    #[error("the server asks for {0}, which is never done: use scram-sha-256, a client certificate or trust")]
    Method(&'static str),
    /// The server wants a password, and the tenant has none.
    #[error("the server asks for a password, and none is configured")]
    NoPassword,
    /// The SCRAM exchange failed.
    #[error("SCRAM: {0}")]
    Scram(ScramError),
    /// The session is not of the kind that `target_session_attrs` wants.
    #[error("the session does not satisfy target_session_attrs")]
    SessionAttrs,
    /// The server sent what the protocol does not allow here.
    #[error("protocol violation by the server: {0}")]
    Protocol(&'static str),
    /// The tenant's role, database or settings cannot be sent.
    #[error("{0}")]
    Startup(StartupRefusal),
}

fn detail(error: &Option<io::Error>) -> String {
    error.as_ref().map_or_else(String::new, |error| format!(" ({error})"))
}

impl LoginFailure {
    /// What it means for whoever wants servers.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Server { code, own_limit, .. } => class_of(code, *own_limit),
            Self::Method(_) | Self::NoPassword | Self::Scram(_) | Self::Startup(_) => FailureClass::Rejected,
            Self::Resolve(_)
            | Self::Refused
            | Self::Connect(_)
            | Self::Timeout { .. }
            | Self::TlsNotOffered
            | Self::Tls(_)
            | Self::Certificate(_)
            | Self::Closed(_)
            | Self::SessionAttrs
            | Self::Protocol(_) => FailureClass::Unavailable,
        }
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "server_resolve_failed",
            Self::Refused => "server_connect_refused",
            Self::Connect(_) => "server_connect_failed",
            Self::Timeout { stage: Stage::Resolve | Stage::Connect, .. } => "server_connect_timeout",
            Self::Timeout { stage: Stage::Tls | Stage::Login, .. } => "server_login_timeout",
            Self::TlsNotOffered => "server_tls_not_offered",
            Self::Tls(_) => "server_tls_failed",
            Self::Certificate(_) => "server_certificate",
            Self::Closed(_) => "server_closed_in_login",
            Self::Server { own_limit: true, .. } => "server_role_limit",
            Self::Server { .. } => match self.class() {
                FailureClass::ServerFull => "server_full",
                FailureClass::Unavailable => "server_not_ready",
                FailureClass::Rejected => "server_login_rejected",
            },
            Self::Method(_) => "server_auth_method",
            Self::NoPassword => "server_no_password",
            Self::Scram(ScramError::Signature) => "server_signature",
            Self::Scram(ScramError::BindingRequired) => "server_channel_binding",
            Self::Scram(_) => "server_scram",
            Self::SessionAttrs => "server_session_attrs",
            Self::Protocol(_) => "server_protocol",
            Self::Startup(_) => "server_startup_packet",
        }
    }

    /// Whether another host may do better. A full server, or one that refuses the login, has spoken for the cluster.
    pub(super) fn tries_next_host(&self) -> bool {
        self.class() == FailureClass::Unavailable
    }
}

/// Classes of SQLSTATE: 53300 is full, the other 53xxx, 57P0x, 08xxx, 58xxx and XX000 are the server's own trouble.
fn class_of(code: &str, own_limit: bool) -> FailureClass {
    match code {
        "53300" if own_limit => FailureClass::Rejected,
        "53300" => FailureClass::ServerFull,
        "57P01" | "57P02" | "57P03" | "57P05" => FailureClass::Unavailable,
        _ if ["08", "53", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            FailureClass::Unavailable
        }
        _ => FailureClass::Rejected,
    }
}

/// Why no server could be had: each host tried, the last one decides.
#[derive(Clone, Debug)]
pub struct LoginError(Arc<Attempts>);

#[derive(Debug)]
struct Attempts {
    earlier: Vec<(String, LoginFailure)>,
    place: String,
    failure: LoginFailure,
}

impl LoginError {
    pub(super) fn new(
        earlier: Vec<(String, LoginFailure)>,
        place: impl Into<String>,
        failure: LoginFailure,
    ) -> Self {
        Self(Arc::new(Attempts { earlier, place: place.into(), failure }))
    }

    /// The failure that decided.
    #[must_use]
    pub fn failure(&self) -> &LoginFailure {
        &self.0.failure
    }

    /// The host of the failure that decided, for logs.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// What it means for whoever wants servers.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        self.0.failure.class()
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.failure.reason()
    }

    /// The server's own SQLSTATE, if it answered.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.0.failure {
            LoginFailure::Server { code, .. } => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, failure) in &self.0.earlier {
            write!(f, "{place}: {failure}; ")?;
        }
        write!(f, "{}: {}", self.0.place, self.0.failure)
    }
}

impl std::error::Error for LoginError {}

impl ClientFacing for LoginError {
    fn to_client(&self) -> ClientError {
        let reason = self.reason();
        let error = match self.class() {
            FailureClass::ServerFull => ClientError::error(
                SqlState::TOO_MANY_CONNECTIONS,
                Fault::Server,
                reason,
                "the database server has no free connection",
            )
            .with_hint("Retry later."),
            FailureClass::Unavailable => ClientError::error(
                SqlState::CANNOT_CONNECT,
                Fault::Server,
                reason,
                "the database server cannot be reached",
            )
            .with_hint("Retry later."),
            FailureClass::Rejected => ClientError::error(
                SqlState::CANNOT_CONNECT,
                Fault::Server,
                reason,
                "the database server refuses the login for this tenant",
            )
            .with_hint("Tell the operator: the tenant's role, database or credentials need attention."),
        };
        match self
            .sqlstate()
            .filter(|code| code.len() == 5 && code.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            Some(code) => error.with_detail(format!("Reason: {reason}, SQLSTATE of the server: {code}.")),
            None => error.with_detail(format!("Reason: {reason}.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str, own_limit: bool) -> LoginFailure {
        LoginFailure::Server { code: code.into(), message: "role \"acme\"".into(), own_limit, early: false }
    }

    #[test]
    fn a_sqlstate_tells_full_from_down_from_refused() {
        for (code, class) in [
            ("53300", FailureClass::ServerFull),
            ("53200", FailureClass::Unavailable),
            ("57P03", FailureClass::Unavailable),
            ("57P01", FailureClass::Unavailable),
            ("08006", FailureClass::Unavailable),
            ("XX000", FailureClass::Unavailable),
            ("28P01", FailureClass::Rejected),
            ("28000", FailureClass::Rejected),
            ("3D000", FailureClass::Rejected),
            ("42704", FailureClass::Rejected),
            ("22023", FailureClass::Rejected),
            ("55000", FailureClass::Rejected),
        ] {
            assert_eq!(server(code, false).class(), class, "{code}");
        }
        assert_eq!(
            server("53300", true).class(),
            FailureClass::Rejected,
            "a role's limit does not brake the others"
        );
        assert_eq!(server("53300", true).reason(), "server_role_limit");
    }

    #[test]
    fn clients_see_neither_host_nor_role_and_logs_see_both() {
        let error = LoginError::new(
            vec![("db1:5432".into(), LoginFailure::Refused)],
            "db2:5432",
            server("28P01", false),
        );
        let shown = format!("{:?}", error.to_client());
        assert!(!shown.contains("db1") && !shown.contains("db2") && !shown.contains("acme"), "{shown}");
        assert!(shown.contains("28P01") && shown.contains("server_login_rejected"));
        assert_eq!(error.to_string(), "db1:5432: connection refused; db2:5432: 28P01: role \"acme\"");
        let odd = LoginError::new(Vec::new(), "db", server("db1 x", false)).to_client();
        assert!(!format!("{odd:?}").contains("db1"), "only a real SQLSTATE is passed on");
    }
}
