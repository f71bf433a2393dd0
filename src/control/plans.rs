//! What each worker is to work by: the settings, the connectors, its part of every budget.
//!
//! Owns the division of a budget among workers. Parts add up to the budget exactly.

use std::sync::Arc;

use crate::backend::Connector;
use crate::config::settings::Settings;
use crate::net::tls::TlsError;
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
) -> Vec<Plan> {
    (0..workers)
        .map(|worker| Plan {
            settings: settings.clone(),
            connectors: connectors.to_vec(),
            capacities: budgets.iter().map(|budget| part(*budget, worker, workers)).collect(),
        })
        .collect()
}

/// The part of worker number `worker` of `workers`; the first ones get what does not divide.
fn part(budget: u32, worker: usize, workers: usize) -> u32 {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    let worker = u32::try_from(worker).unwrap_or(u32::MAX);
    let extra = u32::from(worker < budget % workers);
    (budget / workers).saturating_add(extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_budget() {
        for budget in 0..40 {
            for workers in 1..7 {
                let sum: u32 = (0..workers).map(|worker| part(budget, worker, workers)).sum();
                assert_eq!(sum, budget);
            }
        }
    }
}
