//! What telemetry is told about a running proxy.
//!
//! Owns the collecting over all parts. Asked per scrape or probe, never per query.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use crate::budget::Command;
use crate::front::Front;
use crate::telemetry::{ClusterHealth, Explained, Phase, ProxyReport, Readiness, Source};
use crate::tenant::Secret;

/// The proxy as a source of telemetry.
pub(super) struct Reporter {
    inner: Arc<Inner>,
    front: Front,
}

impl Reporter {
    pub(super) const fn new(inner: Arc<Inner>, front: Front) -> Self {
        Self { inner, front }
    }
}

impl Source for Reporter {
    fn report(&self) -> Pin<Box<dyn Future<Output = ProxyReport> + Send + '_>> {
        Box::pin(report(&self.inner, &self.front))
    }

    fn readiness(&self) -> Readiness {
        let settings = self.inner.settings.load();
        let clusters = settings
            .clusters
            .iter()
            // Without a replica its readers go to the primary.
            .filter(|cluster| cluster.replica_of.is_none())
            .map(|cluster| ClusterHealth {
                name: cluster.name.clone(),
                reachable: self.inner.fleet.reaches(cluster.id),
            })
            .collect();
        let draining = self.inner.draining.load(Ordering::Acquire);
        Readiness { phase: if draining { Phase::Draining } else { Phase::Serving }, clusters }
    }

    fn explain(&self, tenant: &str) -> Pin<Box<dyn Future<Output = Option<Explained>> + Send + '_>> {
        let settings = self.inner.settings.load_full();
        let Some(tenant) = settings.catalog.by_name(tenant).cloned() else { return Box::pin(async { None }) };
        Box::pin(async move {
            let cluster = settings.cluster(tenant.cluster)?.name.clone();
            let workers = self.inner.fleet.explain(tenant.id).await;
            Some(Explained { tenant, cluster, workers })
        })
    }

    fn steer(&self, tenant: &str, command: Command) -> bool {
        let settings = self.inner.settings.load();
        let Some(tenant) = settings.catalog.by_name(tenant) else { return false };
        self.inner.fleet.steer(tenant.id, command);
        tracing::info!(customer_id = %tenant.name, reason = "operator", ?command, "a tenant was steered");
        true
    }

    fn token(&self) -> Option<Secret> {
        self.inner.settings.load().http_token.clone()
    }
}

pub(super) async fn report(inner: &Inner, front: &Front) -> ProxyReport {
    let workers = inner.fleet.report().await;
    ProxyReport {
        workers,
        settings: inner.settings.load_full(),
        logins: inner.counters.snapshot(),
        clients: front.clients(),
        half_open: front.half_open(),
        certificate_not_after: (**inner.tls.load()).as_ref().and_then(crate::net::tls::ServerTls::not_after),
        started_unix_ms: inner.started_unix_ms,
        config_reloads_ok: inner.reloads_ok.load(Ordering::Relaxed),
        config_reloads_failed: inner.reloads_failed.load(Ordering::Relaxed),
        trace: inner.recorder.report(),
        draining: inner.draining.load(Ordering::Acquire),
    }
}
