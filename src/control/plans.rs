//! What each worker is to work by: the settings, the connectors, its part of every budget.
//!
//! Owns the making of plans. How a budget is divided at first, and later, is `budget::Exchange`'s.

use std::sync::Arc;

use crate::backend::Connector;
use crate::budget::Exchange;
use crate::config::settings::Settings;
use crate::net::tls::TlsError;
use crate::pool::Recording;
use crate::worker::Plan;

/// Why settings cannot be worked by.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A cluster's certificates cannot be used.
    #[error("cluster `{cluster}`: {error}")]
    Tls {
        /// The cluster's name.
        cluster: String,
        /// What is wrong with them.
        error: Box<TlsError>,
    },
}

/// One connector per cluster, by cluster number.
///
/// # Errors
/// If a cluster's certificates cannot be used.
pub fn connectors(settings: &Settings) -> Result<Vec<Connector>, PlanError> {
    let connect = |cluster: &Arc<crate::config::settings::Cluster>| {
        Connector::new(cluster, &settings.servers)
            .map_err(|error| PlanError::Tls { cluster: cluster.name.to_string(), error: Box::new(error) })
    };
    settings.clusters.iter().map(connect).collect()
}

/// One plan per worker.
#[must_use]
pub fn plans(
    settings: &Arc<Settings>,
    connectors: &[Connector],
    budgets: &[u32],
    workers: usize,
    recording: Option<&Recording>,
) -> Vec<Plan> {
    let shortest_limit = settings.catalog.iter().filter_map(|tenant| tenant.time_limits.shortest()).min();
    (0..workers)
        .map(|worker| Plan {
            settings: settings.clone(),
            connectors: connectors.to_vec(),
            capacities: budgets
                .iter()
                .map(|budget| Exchange::new(*budget, workers).capacity(worker))
                .collect(),
            shares_budgets: workers > 1,
            recording: recording.cloned(),
            shortest_limit,
        })
        .collect()
}
