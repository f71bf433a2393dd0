//! How many servers each cluster may have: asked of the server, or taken from the file, and checked against what
//! tenants were promised.
//!
//! Owns the asking. The arithmetic is `config::check`'s.

use crate::backend::Connector;
use crate::backend::admin::{AdminError, server_limits};
use crate::config::check::{self, ServerNumbers, SumError};
use crate::config::settings::{AdminLogin, Cluster, MaxConnections, Settings};
use crate::tenant::ServerAuth;

/// Why a cluster has no budget.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The server could not be asked.
    #[error("cluster `{cluster}`: cannot read the server's limits for max_connections = \"auto\": {error}")]
    Ask {
        /// The cluster's name.
        cluster: String,
        /// What went wrong.
        error: AdminError,
    },
    /// The sums do not work out.
    #[error(transparent)]
    Sums(#[from] SumError),
}

/// Servers that Tenantry may have, by cluster number.
///
/// # Errors
/// If a server cannot be asked, or a sum is impossible; the text shows the arithmetic.
pub async fn budgets(settings: &Settings, connectors: &[Connector]) -> Result<Vec<u32>, BudgetError> {
    let mut budgets = Vec::with_capacity(settings.clusters.len());
    for (cluster, connector) in settings.clusters.iter().zip(connectors) {
        let budget = match cluster.max_connections {
            MaxConnections::Fixed(connections) => connections,
            MaxConnections::Auto => ask(settings, cluster, connector).await?,
        };
        let tenants = settings.catalog.iter().map(|tenant| &**tenant);
        for warning in check::sums(cluster, budget, settings.threads.workers, tenants)? {
            tracing::warn!(reason = "budget_sum", "{}", warning.text);
        }
        budgets.push(budget);
    }
    Ok(budgets)
}

async fn ask(settings: &Settings, cluster: &Cluster, connector: &Connector) -> Result<u32, BudgetError> {
    let asked =
        Cluster { admin: cluster.admin.clone().or_else(|| any_tenant(settings, cluster)), ..cluster.clone() };
    let limits = server_limits(connector, &asked)
        .await
        .map_err(|error| BudgetError::Ask { cluster: cluster.name.to_string(), error })?;
    let numbers = ServerNumbers {
        max_connections: limits.max_connections,
        superuser_reserved: limits.superuser_reserved,
        reserved: limits.reserved,
    };
    Ok(check::budget(cluster, numbers)?)
}

/// Every role may read these settings, so without a login of our own a tenant's does.
fn any_tenant(settings: &Settings, cluster: &Cluster) -> Option<AdminLogin> {
    let home = cluster.replica_of.map_or(cluster.id, |of| of.primary);
    let tenant =
        settings.catalog.iter().filter(|tenant| tenant.cluster == home).min_by_key(|tenant| tenant.id)?;
    let password = match &tenant.server_auth {
        ServerAuth::Password(password) => Some(password.clone()),
        ServerAuth::None => None,
    };
    Some(AdminLogin { user: tenant.role.clone(), password, database: tenant.database.clone() })
}
