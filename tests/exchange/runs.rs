//! Worlds with many seeds.

use super::author::Author;
use super::backend::{Backend, Nature, Tx};
use super::compare;
use super::messages::bare;
use super::rng::{Rng, env};
use super::world::{Phase, World, login};

/// A client's author and the server it would have without a proxy.
struct Twin {
    author: Author,
    direct: Backend,
    sent: Vec<u8>,
    bursts: usize,
}

/// What the runs together came to.
#[derive(Debug, Default)]
struct Sums {
    steps: u64,
    suspects: u64,
    bytes: usize,
}

fn twins(world: &mut World, reports_at_once: bool) -> Vec<Twin> {
    let count = 1 + world.rng.below(4);
    (0..count)
        .map(|id| {
            let own_login = world.rng.chance(30);
            let mut values = login();
            if own_login {
                values.insert("application_name".to_owned(), format!("own-{id}"));
                values.insert("my.flag".to_owned(), format!("c{id}"));
            }
            world.add_client(&values);
            let seed = world.rng.below(1 << 30) as u64;
            Twin {
                author: Author::new(Rng::new(seed), id, own_login),
                direct: Backend::new(Nature { login: values, reports_at_once, noise: None }),
                sent: Vec::new(),
                bursts: 5 + world.rng.below(30),
            }
        })
        .collect()
}

fn run(seed: u64, sums: &mut Sums) {
    let mut rng = Rng::new(seed);
    let reports_at_once = rng.chance(30);
    let mut world = World::new(rng, reports_at_once);
    let mut twins = twins(&mut world, reports_at_once);
    loop {
        for (id, twin) in twins.iter_mut().enumerate() {
            if world.is_settled(id) && world.client(id).phase != Phase::Over {
                settled(&mut world, id, twin, seed);
            }
        }
        if !world.step() {
            break;
        }
    }
    for (id, twin) in twins.iter().enumerate() {
        let client = world.client(id);
        assert_eq!(client.phase, Phase::Over, "seed {seed}: client {id} hangs, its server: {:?}", twin.direct);
        sums.bytes += client.received.len();
    }
    sums.steps += world.steps;
    sums.suspects += world.suspects;
}

/// Everything the client has asked for must have come. Then it asks for more.
fn settled(world: &mut World, id: usize, twin: &mut Twin, seed: u64) {
    let mut all = twin.sent.clone();
    all.extend_from_slice(&twin.direct.buffered);
    let before = twin.sent.len();
    if let Err(difference) = compare::check(&world.client(id).received, &twin.sent, &all) {
        panic!("seed {seed}, client {id}: {difference}\nafter {before} bytes; its server: {:?}", twin.direct);
    }
    let quiet = twin.direct.tx == Tx::None && twin.direct.copy.is_none();
    let quiet = quiet && !twin.direct.skipping && !twin.author.open;
    if quiet && twin.direct.buffered.is_empty() {
        let phase = world.client(id).phase;
        assert_eq!(phase, Phase::Parked, "seed {seed}, client {id}: holds a server outside a transaction");
    }
    let burst = if twin.bursts > 0 {
        twin.bursts -= 1;
        twin.author.burst(&twin.direct)
    } else if let Some(last) = twin.author.wrap_up(&twin.direct) {
        last
    } else {
        let mut bye = Vec::new();
        bare(&mut bye, b'X');
        bye
    };
    twin.direct.feed(&burst);
    let errors = super::messages::split(&twin.direct.sent).0.iter().any(|message| message.tag == b'E');
    twin.author.heard(errors);
    twin.sent.append(&mut twin.direct.sent);
    world.clients[id].unsent = burst;
}

#[test]
fn a_client_sees_through_the_proxy_what_it_sees_without_it() {
    let mut sums = Sums::default();
    match env("TENANTRY_SIM_SEED") {
        Some(seed) => run(seed, &mut sums),
        None => (0..env("TENANTRY_SIM_WORLDS").unwrap_or(1_500)).for_each(|seed| run(seed, &mut sums)),
    }
    println!("{sums:?}");
}
