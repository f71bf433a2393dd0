//! Several schedulers with one budget: messages take their time, and the sum is never exceeded.

use std::collections::VecDeque;

use tenantry::budget::{BudgetConfig, Condition, Exchange, Instruction, Standing};
use tenantry::ids::TenantId;
use tenantry::time::Moment;

use super::rng::Rng;
use super::world::{Note, Phase, World, allowance};

/// From a worker to the exchange.
#[derive(Clone, Copy, Debug)]
enum Up {
    Settled(u32),
    Standing(Standing),
}

struct Workers {
    worlds: Vec<World>,
    exchange: Exchange,
    up: VecDeque<(u64, usize, Up)>,
    down: VecDeque<(u64, Instruction)>,
    rng: Rng,
    now: u64,
    total: u32,
    /// Workers whose leases do not end.
    keeps: Vec<usize>,
}

impl Workers {
    fn new(total: u32, workers: usize, seed: u64) -> Self {
        let exchange = Exchange::new(total, workers);
        let world = |worker| {
            let mut config = BudgetConfig::new(exchange.capacity(worker));
            config.announce_need = true;
            config.ledger = worker as u32;
            let mut world = World::new(config);
            for tenant in 0..6 {
                world.set_tenant(TenantId(tenant), allowance(1, 2, total));
            }
            world
        };
        let worlds = (0..workers).map(world).collect();
        let (up, down, rng) = (VecDeque::new(), VecDeque::new(), Rng::new(seed));
        Self { worlds, exchange, up, down, rng, now: 0, total, keeps: Vec::new() }
    }

    fn used(&self) -> u32 {
        self.worlds.iter().map(|world| world.scheduler.used()).sum()
    }

    /// Lets a little time pass, delivers messages (each direction in order), and lets servers do something.
    fn step(&mut self) {
        self.now += self.rng.below(2_000);
        while self.up.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, worker, message)) = self.up.pop_front() else { break };
            let mut out = Vec::new();
            match message {
                Up::Settled(capacity) => self.exchange.handle_settled(worker, capacity, &mut out),
                Up::Standing(standing) => self.exchange.handle_standing(worker, standing, &mut out),
            }
            for instruction in out {
                let at = self.later(self.down.back().map(|(at, _)| *at));
                self.down.push_back((at, instruction));
            }
        }
        while self.down.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, Instruction { worker, capacity })) = self.down.pop_front() else { break };
            let mut notes = self.worlds[worker].pass_until(Moment(self.now));
            notes.extend(self.worlds[worker].set_capacity(capacity));
            self.tell(worker, &notes);
        }
        for worker in 0..self.worlds.len() {
            let mut notes = self.worlds[worker].pass_until(Moment(self.now));
            for (phase, percent) in [(Phase::Opening, 40), (Phase::Busy, 30), (Phase::Closing, 60)] {
                for server in self.worlds[worker].servers_in(phase) {
                    if self.rng.chance(percent) {
                        notes.extend(match phase {
                            Phase::Opening => self.worlds[worker].opened(server),
                            Phase::Busy if self.keeps.contains(&worker) => continue,
                            Phase::Busy => self.worlds[worker].release(server, Condition::Clean),
                            Phase::Idle | Phase::Closing => self.worlds[worker].closed(server),
                        });
                    }
                }
            }
            self.tell(worker, &notes);
        }
        assert!(self.used() <= self.total, "{} of {} servers", self.used(), self.total);
        assert!(self.exchange.bound() <= self.total);
    }

    fn acquire(&mut self, worker: usize) {
        let tenant = TenantId(self.rng.below(6) as u32);
        let (_, notes) = self.worlds[worker].acquire(tenant, 5_000_000, None);
        self.tell(worker, &notes);
    }

    fn tell(&mut self, worker: usize, notes: &[Note]) {
        for note in notes {
            let message = match note {
                Note::Settled(capacity) => Up::Settled(*capacity),
                Note::StandingChanged => Up::Standing(self.worlds[worker].scheduler.standing()),
                Note::Opening(..) | Note::Closing(_) | Note::Ended { .. } | Note::Drained(_) => continue,
            };
            let at = self.later(self.up.back().map(|(at, ..)| *at));
            self.up.push_back((at, worker, message));
        }
    }

    fn later(&mut self, after: Option<u64>) -> u64 {
        (self.now + self.rng.below(30_000)).max(after.unwrap_or(0))
    }
}

/// One worker's servers are all leased for long; another needs one more than it has; the others need nothing.
#[test]
fn leases_that_last_hold_up_their_own_worker_only() {
    for seed in 0..20 {
        let mut workers = Workers::new(40, 4, seed);
        workers.keeps = vec![0, 1];
        for (worker, leases) in [(0, 10), (1, 11)] {
            for _ in 0..leases {
                workers.acquire(worker);
            }
            for _ in 0..500 {
                workers.step();
            }
        }
        assert_eq!(workers.worlds[1].waiting.len(), 0, "seed {seed}: {}", workers.exchange.capacity(1));
    }
}

#[test]
fn the_sum_over_workers_never_exceeds_the_budget() {
    for seed in 0..6 {
        let mut workers = Workers::new(5 + seed as u32 * 3, 2 + seed as usize % 3, seed);
        for step in 0..3_000 {
            // The load wanders from worker to worker.
            let loaded = step / 500 % workers.worlds.len();
            for _ in 0..4 {
                let worker = if workers.rng.chance(80) { loaded } else { 0 };
                if workers.worlds[worker].waiting.len() < 40 {
                    workers.acquire(worker);
                }
            }
            workers.step();
        }
    }
}

#[test]
fn capacity_goes_where_the_load_is_and_comes_back() {
    let mut workers = Workers::new(24, 3, 1);
    let mut press = |worker: usize| {
        for _ in 0..2_000 {
            while workers.worlds[worker].waiting.len() < 30 {
                workers.acquire(worker);
            }
            workers.step();
        }
        [0, 1, 2].map(|worker| workers.exchange.capacity(worker))
    };
    let [first, ..] = press(0);
    assert!(first >= 14, "worker 0 has {first} of 24");
    let [_, second, _] = press(1);
    assert!(second >= 14, "then worker 1 has {second} of 24");
}
