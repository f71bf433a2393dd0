//! Logins that `pg_terminate_backend` ends: the pool tries again, so that nobody who waits is hit, and not for ever.

use std::future::poll_fn;
use std::time::Duration;

use tenantry::backend::Profile;
use tenantry::budget::BudgetConfig;
use tenantry::error::{ClientFacing, SqlState};
use tenantry::pool::{Acquired, Clock, Lease, Leftover, Pool, PoolLimits, Refusal, TenantState};
use tokio::runtime::{Builder, LocalOptions};

use crate::fake::{Fake, Step, error, greeting};
use crate::fixtures::*;

/// An operator ends this login.
fn shot() -> Vec<Step> {
    vec![Step::Packet, Step::Send(error("57P01"))]
}

fn welcome() -> Vec<Step> {
    vec![Step::Packet, Step::Send(greeting(&[("server_version", "17.0")])), Step::AwaitEnd]
}

/// Asks a pool in front of the fake for a server.
async fn acquire(fake: &Fake) -> Result<Lease, Refusal> {
    let limits = PoolLimits {
        lifetime: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        cleanup_timeout: Duration::from_secs(5),
        max_prepared_statements: 10,
    };
    let pool = Pool::new(Clock::start(), limits, vec![BudgetConfig::new(5)], Box::new(|_| ()));
    let profile = Profile::new(&connector(endpoint(vec![tcp("127.0.0.1", fake.port())])), &tenant("acme"));
    let tenant = TenantState::new(tenant("acme").into(), profile);
    pool.set_tenant(&tenant);
    match pool.acquire(&tenant, None, Duration::from_secs(20)) {
        Acquired::Now(lease) => Ok(lease),
        Acquired::Queued(mut ticket) => poll_fn(|cx| ticket.poll(cx)).await,
        Acquired::Refused(refusal) => Err(refusal),
    }
}

/// Runs on a runtime like a worker's own.
fn on_a_worker(test: impl AsyncFnOnce()) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(test());
}

#[test]
fn a_login_that_is_shot_twice_succeeds_the_third_time() {
    on_a_worker(async || {
        let fake = Fake::start_in_turn(vec![shot(), shot()], welcome());
        let mut lease = acquire(&fake).await.unwrap();
        assert_eq!(lease.server().unwrap().pid, 7);
        assert_eq!(fake.ended(), 2, "the two that were shot");
        lease.give_back(Leftover::Nothing);
    });
}

#[test]
fn logins_that_are_shot_every_time_are_given_up() {
    on_a_worker(async || {
        let fake = Fake::start(shot());
        let refusal = acquire(&fake).await.unwrap_err().to_client();
        assert_eq!((refusal.code, refusal.reason), (SqlState::CANNOT_CONNECT, "server_not_ready"));
        assert_eq!(fake.ended(), 3, "the first try and two more");
    });
}

#[test]
fn a_login_that_is_refused_for_another_reason_is_not_tried_again() {
    on_a_worker(async || {
        let fake = Fake::start_in_turn(vec![vec![Step::Packet, Step::Send(error("57P03"))]], welcome());
        acquire(&fake).await.unwrap_err();
        assert_eq!(fake.ended(), 1);
    });
}
