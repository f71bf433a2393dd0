//! Isolation under random hand-overs: many clients of several tenants share few servers, leave behind whatever a session
//! can leave behind, and each of them always sees its own tenant's role, path and rows, and a session without remains.
//!
//! 10,000 hand-overs by default; `TENANTRY_TEST_LENGTH=full` (`make test-long`) makes 100,000. The seed is printed;
//! `TENANTRY_TEST_SEED` repeats it (as far as timing allows).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]

#[path = "../support/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

mod mess;
mod visitor;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::{Plan, Random, Stage, is_full_length};
use visitor::Visitor;

const TENANTS: [&str; 4] = ["acme", "bolt", "cosmo", "delta"];
/// No act takes this long, even on a loaded machine.
const STUCK: Duration = Duration::from_secs(15);
/// Clients of each tenant; they share two servers or three.
const CLIENTS: u64 = 8;

fn handovers() -> u64 {
    if is_full_length() { 100_000 } else { 10_000 }
}

#[tokio::test]
async fn nobody_ever_meets_the_remains_of_another_session() {
    let seed = Random::seed();
    println!("TENANTRY_TEST_SEED={seed}, {} hand-overs", handovers());
    let plan =
        Plan::new(&TENANTS).budget(10).workers(2).set("log", "filter", "\"warn\"").queue_timeout("30s");
    let stage = Arc::new(Stage::start(plan).await);
    let acts = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for (index, tenant) in TENANTS.into_iter().enumerate() {
        for number in 0..CLIENTS {
            let (stage, acts) = (stage.clone(), acts.clone());
            let seed = seed.wrapping_add(number * 1_000 + u64::try_from(index).unwrap());
            tasks.spawn(async move {
                let mut visitor = Visitor::new(&stage, tenant, seed).await;
                while acts.fetch_add(1, Ordering::Relaxed) < handovers() {
                    if tokio::time::timeout(STUCK, visitor.act(&stage)).await.is_err() {
                        panic!("stuck after {}: {:#?}", visitor.last, stage.activity().await);
                    }
                }
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let metrics = stage.proxy().metrics().await;
    let leases = metrics.sum("tenantry_tenant_leases_total", &[]);
    println!("{leases} leases, {} resets", metrics.sum("tenantry_tenant_server_resets_total", &[]));
    assert!(stage.servers().await <= 10);
    assert_eq!(
        metrics.sum("tenantry_cluster_used_permits", &[]),
        metrics.sum("tenantry_tenant_servers", &[])
    );
}
