//! Stories of whose server is taken: not that of who comes back at once (docs/adr/0018).

use tenantry::budget::{BudgetConfig, Condition};
use tenantry::ids::TenantId;

use super::scenarios::{A, B, C, MS, SECOND, lease, wait, world};
use super::world::{Phase, World, allowance};

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

/// Twenty tenants ask in turns, and there are nineteen servers: each miss is one miss, and not the first of twenty.
#[test]
fn one_server_too_few_for_tenants_that_ask_in_turns_is_one_login_now_and_then() {
    let mut world = World::new(BudgetConfig::new(19));
    for tenant in 0..20 {
        world.set_tenant(TenantId(tenant), allowance(1, 1, 2));
    }
    let (mut opens, mut asked) = (0, 0);
    for turn in 0..4_000 {
        if turn == 2_000 {
            (opens, asked) = (world.opens, 0);
        }
        let (_, mut notes) = world.acquire(TenantId(turn % 20), SECOND, None);
        asked += 1;
        notes.extend(wait(&mut world, 1_000));
        for server in world.servers_in(Phase::Closing) {
            notes.extend(world.closed(server));
        }
        for server in world.servers_in(Phase::Opening) {
            notes.extend(world.opened(server));
        }
        for server in world.servers_in(Phase::Busy) {
            world.release(server, Condition::Clean);
        }
    }
    let logins = world.opens - opens;
    assert!(logins * 8 < asked, "{logins} logins for {asked} requests");
}
