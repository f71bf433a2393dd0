//! Stories of whose server is taken: not that of who comes back at once (docs/adr/0018).

use tenantry::budget::{BudgetConfig, Condition};
use tenantry::ids::{ServerId, TenantId};

use super::scenarios::{A, B, C, MS, SECOND, lease, wait, world};
use super::world::{Phase, Server, World, allowance};

/// What is below a floor would be wanted back at once, before anybody else's wish: so it is taken for another floor only, or
/// when its owner does not seem to need it any more.
#[test]
fn nobody_above_the_floor_takes_a_fresh_server_from_below_one() {
    let mut world = world(2);
    lease(&mut world, A, 1);
    let other = lease(&mut world, B, 1);
    world.release(other[0], Condition::Clean);
    world.acquire(A, SECOND, None);
    wait(&mut world, 200 * MS);
    assert_eq!(world.of_phase(other[0]), Phase::Idle);
    world.acquire(C, SECOND, None);
    assert_eq!(world.of_phase(other[0]), Phase::Closing, "for another floor, at once");
}

/// Tenants that ask in turns, each with a floor of one: logins and requests of the second half.
fn in_turns(servers: u32, tenants: u32, turn_us: u64) -> (u64, u64) {
    let mut world = World::new(BudgetConfig::new(servers));
    for tenant in 0..tenants {
        world.set_tenant(TenantId(tenant), allowance(1, 1, 2));
    }
    let (mut opens, mut asked) = (0, 0);
    for turn in 0..4_000 {
        if turn == 2_000 {
            (opens, asked) = (world.opens, 0);
        }
        ask_once(&mut world, TenantId(turn % tenants));
        asked += 1;
        wait(&mut world, turn_us.saturating_sub(1_000));
    }
    (world.opens - opens, asked)
}

/// A request that is served, with as many closings and logins as it takes.
fn ask_once(world: &mut World, tenant: TenantId) {
    world.acquire(tenant, SECOND, None);
    wait(world, 1_000);
    for server in world.servers_in(Phase::Closing) {
        world.closed(server);
    }
    for server in world.servers_in(Phase::Opening) {
        world.opened(server);
    }
    for server in world.servers_in(Phase::Busy) {
        world.release(server, Condition::Clean);
    }
}

/// Twenty tenants ask in turns, and there are nineteen servers: each miss is one miss, and not the first of twenty.
#[test]
fn one_server_too_few_for_tenants_that_ask_in_turns_is_one_login_now_and_then() {
    let (logins, asked) = in_turns(19, 20, 1_000);
    assert!(logins * 8 < asked, "{logins} logins for {asked} requests");
}

/// The same however slow they are: with half as many servers as tenants, half of the requests find one.
#[test]
fn servers_that_are_too_few_by_half_serve_half_of_the_requests_without_a_login() {
    for turn_us in [25_000, 250_000] {
        let (logins, asked) = in_turns(10, 20, turn_us);
        assert!(logins * 16 < asked * 9, "{logins} logins for {asked} requests, one each {turn_us} us");
    }
}

/// A server that will lie idle for long is not kept for its owner: the sooner it is taken, the longer until it is missed.
#[test]
fn a_server_that_will_lie_idle_for_long_is_taken_after_a_moment() {
    for (pause, after) in [(20 * MS, MS), (8 * MS, 5 * MS)] {
        let mut world = world(1);
        for _ in 0..10 {
            ask_once(&mut world, A);
            wait(&mut world, pause - MS);
        }
        ask_once(&mut world, A);
        let server = world.servers_in(Phase::Idle);
        world.acquire(B, SECOND, None);
        wait(&mut world, after - 1);
        assert_eq!(world.servers_in(Phase::Idle), server, "one request in {pause} us");
        wait(&mut world, 1);
        assert_eq!(world.servers_in(Phase::Closing), server, "one request in {pause} us");
    }
}

/// Who asks twice for each page, and thinks for two milliseconds in between, has its server for the second query.
#[test]
fn nobody_takes_a_server_between_the_queries_of_a_page() {
    let mut world = world(1);
    for _ in 0..12 {
        ask_once(&mut world, A);
        wait(&mut world, 2 * MS);
        ask_once(&mut world, A);
        wait(&mut world, 496 * MS);
    }
    ask_once(&mut world, A);
    let server = world.servers_in(Phase::Idle);
    let (request, _) = world.acquire(B, SECOND, None);
    wait(&mut world, 2 * MS);
    assert_eq!(world.servers_in(Phase::Idle), server);
    world.cancel(request);
    let opens = world.opens;
    ask_once(&mut world, A);
    assert_eq!(world.opens, opens, "no login for the second one");
}

/// A wait for a login makes the time between two requests longer: that must not make its tenant look slow, and lose its
/// server, and wait again.
#[test]
fn who_waited_for_a_login_is_not_taken_for_slow() {
    let (servers, tenants) = (19, 20);
    let mut world = World::new(BudgetConfig::new(servers));
    for tenant in 0..tenants {
        world.set_tenant(TenantId(tenant), allowance(1, 1, 2));
    }
    // Each works for 1 ms and thinks for 3, and a login takes 20.
    let mut due: Vec<u64> = (0..u64::from(tenants)).map(|tenant| tenant * 200).collect();
    let mut events: Vec<(u64, ServerId)> = Vec::new();
    let (mut served, mut opens) = (0_u64, 0);
    while world.now.0 < 4 * SECOND {
        let now = world.now.0;
        for tenant in 0..tenants {
            if due[tenant as usize] <= now {
                due[tenant as usize] = u64::MAX;
                world.acquire(TenantId(tenant), SECOND, None);
            }
        }
        for server in world.servers_in(Phase::Closing) {
            world.closed(server);
        }
        for server in world.servers_in(Phase::Opening) {
            if !events.iter().any(|(_, known)| *known == server) {
                events.push((now + 20 * MS, server));
            }
        }
        for server in world.servers_in(Phase::Busy) {
            if !events.iter().any(|(_, known)| *known == server) {
                events.push((now + MS, server));
            }
        }
        let over: Vec<ServerId> =
            events.extract_if(.., |(at, _)| *at <= now).map(|(_, server)| server).collect();
        for server in over {
            if world.of_phase(server) == Phase::Opening {
                world.opened(server);
            } else {
                let tenant = world.servers[&server].tenant;
                world.release(server, Condition::Clean);
                due[tenant.0 as usize] = now + 3 * MS;
                served += 1;
            }
        }
        if now < 2 * SECOND {
            (served, opens) = (0, world.opens);
        }
        wait(&mut world, 200);
    }
    let logins = world.opens - opens;
    assert!(logins * 20 < served, "{logins} logins for {served} requests");
}

/// Who has stopped does not come back in turn: its server goes before those of the others, who do.
#[test]
fn the_server_of_a_tenant_that_has_stopped_goes_first() {
    let mut world = world(2);
    for _ in 0..10 {
        wait(&mut world, 3 * SECOND);
        ask_once(&mut world, B);
    }
    for _ in 0..10 {
        ask_once(&mut world, A);
        wait(&mut world, 10 * MS);
    }
    // B will not ask for almost three seconds; A asked each 10 ms, and has not for 100.
    wait(&mut world, 90 * MS);
    let [first, second] = [A, B].map(|tenant| {
        let of = |(id, server): (&ServerId, &Server)| (server.tenant == tenant).then_some(*id);
        world.servers.iter().find_map(of).expect("it has one")
    });
    world.acquire(C, SECOND, None);
    assert_eq!([first, second].map(|server| world.of_phase(server)), [Phase::Closing, Phase::Idle]);
}
