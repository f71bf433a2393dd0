//! One short story per rule: what an operator would read in `docs/budgets.md`, played on the virtual clock.

use tenantry::budget::{
    Band, Blocked, BudgetConfig, CloseReason, Condition, Input, OpenFailure, Output, Refusal, RejectReason,
    Scheduler, Why,
};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::stats::Cause;
use tenantry::tenant::Allowance;
use tenantry::time::Moment;

use super::world::{Note, Outcome, Phase, World, allowance};

pub(super) const MS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000_000;
pub(super) const A: TenantId = TenantId(1);
pub(super) const B: TenantId = TenantId(2);
pub(super) const C: TenantId = TenantId(3);

pub(super) fn world(capacity: u32) -> World {
    let mut world = World::new(BudgetConfig::new(capacity));
    world.keep_words = true;
    for tenant in [A, B, C] {
        world.set_tenant(tenant, allowance(1, 2, 10));
    }
    world
}

pub(super) fn wait(world: &mut World, us: u64) -> Vec<Note> {
    world.pass_until(Moment(world.now.0 + us))
}

/// Opens `count` servers for a tenant and leases them.
pub(super) fn lease(world: &mut World, tenant: TenantId, count: usize) -> Vec<ServerId> {
    let mut leased = Vec::new();
    for _ in 0..count {
        let (_, mut notes) = world.acquire(tenant, 60 * SECOND, None);
        for server in world.servers_in(Phase::Opening) {
            notes.extend(world.opened(server));
        }
        leased.extend(granted(&notes));
    }
    assert_eq!(leased.len(), count);
    leased
}

pub(super) fn granted(notes: &[Note]) -> Vec<ServerId> {
    let server = |note: &Note| match note {
        Note::Ended { outcome: Outcome::Granted(server), .. } => Some(*server),
        _ => None,
    };
    notes.iter().filter_map(server).collect()
}

pub(super) fn rejected(notes: &[Note]) -> Vec<RejectReason> {
    let reason = |note: &Note| match note {
        Note::Ended { outcome: Outcome::Rejected(reason), .. } => Some(*reason),
        _ => None,
    };
    notes.iter().filter_map(reason).collect()
}

fn said(world: &World, words: &str) -> bool {
    world.said.iter().any(|said| said.contains(words))
}

#[test]
fn the_server_used_last_is_granted_first_and_the_preferred_one_before_that() {
    let mut world = world(10);
    let servers = lease(&mut world, A, 3);
    for server in &servers {
        wait(&mut world, 10);
        world.release(*server, Condition::Clean);
    }
    let (_, notes) = world.acquire(A, SECOND, None);
    assert_eq!(granted(&notes), [servers[2]]);
    let (_, notes) = world.acquire(A, SECOND, Some(servers[0]));
    assert_eq!(granted(&notes), [servers[0]]);
    let (_, notes) = world.acquire(A, SECOND, Some(servers[0]));
    assert_eq!(granted(&notes), [servers[1]], "a preferred server that is leased is no hindrance");
    lease(&mut world, B, 1);
    world.release(servers[1], Condition::Clean);
    let (_, notes) = world.acquire(B, SECOND, Some(servers[1]));
    assert_eq!(granted(&notes), [], "another tenant's server is never granted");
}

#[test]
fn waiters_do_not_each_get_a_login() {
    let mut world = world(10);
    let servers = lease(&mut world, A, 1);
    for server in servers {
        // Short transactions: the one server will serve ten waiters sooner than logins would.
        world.release(server, Condition::Clean);
        for _ in 0..60 {
            let (_, notes) = world.acquire(A, SECOND, None);
            wait(&mut world, 200);
            world.release(granted(&notes)[0], Condition::Clean);
        }
    }
    let (_, notes) = world.acquire(A, SECOND, None);
    assert_eq!(granted(&notes).len(), 1);
    for _ in 0..10 {
        world.acquire(A, SECOND, None);
    }
    assert_eq!(world.servers_in(Phase::Opening).len(), 1, "slots are free, so one login begins, but not ten");
}

#[test]
fn the_head_of_the_queue_gets_help_when_its_own_servers_take_too_long() {
    let mut world = world(3);
    world.set_tenant(B, allowance(1, 1, 10));
    let own = lease(&mut world, A, 1);
    let both = lease(&mut world, B, 2);
    let other = &both[1..];
    wait(&mut world, 1_000);
    world.release(other[0], Condition::Clean);
    world.acquire(A, SECOND, None);
    assert_eq!(world.scheduler.why(A), Some(Why::OwnRelease));
    assert!(world.servers_in(Phase::Closing).is_empty());
    wait(&mut world, 30 * MS);
    assert_eq!(
        world.servers_in(Phase::Closing),
        other,
        "B's idle server goes when A's head waited two logins' time"
    );
    let notes = world.closed(other[0]);
    assert!(matches!(notes[..], [Note::Opening(_, A)]));
    assert_eq!(world.of_phase(own[0]), Phase::Busy);
}

#[test]
fn who_is_below_the_floor_gets_a_borrowed_idle_server_at_once() {
    let mut world = world(4);
    let borrowed = lease(&mut world, A, 4);
    for server in &borrowed {
        wait(&mut world, 100);
        world.release(*server, Condition::Clean);
    }
    world.acquire(B, SECOND, None);
    assert_eq!(world.servers_in(Phase::Closing), [borrowed[0]], "the one that was idle longest");
    assert!(said(&world, "Evicted { successor: TenantId(2) }"));
    let view = world.scheduler.tenant(B).expect("B is known");
    assert_eq!((view.promised, view.why), (1, Why::LoggingIn), "the slot counts for B before it is free");
}

#[test]
fn a_released_borrowed_server_goes_to_who_is_below_the_floor() {
    let mut world = world(4);
    let borrowed = lease(&mut world, A, 4);
    for _ in 0..5 {
        world.acquire(A, SECOND, None);
    }
    world.acquire(B, SECOND, None);
    wait(&mut world, 10 * MS);
    let notes = world.release(borrowed[3], Condition::Clean);
    assert_eq!(granted(&notes), [], "A's own waiters come later");
    assert!(said(&world, "Turn { successor: TenantId(2) }"));
    world.closed(borrowed[3]);
    let opening = world.servers_in(Phase::Opening);
    let notes = world.opened(opening[0]);
    assert_eq!(granted(&notes), opening);
}

#[test]
fn a_tenant_within_its_share_keeps_fresh_idle_servers() {
    let mut world = world(2);
    world.set_tenant(B, allowance(1, 0, 10));
    let busy = lease(&mut world, A, 2);
    wait(&mut world, SECOND);
    world.release(busy[0], Condition::Clean);
    world.acquire(B, SECOND, None);
    assert!(world.servers_in(Phase::Closing).is_empty(), "idle for no time at all");
    assert_eq!(
        world.scheduler.why(B),
        Some(Why::Wants { band: Band::Floor, blocked: Some(Blocked::NoIdleServer) })
    );
    wait(&mut world, 5 * MS - 1);
    assert!(world.servers_in(Phase::Closing).is_empty(), "for all that is known it is wanted back");
    wait(&mut world, 1);
    assert_eq!(world.servers_in(Phase::Closing), [busy[0]]);
}

#[test]
fn while_a_tenant_below_its_floor_awaits_a_release_nobody_above_takes_what_it_spares() {
    let mut world = World::new(BudgetConfig::new(5));
    let (idle, burst) = (TenantId(4), TenantId(5));
    world.set_tenant(A, allowance(0, 0, 5));
    world.set_tenant(B, allowance(1, 1, 1));
    world.set_tenant(idle, allowance(0, 1, 1));
    world.set_tenant(burst, allowance(0, 0, 1));
    let spared = lease(&mut world, idle, 1);
    lease(&mut world, A, 4);
    world.release(spared[0], Condition::Clean);
    wait(&mut world, 100 * MS);
    world.acquire(B, SECOND, None);
    let why = world.scheduler.why(B);
    assert_eq!(why, Some(Why::Wants { band: Band::Floor, blocked: Some(Blocked::AwaitingRelease) }));
    world.acquire(burst, SECOND, None);
    assert_eq!(world.servers_in(Phase::Closing), []);
    wait(&mut world, 10 * MS);
    assert_eq!(world.servers_in(Phase::Closing), spared);
    let notes = world.closed(spared[0]);
    assert!(matches!(notes[..], [Note::Opening(_, B)]));
}

#[test]
fn the_promised_slot_is_given_to_somebody_else_if_nobody_waits_for_it_any_more() {
    let mut world = world(1);
    let busy = lease(&mut world, A, 1);
    wait(&mut world, 2 * SECOND);
    world.acquire(C, SECOND, None);
    let (request, _) = world.acquire(B, SECOND, None);
    world.release(busy[0], Condition::Clean);
    assert!(said(&world, "successor: TenantId(2)"), "equal in everything else, the smaller id is first");
    world.cancel(request);
    let notes = world.closed(busy[0]);
    assert!(matches!(notes[..], [Note::Opening(_, C)]));
}

#[test]
fn a_reserve_is_never_evicted() {
    let mut world = world(2);
    let mut bought = allowance(1, 1, 2);
    bought.reserve = 2;
    world.set_tenant(A, bought);
    for server in lease(&mut world, A, 2) {
        world.release(server, Condition::Clean);
    }
    world.acquire(B, 4 * SECOND, None);
    let notes = wait(&mut world, 5 * SECOND);
    assert_eq!(
        rejected(&notes),
        [RejectReason::QueueTimeout { waited_us: 4 * SECOND, cause: Cause::Budget }]
    );
    assert_eq!(world.servers_in(Phase::Idle).len(), 2);
}

#[test]
fn a_waiter_is_rejected_at_its_deadline_even_behind_a_later_one() {
    let mut world = world(1);
    lease(&mut world, A, 1);
    world.acquire(A, 900 * MS, None);
    world.acquire(A, 300 * MS, None);
    let notes = wait(&mut world, 300 * MS);
    assert_eq!(rejected(&notes), [RejectReason::QueueTimeout { waited_us: 300 * MS, cause: Cause::Budget }]);
    let notes = wait(&mut world, 600 * MS);
    assert_eq!(rejected(&notes), [RejectReason::QueueTimeout { waited_us: 900 * MS, cause: Cause::Budget }]);
    assert_eq!(world.scheduler.waiters(), 0);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let mut world = world(1);
    let mut short = allowance(1, 1, 1);
    short.max_waiters = 2;
    world.set_tenant(A, short);
    lease(&mut world, A, 1);
    world.acquire(A, SECOND, None);
    world.acquire(A, SECOND, None);
    let (_, notes) = world.acquire(A, SECOND, None);
    assert_eq!(rejected(&notes), [RejectReason::QueueFull]);
    let (_, notes) = world.acquire(TenantId(99), SECOND, None);
    assert_eq!(rejected(&notes), [RejectReason::UnknownTenant]);
}

#[test]
fn a_cut_closes_idle_servers_first_and_leased_ones_at_their_release() {
    let mut world = world(6);
    let servers = lease(&mut world, A, 6);
    world.release(servers[0], Condition::Clean);
    world.set_capacity(3);
    assert_eq!(world.servers_in(Phase::Closing), [servers[0]]);
    assert_eq!((world.scheduler.used(), world.scheduler.capacity()), (6, 3));
    world.acquire(A, SECOND, None);
    let notes = world.release(servers[1], Condition::Clean);
    assert_eq!(granted(&notes), [], "even though somebody waits");
    world.release(servers[2], Condition::Clean);
    let notes = world.release(servers[3], Condition::Clean);
    assert_eq!(granted(&notes), [servers[3]], "three are left");
    for server in &servers[..3] {
        world.closed(*server);
    }
    assert_eq!(world.scheduler.used(), 3);
    world.set_capacity(4);
    for _ in 0..9 {
        world.acquire(A, SECOND, None);
    }
    assert_eq!(world.servers_in(Phase::Opening).len(), 1, "a raise is used at once");
}

#[test]
fn a_cut_spares_what_is_under_a_reserve_while_releases_can_make_room() {
    let mut world = world(4);
    let reserved = Allowance { reserve: 1, ..allowance(1, 1, 2) };
    world.set_tenant(B, reserved);
    let kept = lease(&mut world, B, 1);
    let servers = lease(&mut world, A, 3);
    world.release(kept[0], Condition::Clean);
    world.set_capacity(2);
    assert_eq!(world.servers_in(Phase::Closing), [], "the only idle server is under the reserve");
    world.acquire(B, SECOND, None);
    world.release(kept[0], Condition::Clean);
    assert_eq!(world.servers_in(Phase::Closing), [], "nor is it closed at its release");
    world.release(servers[0], Condition::Clean);
    world.release(servers[1], Condition::Clean);
    assert_eq!(world.servers_in(Phase::Closing), servers[..2]);
    world.set_capacity(0);
    assert_eq!(world.servers_in(Phase::Closing).len(), 3, "no room even for the reserve");
}

#[test]
fn a_lowered_ceiling_closes_what_is_too_much_when_it_can() {
    let mut world = world(6);
    let servers = lease(&mut world, A, 4);
    world.release(servers[0], Condition::Clean);
    world.set_tenant(A, allowance(1, 1, 1));
    assert!(said(&world, "Ceiling"));
    world.release(servers[1], Condition::Clean);
    world.release(servers[2], Condition::Clean);
    assert_eq!(world.servers_of(A), 1);
    world.release(servers[3], Condition::Clean);
    assert_eq!(world.servers_in(Phase::Idle), [servers[3]]);
}

#[test]
fn a_removed_tenant_is_drained_without_breaking_a_lease() {
    let mut world = world(3);
    let servers = lease(&mut world, A, 2);
    world.release(servers[0], Condition::Clean);
    lease(&mut world, B, 1);
    let (_, notes) = world.acquire(A, SECOND, None);
    assert_eq!(granted(&notes), [servers[0]]);
    world.acquire(A, SECOND, None);
    let notes = world.remove_tenant(A);
    assert_eq!(rejected(&notes), [RejectReason::TenantRemoved]);
    let (_, notes) = world.acquire(A, SECOND, None);
    assert_eq!(rejected(&notes), [RejectReason::TenantRemoved]);
    assert_eq!(world.servers_in(Phase::Closing), []);
    world.release(servers[0], Condition::Clean);
    world.release(servers[1], Condition::Clean);
    world.closed(servers[0]);
    let notes = world.closed(servers[1]);
    assert_eq!(notes, [Note::Drained(A)]);
    assert_eq!(world.scheduler.tenant(A), None);
    world.set_tenant(A, allowance(1, 1, 1));
    lease(&mut world, A, 1);
}

#[test]
fn a_tenant_that_is_wanted_again_is_not_drained() {
    let mut world = world(3);
    let servers = lease(&mut world, A, 1);
    world.remove_tenant(A);
    world.set_tenant(A, allowance(1, 1, 1));
    let notes = world.release(servers[0], Condition::Clean);
    assert_eq!((notes, world.servers_in(Phase::Idle)), (vec![], servers));
}

#[test]
fn an_unreachable_cluster_refuses_at_once_and_is_probed_by_one_login_at_a_time() {
    let mut world = world(8);
    for tenant in [A, B, C] {
        world.acquire(tenant, SECOND, None);
    }
    let opening = world.servers_in(Phase::Opening);
    let notes = world.open_failed(opening[0], OpenFailure::Unavailable);
    assert_eq!(rejected(&notes), [RejectReason::Unavailable], "the others' logins are still under way");
    for server in &opening[1..] {
        let notes = world.open_failed(*server, OpenFailure::Unavailable);
        assert_eq!(rejected(&notes), [RejectReason::Unavailable]);
    }
    let mut pause = 100 * MS;
    for _ in 0..7 {
        let (_, notes) = world.acquire(A, SECOND, None);
        assert_eq!(rejected(&notes), [RejectReason::Unavailable], "at once, while the breaker is open");
        wait(&mut world, pause);
        world.acquire(A, SECOND, None);
        let (_, notes) = world.acquire(B, SECOND, None);
        assert_eq!(rejected(&notes), [RejectReason::Unavailable], "one probe is enough");
        let probes = world.servers_in(Phase::Opening);
        assert_eq!(probes.len(), 1);
        assert!(world.scheduler.breaker_open());
        let notes = world.open_failed(probes[0], OpenFailure::Unavailable);
        assert_eq!(rejected(&notes), [RejectReason::Unavailable]);
        pause = (pause * 2).min(5 * SECOND);
    }
    wait(&mut world, pause);
    world.acquire(A, SECOND, None);
    let probes = world.servers_in(Phase::Opening);
    let notes = world.opened(probes[0]);
    assert_eq!(granted(&notes), probes);
    assert!(!world.scheduler.breaker_open());
    lease(&mut world, B, 2);
}

#[test]
fn a_running_server_still_serves_its_tenants_waiters_while_the_cluster_is_unreachable() {
    let mut world = world(8);
    let servers = lease(&mut world, A, 1);
    world.acquire(B, SECOND, None);
    let opening = world.servers_in(Phase::Opening);
    world.open_failed(opening[0], OpenFailure::Unavailable);
    world.acquire(A, SECOND, None);
    world.acquire(A, SECOND, None);
    let notes = world.release(servers[0], Condition::Clean);
    assert_eq!(granted(&notes), servers);
    let notes = world.release(servers[0], Condition::Broken);
    assert_eq!(rejected(&notes), [RejectReason::Unavailable], "with the last server the hope is gone");
}

#[test]
fn a_rejected_tenant_is_alone_with_that() {
    let mut world = world(8);
    world.acquire(A, SECOND, None);
    world.acquire(A, SECOND, None);
    let opening = world.servers_in(Phase::Opening);
    let notes = world.open_failed(opening[0], OpenFailure::Rejected);
    assert_eq!(rejected(&notes), [RejectReason::Rejected; 2]);
    let (_, notes) = world.acquire(A, SECOND, None);
    assert_eq!(rejected(&notes), [RejectReason::Rejected]);
    lease(&mut world, B, 2);
    assert!(!world.scheduler.breaker_open());
    wait(&mut world, 100 * MS);
    lease(&mut world, A, 1);
}

#[test]
fn a_full_server_lowers_what_is_used_and_is_asked_again_later() {
    let mut world = world(8);
    lease(&mut world, A, 3);
    world.acquire(B, 4 * SECOND, None);
    let opening = world.servers_in(Phase::Opening);
    let notes = world.open_failed(opening[0], OpenFailure::ServerFull);
    assert_eq!(rejected(&notes), [], "full is not broken");
    assert_eq!((world.scheduler.working_capacity(), world.scheduler.capacity()), (3, 8));
    assert!(world.servers_in(Phase::Opening).is_empty(), "nothing is tried while nothing has changed");
    wait(&mut world, SECOND);
    let opening = world.servers_in(Phase::Opening);
    let notes = world.opened(opening[0]);
    assert_eq!(granted(&notes), opening);
    wait(&mut world, 10 * SECOND);
    world.tick();
    assert_eq!(world.scheduler.working_capacity(), 8);
}

#[test]
fn a_lost_idle_server_counts_until_it_is_gone() {
    let mut world = world(1);
    let servers = lease(&mut world, A, 1);
    world.release(servers[0], Condition::Clean);
    world.lost(servers[0]);
    world.acquire(A, SECOND, None);
    assert_eq!((world.scheduler.used(), world.servers_in(Phase::Opening).len()), (1, 0));
    world.closed(servers[0]);
    assert_eq!((world.scheduler.used(), world.servers_in(Phase::Opening).len()), (1, 1));
}

#[test]
fn logins_in_flight_are_capped_by_band() {
    let mut config = BudgetConfig::new(40);
    config.opens_in_flight = [6, 3, 2];
    config.headroom = 40;
    let mut world = World::new(config);
    for number in 0..40 {
        world.set_tenant(TenantId(number), allowance(1, 2, 9));
        world.acquire(TenantId(number), SECOND, None);
    }
    assert_eq!(world.servers_in(Phase::Opening).len(), 6);
    let why = world.scheduler.why(TenantId(39));
    assert_eq!(why, Some(Why::Wants { band: Band::Floor, blocked: Some(Blocked::LoginsInFlight) }));
    assert_eq!(world.scheduler.wanting(), [34, 0, 0]);
    let first = world.servers_in(Phase::Opening)[0];
    world.opened(first);
    assert_eq!(world.servers_in(Phase::Opening).len(), 6);
}

#[test]
fn a_burst_waits_for_the_reconnect_budget() {
    let mut config = BudgetConfig::new(4);
    config.reconnects_per_second = 10;
    let mut world = World::new(config);
    for tenant in [A, B, C] {
        world.set_tenant(tenant, allowance(0, 0, 4));
    }
    let servers = lease(&mut world, A, 4);
    wait(&mut world, 300 * MS);
    for server in &servers {
        world.release(*server, Condition::Clean);
    }
    wait(&mut world, 30 * MS);
    // Two tokens, and one more every 100 ms: four bursters want a server each, all of A's four are idle for long enough.
    let mut closed = Vec::new();
    for number in 0..4 {
        world.set_tenant(TenantId(10 + number), allowance(0, 0, 1));
        world.acquire(TenantId(10 + number), 4 * SECOND, None);
    }
    closed.push(world.servers_in(Phase::Closing).len());
    let why = world.scheduler.why(TenantId(13));
    assert_eq!(why, Some(Why::Wants { band: Band::Burst, blocked: Some(Blocked::ReconnectBudget) }));
    for _ in 0..2 {
        wait(&mut world, 100 * MS);
        closed.push(world.servers_in(Phase::Closing).len());
    }
    assert_eq!(closed, [2, 3, 4]);
}

#[test]
fn nonsense_is_refused() {
    let mut world = world(2);
    let servers = lease(&mut world, A, 1);
    let server = servers[0];
    assert_eq!(world.nonsense(Input::Opened { server }), Refusal::WrongState("leased"));
    assert_eq!(world.nonsense(Input::Lost { server }), Refusal::WrongState("leased"));
    world.release(server, Condition::Clean);
    let release = Input::Release { server, condition: Condition::Clean };
    assert_eq!(world.nonsense(release), Refusal::WrongState("idle"), "released twice");
    let unknown = ServerId(server.0 ^ (1 << 40));
    assert_eq!(
        world.nonsense(Input::Lost { server: unknown }),
        Refusal::UnknownServer,
        "an older generation"
    );
    world.closed(server);
    assert_eq!(world.nonsense(Input::Opened { server }), Refusal::UnknownServer, "late");
    assert_eq!(world.nonsense(Input::Cancel { request: RequestId(77) }), Refusal::UnknownRequest);
    assert_eq!(world.nonsense(Input::RemoveTenant { tenant: TenantId(77) }), Refusal::UnknownTenant);
}

#[test]
fn a_permit_of_another_ledger_comes_back() {
    let mut config = BudgetConfig::new(1);
    config.ledger = 7;
    let mut other = Scheduler::new(config);
    let mut out = Vec::new();
    other
        .handle(Moment(0), Input::SetTenant { tenant: A, allowance: allowance(1, 1, 1) }, &mut out)
        .expect("fine");
    let acquire = Input::Acquire {
        request: RequestId(1),
        tenant: A,
        deadline: Moment(SECOND),
        prefer: None,
        exempt: false,
    };
    other.handle(Moment(0), acquire, &mut out).expect("fine");
    let permit = out.into_iter().find_map(|output| match output {
        Output::Open { permit, .. } => Some(permit),
        _ => None,
    });
    let permit = permit.expect("a server was ordered");
    let mut world = world(2);
    lease(&mut world, A, 1);
    assert!(matches!(world.nonsense(Input::Closed { permit }), Refusal::ForeignPermit(_)));
}

#[test]
fn time_that_runs_backwards_or_to_its_end_does_no_harm() {
    let mut world = world(2);
    let servers = lease(&mut world, A, 2);
    world.acquire(A, u64::MAX, None);
    world.now = Moment(5 * SECOND);
    world.tick();
    let mut out = Vec::new();
    let release = Input::Release { server: servers[0], condition: Condition::Clean };
    world.scheduler.handle(Moment(0), release, &mut out).expect("an earlier time counts as the latest one");
    world.scheduler.handle(Moment::NEVER, Input::Tick, &mut out).expect("fine");
    world.scheduler.handle(Moment::NEVER, Input::Tick, &mut out).expect("fine");
}

#[test]
fn reasons_have_stable_words() {
    let reasons = [CloseReason::Capacity, CloseReason::Ceiling, CloseReason::TenantRemoved];
    assert_eq!(reasons.map(CloseReason::as_str), ["capacity", "ceiling", "tenant_removed"]);
    let turn = CloseReason::Turn { successor: A };
    assert_eq!((turn.as_str(), CloseReason::Evicted { successor: A }.as_str()), ("turn", "evicted"));
}
