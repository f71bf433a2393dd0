//! Every sequence of events up to a depth, in small worlds: scheduler and naive reference agree, and the recount holds.
//!
//! Longer with `TENANTRY_SIM_DEPTH`; each further step costs a factor of about five.

use tenantry::budget::{Condition, OpenFailure};
use tenantry::ids::{RequestId, TenantId};

use super::differential::{Pair, Phase, config};
use super::reference::Event;
use super::rng::{Rng, env};
use super::world::allowance;

/// A small world.
struct Small {
    capacity: u32,
    /// Floor, share and ceiling of each tenant.
    tenants: &'static [[u32; 3]],
    depth: usize,
    failure: Option<OpenFailure>,
}

/// Plays one sequence. Says how far it got before a step that is not possible there.
fn play(small: &Small, path: &[usize]) -> usize {
    let mut rng = Rng::new(1);
    let mut pair = Pair::new(&config(small.capacity, 0, 1));
    for (number, [floor, share, ceiling]) in small.tenants.iter().enumerate() {
        pair.step(Event::SetTenant(TenantId(number as u32), allowance(*floor, *share, *ceiling)));
    }
    for (step, choice) in path.iter().enumerate() {
        let first = |phase: Phase| pair.in_phase(phase).first().copied();
        let tenants = small.tenants.len();
        let event = match choice.checked_sub(tenants) {
            None => {
                pair.requests += 1;
                let (request, tenant) = (RequestId(pair.requests), TenantId(*choice as u32));
                Some(Event::Acquire { request, tenant, deadline: pair.now + 400_000, prefer: None })
            }
            Some(0) => first(Phase::Opening).map(Event::Opened),
            Some(1) => first(Phase::Busy).map(|server| Event::Release(server, Condition::Clean)),
            Some(2) => first(Phase::Closing).map(Event::Closed),
            Some(3) => {
                pair.pass(20_000, &mut rng);
                continue;
            }
            Some(4) => {
                pair.pass(260_000, &mut rng);
                continue;
            }
            Some(_) => {
                small.failure.zip(first(Phase::Opening)).map(|(why, server)| Event::OpenFailed(server, why))
            }
        };
        match event {
            Some(event) => pair.step(event),
            None => return step,
        }
    }
    path.len()
}

/// Counts through all sequences, leaving out those that begin with something impossible.
fn explore(small: &Small) -> u64 {
    let choices = small.tenants.len() + if small.failure.is_some() { 6 } else { 5 };
    let depth = small.depth + env("TENANTRY_SIM_DEPTH").unwrap_or(0) as usize;
    let (mut path, mut played) = (vec![0; depth], 0);
    loop {
        let stuck = play(small, &path);
        played += 1;
        let mut place = stuck.min(depth - 1);
        for later in &mut path[place + 1..] {
            *later = 0;
        }
        loop {
            path[place] += 1;
            if path[place] < choices {
                break;
            }
            path[place] = 0;
            let Some(before) = place.checked_sub(1) else { return played };
            place = before;
        }
    }
}

#[test]
fn every_short_sequence_keeps_the_rules() {
    let worlds = [
        Small { capacity: 1, tenants: &[[1, 1, 1], [1, 1, 1]], depth: 6, failure: None },
        Small { capacity: 2, tenants: &[[1, 1, 2], [0, 1, 2]], depth: 6, failure: None },
        Small { capacity: 2, tenants: &[[1, 2, 2], [0, 0, 2], [1, 1, 1]], depth: 5, failure: None },
        Small { capacity: 3, tenants: &[[0, 0, 3], [1, 2, 3], [0, 1, 2]], depth: 5, failure: None },
        Small {
            capacity: 2,
            tenants: &[[1, 1, 2], [1, 1, 2]],
            depth: 5,
            failure: Some(OpenFailure::Unavailable),
        },
        Small {
            capacity: 2,
            tenants: &[[1, 1, 2], [1, 1, 2]],
            depth: 5,
            failure: Some(OpenFailure::ServerFull),
        },
        Small {
            capacity: 2,
            tenants: &[[1, 1, 2], [1, 1, 2]],
            depth: 5,
            failure: Some(OpenFailure::Rejected),
        },
    ];
    for small in worlds {
        let played = explore(&small);
        assert!(played > 500, "{played} sequences");
    }
}
