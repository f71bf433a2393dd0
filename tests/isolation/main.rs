//! Isolation under random hand-overs: many clients of several tenants share few servers, leave behind whatever a session
//! can leave behind, and each of them always sees its own tenant's role, path and rows, what it left itself, and nothing
//! of anybody else.
//!
//! A hand-over is counted when a session is seen on a server where another one was seen last. 10,000 of them by default;
//! `TENANTRY_TEST_LENGTH=full` (`make test-long`) makes 1,000,000, or as many as `TENANTRY_TEST_HANDOVERS` says. The
//! seed is printed; `TENANTRY_TEST_SEED` repeats it (as far as timing allows). `make isolation-peer` sends the same
//! clients to PgBouncer, and counts what they see there.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]

#[path = "../support/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

mod hidden;
mod kind;
mod mess;
mod peer;
mod scene;
mod visitor;

use std::sync::Arc;
use std::time::Duration;

use kind::COLUMNS;
use peer::Reset;
use scene::{Count, Scene};
use support::{Plan, Random, is_full_length};
use visitor::{OTHERS, Visitor, try_alone};

const TENANTS: [&str; 5] = ["acme", "bolt", "cosmo", "delta", "echo"];
/// No act takes this long, even on a loaded machine.
const STUCK: Duration = Duration::from_secs(15);
/// Clients of each tenant; they share two servers or three.
const CLIENTS: u64 = 8;

/// How many hand-overs to see.
fn wanted(usual: u64, full: u64) -> u64 {
    match std::env::var("TENANTRY_TEST_HANDOVERS") {
        Ok(text) => text.parse().expect("TENANTRY_TEST_HANDOVERS is not a number"),
        Err(_) if is_full_length() => full,
        Err(_) => usual,
    }
}

fn plan() -> Plan {
    Plan::new(&TENANTS).budget(10).workers(2).set("log", "filter", "\"warn\"").queue_timeout("30s")
}

/// All clients act until so many hand-overs were seen.
async fn play(scene: &Arc<Scene>, seed: u64, handovers: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for (index, tenant) in TENANTS.into_iter().enumerate() {
        for number in 0..CLIENTS {
            let scene = scene.clone();
            let seed = seed.wrapping_add(number * 1_000 + u64::try_from(index).unwrap());
            tasks.spawn(async move {
                let mut visitor = Visitor::new(scene.clone(), tenant, seed).await;
                while scene.handovers() < handovers {
                    if tokio::time::timeout(STUCK, visitor.act()).await.is_err() {
                        panic!("stuck after {}: {:#?}", visitor.last, scene.stage.activity().await);
                    }
                }
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[tokio::test]
async fn each_remains_alone_are_its_own_sessions() {
    let scene = Arc::new(Scene::start(plan().one_server_each().queue_timeout("300ms")).await);
    let mut stories = Vec::new();
    for (tenant, mess) in hidden::each() {
        stories.extend(try_alone(&scene, tenant, mess).await);
    }
    assert!(stories.is_empty(), "{}", stories.join("\n"));
}

#[tokio::test]
async fn nobody_ever_meets_the_remains_of_another_session() {
    let (seed, handovers) = (Random::seed(), wanted(10_000, 1_000_000));
    println!("TENANTRY_TEST_SEED={seed}, {handovers} hand-overs");
    let scene = Arc::new(Scene::start(plan()).await);
    play(&scene, seed, handovers).await;
    let metrics = scene.stage.proxy().metrics().await;
    println!(
        "{} hand-overs seen, {} sessions, {} leases, {} resets",
        scene.handovers(),
        scene.sessions(),
        metrics.sum("tenantry_tenant_leases_total", &[]),
        metrics.sum("tenantry_tenant_server_resets_total", &[])
    );
    assert!(scene.stage.servers().await <= 10);
    assert_eq!(
        metrics.sum("tenantry_cluster_used_permits", &[]),
        metrics.sum("tenantry_tenant_servers", &[])
    );
}

#[tokio::test]
#[ignore = "needs PgBouncer: `make isolation-peer`"]
async fn the_same_clients_count_what_they_meet_behind_pgbouncer() {
    let (seed, handovers) = (Random::seed(), wanted(10_000, 100_000));
    println!("TENANTRY_TEST_SEED={seed}, {handovers} hand-overs, {}", peer::version());
    let mut tallies = Vec::new();
    for reset in [Reset::Never, Reset::Always] {
        let scene = Arc::new(Scene::with_peer(plan(), reset).await);
        play(&scene, seed, handovers).await;
        println!("{reset:?}: {} hand-overs seen, {} sessions", scene.handovers(), scene.sessions());
        tallies.push(scene.tally());
    }
    println!("\n| left behind | met by another client | own lost | with reset: met by another | own lost |");
    println!("|---|--:|--:|--:|--:|");
    let names = COLUMNS.iter().map(|(_, name, _, _)| *name).chain(OTHERS);
    for name in names {
        let counts: Vec<Count> =
            tallies.iter().map(|tally| tally.get(name).copied().unwrap_or_default()).collect();
        let cells: Vec<String> =
            counts.iter().flat_map(|count| [count.foreign.to_string(), count.lost.to_string()]).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    // What was counted under a name that the table lacks would be hidden.
    for name in tallies.iter().flat_map(|tally| tally.keys()) {
        let known = COLUMNS.iter().any(|(_, known, _, _)| known == name) || OTHERS.contains(&name.as_str());
        assert!(known, "{name} is not in the table");
    }
}
