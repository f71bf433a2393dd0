//! Where telemetry gets its facts: one report per scrape, one readiness per probe.
//!
//! Owns the trait and the values that cross it. Must not know how they are collected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::why::Explained;
use crate::budget::Command;
use crate::config::settings::Settings;
use crate::stats::{TraceReport, WorkerReport};
use crate::tenant::Secret;

/// The running proxy, as telemetry sees it.
pub trait Source: Send + Sync + 'static {
    /// Asks every worker for its counters. Cancel-safe: an answer nobody waits for is dropped.
    fn report(&self) -> Pin<Box<dyn Future<Output = ProxyReport> + Send + '_>>;

    /// Whether new clients should be sent here; answered without asking anybody.
    fn readiness(&self) -> Readiness;

    /// Why a tenant's clients wait; `None` if there is no such tenant. Cancel-safe.
    fn explain(&self, tenant: &str) -> Pin<Box<dyn Future<Output = Option<Explained>> + Send + '_>>;

    /// Has a tenant held up, slowed down or let go on. Returns whether there is such a tenant.
    fn steer(&self, tenant: &str, command: Command) -> bool;

    /// Who shows this may do that; `None`: nobody may.
    fn token(&self) -> Option<Secret>;
}

/// All that the proxy has to say at one instant.
#[derive(Clone, Debug)]
pub struct ProxyReport {
    /// One report per worker.
    pub workers: Vec<WorkerReport>,
    /// The settings in force, with the catalog.
    pub settings: Arc<Settings>,
    /// Client logins since start, by stable result.
    pub logins: Vec<(&'static str, u64)>,
    /// Clients connected, authenticated or not.
    pub clients: usize,
    /// Clients that have not finished logging in.
    pub half_open: usize,
    /// When the listener's certificate ends, in seconds since 1970; `None` without TLS.
    pub certificate_not_after: Option<i64>,
    /// When the process started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Reloads that were applied.
    pub config_reloads_ok: u64,
    /// Reloads that were refused whole.
    pub config_reloads_failed: u64,
    /// What has been recorded of requests.
    pub trace: TraceReport,
    /// Whether the proxy is stopping.
    pub draining: bool,
}

/// Whether new clients should be sent here, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Where the process is in its life.
    pub phase: Phase,
    /// Every cluster of the configuration.
    pub clusters: Vec<ClusterHealth>,
}

impl Readiness {
    /// Ready: serving, and at least one cluster can be reached. One lost cluster of several does not take the
    /// tenants of the others away; a proxy without clusters has nothing it could fail to reach.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Serving && self.reaches_a_cluster()
    }

    /// Whether at least one cluster can be reached, or there is none.
    #[must_use]
    pub fn reaches_a_cluster(&self) -> bool {
        self.clusters.is_empty() || self.clusters.iter().any(|cluster| cluster.reachable)
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Listeners are not open yet.
    Starting,
    /// Clients are welcome.
    Serving,
    /// Stopping: running transactions finish, new clients go elsewhere.
    Draining,
}

impl Phase {
    /// The phase's name on `/readyz?verbose`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// Whether a cluster can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterHealth {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Whether the last connect succeeded, or none has been needed yet.
    pub reachable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(phase: Phase, reachable: &[bool]) -> Readiness {
        let clusters = reachable
            .iter()
            .map(|reachable| ClusterHealth { name: "main".into(), reachable: *reachable })
            .collect();
        Readiness { phase, clusters }
    }

    #[test]
    fn one_reachable_cluster_is_enough_and_only_while_serving() {
        assert!(readiness(Phase::Serving, &[false, true]).is_ready());
        assert!(readiness(Phase::Serving, &[]).is_ready());
        assert!(!readiness(Phase::Serving, &[false, false]).is_ready());
        assert!(!readiness(Phase::Starting, &[true]).is_ready());
        assert!(!readiness(Phase::Draining, &[true]).is_ready());
    }
}
