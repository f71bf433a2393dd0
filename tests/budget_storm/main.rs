//! The budget under a storm: 100 tenants with 10 clients each on a cluster of 60 connections, while servers are killed and
//! the configuration is reloaded.
//!
//! Held at every sample: never more servers than the budget, by Postgres' count and by the proxy's own. Held in the end:
//! nothing lost, no client waited past 5 s without its error, and a quiet tenant hardly noticed.
//! A few seconds by default; `TENANTRY_TEST_LENGTH=full` (`make test-long`) makes it a minute.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]

#[path = "../support/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

mod sampler;
mod storm;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sampler::Sampler;
use storm::{Quiet, Storm};
use support::{Plan, Random, Stage, TenantPlan, eventually, is_full_length};
use tokio::time::Instant;

/// Servers that the proxy may have: 60 less 3 for superusers and 7 for this test.
const BUDGET: u32 = 50;
const TENANTS: usize = 100;
const CLIENTS: usize = 10;
/// `queue_timeout`, and what a loaded machine may add to it.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(2);

fn length() -> Duration {
    Duration::from_secs(if is_full_length() { 60 } else { 12 })
}

fn plan(workers: u32) -> Plan {
    let mut tenants: Vec<TenantPlan> = (0..TENANTS)
        .map(|number| {
            let tier = ["hot", "warm", "warm", "warm", "cold"][number % 5];
            TenantPlan::new(&format!("t{number}")).tier(tier)
        })
        .collect();
    // Alone in its tier, so that the tier's histogram of waits is this tenant's.
    for tenant in tenants.iter_mut().filter(|tenant| tenant.tier == "cold") {
        tenant.tier = "warm";
    }
    tenants.push(TenantPlan::new("quiet").tier("cold").line("limits = { reserve = 1 }"));
    let mut plan = Plan::of(tenants)
        .budget(BUDGET)
        .workers(workers)
        .set("log", "filter", "\"warn\"")
        .queue_timeout("5s");
    // Floors are promises, and must fit into the budget to be kept: here only the quiet tenant has one.
    for (tier, floor, share) in [("hot", 0, 5), ("warm", 0, 2), ("cold", 1, 1)] {
        let section = format!("tier.{tier}");
        plan = plan.set(&section, "floor", &floor.to_string()).set(&section, "share", &share.to_string());
        plan = plan.set(&section, "ceiling", &(share * 2).to_string());
    }
    plan.postgres.max_connections = 60;
    plan.server_query = "sslmode=disable".to_owned();
    plan
}

#[tokio::test]
async fn the_budget_holds_in_a_storm_on_one_worker() {
    storm(plan(1)).await;
}

#[tokio::test]
async fn the_budget_holds_in_a_storm_on_two_workers() {
    storm(plan(2)).await;
}

async fn storm(plan: Plan) {
    let seed = Random::seed();
    eprintln!("TENANTRY_TEST_SEED={seed}");
    let mut stage = Stage::start(plan).await;

    let quiet = Quiet::start(&stage).await;
    quiet.observe(Duration::from_secs(2)).await;
    let solo = quiet.waits(&stage).await;

    let sampler = Sampler::start(&stage, BUDGET).await;
    let storm = Storm::start(&stage, seed).await;
    let (mut random, end) = (Random::new(seed), Instant::now() + length());
    let admin = stage.admin().await;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let mut round = 0_u32;
    while Instant::now() < end {
        tick.tick().await;
        round += 1;
        // A random server dies; two in three times one in the middle of something.
        let state = if random.one_in(3) { "idle" } else { "active" };
        let victim = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename LIKE 'role\\_%' AND usename <> 'role_quiet' AND state = $1 ORDER BY random() LIMIT 1";
        admin.execute(victim, &[&state]).await.unwrap();
        if round.is_multiple_of(4) {
            let ceiling = (6 + random.below(6)).to_string();
            stage.reload(|plan| plan.set("tier.hot", "ceiling", &ceiling)).await;
        }
    }
    let stormy = quiet.waits(&stage).await.since(&solo);
    let outcome = storm.stop().await;
    let samples = sampler.stop().await;
    quiet.stop().await;
    eprintln!("{outcome:?}\n{samples:?}\nquiet alone: {solo:?}\nquiet in the storm: {stormy:?}");

    assert!(samples.taken > 100, "{samples:?}");
    assert!(samples.postgres_max <= BUDGET, "{samples:?}");
    assert!(outcome.transactions > 1_000, "{outcome:?}");
    assert_eq!(outcome.foreign_rows, 0);
    assert!(outcome.longest < QUEUE_TIMEOUT + SLACK, "{outcome:?}");
    assert_eq!(outcome.unexpected, Vec::<String>::new());
    stormy.assert_close_to(&solo);
    nothing_is_lost(&stage).await;
}

/// Both counts agree, nothing is leased, and every tenant is still served.
async fn nothing_is_lost(stage: &Stage) {
    eventually(
        "the proxy's count and Postgres' agree, and nothing is leased",
        Duration::from_secs(20),
        async || {
            let metrics = stage.proxy().metrics().await;
            let used = metrics.sum("tenantry_cluster_used_permits", &[]);
            let leased = metrics.sum("tenantry_tenant_servers", &[("state", "active")]);
            (leased == 0.0 && used == stage.servers().await as f64).then_some(())
        },
    )
    .await;
    for tenant in &stage.plan.tenants {
        let mut client = stage.client(&tenant.name).await;
        assert_eq!(client.query("SELECT owner FROM things WHERE id = 1").await.value(), tenant.name);
    }
}

#[tokio::test]
async fn a_smaller_budget_settles_and_a_larger_one_is_used() {
    let mut plan = plan(2);
    plan.tenants.truncate(20);
    let mut stage = Stage::start(plan).await;
    let storm = Arc::new(Storm::start(&stage, 1).await);
    for budget in [20, 45, 10, 30] {
        stage.reload(|plan| plan.set("cluster.main", "max_connections", &budget.to_string())).await;
        settles(&stage, budget).await;
        let sampler = Sampler::start(&stage, budget).await;
        let before = storm.transactions.load(Ordering::Relaxed);
        eventually("transactions flow", Duration::from_secs(20), async || {
            (storm.transactions.load(Ordering::Relaxed) > before + 200).then_some(())
        })
        .await;
        let samples = sampler.stop().await;
        assert!(samples.postgres_max <= budget, "{budget}: {samples:?}");
    }
    let outcome = Arc::into_inner(storm).unwrap().stop().await;
    assert_eq!(outcome.unexpected, Vec::<String>::new());
}

/// Waits until Postgres has had no more servers than that for a while. One look says nothing: a worker that is within its
/// part already may be between closing a server and logging in the next one, while the other worker still has too many.
async fn settles(stage: &Stage, budget: u32) {
    let admin = stage.admin().await;
    let in_a_row = Cell::new(0);
    eventually("the number of servers settles", Duration::from_secs(20), async || {
        let servers = sampler::count(&admin).await;
        in_a_row.set(if servers <= budget { in_a_row.get() + 1 } else { 0 });
        (in_a_row.get() >= LOOKS_IN_A_ROW).then_some(())
    })
    .await;
}

/// A fifth of a second: many times as long as these transactions last.
const LOOKS_IN_A_ROW: u32 = 40;
