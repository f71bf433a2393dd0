//! More shares than servers: all promise less, alike (docs/budgets.md, Rules; docs/adr/0019).

use tenantry::budget::{Band, BudgetConfig, Condition, Why};
use tenantry::time::Moment;

use super::cluster::{Clients, Cluster};
use super::fairness::jain;
use super::scenarios::{A, B, C, MS, SECOND, lease, wait};
use super::world::{Phase, World, allowance};

/// A and B with that share on so many servers, and C without one.
fn world(capacity: u32, share: u32) -> World {
    let mut world = World::new(BudgetConfig::new(capacity));
    for tenant in [A, B] {
        world.set_tenant(tenant, allowance(1, share, 10));
    }
    world.set_tenant(C, allowance(1, 0, 10));
    world
}

fn share_of(world: &World) -> Option<u32> {
    world.scheduler.tenant(A).map(|view| view.share)
}

#[test]
fn who_came_first_gives_back_what_is_more_than_its_scaled_share() {
    let mut world = world(6, 6);
    let mut leased = lease(&mut world, A, 6);
    assert_eq!(share_of(&world), Some(6), "alone it has all of its share");
    // Long enough for a server to change hands, and much shorter than a quantum.
    wait(&mut world, 15 * MS);
    for _ in 0..3 {
        world.acquire(B, 60 * SECOND, None);
        wait(&mut world, 50 * MS);
        // It has waiters of its own.
        world.acquire(A, 60 * SECOND, None);
        world.release(leased.remove(0), Condition::Clean);
        for server in world.servers_in(Phase::Closing) {
            world.closed(server);
        }
        for server in world.servers_in(Phase::Opening) {
            world.opened(server);
        }
    }
    assert_eq!((world.servers_of(A), world.servers_of(B)), (3, 3));
    assert_eq!(share_of(&world), Some(3));
    for server in world
        .servers_in(Phase::Busy)
        .into_iter()
        .filter(|server| world.servers[server].tenant == B)
        .collect::<Vec<_>>()
    {
        world.release(server, Condition::Clean);
    }
    assert_eq!(share_of(&world), Some(6), "B asks for nothing any more");
}

#[test]
fn a_worker_whose_shares_are_scaled_down_says_that_it_lacks_what_is_written() {
    let mut config = BudgetConfig::new(4);
    config.announce_need = true;
    let mut world = World::new(config);
    for tenant in [A, B] {
        world.set_tenant(tenant, allowance(1, 4, 10));
        lease(&mut world, tenant, 2);
    }
    world.acquire(A, 60 * SECOND, None);
    wait(&mut world, 100 * MS);
    let why = world.scheduler.why(A);
    assert!(matches!(why, Some(Why::Wants { band: Band::Burst, .. })), "{why:?}");
    let need = world.scheduler.standing().need;
    assert_eq!(need.map(|need| need.band), Some(Band::Share), "{need:?}");
    world.set_tenant(A, allowance(1, 2, 10));
    assert_eq!(world.scheduler.standing().need.map(|need| need.band), Some(Band::Burst));
}

/// Logins a second among tenants of that share with many clients each, and how even they are served.
fn backlogged(capacity: u32, tenants: u32, share: u32, clients: u32) -> (u64, f64) {
    let mut cluster = Cluster::new(BudgetConfig::new(capacity), 17);
    let tenants: Vec<_> =
        (0..tenants).map(|number| cluster.tenant(number, allowance(1, share, capacity / 2))).collect();
    for tenant in &tenants {
        let (tenant, hold_us, think_us) = (*tenant, 4 * MS, 200);
        cluster.clients(Clients { tenant, clients, hold_us, think_us, from_us: 0 });
    }
    cluster.run_until(3 * SECOND);
    cluster.services.clear();
    cluster.measure_from = Moment(3 * SECOND);
    let before = cluster.world.opens;
    cluster.run_until(9 * SECOND);
    let held = |tenant| cluster.services.get(tenant).map_or(0.0, |service| service.held_us as f64);
    let services: Vec<f64> = tenants.iter().map(held).collect();
    ((cluster.world.opens - before) / 6, jain(&services))
}

/// Shares for a hundred servers on sixty: each tenant keeps its three, and nobody has to log in for a turn.
#[test]
fn tenants_with_too_many_shares_keep_their_part_and_take_no_turns() {
    let (logins, index) = backlogged(60, 20, 5, 20);
    assert!(logins <= 5 && index >= 0.99, "{logins} logins a second, Jain index {index:.3}");
}

/// Shares for a thousand: a share of one is a floor, and who has none of sixty servers waits for its turn as before.
#[test]
fn with_more_tenants_than_servers_all_are_served_in_turns() {
    let (logins, index) = backlogged(60, 200, 5, 3);
    assert!(logins <= 250 && index >= 0.9, "{logins} logins a second, Jain index {index:.3}");
}
