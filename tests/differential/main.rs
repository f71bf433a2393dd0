//! The differential tester: the same random session to Postgres directly and through the proxy, with other clients of
//! the tenant on the same few servers; every message must be the same, byte for byte (`compare` has the exceptions).
//!
//! `author` writes a script from a seed (`features` is the table of what may be in it, `promises` what the proxy keeps),
//! `player` plays it to both sides, `compare` finds the first difference, `shrink` makes the script shorter, `bout` runs
//! many at the same time. `relay` is a proxy with a bug, to show that the tester finds one.
//!
//! The seed is printed; `TENANTRY_TEST_SEED` repeats it (as far as timing allows). `TENANTRY_TEST_LENGTH=full` makes a
//! million statements (`make test-long`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]
#![expect(clippy::print_stdout, reason = "the seed and the counts are for whoever reads the output")]

#[path = "../support/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

mod arena;
mod author;
mod bout;
mod calls;
mod cases;
mod compare;
mod copies;
mod extended;
mod features;
mod pins;
mod player;
mod promises;
mod relay;
mod script;
mod settings;
mod shrink;
mod simple;

use std::net::SocketAddr;
use std::time::Duration;

use arena::{Arena, Place};
use bout::{Bout, Opponents, Totals};
use cases::CASES;
use player::play;
use relay::{Fault, Relay};
use support::{Random, is_direct, is_full_length};

fn statements() -> u64 {
    if is_full_length() { 1_000_000 } else { 30_000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_through_the_proxy_is_told_what_postgres_says() {
    if is_direct() {
        return;
    }
    let seed = Random::seed();
    println!("TENANTRY_TEST_SEED={seed}, {} statements", statements());
    let arena = Arena::open().await;
    compare(arena, Opponents::PostgresAndProxy, seed, statements()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sessions_without_a_proxy_are_told_the_same() {
    if is_direct() {
        return;
    }
    let seed = Random::seed();
    println!("TENANTRY_TEST_SEED={seed}");
    let arena = Arena::prepare().await;
    compare(arena, Opponents::PostgresTwice, seed, 8_000).await;
}

async fn compare(arena: Arena, opponents: Opponents, seed: u64, goal: u64) {
    let start = tokio::time::Instant::now();
    match Bout::run(arena, opponents, seed, goal, shrink::SPAN).await {
        Ok(totals) => {
            let (Totals { statements, sessions, errors }, seconds) = (totals, start.elapsed().as_secs_f64());
            println!(
                "{statements} statements in {sessions} sessions, {errors} errors, no difference, {seconds:.1} s"
            );
        }
        Err(finding) => panic!("{finding}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_different_once_is_the_same_now() {
    if is_direct() {
        return;
    }
    let arena = Arena::open().await;
    let place = Place::all().next().unwrap();
    let mut findings = Vec::new();
    for case in &CASES {
        for is_joined in [false, true].into_iter().filter(|joined| !(*joined && case.only_with_waits)) {
            let script = case.script(is_joined);
            let (direct, proxied) = (arena.direct(place), arena.proxied(place));
            let (direct, proxied) = tokio::join!(play(&direct, &script), play(&proxied, &script));
            if let Some(difference) = arena.judge.first_difference(&direct, &proxied) {
                findings.push(format!("{}, all at once {is_joined}: {difference:#?}", case.name));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// The tester finds this bug, within a minute.
async fn is_found(fault: Fault) {
    if is_direct() {
        return;
    }
    let seed = Random::seed();
    println!("TENANTRY_TEST_SEED={seed}, {fault:?}");
    let mut arena = Arena::prepare().await;
    let relay = if fault == Fault::AnswerSwallowed {
        arena.stage.start_proxy().await;
        let relay = Relay::start(arena.stage.address(), fault).await;
        arena.entrance = Some(relay.address);
        relay
    } else {
        let postgres = SocketAddr::from(([127, 0, 0, 1], arena.stage.postgres.port()));
        let relay = Relay::start(postgres, fault).await;
        let url = format!("\"postgres://localhost:{}/app?sslmode=disable\"", relay.address.port());
        arena.stage.plan = arena.stage.plan.clone().set("cluster.main", "url", &url);
        arena.stage.start_proxy().await;
        relay
    };
    let start = tokio::time::Instant::now();
    let bout = Bout::run(arena, Opponents::PostgresAndProxy, seed, u64::MAX, Duration::ZERO);
    let finding = tokio::time::timeout(Duration::from_secs(60), bout).await;
    let finding = finding.expect("not within a minute").expect_err("a bout without an end ended");
    let faults = relay.faults.load(std::sync::atomic::Ordering::Relaxed);
    println!("found after {:.1} s and {faults} faults:\n{finding}", start.elapsed().as_secs_f64());
    assert!(faults > 0, "something else than the fault was found:\n{finding}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_is_not_restored_is_found() {
    is_found(Fault::SettingNotRestored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_name_that_is_not_mapped_is_found() {
    is_found(Fault::NameNotMapped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_swallowed_is_found() {
    is_found(Fault::AnswerSwallowed).await;
}
