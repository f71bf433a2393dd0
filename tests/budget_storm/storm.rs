//! The clients of the storm, and the quiet one beside them.
//!
//! Owns what they do and what they saw. Must not know limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::CLIENTS;
use crate::support::{Fields, Login, Random, Reply, Stage, Wire};

/// What all clients saw together.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) transactions: u64,
    pub(crate) timeouts: u64,
    pub(crate) lost_sessions: u64,
    pub(crate) foreign_rows: u64,
    /// Longest time from a query to its answer, less what the query itself slept.
    pub(crate) longest: Duration,
    pub(crate) unexpected: Vec<String>,
}

/// Clients at work, until stopped.
pub(crate) struct Storm {
    stop: Arc<AtomicBool>,
    pub(crate) transactions: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Outcome>>,
}

impl Storm {
    /// `CLIENTS` of each tenant but the quiet one.
    pub(crate) async fn start(stage: &Stage, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let transactions = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for tenant in stage.plan.tenants.iter().filter(|tenant| tenant.name != "quiet") {
            for _ in 0..CLIENTS {
                let worker = Worker {
                    login: stage.login(&tenant.name),
                    address: stage.address(),
                    random: Random::new(seed.wrapping_add(u64::try_from(tasks.len()).unwrap())),
                    stop: stop.clone(),
                    transactions: transactions.clone(),
                    outcome: Outcome::default(),
                };
                tasks.push(tokio::spawn(worker.run()));
            }
        }
        Self { stop, transactions, tasks }
    }

    pub(crate) async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for task in self.tasks {
            let one = task.await.unwrap();
            sum.transactions += one.transactions;
            sum.timeouts += one.timeouts;
            sum.lost_sessions += one.lost_sessions;
            sum.foreign_rows += one.foreign_rows;
            sum.longest = sum.longest.max(one.longest);
            sum.unexpected.extend(one.unexpected);
        }
        sum.unexpected.truncate(5);
        sum
    }
}

struct Worker {
    login: Login,
    address: std::net::SocketAddr,
    random: Random,
    stop: Arc<AtomicBool>,
    transactions: Arc<AtomicU64>,
    outcome: Outcome,
}

impl Worker {
    async fn run(mut self) -> Outcome {
        while !self.stop.load(Ordering::Relaxed) {
            let mut wire = Wire::connect(self.address).await;
            let reply = wire.log_in(&self.login).await;
            if reply.status.is_none() {
                self.outcome.lost_sessions += 1;
                self.note(&reply);
                continue;
            }
            while !self.stop.load(Ordering::Relaxed) && self.transact(&mut wire).await {}
        }
        self.outcome
    }

    /// One transaction; false if the session was lost.
    async fn transact(&mut self, wire: &mut Wire) -> bool {
        let sleep_ms = 5 + self.random.below(40);
        let sql = format!("SELECT owner, pg_sleep({sleep_ms}e-3) FROM things WHERE id = 1");
        let start = Instant::now();
        let reply = wire.query(&sql).await;
        let waited = start.elapsed().saturating_sub(Duration::from_millis(u64::try_from(sleep_ms).unwrap()));
        self.outcome.longest = self.outcome.longest.max(waited);
        for row in &reply.rows {
            self.outcome.foreign_rows += u64::from(row[0].as_deref() != Some(self.login.user.as_str()));
        }
        if reply.errors.is_empty() && reply.status.is_some() {
            self.outcome.transactions += 1;
            self.transactions.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.outcome.timeouts += u64::from(reply.errors.iter().any(|error| error.code == "53300"));
        self.outcome.lost_sessions += u64::from(reply.status.is_none());
        self.note(&reply);
        reply.status.is_some()
    }

    /// Queue timeouts are allowed, and the deaths that this test causes.
    fn note(&mut self, reply: &Reply) {
        // A login that was shot down (57P01) is answered with 08001 to those who waited for it.
        let allowed = |error: &Fields| {
            ["53300", "57P01", "08006"].contains(&error.code.as_str()) || error.detail.contains("57P01")
        };
        if reply.errors.is_empty() || !reply.errors.iter().all(allowed) {
            self.outcome.unexpected.push(format!("{}: {:?}", self.login.user, reply.errors));
        }
    }
}

/// One client that asks something small now and then.
pub(crate) struct Quiet {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// How long the quiet tenant waited for servers, by the proxy's own histogram.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    leases: f64,
    /// Logins of its own servers.
    logins: f64,
    /// What a login of any server took, on average.
    login_ms: f64,
    /// Waits above 5 ms, and above 250 ms.
    above_5_ms: f64,
    above_250_ms: f64,
}

impl Quiet {
    pub(crate) async fn start(stage: &Stage) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut wire, ended) = (stage.client("quiet").await, stop.clone());
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while !ended.load(Ordering::Relaxed) {
                tick.tick().await;
                assert_eq!(wire.query("SELECT owner FROM things WHERE id = 1").await.value(), "quiet");
            }
        });
        Self { stop, task }
    }

    /// Lets it work alone.
    pub(crate) async fn observe(&self, span: Duration) {
        let mut tick = tokio::time::interval_at(Instant::now() + span, span);
        tick.tick().await;
    }

    pub(crate) async fn waits(&self, stage: &Stage) -> Waits {
        let metrics = stage.proxy().metrics().await;
        let below =
            |bound: &str| metrics.sum("tenantry_wait_seconds_bucket", &[("tier", "cold"), ("le", bound)]);
        let all = below("+Inf");
        Waits {
            leases: metrics.sum("tenantry_tenant_leases_total", &[("tenant", "quiet")]),
            logins: metrics.sum("tenantry_tenant_server_logins_total", &[("tenant", "quiet")]),
            login_ms: 1e3 * metrics.sum("tenantry_tenant_server_login_seconds_total", &[])
                / metrics.sum("tenantry_tenant_server_logins_total", &[]),
            above_5_ms: all - below("0.005"),
            above_250_ms: all - below("0.25"),
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

impl Waits {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            leases: self.leases - earlier.leases,
            logins: self.logins - earlier.logins,
            login_ms: self.login_ms,
            above_5_ms: self.above_5_ms - earlier.above_5_ms,
            above_250_ms: self.above_250_ms - earlier.above_250_ms,
        }
    }

    /// Its one server is under a reserve: it is never taken, and so it hardly ever waits, however little of the machine the
    /// storm leaves it.
    pub(crate) fn assert_close_to(&self, solo: &Self) {
        assert!(solo.leases > 50.0 && self.leases > 50.0, "{solo:?} {self:?}");
        assert!(self.logins == 0.0, "its server was taken: {self:?}");
        assert!(self.above_5_ms <= self.leases / 100.0, "its p99 is more than a few milliseconds: {self:?}");
        assert!(self.above_250_ms <= 1.0, "{self:?}");
    }
}
