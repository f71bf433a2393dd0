//! Stories of tenants with long transactions: what they may borrow together, and what does not count.

use tenantry::budget::{Band, Blocked, Condition, Why};

use super::scenarios::{A, B, MS, SECOND, granted, lease, wait, world};
use super::world::{Phase, allowance};

#[test]
fn long_borrowers_together_hold_only_a_part() {
    let mut world = world(8);
    world.set_tenant(A, allowance(0, 0, 8));
    let mut servers = lease(&mut world, A, 1);
    for _ in 0..30 {
        wait(&mut world, SECOND);
        world.release(servers[0], Condition::Clean);
        let (_, notes) = world.acquire(A, SECOND, None);
        servers = granted(&notes);
    }
    for _ in 0..20 {
        world.acquire(A, 60 * SECOND, None);
        for server in world.servers_in(Phase::Opening) {
            world.opened(server);
        }
        wait(&mut world, 100 * MS);
    }
    assert_eq!(world.servers_of(A), 2, "a quarter of eight, although nobody else is there");
    let why = world.scheduler.why(A);
    assert_eq!(why, Some(Why::Wants { band: Band::Burst, blocked: Some(Blocked::LongBorrowers) }));
}

#[test]
fn what_a_long_borrower_leaves_idle_keeps_no_other_from_borrowing() {
    let mut world = world(8);
    world.set_tenant(A, allowance(0, 0, 8));
    world.set_tenant(B, allowance(0, 0, 8));
    let mut kept = Vec::new();
    for tenant in [A, B] {
        let mut servers = lease(&mut world, tenant, 1);
        for _ in 0..30 {
            wait(&mut world, SECOND);
            world.release(servers[0], Condition::Clean);
            let (_, notes) = world.acquire(tenant, SECOND, None);
            servers = granted(&notes);
        }
        if tenant == A {
            // It has two, a quarter of eight, and leaves both idle.
            servers.extend(lease(&mut world, A, 1));
            kept.clone_from(&servers);
            servers.iter().for_each(|server| drop(world.release(*server, Condition::Clean)));
        }
    }
    assert_eq!(kept.len(), 2);
    assert_eq!(lease(&mut world, B, 1).len(), 1, "{:?}", world.scheduler.why(B));
}
