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
    /// What it wrote.
    history: Vec<Vec<u8>>,
}

impl Twin {
    /// What led here.
    fn story(&self) -> String {
        let last = self.history.len().saturating_sub(6);
        let bursts: Vec<String> = self.history[last..]
            .iter()
            .map(|bytes| format!("  {:?}", super::messages::split(bytes).0))
            .collect();
        format!("its last bursts:\n{}\nits own server: {:?}", bursts.join("\n"), self.direct)
    }
}

/// What the runs together came to.
#[derive(Debug, Default)]
struct Sums {
    steps: u64,
    suspects: u64,
    bursts: usize,
}

fn twins(world: &mut World, reports_at_once: bool) -> Vec<Twin> {
    let count = 1 + world.rng.below(4);
    (0..count)
        .map(|id| {
            // What RESET reports at once (Postgres 13) is the login's value, before ours comes behind it.
            let own_login = !reports_at_once && world.rng.chance(30);
            let mut values = login();
            if own_login {
                values.insert("application_name".to_owned(), format!("own-{id}"));
                values.insert("my.flag".to_owned(), format!("c{id}"));
            }
            world.add_client(&values);
            let seed = world.rng.below(1 << 30) as u64;
            Twin {
                author: Author::new(Rng::new(seed), id),
                direct: Backend::new(Nature { login: values, reports_at_once, noise: None }),
                sent: Vec::new(),
                bursts: 5 + world.rng.below(30),
                history: Vec::new(),
            }
        })
        .collect()
}

/// Says which world it was, should the test fail in it.
pub(super) struct Seed(pub(super) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {} (TENANTRY_SIM_SEED, TENANTRY_SIM_WILD_SEED)", self.0);
        }
    }
}

fn run(seed: u64, sums: &mut Sums) {
    let _seed = Seed(seed);
    let mut rng = Rng::new(seed);
    let reports_at_once = rng.chance(30);
    let mut world = World::new(rng, reports_at_once);
    let mut twins = twins(&mut world, reports_at_once);
    loop {
        for (id, twin) in twins.iter_mut().enumerate() {
            if world.is_settled(id) && world.client(id).phase != Phase::Over {
                settled(&mut world, id, twin);
            }
        }
        if !world.step() {
            break;
        }
    }
    for (id, twin) in twins.iter().enumerate() {
        assert!(world.client(id).phase == Phase::Over, "client {id} hangs; {}", twin.story());
        sums.bursts += twin.history.len();
    }
    sums.steps += world.steps;
    sums.suspects += world.suspects;
}

/// Everything the client has asked for must have come. Then it asks for more.
fn settled(world: &mut World, id: usize, twin: &mut Twin) {
    let mut all = twin.sent.clone();
    all.extend_from_slice(&twin.direct.buffered);
    if let Err(difference) = compare::check(&world.client(id).received, &twin.sent, &all) {
        panic!("client {id}: {difference}\n{}", twin.story());
    }
    if twin.direct.buffered.is_empty() {
        // What has been compared need not be compared again.
        twin.sent.clear();
        world.clients[id].received.clear();
    }
    let quiet = twin.direct.tx == Tx::None && twin.direct.copy.is_none();
    let quiet = quiet && !twin.direct.skipping && !twin.author.open;
    if quiet && twin.direct.buffered.is_empty() {
        let free = world.client(id).phase == Phase::Parked || world.is_kept(id);
        assert!(free, "client {id} holds a server; {}", twin.story());
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
    world.clients[id].unsent.clone_from(&burst);
    twin.history.push(burst);
}

#[test]
fn a_client_sees_through_the_proxy_what_it_sees_without_it() {
    let mut sums = Sums::default();
    match env("TENANTRY_SIM_SEED") {
        Some(seed) => run(seed, &mut sums),
        None => (0..env("TENANTRY_SIM_WORLDS").unwrap_or(600)).for_each(|seed| run(seed, &mut sums)),
    }
    println!("{sums:?}");
}
