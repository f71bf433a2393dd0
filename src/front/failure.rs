//! Why a login ended without a client: what the client is told, what is counted, what is logged.
//!
//! Owns the enum. Must not hold a secret: a failure is logged as it is.

use std::io;

use super::counters::LoginResult;
use crate::auth::refusal::{Refusal, shown};
use crate::auth::scram_server::ScramError;
use crate::error::{ClientError, ClientFacing, Fault, SqlState};
use crate::wire::messages::MessageError;
use crate::wire::options::OptionsError;
use crate::wire::proxy_header::ProxyHeaderError;
use crate::wire::startup::StartupError;

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginFailure {
    /// The connection ended or broke.
    #[error("the client left")]
    Disconnected,
    /// The login took too long.
    #[error("the login was not finished by the deadline")]
    Timeout,
    /// We are stopping.
    #[error("the proxy is stopping")]
    ShuttingDown,
    /// A trusted address must begin with a PROXY protocol header, and did not.
    #[error(transparent)]
    ProxyHeader(#[from] ProxyHeaderError),
    /// The TLS handshake failed; rustls has sent its alert.
    #[error("the TLS handshake failed: {0}")]
    TlsFailed(io::Error),
    /// A TLS handshake where we have no TLS.
    #[error("a TLS handshake, but TLS is not offered")]
    TlsNotOffered,
    /// A plain login where TLS is required.
    #[error("a login without TLS")]
    TlsRequired,
    /// Bytes came together with a request for encryption, before the answer.
    #[error("unencrypted data after a request for encryption")]
    EarlyData,
    /// A request for encryption at the wrong time.
    #[error("{0} at the wrong time")]
    Misplaced(&'static str),
    /// The first packet is wrong.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// `options` is wrong.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No user name.
    #[error("no user name in the startup packet")]
    NoUser,
    /// A replication connection of a tenant that may have none.
    #[error("a replication connection, and the tenant does not have `replication = true`")]
    Replication,
    /// A value of `replication` that is none.
    #[error("`replication` is neither a boolean nor `database`")]
    BadReplication,
    /// `tenantry.tenant` is given twice, with two values.
    #[error("`tenantry.tenant` is given twice")]
    TwoTenants,
    /// `tenantry.tenant` is given, but not among the sources.
    #[error("`tenantry.tenant` is given, but it is not among login.tenant_sources")]
    OptionSwitchedOff,
    /// `tenantry.auth` is given twice, or is no way to log in.
    #[error("`tenantry.auth` is no way to log in")]
    BadAuthWish,
    /// `tenantry.target` is given twice, or is no target.
    #[error("`tenantry.target` is neither `primary` nor `replica`, or is said twice")]
    BadTarget,
    /// A login by token where none are taken.
    #[error("a login by token, but there is no `[jwt]`")]
    NoTokens,
    /// A login by token without TLS.
    #[error("a login by token without TLS")]
    TokenInClear,
    /// More clients than allowed.
    #[error("{max} clients are connected already")]
    TooManyClients {
        /// The limit.
        max: usize,
    },
    /// A message of the authentication has the wrong shape or type.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Another message than a response to our challenge.
    #[error("a message of type {:?} instead of a SASL response", char::from(*.0))]
    NotAResponse(u8),
    /// The authentication failed.
    #[error("authentication failed: {why:?}")]
    Scram {
        /// Who it was said to be.
        user: String,
        /// Why.
        why: ScramError,
    },
    /// An OAUTHBEARER message has the wrong shape, for this reason.
    #[error("malformed OAUTHBEARER message: {0}")]
    Bearer(&'static str),
    /// The client has no token and asked where to get one; it was told.
    #[error("the client asked where to get a token")]
    Discovery {
        /// Who it was said to be.
        user: String,
    },
    /// A database that the tenant does not have.
    #[error("the tenant has no database of that name")]
    UnknownDatabase {
        /// Who it is.
        user: String,
        /// The database it asked for.
        database: String,
    },
    /// The system gave no random bytes.
    #[error("no random bytes")]
    NoRandomness,
}

impl LoginFailure {
    /// What is counted.
    pub(super) const fn result(&self) -> LoginResult {
        match self {
            Self::Disconnected => LoginResult::Disconnected,
            Self::Timeout => LoginResult::Timeout,
            Self::ShuttingDown => LoginResult::ShuttingDown,
            Self::TlsFailed(_) | Self::TlsNotOffered => LoginResult::TlsFailed,
            Self::TlsRequired => LoginResult::TlsRequired,
            Self::Startup(StartupError::Protocol(_)) | Self::Replication => LoginResult::Unsupported,
            Self::ProxyHeader(_)
            | Self::EarlyData
            | Self::Misplaced(_)
            | Self::Startup(_)
            | Self::Message(_)
            | Self::Bearer(_)
            | Self::NotAResponse(_) => LoginResult::ProtocolViolation,
            Self::TokenInClear => LoginResult::TlsRequired,
            Self::Discovery { .. } => LoginResult::Discovery,
            Self::Options(_)
            | Self::NoUser
            | Self::TwoTenants
            | Self::BadTarget
            | Self::OptionSwitchedOff
            | Self::BadAuthWish
            | Self::BadReplication
            | Self::NoTokens => LoginResult::BadParameter,
            Self::TooManyClients { .. } => LoginResult::TooManyClients,
            Self::Scram { why: ScramError::Refused(_), .. } => LoginResult::BadPassword,
            Self::Scram { .. } => LoginResult::ProtocolViolation,
            Self::UnknownDatabase { .. } => LoginResult::UnknownDatabase,
            Self::NoRandomness => LoginResult::Internal,
        }
    }

    /// The stable word for the log; finer than what the client is told.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Scram { why: ScramError::Refused(refusal), .. } => refusal.as_str(),
            Self::Discovery { .. } => Refusal::TokenWanted.as_str(),
            other => other.to_client().map_or(other.result().as_str(), |error| error.reason),
        }
    }

    /// The error for the client; `None` where nobody listens, or an answer would be taken for something else.
    pub(super) fn to_client(&self) -> Option<ClientError> {
        Some(match self {
            // A sender of cancel requests expects no answer but the end of the connection.
            Self::Startup(StartupError::CancelLength)
            | Self::Disconnected
            | Self::Timeout
            | Self::TlsFailed(_)
            | Self::TlsNotOffered => return None,
            Self::Startup(error) => error.to_client(),
            Self::Options(error) => error.to_client(),
            Self::Scram { user, why } => why.to_client(user),
            Self::Discovery { user } => Refusal::TokenWanted.to_client(user),
            Self::Bearer(why) => protocol("bad_bearer", "malformed OAUTHBEARER message").with_detail(*why),
            Self::BadAuthWish => {
                let text = "\"tenantry.auth\" must be one of scram, oauthbearer and password";
                ClientError::fatal(SqlState::INVALID_PARAMETER_VALUE, Fault::Client, "bad_auth_wish", text)
            }
            Self::BadTarget => {
                let text = "\"tenantry.target\" must be primary or replica, and agree with the user name";
                ClientError::fatal(SqlState::INVALID_PARAMETER_VALUE, Fault::Client, "bad_target", text)
                    .with_hint("A user name that ends in +replica asks for a replica, too.")
            }
            Self::BadReplication => {
                let text = "invalid value for parameter \"replication\"";
                ClientError::fatal(SqlState::INVALID_PARAMETER_VALUE, Fault::Client, "bad_replication", text)
                    .with_hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")
            }
            Self::NoTokens => not_allowed("no_tokens", "logins by token are not accepted here")
                .with_hint("Leave \"tenantry.auth\" out."),
            Self::TokenInClear => not_allowed("token_in_clear", "a token is accepted only over TLS")
                .with_hint("Connect with sslmode=require or stronger."),
            Self::ProxyHeader(_) => {
                protocol("bad_proxy_header", "expected a PROXY protocol header from this address").with_hint(
                    "Have the load balancer send one, or take its address out of listen.proxy_protocol.",
                )
            }
            Self::EarlyData => protocol(
                "early_data",
                "received unencrypted data after a request for encryption",
            )
            .with_detail(
                "This could be either a client-software bug or evidence of an attempted man-in-the-middle \
                     attack.",
            ),
            Self::Misplaced(_) => protocol("misplaced_request", "encryption was requested at the wrong time"),
            Self::Message(_) => protocol("bad_message", "malformed or oversized authentication message"),
            Self::NotAResponse(_) => protocol("unexpected_message", "expected a SASL response"),
            Self::TwoTenants => {
                protocol("two_tenants", "\"tenantry.tenant\" is given twice, with different values")
            }
            Self::TlsRequired => not_allowed("tls_required", "this proxy accepts only TLS connections")
                .with_hint("Connect with sslmode=require or stronger."),
            Self::NoUser => not_allowed("no_user", "no PostgreSQL user name specified in startup packet"),
            Self::OptionSwitchedOff => not_allowed(
                "option_switched_off",
                "the startup option \"tenantry.tenant\" is not accepted here",
            )
            .with_hint("Name the tenant in one of the ways that login.tenant_sources lists."),
            Self::Replication => replication(),
            Self::TooManyClients { max } => too_many_clients(*max),
            Self::UnknownDatabase { database, .. } => unknown_database(database),
            Self::ShuttingDown => {
                let text = "the proxy is shutting down";
                ClientError::fatal(SqlState::CANNOT_CONNECT_NOW, Fault::Proxy, "shutting_down", text)
            }
            Self::NoRandomness => {
                let text = "internal error during login";
                ClientError::fatal(SqlState::INTERNAL_ERROR, Fault::Proxy, "no_randomness", text)
            }
        })
    }

    /// Whether an operator has to do something about it.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::NoRandomness | Self::Scram { why: ScramError::Refused(Refusal::BadVerifier), .. }
        )
    }
}

fn protocol(reason: &'static str, text: &'static str) -> ClientError {
    ClientError::fatal(SqlState::PROTOCOL_VIOLATION, Fault::Client, reason, text)
}

fn not_allowed(reason: &'static str, text: &'static str) -> ClientError {
    ClientError::fatal(SqlState::INVALID_AUTHORIZATION, Fault::Client, reason, text)
}

fn replication() -> ClientError {
    let text = "replication connections are not allowed for this tenant";
    ClientError::fatal(SqlState::FEATURE_NOT_SUPPORTED, Fault::Client, "replication", text)
        .with_detail("What a replication connection reads is not bound to one tenant, so each tenant has to be allowed to.")
        .with_hint("Connect to PostgreSQL directly, or have the operator set replication = true for the tenant.")
}

fn too_many_clients(max: usize) -> ClientError {
    let text = "sorry, too many clients already";
    ClientError::fatal(SqlState::TOO_MANY_CONNECTIONS, Fault::Proxy, "too_many_clients", text)
        .with_detail(format!("The proxy accepts {max} clients in all (listen.max_clients)."))
        .with_hint("Close clients that are not needed, or use a smaller pool in the application.")
}

fn unknown_database(name: &str) -> ClientError {
    let text = format!("database \"{}\" does not exist", shown(name));
    ClientError::fatal(SqlState::INVALID_CATALOG_NAME, Fault::Client, "unknown_database", text)
}
