//! Random events of every kind, sensible and not: whatever happens in whatever order, the invariants hold.

use tenantry::budget::{BudgetConfig, Condition, Halt, Input, OpenFailure, Refusal};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::tenant::{Allowance, RateLimit};
use tenantry::time::Moment;

use super::rng::{Rng, env};
use super::world::{Outcome, Phase, World};

/// Seeds that found something once.
const SEEDS: &[u64] = &[1, 2, 3];

/// How a chaos run is made up.
struct Mix {
    capacity: u64,
    tenants: u64,
    /// Percent of logins that fail.
    failures: u64,
    /// Percent of steps that change a limit or a tenant.
    changes: u64,
}

fn run(seed: u64, events: u64, mix: &Mix) {
    let mut rng = Rng::new(seed);
    let mut config = BudgetConfig::new(1 + rng.below(mix.capacity) as u32);
    config.headroom = rng.below(3) as u32;
    config.reconnects_per_second = 1 + rng.below(400) as u32;
    let mut world = World::new(config);
    world.audit_every = 1 + 4 * mix.capacity / 10;
    for tenant in 0..mix.tenants {
        world.set_tenant(TenantId(tenant as u32), random_allowance(&mut rng, mix.capacity));
    }
    for _ in 0..events {
        pass_time(&mut world, &mut rng);
        step(&mut world, &mut rng, mix);
    }
    wind_down(&mut world);
}

fn random_allowance(rng: &mut Rng, capacity: u64) -> Allowance {
    let ceiling = 1 + rng.below(capacity.max(2)) as u32;
    let share = rng.below(u64::from(ceiling) + 1) as u32;
    let reserve = if rng.chance(10) { rng.below(3) as u32 } else { 0 };
    let floor = rng.below(3) as u32;
    Allowance {
        reserve,
        floor,
        share,
        ceiling,
        weight: rng.below(6) as u32,
        max_waiters: 1 + rng.below(30) as u32,
    }
}

fn pass_time(world: &mut World, rng: &mut Rng) {
    let span = match rng.below(100) {
        0..40 => 0,
        40..70 => rng.below(300),
        70..90 => rng.below(5_000),
        90..98 => rng.below(100_000),
        98 => rng.below(2_000_000),
        _ => rng.below(20_000_000),
    };
    let then = Moment(world.now.0 + span);
    // Now and then the driver's timer is late.
    if rng.chance(95) {
        world.pass_until(then);
    } else {
        world.now = then;
        if rng.chance(50) {
            world.tick();
        }
    }
}

fn step(world: &mut World, rng: &mut Rng, mix: &Mix) {
    if rng.chance(mix.changes) {
        return change(world, rng, mix);
    }
    let tenant = TenantId(rng.below(mix.tenants) as u32);
    match rng.below(100) {
        0..40 => {
            let prefer = rng.pick(&world.servers.keys().copied().collect::<Vec<_>>());
            let patience = [0, 500, 20_000, 1_000_000, 5_000_000].map(|limit| 1 + limit);
            let patience = rng.pick(&patience).unwrap_or(0);
            if rng.chance(10) {
                world.acquire_exempt(tenant, patience);
            } else {
                world.acquire(tenant, patience, prefer.filter(|_| rng.chance(30)));
            }
        }
        40..65 => {
            if let Some(server) = rng.pick(&world.servers_in(Phase::Busy)) {
                let condition = if rng.chance(95) { Condition::Clean } else { Condition::Broken };
                world.release(server, condition);
            }
        }
        65..80 => {
            if let Some(server) = rng.pick(&world.servers_in(Phase::Opening)) {
                finish_login(world, rng, server, mix.failures);
            }
        }
        80..92 => {
            if let Some(server) = rng.pick(&world.servers_in(Phase::Closing)) {
                world.closed(server);
            }
        }
        92..94 => {
            if let Some(server) = rng.pick(&world.servers_in(Phase::Idle)) {
                world.lost(server);
            }
        }
        94..96 => {
            if let Some(request) = rng.pick(&world.waiting.keys().copied().collect::<Vec<_>>()) {
                world.cancel(request);
            }
        }
        96 => {
            // A server whose end was seen at an odd moment: the permit comes home from any state.
            if let Some(server) = rng.pick(&world.servers.keys().copied().collect::<Vec<_>>()) {
                world.closed(server);
            }
        }
        _ => nonsense(world, rng),
    }
}

fn finish_login(world: &mut World, rng: &mut Rng, server: ServerId, failures: u64) {
    if !rng.chance(failures) {
        world.opened(server);
        return;
    }
    let failures = [OpenFailure::ServerFull, OpenFailure::Unavailable, OpenFailure::Rejected];
    world.open_failed(server, rng.pick(&failures).unwrap_or(OpenFailure::Unavailable));
}

fn change(world: &mut World, rng: &mut Rng, mix: &Mix) {
    let tenant = TenantId(rng.below(mix.tenants) as u32);
    let known = world.allowances.contains_key(&tenant);
    match rng.below(8) {
        0 => drop(world.set_capacity(rng.below(mix.capacity + 1) as u32)),
        2 | 3 if known => {
            let halt = rng.pick(&[Halt::Pause, Halt::Drain, Halt::Suspend]).unwrap_or(Halt::Pause);
            let span = rng.pick(&[1, 3_000, 400_000, 30_000_000]).unwrap_or(1);
            world.halt(tenant, halt, span);
        }
        4 if known => drop(world.resume(tenant)),
        5 if known => {
            let (per_second, burst) = (1 + rng.below(2_000) as u32, 1 + rng.below(9) as u32);
            let limit = RateLimit { per_second, burst, delay_us: rng.below(2) as u32 * 50_000 };
            world.set_rate(tenant, Some(limit).filter(|_| rng.chance(70)));
        }
        1 if known => drop(world.remove_tenant(tenant)),
        _ => drop(world.set_tenant(tenant, random_allowance(rng, mix.capacity))),
    }
}

fn nonsense(world: &mut World, rng: &mut Rng) {
    let any = world.servers.keys().copied().collect::<Vec<_>>();
    let server = rng.pick(&any).filter(|_| rng.chance(70)).unwrap_or(ServerId(rng.next()));
    let phase = world.servers.get(&server).map(|server| server.phase);
    let input = match rng.below(6) {
        0 if phase != Some(Phase::Opening) => Input::Opened { server },
        1 if phase != Some(Phase::Busy) => Input::Release { server, condition: Condition::Clean },
        2 if phase != Some(Phase::Idle) => Input::Lost { server },
        3 => Input::Cancel { request: RequestId(u64::MAX) },
        4 => Input::RemoveTenant { tenant: TenantId(u32::MAX) },
        5 => {
            world.tick();
            let Some((request, waiting)) = world.waiting.iter().next() else { return };
            let (request, tenant, deadline) = (*request, waiting.tenant, waiting.deadline);
            Input::Acquire { request, tenant, deadline, prefer: None, exempt: false }
        }
        _ => return,
    };
    let about_server = matches!(input, Input::Opened { .. } | Input::Release { .. } | Input::Lost { .. });
    let refusal = world.nonsense(input);
    let unknown = refusal == Refusal::UnknownServer;
    assert!(!about_server || unknown == phase.is_none(), "the refusal says whether the server exists");
}

/// In a friendly environment every waiter gets an answer and everything comes to rest.
fn wind_down(world: &mut World) {
    for _ in 0..200_000 {
        let next = world.servers.iter().find(|(_, server)| server.phase != Phase::Idle);
        match next.map(|(id, server)| (*id, server.phase)) {
            Some((server, Phase::Opening)) => drop(world.opened(server)),
            Some((server, Phase::Busy)) => drop(world.release(server, Condition::Clean)),
            Some((server, Phase::Closing)) => drop(world.closed(server)),
            Some((_, Phase::Idle)) | None if world.waiting.is_empty() => return,
            Some((_, Phase::Idle)) | None => {
                assert!(world.wake < Moment::NEVER, "a waiter without anything under way has a timer");
                world.pass_until(world.wake);
            }
        }
    }
    panic!("the world never comes to rest");
}

fn reported(seed: u64, events: u64, mix: &Mix) {
    let outcome = std::panic::catch_unwind(|| run(seed, events, mix));
    assert!(outcome.is_ok(), "chaos failed with seed {seed} (events {events}, capacity {})", mix.capacity);
}

#[test]
fn the_invariants_hold_under_a_million_random_events() {
    let events = env("TENANTRY_SIM_EVENTS").unwrap_or(1_000_000);
    let seed = env("TENANTRY_SIM_SEED").unwrap_or(20);
    let mixes = [
        Mix { capacity: 3, tenants: 4, failures: 10, changes: 2 },
        Mix { capacity: 10, tenants: 12, failures: 3, changes: 1 },
        Mix { capacity: 10, tenants: 5, failures: 60, changes: 0 },
        Mix { capacity: 60, tenants: 40, failures: 2, changes: 1 },
        Mix { capacity: 40, tenants: 300, failures: 0, changes: 0 },
    ];
    let share = events / 50;
    for round in 0..10 {
        for mix in &mixes {
            reported(seed * 1_000 + round, share, mix);
        }
    }
}

#[test]
fn seeds_that_found_something_once_find_nothing_now() {
    for seed in SEEDS {
        reported(*seed, 5_000, &Mix { capacity: 6, tenants: 8, failures: 15, changes: 3 });
    }
}

#[test]
fn a_recorded_trace_replays_to_the_same_outputs_and_state() {
    let play = || {
        let mut rng = Rng::new(77);
        let mut world = World::new(BudgetConfig::new(5));
        world.keep_words = true;
        let mix = Mix { capacity: 5, tenants: 8, failures: 10, changes: 2 };
        for tenant in 0..mix.tenants {
            world.set_tenant(TenantId(tenant as u32), random_allowance(&mut rng, mix.capacity));
        }
        let mut said = Vec::new();
        for _ in 0..20_000 {
            pass_time(&mut world, &mut rng);
            step(&mut world, &mut rng, &mix);
            said.append(&mut world.said);
        }
        (said, format!("{:?}", world.scheduler))
    };
    assert!(play() == play(), "outputs are a function of state and input");
}

#[test]
fn every_acquire_ends_exactly_once() {
    let mut rng = Rng::new(5);
    let mut world = World::new(BudgetConfig::new(2));
    for tenant in 0..4 {
        world.set_tenant(TenantId(tenant), super::world::allowance(1, 1, 2));
    }
    let (mut ended, mut granted, mut asked) = (0, 0, 0);
    for _ in 0..2_000 {
        let (_, mut notes) = world.acquire(TenantId(rng.below(4) as u32), 1_000 + rng.below(50_000), None);
        asked += 1;
        notes.extend(world.pass_until(Moment(world.now.0 + rng.below(4_000))));
        for server in world.servers_in(Phase::Opening) {
            notes.extend(world.opened(server));
        }
        for server in world.servers_in(Phase::Busy) {
            notes.extend(world.release(server, Condition::Clean));
        }
        for server in world.servers_in(Phase::Closing) {
            notes.extend(world.closed(server));
        }
        for note in notes {
            if let super::world::Note::Ended { outcome, .. } = note {
                ended += 1;
                granted += u64::from(matches!(outcome, Outcome::Granted(_)));
            }
        }
    }
    assert_eq!(ended + world.waiting.len() as u64, asked);
    assert!(granted * 2 > asked, "most are served: {granted} of {asked}");
}
