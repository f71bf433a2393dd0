//! Every sequence of events up to a depth, in small worlds: scheduler and naive reference agree, and the recount holds.
//!
//! Longer with `TENANTRY_SIM_DEPTH`; each further step costs a factor of about five.

use tenantry::budget::{Condition, Halt, OpenFailure};
use tenantry::ids::{RequestId, TenantId};
use tenantry::tenant::RateLimit;

use super::differential::{Pair, Phase, config};
use super::reference::Event;
use super::rng::{Rng, env};
use super::world::allowance;

/// One thing that may happen. Of servers and waiters it is the first that it can happen to.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Acquire(u32),
    Cancel,
    Opened,
    OpenFailed(OpenFailure),
    Release(Condition),
    Closed,
    Lost,
    Pass(u64),
    Capacity(u32),
    /// Floor, share and ceiling.
    Allow(u32, [u32; 3]),
    Remove(u32),
    Rate(u32, Option<RateLimit>),
    Halt(u32, Halt, u64),
    Resume(u32),
}

/// A small world.
struct Small {
    name: &'static str,
    capacity: u32,
    /// Floor, share and ceiling of each tenant.
    tenants: &'static [[u32; 3]],
    /// What happens in any case, before all sequences.
    before: &'static [Choice],
    /// What may happen besides requests, logins, releases, closings and time.
    more: &'static [Choice],
    depth: usize,
}

/// Plays one sequence. Says how far it got before a step that is not possible there.
fn play(small: &Small, path: &[Choice]) -> usize {
    let mut rng = Rng::new(1);
    let mut pair = Pair::new(&config(small.capacity, 0, 1));
    for (number, [floor, share, ceiling]) in small.tenants.iter().enumerate() {
        pair.step(Event::SetTenant(TenantId(number as u32), allowance(*floor, *share, *ceiling)));
    }
    for choice in small.before {
        assert!(happen(&mut pair, *choice, &mut rng), "{}: {choice:?} is not possible at first", small.name);
    }
    path.iter().position(|choice| !happen(&mut pair, *choice, &mut rng)).unwrap_or(path.len())
}

/// Lets it happen, if it can.
fn happen(pair: &mut Pair, choice: Choice, rng: &mut Rng) -> bool {
    let first = |phase: Phase| pair.in_phase(phase).first().copied();
    let known = |tenant: u32| Some(TenantId(tenant)).filter(|tenant| pair.tenants.contains(tenant));
    let event = match choice {
        Choice::Acquire(tenant) => {
            pair.requests += 1;
            let (request, tenant) = (RequestId(pair.requests), TenantId(tenant));
            Some(Event::Acquire { request, tenant, deadline: pair.now + 400_000, prefer: None })
        }
        Choice::Cancel => pair.waiting.first().copied().map(Event::Cancel),
        Choice::Opened => first(Phase::Opening).map(Event::Opened),
        Choice::OpenFailed(why) => first(Phase::Opening).map(|server| Event::OpenFailed(server, why)),
        Choice::Release(condition) => first(Phase::Busy).map(|server| Event::Release(server, condition)),
        Choice::Closed => first(Phase::Closing).map(Event::Closed),
        Choice::Lost => first(Phase::Idle).map(Event::Lost),
        Choice::Pass(us) => {
            pair.pass(us, rng);
            return true;
        }
        Choice::Capacity(limit) => Some(Event::SetCapacity(limit)),
        Choice::Allow(tenant, [floor, share, ceiling]) => {
            Some(Event::SetTenant(TenantId(tenant), allowance(floor, share, ceiling)))
        }
        Choice::Remove(tenant) => known(tenant).map(Event::RemoveTenant),
        Choice::Rate(tenant, limit) => known(tenant).map(|tenant| Event::SetRate(tenant, limit)),
        Choice::Halt(tenant, halt, us) => {
            known(tenant).map(|tenant| Event::Halt(tenant, halt, pair.now + us))
        }
        Choice::Resume(tenant) => known(tenant).map(Event::Resume),
    };
    let is_possible = event.is_some();
    event.into_iter().for_each(|event| pair.step(event));
    is_possible
}

/// Counts through all sequences, leaving out those that begin with something impossible.
fn explore(small: &Small) -> u64 {
    let mut choices: Vec<Choice> = (0..small.tenants.len() as u32).map(Choice::Acquire).collect();
    choices.extend([Choice::Opened, Choice::Release(Condition::Clean), Choice::Closed]);
    choices.extend([Choice::Pass(20_000), Choice::Pass(260_000)]);
    choices.extend(small.more);
    let depth = small.depth + env("TENANTRY_SIM_DEPTH").unwrap_or(0) as usize;
    let (mut path, mut played) = (vec![0; depth], 0);
    loop {
        let steps: Vec<Choice> = path.iter().map(|choice: &usize| choices[*choice]).collect();
        let stuck = play(small, &steps);
        played += 1;
        let mut place = stuck.min(depth - 1);
        for later in &mut path[place + 1..] {
            *later = 0;
        }
        loop {
            path[place] += 1;
            if path[place] < choices.len() {
                break;
            }
            path[place] = 0;
            let Some(before) = place.checked_sub(1) else { return played };
            place = before;
        }
    }
}

fn explore_all(worlds: &[Small], at_least: u64) {
    let mut all = 0;
    for small in worlds {
        let played = explore(small);
        eprintln!("{}: {played} sequences", small.name);
        assert!(played > 500, "{}: {played} sequences", small.name);
        all += played;
    }
    assert!(all >= at_least, "{all} sequences, and there were {at_least}");
}

#[test]
fn every_short_sequence_keeps_the_rules() {
    let failing = |name, failure: &'static [Choice]| Small {
        name,
        capacity: 2,
        tenants: &[[1, 1, 2], [1, 1, 2]],
        before: &[],
        more: failure,
        depth: 5,
    };
    let plain =
        |name, capacity, tenants, depth| Small { name, capacity, tenants, before: &[], more: &[], depth };
    let worlds = [
        plain("one server, two tenants", 1, &[[1, 1, 1], [1, 1, 1]], 6),
        plain("two servers, two tenants", 2, &[[1, 1, 2], [0, 1, 2]], 6),
        plain("two servers, three tenants", 2, &[[1, 2, 2], [0, 0, 2], [1, 1, 1]], 5),
        plain("three servers, three tenants", 3, &[[0, 0, 3], [1, 2, 3], [0, 1, 2]], 5),
        failing("unavailable", &[Choice::OpenFailed(OpenFailure::Unavailable)]),
        failing("full", &[Choice::OpenFailed(OpenFailure::ServerFull)]),
        failing("rejected", &[Choice::OpenFailed(OpenFailure::Rejected)]),
    ];
    explore_all(&worlds, 10_000);
}

/// What operators and configurations do, in the middle of things: one server is leased and somebody may wait.
#[test]
fn every_short_sequence_with_orders_keeps_the_rules() {
    const LEASED: &[Choice] = &[Choice::Acquire(0), Choice::Opened];
    const CONTENDED: &[Choice] =
        &[Choice::Acquire(0), Choice::Opened, Choice::Acquire(0), Choice::Opened, Choice::Acquire(1)];
    // 25 ms apart, and who comes too early waits for as long.
    const SLOWLY: Option<RateLimit> = Some(RateLimit { per_second: 40, burst: 1, delay_us: 25_000 });
    const HALT_US: u64 = 30_000;
    let two: &[[u32; 3]] = &[[1, 1, 2], [1, 1, 2]];
    let world =
        |name, capacity, tenants, before, more, depth| Small { name, capacity, tenants, before, more, depth };
    let worlds = [
        world(
            "pause and resume",
            1,
            two,
            LEASED,
            &[Choice::Halt(0, Halt::Pause, HALT_US), Choice::Resume(0)],
            5,
        ),
        world(
            "drain and resume",
            2,
            two,
            CONTENDED,
            &[Choice::Halt(0, Halt::Drain, HALT_US), Choice::Resume(0)],
            4,
        ),
        world(
            "drain of who waits, with a slot promised",
            1,
            two,
            &[Choice::Acquire(0), Choice::Opened, Choice::Release(Condition::Clean), Choice::Pass(20_000)],
            &[Choice::Halt(1, Halt::Drain, HALT_US), Choice::Resume(1)],
            5,
        ),
        world(
            "suspend and resume",
            1,
            two,
            LEASED,
            &[Choice::Halt(0, Halt::Suspend, HALT_US), Choice::Resume(0)],
            5,
        ),
        world(
            "one halt after the other",
            2,
            two,
            LEASED,
            &[
                Choice::Halt(0, Halt::Pause, HALT_US),
                Choice::Halt(0, Halt::Drain, 5_000),
                Choice::Halt(0, Halt::Suspend, HALT_US),
            ],
            4,
        ),
        world("a rate", 2, two, LEASED, &[Choice::Rate(0, SLOWLY), Choice::Rate(0, None)], 5),
        world(
            "a rate and a pause",
            2,
            two,
            &[Choice::Acquire(0), Choice::Opened, Choice::Rate(0, SLOWLY), Choice::Acquire(0)],
            &[Choice::Halt(0, Halt::Pause, HALT_US), Choice::Resume(0), Choice::Cancel],
            4,
        ),
        world(
            "tiers",
            2,
            two,
            LEASED,
            &[Choice::Allow(0, [1, 2, 2]), Choice::Allow(0, [1, 1, 1]), Choice::Allow(1, [0, 0, 2])],
            4,
        ),
        world("removal and return", 2, two, CONTENDED, &[Choice::Remove(0), Choice::Allow(0, [1, 1, 2])], 4),
        world(
            "capacity",
            2,
            two,
            CONTENDED,
            &[Choice::Capacity(1), Choice::Capacity(3), Choice::Capacity(0)],
            4,
        ),
        world(
            "more shares than servers",
            3,
            &[[1, 3, 3], [1, 3, 3]],
            CONTENDED,
            &[Choice::Capacity(2), Choice::Allow(1, [0, 1, 3])],
            4,
        ),
        world(
            "servers that break",
            2,
            two,
            CONTENDED,
            &[Choice::Lost, Choice::Release(Condition::Broken), Choice::Cancel],
            4,
        ),
    ];
    explore_all(&worlds, 10_000);
}
