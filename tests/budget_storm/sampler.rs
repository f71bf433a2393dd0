//! Counts servers every few milliseconds, as Postgres sees them and as the proxy says.
//!
//! Owns the two highest counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::{Metrics, Stage};

/// Every client of Postgres but superusers; those that are still logging in have no name yet.
const COUNT: &str = "SELECT count(*)::int FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM 'postgres'";

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) taken: u32,
    pub(crate) postgres_max: u32,
    pub(crate) proxy_max: u32,
    /// The sum of all tenants' servers by state.
    pub(crate) states_max: u32,
}

/// Counting, until stopped.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    tasks: [JoinHandle<Samples>; 2],
}

impl Sampler {
    /// Panics at once when there are more than `limit`, so that the log ends near the moment.
    ///
    /// The proxy's own count is of one instant only where there is one worker: with several it is a sum of what each
    /// said at a moment of its own, and a permit that moved in between is counted twice. Then it is not held to the limit.
    pub(crate) async fn start(stage: &Stage, limit: u32) -> Self {
        let one_worker = stage.plan.setting("threads", "workers") == "1";
        let stop = Arc::new(AtomicBool::new(false));
        let (admin, http) = (stage.admin().await, stage.proxy().http);
        let ended = stop.clone();
        let postgres = tokio::spawn(async move {
            let (mut samples, mut tick) =
                (Samples::default(), tokio::time::interval(Duration::from_millis(5)));
            while !ended.load(Ordering::Relaxed) {
                tick.tick().await;
                let count = count(&admin).await;
                samples.taken += 1;
                samples.postgres_max = samples.postgres_max.max(count);
                assert!(count <= limit, "Postgres counts {count} servers of {limit}");
            }
            samples
        });
        let ended = stop.clone();
        let proxy = tokio::spawn(async move {
            let (mut samples, mut tick) =
                (Samples::default(), tokio::time::interval(Duration::from_millis(50)));
            while !ended.load(Ordering::Relaxed) {
                tick.tick().await;
                let metrics = Metrics::scrape(http).await;
                let states = metrics.sum("tenantry_tenant_servers", &[]);
                let used = metrics.sum("tenantry_cluster_used_permits", &[]);
                samples.proxy_max = samples.proxy_max.max(whole(used));
                samples.states_max = samples.states_max.max(whole(states));
                assert!(
                    !one_worker || used.max(states) <= f64::from(limit),
                    "the proxy counts {used} servers of {limit}, by state {states}"
                );
            }
            samples
        });
        Self { stop, tasks: [postgres, proxy] }
    }

    pub(crate) async fn stop(self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        let [postgres, proxy] = self.tasks;
        let (postgres, proxy) = (postgres.await.unwrap(), proxy.await.unwrap());
        Samples { taken: postgres.taken, postgres_max: postgres.postgres_max, ..proxy }
    }
}

/// Servers at Postgres, those that are logging in included.
pub(crate) async fn count(admin: &tokio_postgres::Client) -> u32 {
    let count: i32 = admin.query_one(COUNT, &[]).await.unwrap().get(0);
    count.unsigned_abs()
}

/// A count out of the text format.
fn whole(value: f64) -> u32 {
    format!("{value:.0}").parse().unwrap()
}
