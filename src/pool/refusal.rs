//! Why a client gets no server.
//!
//! Owns the wording towards clients. The decision is the scheduler's.

use super::desk::Desk;
use super::tenant::TenantState;
use crate::budget::RejectReason;
use crate::error::{ClientError, ClientFacing, Fault, Severity, SqlState};
use crate::tenant::PoolMode;

/// A request for a lease that ends without one.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The scheduler said no.
    Rejected {
        /// Its reason.
        reason: RejectReason,
        /// Servers of the tenant on this worker when it said so.
        held: u32,
        /// The most it may have there.
        ceiling: u32,
        /// Workers that the tenant is spread over.
        workers: u32,
        /// The error of the last server login, if that is the reason, or why no further server came.
        login: Option<Box<ClientError>>,
    },
    /// The client asked for its waiting request to be cancelled.
    Cancelled,
}

impl Refusal {
    /// The scheduler's no to a request of this tenant's, if it is known.
    pub(super) fn by(desk: &Desk, reason: RejectReason, tenant: Option<&TenantState>) -> Self {
        let (opening, there, ceiling) = tenant.map_or((0, 0, 0), |tenant| {
            let (opening, there) = desk.scheduler.tenant(tenant.id).map_or((0, 0), |view| {
                (view.opening, view.idle.saturating_add(view.busy).saturating_add(view.closing))
            });
            (opening, there, tenant.tenant().allowance.ceiling)
        });
        let login = match reason {
            RejectReason::Unavailable => desk.unavailable.clone(),
            RejectReason::Rejected => tenant.and_then(|tenant| tenant.login_error()),
            // With all it may have, the tenant would not get another one if its login were good.
            RejectReason::QueueTimeout { .. } | RejectReason::QueueFull if there < ceiling => {
                tenant.and_then(|tenant| tenant.login_error())
            }
            RejectReason::QueueTimeout { .. }
            | RejectReason::QueueFull
            | RejectReason::HopelessWait { .. }
            | RejectReason::RateLimited { .. }
            | RejectReason::Suspended
            | RejectReason::TenantRemoved
            | RejectReason::UnknownTenant => None,
        };
        let workers = tenant.map_or(1, |tenant| tenant.tenant().workers);
        Self::Rejected { reason, held: there.saturating_add(opening), ceiling, workers, login }
    }

    /// Whether it is about this cluster only: Postgres cannot be reached, does not let the tenant in, or the tenant reads
    /// there no longer.
    #[must_use]
    pub const fn is_of_one_cluster(&self) -> bool {
        use RejectReason::{Rejected, TenantRemoved, Unavailable, UnknownTenant};
        matches!(self, Self::Rejected { reason: Unavailable | Rejected | TenantRemoved | UnknownTenant, .. })
    }

    /// A stable word for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Rejected { reason, .. } => reason.as_str(),
            Self::Cancelled => "cancelled",
        }
    }

    /// The same for a client that is not greeted yet: there is no session that could go on.
    #[must_use]
    pub fn at_login(&self, mode: PoolMode) -> ClientError {
        let error = ClientError { severity: Severity::Fatal, ..self.to_client() };
        let Self::Rejected { reason, login, .. } = self else { return error };
        let hint = match (reason, mode) {
            (RejectReason::QueueTimeout { .. } | RejectReason::QueueFull, _) if login.is_some() => {
                TELL_THE_OPERATOR_OF_IT
            }
            (RejectReason::QueueTimeout { .. } | RejectReason::QueueFull, PoolMode::Session) => {
                "In session mode a client has a server from its login on: close sessions that are not needed, use \
                 transaction mode, or raise the tenant's tier."
            }
            (RejectReason::QueueTimeout { .. } | RejectReason::QueueFull, PoolMode::Transaction) => {
                "Connect again, use shorter transactions, or raise the tenant's tier."
            }
            (RejectReason::Unavailable | RejectReason::Rejected, _) if login.is_none() => {
                "Connect again shortly."
            }
            (
                RejectReason::HopelessWait { .. }
                | RejectReason::RateLimited { .. }
                | RejectReason::Suspended,
                _,
            ) => "Connect again later.",
            (
                RejectReason::Unavailable
                | RejectReason::Rejected
                | RejectReason::TenantRemoved
                | RejectReason::UnknownTenant,
                _,
            ) => return error,
        };
        error.with_hint(hint)
    }
}

impl ClientFacing for Refusal {
    fn to_client(&self) -> ClientError {
        match self {
            Self::Rejected { reason, held, ceiling, workers, login } => {
                rejected(*reason, &holding(*held, *ceiling, *workers), login.as_deref())
            }
            Self::Cancelled => ClientError::error(
                SqlState::QUERY_CANCELED,
                Fault::Client,
                "cancelled",
                "canceling statement due to user request",
            )
            .with_detail("The statement was still waiting for a server connection."),
        }
    }
}

/// What a tenant has, of what it may have.
fn holding(held: u32, ceiling: u32, workers: u32) -> String {
    let here = if workers > 1 { format!(" on this one of its {workers} workers") } else { String::new() };
    format!("his tenant holds {held} of at most {ceiling} server connections{here}")
}

fn rejected(reason: RejectReason, holding: &str, login: Option<&ClientError>) -> ClientError {
    let busy = |message: &'static str| {
        ClientError::error(SqlState::TOO_MANY_CONNECTIONS, Fault::Proxy, reason.as_str(), message)
    };
    match reason {
        RejectReason::QueueTimeout { waited_us, cause } => busy("no server connection became free in time")
            .with_detail(format!(
                "Waited {} ms ({}); t{holding}{}.",
                waited_us / 1_000,
                cause.as_str(),
                no_more(login)
            ))
            .with_hint(match login {
                None => {
                    "The session goes on: try again, use shorter transactions, or raise the tenant's tier."
                }
                Some(_) => TELL_THE_OPERATOR,
            }),
        RejectReason::QueueFull => busy("too many requests wait for a server connection")
            .with_detail(format!("T{holding}{}.", no_more(login)))
            .with_hint(match login {
                None => "The session goes on: try again later, or raise max_waiters.",
                Some(_) => TELL_THE_OPERATOR,
            }),
        RejectReason::HopelessWait { expected_us, retry_us } => {
            busy("waiting for a server connection would take too long")
                .with_detail(format!(
                    "As its queue moves now, the request would be served after {} ms, which is past its queue_timeout; \
                     t{holding}.",
                    expected_us / 1_000
                ))
                .with_hint(format!("The session goes on: try again after {} ms, or later.", retry_us.div_ceil(1_000)))
        }
        RejectReason::RateLimited { retry_us } => busy("the tenant begins too many transactions")
            .with_detail("Its transactions_per_second are used up, and so is the delay that is allowed.")
            .with_hint(format!("The session goes on: try again after {} ms.", retry_us.div_ceil(1_000))),
        RejectReason::Suspended => ClientError::error(
            SqlState::CANNOT_CONNECT_NOW,
            Fault::Proxy,
            reason.as_str(),
            "the tenant is suspended",
        )
        .with_detail("An operator has suspended it; transactions that ran were not touched.")
        .with_hint("The session goes on: try again later."),
        RejectReason::Unavailable | RejectReason::Rejected => login.cloned().unwrap_or_else(|| {
            ClientError::error(
                SqlState::CANNOT_CONNECT,
                Fault::Server,
                reason.as_str(),
                "the database server cannot be reached",
            )
            .with_hint("The session goes on: try again shortly.")
        }),
        RejectReason::TenantRemoved | RejectReason::UnknownTenant => ClientError::fatal(
            SqlState::ADMIN_SHUTDOWN,
            Fault::Proxy,
            reason.as_str(),
            "terminating connection because the tenant was removed",
        ),
    }
}

/// Why the tenant gets no further server, in words that may follow what it has.
fn no_more(login: Option<&ClientError>) -> String {
    let Some(login) = login else { return String::new() };
    let refused =
        "; new ones are not to be had, because the database server refuses the login for this tenant";
    match &login.detail {
        Some(detail) => format!("{refused}. {}", detail.trim_end_matches('.')),
        None => refused.to_owned(),
    }
}

const TELL_THE_OPERATOR_OF_IT: &str =
    "Tell the operator: the tenant's role, database or credentials need attention.";
const TELL_THE_OPERATOR: &str = "The session goes on, with what the tenant has. Tell the operator: the tenant's role, \
                                 database or credentials need attention.";
