//! Stories of tenants that are held up: by an operator, by their own rate, by a queue that is too slow. And what each wait
//! is put down to.

use tenantry::budget::{BudgetConfig, Condition, Halt, Output, RejectReason};
use tenantry::ids::TenantId;
use tenantry::stats::Cause;
use tenantry::tenant::RateLimit;

use super::scenarios::{A, B, MS, SECOND, granted, lease, rejected, wait, world};
use super::world::{Phase, World, allowance};

fn rate(per_second: u32, burst: u32, delay_ms: u32) -> Option<RateLimit> {
    Some(RateLimit { per_second, burst, delay_us: delay_ms * 1_000 })
}

/// What the tenant's first request waits for.
fn cause(world: &World, tenant: TenantId) -> Option<Cause> {
    world.scheduler.tenant(tenant).and_then(|view| view.cause).map(|(cause, _)| cause)
}

/// What the last granted request has waited for.
fn put_down_to(world: &World) -> String {
    let grant = world.said.iter().rev().find(|said| said.starts_with("Grant")).expect("somebody was served");
    grant.split("cause: ").nth(1).expect("a grant says the cause").trim_end_matches(" }").to_owned()
}

#[test]
fn who_is_paused_keeps_its_place_and_the_pause_is_no_part_of_its_wait() {
    let mut world = world(4);
    let running = lease(&mut world, A, 1);
    world.halt(A, Halt::Pause, 10 * SECOND);
    assert_eq!(granted(&world.release(running[0], Condition::Clean)), []);
    let (first, _) = world.acquire(A, SECOND, None);
    wait(&mut world, 5 * SECOND);
    world.acquire(A, SECOND, None);
    assert_eq!(world.waiting.len(), 2, "nobody's time runs");
    assert_eq!(world.servers_in(Phase::Idle), running, "its server stays");
    assert_eq!(granted(&world.acquire(B, SECOND, None).1), [], "others go on as before");
    let ids = world.servers_in(Phase::Opening);
    assert_eq!(granted(&world.opened(ids[0])), ids);
    assert_eq!(granted(&world.resume(A)), running);
    assert!(!world.waiting.contains_key(&first), "the first one is served first");
    assert_eq!(put_down_to(&world), "Some(Paused)");
    wait(&mut world, SECOND - 1);
    assert_eq!(world.waiting.len(), 1, "it has all of its second left");
    assert_eq!(rejected(&wait(&mut world, 1)).len(), 1);
}

#[test]
fn a_halt_ends_by_itself_and_a_longer_one_replaces_it() {
    let mut world = world(4);
    let running = lease(&mut world, A, 1);
    world.release(running[0], Condition::Clean);
    world.halt(A, Halt::Pause, 300 * MS);
    world.acquire(A, SECOND, None);
    wait(&mut world, 200 * MS);
    world.halt(A, Halt::Pause, 300 * MS);
    assert_eq!(granted(&wait(&mut world, 299 * MS)), []);
    assert_eq!(granted(&wait(&mut world, MS)), running);
}

#[test]
fn who_is_drained_gives_up_every_server_and_gets_new_ones_later() {
    let mut world = world(4);
    let leased = lease(&mut world, A, 2);
    world.release(leased[0], Condition::Clean);
    let before = world.servers_of(B);
    world.halt(A, Halt::Drain, 60 * SECOND);
    assert_eq!(world.servers_in(Phase::Closing), [leased[0]], "an idle one at once");
    world.acquire(A, SECOND, None);
    world.release(leased[1], Condition::Clean);
    assert_eq!(world.servers_in(Phase::Closing), leased, "a leased one at its release");
    for server in leased {
        world.closed(server);
    }
    assert_eq!((world.servers_of(A), world.servers_of(B)), (0, before));
    world.resume(A);
    let fresh = world.servers_in(Phase::Opening);
    assert_eq!(granted(&world.opened(fresh[0])), fresh);
}

#[test]
fn who_is_suspended_is_refused_and_its_transactions_end_in_peace() {
    let mut world = world(1);
    let running = lease(&mut world, A, 1);
    world.acquire(A, SECOND, None);
    assert_eq!(rejected(&world.halt(A, Halt::Suspend, SECOND)), [RejectReason::Suspended]);
    assert_eq!(rejected(&world.acquire(A, SECOND, None).1), [RejectReason::Suspended]);
    assert_eq!(world.of_phase(running[0]), Phase::Busy);
    world.release(running[0], Condition::Clean);
    wait(&mut world, SECOND);
    assert_eq!(granted(&world.acquire(A, SECOND, None).1), running);
}

/// A cut-over: the cluster goes away while the tenant is paused, and comes back.
#[test]
fn a_lost_cluster_rejects_nobody_who_is_paused() {
    let mut world = world(4);
    world.halt(A, Halt::Pause, 60 * SECOND);
    world.acquire(A, SECOND, None);
    world.acquire(B, SECOND, None);
    let ids = world.servers_in(Phase::Opening);
    world.open_failed(ids[0], tenantry::budget::OpenFailure::Unavailable);
    assert_eq!(world.waiting.values().map(|waiting| waiting.tenant).collect::<Vec<_>>(), [A]);
    wait(&mut world, SECOND);
    world.resume(A);
    assert_eq!(world.servers_in(Phase::Opening).len(), 1, "its login is the probe");
}

/// Whoever is paused does not keep a server that somebody below the floor waits for, however young it is.
#[test]
fn the_waiters_of_a_paused_tenant_hold_no_server_back() {
    let mut world = world(2);
    world.set_tenant(A, allowance(1, 1, 10));
    let leased = lease(&mut world, A, 2);
    world.halt(A, Halt::Pause, 60 * SECOND);
    world.acquire(A, SECOND, None);
    world.acquire(B, SECOND, None);
    world.release(leased[1], Condition::Clean);
    assert_eq!(world.of_phase(leased[1]), Phase::Closing, "{:?}", world.said);
}

#[test]
fn over_its_rate_a_tenant_waits_a_moment_and_is_refused_beyond_that() {
    let mut world = world(4);
    let servers = lease(&mut world, A, 4);
    world.set_rate(A, rate(100, 2, 15));
    for server in servers {
        world.release(server, Condition::Clean);
    }
    let mut notes = Vec::new();
    for _ in 0..5 {
        notes.extend(world.acquire(A, SECOND, None).1);
    }
    assert_eq!(granted(&notes).len(), 2, "the burst");
    assert_eq!(cause(&world, A), Some(Cause::RateLimit));
    let retry_us = 5 * MS;
    assert_eq!(
        rejected(&notes),
        [RejectReason::RateLimited { retry_us }, RejectReason::RateLimited { retry_us }]
    );
    assert_eq!(granted(&wait(&mut world, 10 * MS - 1)), []);
    assert_eq!(granted(&wait(&mut world, 1)).len(), 1);
    assert_eq!(put_down_to(&world), "Some(RateLimit)");
    assert_eq!(world.scheduler.waiters(), 0);
}

#[test]
fn nobody_waits_for_a_rate_that_holds_no_longer() {
    let mut world = world(4);
    let servers = lease(&mut world, A, 2);
    world.set_rate(A, rate(10, 1, 1_000));
    world.acquire(A, SECOND, None);
    servers.iter().for_each(|server| drop(world.release(*server, Condition::Clean)));
    world.acquire(A, SECOND, None);
    assert_eq!((world.scheduler.waiters(), cause(&world, A)), (1, Some(Cause::RateLimit)));
    assert_eq!(granted(&world.set_rate(A, rate(20, 1, 0))).len(), 1);
    assert_eq!(world.scheduler.waiters(), 0);
}

/// Ten requests a second are served, and each has five seconds: the fifty-first would wait for too long.
#[test]
fn who_would_wait_past_its_deadline_is_refused_at_once() {
    let mut world = world(1);
    let mut busy = lease(&mut world, A, 1);
    for _ in 0..20 {
        world.acquire(A, 60 * SECOND, None);
    }
    for _ in 0..12 {
        wait(&mut world, 100 * MS);
        busy = granted(&world.release(busy[0], Condition::Clean));
    }
    while world.waiting.len() < 49 {
        assert_eq!(rejected(&world.acquire(A, 5 * SECOND, None).1), []);
    }
    assert_eq!(rejected(&world.acquire(A, 5 * SECOND, None).1), [], "it is served in five seconds");
    let expected_us = 5_100 * MS;
    let hopeless = RejectReason::HopelessWait { expected_us, retry_us: 100 * MS };
    assert_eq!(rejected(&world.acquire(A, 5 * SECOND, None).1), [hopeless]);
    assert_eq!(rejected(&world.acquire(A, 6 * SECOND, None).1), [], "who has more time waits");
}

#[test]
fn each_wait_has_its_cause_from_its_first_moment() {
    let config = BudgetConfig::new(3);
    let mut world = World::new(config);
    world.keep_words = true;
    for tenant in [A, B, TenantId(3)] {
        world.set_tenant(tenant, allowance(1, 1, 2));
    }
    world.acquire(A, SECOND, None);
    assert_eq!(cause(&world, A), Some(Cause::Login));
    let first = world.servers_in(Phase::Opening);
    world.opened(first[0]);
    assert_eq!((put_down_to(&world), cause(&world, A)), ("Some(Login)".to_owned(), None));
    lease(&mut world, A, 1);
    world.acquire(A, SECOND, None);
    assert_eq!(cause(&world, A), Some(Cause::Ceiling));
    world.acquire(B, SECOND, None);
    world.acquire(TenantId(3), SECOND, None);
    assert_eq!(cause(&world, B), Some(Cause::Login));
    assert_eq!(cause(&world, TenantId(3)), Some(Cause::Budget), "the last slot is taken");
    let logging_in = world.servers_in(Phase::Opening);
    world.opened(logging_in[0]);
    world.acquire(B, SECOND, None);
    assert_eq!(cause(&world, B), Some(Cause::OwnServers), "its own one will be back soon");
}

#[test]
fn too_many_logins_and_an_unreachable_cluster_are_causes() {
    let mut config = BudgetConfig::new(9);
    config.opens_in_flight = [1, 1, 1];
    let mut world = World::new(config);
    world.set_tenant(A, allowance(1, 1, 2));
    lease(&mut world, A, 1);
    for tenant in 2..5 {
        world.set_tenant(TenantId(tenant), allowance(1, 1, 2));
        world.acquire(TenantId(tenant), 20 * SECOND, None);
    }
    assert_eq!(cause(&world, TenantId(4)), Some(Cause::ReconnectBrake));
    world.acquire(A, 20 * SECOND, None);
    wait(&mut world, 100 * MS);
    for server in world.servers_in(Phase::Opening) {
        world.open_failed(server, tenantry::budget::OpenFailure::Unavailable);
    }
    assert_eq!(cause(&world, A), Some(Cause::ServerDown), "those with a running server go on waiting");
}

#[test]
fn transactions_that_take_much_longer_than_usual_are_a_cause_of_their_own() {
    let mut world = world(1);
    let mut busy = lease(&mut world, A, 1);
    for _ in 0..40 {
        wait(&mut world, 2 * MS);
        world.release(busy[0], Condition::Clean);
        busy = granted(&world.acquire(A, SECOND, None).1);
    }
    world.acquire(A, SECOND, None);
    assert_eq!(cause(&world, A), Some(Cause::OwnServers));
    world.set_tenant(A, allowance(1, 1, 1));
    assert_eq!(cause(&world, A), Some(Cause::Ceiling));
    wait(&mut world, 60 * MS);
    world.acquire(A, SECOND, None);
    assert_eq!(cause(&world, A), Some(Cause::Slow));
    let view = world.scheduler.tenant(A).expect("it is known");
    assert_eq!(view.usual_hold_us, Some(2 * MS));
}

/// What held for the last half of a wait is what it is put down to.
#[test]
fn a_wait_is_put_down_to_what_held_longest_at_its_end() {
    let mut world = world(1);
    let running = lease(&mut world, B, 1);
    world.acquire(A, 5 * SECOND, None);
    wait(&mut world, 300 * MS);
    world.halt(A, Halt::Pause, 50 * MS);
    wait(&mut world, 60 * MS);
    world.release(running[0], Condition::Clean);
    world.closed(running[0]);
    let fresh = world.servers_in(Phase::Opening);
    wait(&mut world, 5 * MS);
    world.opened(fresh[0]);
    assert_eq!(put_down_to(&world), "Some(Budget)", "pause and login were short");
    world.acquire(A, 5 * SECOND, None);
    wait(&mut world, 100 * MS);
    world.halt(A, Halt::Pause, 200 * MS);
    world.release(fresh[0], Condition::Clean);
    wait(&mut world, 200 * MS);
    assert_eq!(put_down_to(&world), "Some(Paused)");
}

/// Only `Output` says what a refused or late request has waited for.
#[test]
fn a_timeout_says_what_was_waited_for() {
    let mut world = world(1);
    lease(&mut world, B, 1);
    world.acquire(A, SECOND, None);
    let notes = wait(&mut world, SECOND);
    assert_eq!(rejected(&notes), [RejectReason::QueueTimeout { waited_us: SECOND, cause: Cause::Budget }]);
    let mut out: Vec<Output> = Vec::new();
    let input = tenantry::budget::Input::Resume { tenant: TenantId(77) };
    assert!(world.scheduler.handle(world.now, input, &mut out).is_err() && out.is_empty());
}

/// What an earlier queue was like says nothing about the next one.
#[test]
fn who_comes_long_after_a_queue_is_not_refused_for_it() {
    let mut world = world(2);
    let mut busy = lease(&mut world, A, 1);
    for _ in 0..20 {
        world.acquire(A, 60 * SECOND, None);
    }
    while !world.waiting.is_empty() {
        wait(&mut world, 300 * MS);
        let served: Vec<_> =
            busy.iter().flat_map(|server| world.release(*server, Condition::Clean)).collect();
        busy = granted(&served);
        let opening = world.servers_in(Phase::Opening);
        busy.extend(opening.iter().flat_map(|server| granted(&world.opened(*server))));
    }
    for server in world.servers_in(Phase::Busy).into_iter().chain(world.servers_in(Phase::Idle)) {
        world.closed(server);
    }
    wait(&mut world, 600 * SECOND);
    assert_eq!(rejected(&world.acquire(A, 5 * SECOND, None).1), []);
    assert_eq!(world.servers_in(Phase::Opening).len(), 1, "it is logged in for");
}

/// Whoever would be let begin only when it has given up takes no place from those who would not.
#[test]
fn a_delay_that_is_longer_than_patience_serves_at_its_rate_all_the_same() {
    let mut world = world(4);
    lease(&mut world, A, 1).into_iter().for_each(|server| drop(world.release(server, Condition::Clean)));
    world.set_rate(A, rate(100, 1, 10_000));
    let mut served = 0;
    for _ in 0..6_000 {
        let (_, mut notes) = world.acquire(A, SECOND, None);
        notes.extend(wait(&mut world, 3 * MS));
        let mut busy = granted(&notes);
        while let Some(server) = busy.pop() {
            served += 1;
            busy.extend(granted(&world.release(server, Condition::Clean)));
        }
    }
    assert!((1_600..=1_900).contains(&served), "{served} in eighteen seconds");
}

/// An idle server beside a waiter is worth waiting for, whether others can be had or not.
#[test]
fn who_waits_for_its_rate_is_served_by_what_there_is_while_the_cluster_is_down() {
    let mut world = world(4);
    lease(&mut world, A, 1).into_iter().for_each(|server| drop(world.release(server, Condition::Clean)));
    world.set_rate(A, rate(10, 1, 1_000));
    let first = granted(&world.acquire(A, SECOND, None).1);
    world.release(first[0], Condition::Clean);
    world.acquire(A, SECOND, None);
    world.halt(B, Halt::Pause, 60 * SECOND);
    world.acquire(B, SECOND, None);
    world.acquire(TenantId(3), SECOND, None);
    let ids = world.servers_in(Phase::Opening);
    let notes = world.open_failed(ids[0], tenantry::budget::OpenFailure::Unavailable);
    assert_eq!(rejected(&notes), [RejectReason::Unavailable], "the one that has no server");
    assert_eq!(rejected(&world.resume(B)), [], "who was paused has all of its time");
    assert_eq!(granted(&wait(&mut world, 100 * MS)), first);
}

/// Whoever need not wait for the rate stands behind one that must, as long as that is there.
#[test]
fn who_goes_makes_room_for_whom_nothing_stops() {
    let mut world = world(4);
    lease(&mut world, A, 1).into_iter().for_each(|server| drop(world.release(server, Condition::Clean)));
    world.set_rate(A, rate(100, 1, 50));
    let served = granted(&world.acquire(A, SECOND, None).1);
    world.release(served[0], Condition::Clean);
    let (first, _) = world.acquire(A, SECOND, None);
    assert_eq!(granted(&world.acquire_exempt(A, SECOND).1), []);
    assert_eq!(granted(&world.cancel(first)), served);
}

/// Servers that work are needed, however long they have: nothing has ended by which the need could be known.
#[test]
fn a_tenant_needs_at_least_the_servers_that_work_for_it() {
    let mut world = world(10);
    lease(&mut world, A, 6);
    let need = |world: &World| world.scheduler.tenant(A).expect("it is known").need / 256;
    assert_eq!(need(&world), 6);
    wait(&mut world, 900 * SECOND);
    assert_eq!(need(&world), 6);
}
