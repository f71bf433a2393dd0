//! Looks at the servers while the load runs: Postgres' own list, and the proxy's count.
//!
//! Owns the highest numbers seen. The two sources are independent: a server that only one of them knew would show.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;

use super::plan::{Habit, Member};
use crate::telemetry::ProxyReport;
use crate::tenant::Tier;
use crate::throwaway::Cluster;

/// The pause between two looks.
const PERIOD: Duration = Duration::from_millis(20);

/// What has been seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Looks at Postgres.
    pub(super) looks: u64,
    /// Servers of each [`Habit`] at the last look.
    pub(super) now: [u32; 4],
    /// The most servers at one look.
    pub(super) most: u32,
    /// The most servers of each [`Habit`] at one look.
    pub(super) most_of: [u32; 4],
}

impl Seen {
    fn note(&mut self, now: [u32; 4]) {
        self.looks += 1;
        self.now = now;
        self.most = self.most.max(now.iter().sum());
        for (most, now) in self.most_of.iter_mut().zip(now) {
            *most = (*most).max(now);
        }
    }
}

/// A view of `pg_stat_activity` in a session of its own.
pub(super) struct Observer {
    client: Client,
    statement: Statement,
    noisy: Vec<String>,
}

impl Observer {
    /// Opens the session.
    pub(super) async fn new(cluster: &Cluster, members: &[Member]) -> Result<Self> {
        let client = cluster.admin("postgres").await?;
        // Sessions of tenants, whoever opened them: nobody but the proxy may.
        let sql = "SELECT usename::text, count(*) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND starts_with(usename::text, 'tenant_') GROUP BY 1";
        let statement = client.prepare(sql).await?;
        let noisy = members.iter().filter(|member| member.habit == Habit::Noisy).map(Member::role).collect();
        Ok(Self { client, statement, noisy })
    }

    /// Servers of each [`Habit`] at this moment.
    pub(super) async fn look(&self) -> Result<[u32; 4]> {
        let mut servers = [0; 4];
        for row in self.client.query(&self.statement, &[]).await? {
            let role: &str = row.try_get(0)?;
            let count = u32::try_from(row.try_get::<_, i64>(1)?)?;
            if let Some(sum) = servers.get_mut(self.habit(role).index()) {
                *sum += count;
            }
        }
        Ok(servers)
    }

    /// Looks again and again until told to stop.
    pub(super) async fn watch(self, seen: Arc<Mutex<Seen>>, stop: CancellationToken) -> Result<Self> {
        let mut timer = tokio::time::interval(PERIOD);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            timer.tick().await;
            let now = self.look().await.context("looking at pg_stat_activity")?;
            seen.lock().note(now);
        }
        Ok(self)
    }

    fn habit(&self, role: &str) -> Habit {
        if self.noisy.iter().any(|noisy| noisy == role) {
            return Habit::Noisy;
        }
        let starts =
            |tier: Tier| role.strip_prefix("tenant_").is_some_and(|name| name.starts_with(tier.as_str()));
        Habit::ALL.into_iter().find(|habit| starts(habit.tier())).unwrap_or(Habit::Cold)
    }
}

/// The proxy's own numbers at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    /// Permits it may use.
    pub(super) capacity: u32,
    /// Permits in use.
    pub(super) used: u32,
    /// Clients that wait for a server.
    pub(super) waiting: u32,
}

impl Ledger {
    /// Sums up the workers.
    pub(super) fn of(report: &ProxyReport) -> Self {
        let mut ledger = Self::default();
        for worker in &report.workers {
            for cluster in &worker.clusters {
                ledger.capacity += cluster.capacity;
                ledger.used += cluster.permits_used;
            }
            ledger.waiting += worker.tenants.iter().map(|tenant| tenant.gauges.cl_waiting).sum::<u32>();
        }
        ledger
    }
}
