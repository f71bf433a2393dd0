//! The proxy's own sessions on a cluster: reading its limits, asking about roles.
//!
//! Owns [`AdminSession`] and [`server_limits`]. It logs in the way tenants' servers do, so that what works here (hosts,
//! TLS, channel binding) works there.

use std::time::Duration;

use tokio::time::timeout;

use super::close::{Farewell, close_with};
use super::connector::Connector;
use super::error::{LoginError, LoginFailure};
use super::link::Link;
use super::login::login;
use super::profile::Profile;
use super::query;
use crate::config::settings::{AdminLogin, Cluster};

/// Why the proxy's own question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The cluster has no admin login.
    #[error("cluster `{0}` has no admin login")]
    NoLogin(String),
    /// The login failed.
    #[error("admin login: {0}")]
    Login(LoginError),
    /// The query failed.
    #[error("admin query: {0}")]
    Query(LoginFailure),
    /// The query took too long.
    #[error("admin query: no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The answer is not what was asked for.
    #[error("admin query: unexpected answer")]
    Answer,
}

/// A session of the cluster's admin role.
#[derive(Debug)]
pub struct AdminSession {
    link: Link,
    limit: Duration,
}

impl AdminSession {
    /// Logs in. Cancel-safe.
    ///
    /// # Errors
    /// If the login fails.
    pub async fn open(connector: &Connector, login_as: &AdminLogin) -> Result<Self, AdminError> {
        let server = login(&Profile::for_admin(connector, login_as)).await.map_err(AdminError::Login)?;
        Ok(Self { link: Link::new(server.stream), limit: connector.connect_timeout() })
    }

    /// Runs one statement and returns its rows as text, `None` for NULL. At most a megabyte, within `connect_timeout`.
    /// Not cancel-safe: the session must be dropped then.
    ///
    /// # Errors
    /// If the statement fails or takes too long.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, AdminError> {
        match timeout(self.limit, query::run(&mut self.link, sql)).await {
            Ok(result) => result.map_err(AdminError::Query),
            Err(_) => Err(AdminError::Timeout(self.limit)),
        }
    }

    /// Closes the session and waits, within `connect_timeout`, until its slot is free.
    pub async fn close(self) {
        let _ = timeout(self.limit, close_with(self.link.into_stream(), Farewell::Terminate)).await;
    }
}

/// How many connections a server accepts, and how many of them are not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections`.
    pub superuser_reserved: u32,
    /// `reserved_connections` (PostgreSQL 16); 0 before.
    pub reserved: u32,
}

impl ServerLimits {
    /// Connections that an ordinary role can have.
    #[must_use]
    pub const fn usable(self) -> u32 {
        self.max_connections.saturating_sub(self.superuser_reserved).saturating_sub(self.reserved)
    }
}

/// Asks a cluster for its limits. Cancel-safe.
///
/// # Errors
/// If there is no admin login, or the cluster does not answer.
pub async fn server_limits(connector: &Connector, cluster: &Cluster) -> Result<ServerLimits, AdminError> {
    let login_as = cluster.admin.as_ref().ok_or_else(|| AdminError::NoLogin(cluster.name.to_string()))?;
    let mut session = AdminSession::open(connector, login_as).await?;
    let rows = session.rows(LIMITS_SQL).await;
    session.close().await;
    let rows = rows?;
    let setting = |wanted: &str| {
        rows.iter().find_map(|row| match row.as_slice() {
            [Some(name), Some(value)] if name == wanted => value.parse::<u32>().ok(),
            _ => None,
        })
    };
    Ok(ServerLimits {
        max_connections: setting("max_connections").ok_or(AdminError::Answer)?,
        superuser_reserved: setting("superuser_reserved_connections").ok_or(AdminError::Answer)?,
        reserved: setting("reserved_connections").unwrap_or(0),
    })
}

const LIMITS_SQL: &str = "SELECT name, setting FROM pg_catalog.pg_settings \
    WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')";
