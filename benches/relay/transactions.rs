//! CPU time per transaction: `SELECT 1` by the lean client and pgbench's select-only, interleaved.
//!
//! Owns the list of scenarios and the table. Must not know how a run is made.

use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::load::{self, Run, Until};
use crate::median::{median, median_ratio};
use crate::output;
use crate::peer::Peer;
use crate::pgbench::{self, PgbenchRun};
use crate::plan::Plan;
use crate::postgres::{Database, Pool};
use crate::procfs;
use crate::shape::Shape;
use crate::table::{Table, number, ratio};

/// Who makes the load.
#[derive(Clone, Copy, Debug)]
enum Load {
    SelectOne,
    Pgbench,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    load: Load,
    shape: Shape,
    clients: usize,
}

/// What one run gave, in the table's units.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_us: f64,
    per_second: f64,
    p99_us: Option<f64>,
}

/// Runs all scenarios on all peers and returns the section's text.
pub(crate) async fn section(database: &Database, peers: &[Peer; 3], plan: &Plan) -> Result<String> {
    let scenarios = scenarios(plan);
    let mut samples: Vec<[Vec<Sample>; 3]> =
        scenarios.iter().map(|_| [Vec::new(), Vec::new(), Vec::new()]).collect();
    for round in 0..plan.rounds {
        output::line(format!("transactions: round {} of {}", round + 1, plan.rounds));
        for (scenario, samples) in scenarios.iter().zip(&mut samples) {
            let runs = match scenario.load {
                Load::SelectOne => scenario.select_one(peers, plan).await?,
                Load::Pgbench => scenario.pgbench(database, peers, plan)?,
            };
            for (samples, run) in samples.iter_mut().zip(runs) {
                samples.push(run);
            }
        }
    }
    Ok(table(&scenarios, &samples, peers))
}

fn scenarios(plan: &Plan) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (load, shapes) in [(Load::SelectOne, Shape::ALL.as_slice()), (Load::Pgbench, &Shape::PGBENCH)] {
        for shape in shapes.iter().copied() {
            for clients in plan.clients.iter().copied() {
                scenarios.push(Scenario { load, shape, clients });
            }
        }
    }
    scenarios
}

impl Scenario {
    /// The pool: prepared statements need a server per client in PgBouncer 1.18, so both get that many.
    const fn pool(self) -> Pool {
        match self.shape {
            Shape::Simple | Shape::Extended => Pool::Pooled,
            Shape::Prepared | Shape::Pipeline => Pool::Held,
        }
    }

    /// At most this many times what PgBouncer and the relay need.
    const fn limits(self) -> [f64; 2] {
        match (self.clients, self.shape) {
            (1, _) => [1.0, 1.25],
            (_, Shape::Simple | Shape::Extended) => [0.97, 1.1],
            (_, Shape::Prepared) => [0.85, 1.15],
            (_, Shape::Pipeline) => [0.95, 1.15],
        }
    }

    fn name(self) -> String {
        let load = match self.load {
            Load::SelectOne => "`SELECT 1`",
            Load::Pgbench => "pgbench -S",
        };
        format!("{load}, {}, {}", self.shape.name(), self.clients)
    }

    /// All peers' clients are logged in at once and take turns of a fraction of a second, so that a change of the
    /// machine's speed meets all.
    async fn select_one(self, peers: &[Peer; 3], plan: &Plan) -> Result<[Sample; 3]> {
        let mut sides = Vec::new();
        for peer in peers {
            let clients = load::gather(&peer.login(self.pool()), self.clients).await?;
            let warm_up = Until::Time { warm_up: plan.warm_up, measured: Duration::ZERO };
            let (_, clients) = load::run(clients, self.shape, warm_up, || Ok(0)).await?;
            sides.push((peer, clients, Vec::new()));
        }
        let turn = Until::Time { warm_up: TURN_WARM_UP, measured: plan.turn };
        for turns in 0..plan.turns {
            // A B C, C B A, A B C: none is always first.
            let mut order: Vec<_> = sides.iter_mut().collect();
            if turns % 2 == 1 {
                order.reverse();
            }
            for (peer, clients, runs) in order {
                let pid = peer.pid();
                let taken = std::mem::take(clients);
                let (run, rest) = load::run_prepared(taken, self.shape, turn, || procfs::cpu_ns(pid)).await?;
                *clients = rest;
                runs.push(run);
            }
        }
        let mut samples = Vec::new();
        for (_, clients, runs) in sides {
            for client in clients {
                client.close().await?;
            }
            samples.push(sum(&runs));
        }
        samples.try_into().map_err(|_| anyhow!("a peer has no sample"))
    }

    /// A B C, C B A: a pgbench run lasts a second or more, in which the machine may change its speed.
    fn pgbench(self, database: &Database, peers: &[Peer; 3], plan: &Plan) -> Result<[Sample; 3]> {
        let run = |peer: &Peer| {
            let seconds = plan.pgbench_seconds;
            pgbench::select_only(database, peer, self.pool(), self.shape, self.clients, seconds)
        };
        let [ours, theirs, floor] = peers;
        let first = [run(ours)?, run(theirs)?, run(floor)?];
        let floor = both(first[2], run(floor)?);
        let theirs = both(first[1], run(theirs)?);
        Ok([both(first[0], run(ours)?), theirs, floor])
    }
}

fn both(a: PgbenchRun, b: PgbenchRun) -> Sample {
    Sample {
        cpu_us: micros_each(a.cpu_ns + b.cpu_ns, a.transactions + b.transactions),
        per_second: f64::midpoint(a.per_second, b.per_second),
        p99_us: None,
    }
}

fn sum(runs: &[Run]) -> Sample {
    let transactions = runs.iter().map(|run| run.transactions).sum::<u64>();
    let elapsed = runs.iter().map(|run| run.elapsed).sum::<Duration>();
    let p99s: Vec<f64> = runs.iter().map(|run| run.p99_us as f64).collect();
    Sample {
        cpu_us: micros_each(runs.iter().map(|run| run.cpu_ns).sum(), transactions),
        per_second: transactions as f64 / elapsed.as_secs_f64(),
        p99_us: median(&p99s),
    }
}

fn table(scenarios: &[Scenario], samples: &[[Vec<Sample>; 3]], peers: &[Peer; 3]) -> String {
    let [ours, theirs, floor] = peers;
    let mut table = Table::new([
        "load, protocol, clients",
        &format!("{} CPU µs", ours.name),
        &format!("{} CPU µs", theirs.name),
        &format!("{} CPU µs", floor.name),
        &format!("CPU / {}", theirs.name),
        &format!("CPU / {}", floor.name),
        &format!("{} tx/s", ours.name),
        &format!("{} tx/s", theirs.name),
        "tx/s ratio",
        &format!("{} p99 µs", ours.name),
        &format!("{} p99 µs", theirs.name),
    ]);
    for (scenario, [ours, theirs, floor]) in scenarios.iter().zip(samples) {
        let [by_theirs, by_floor] = scenario.limits();
        let cpu = |samples: &[Sample]| samples.iter().map(|sample| sample.cpu_us).collect::<Vec<_>>();
        let rate = |samples: &[Sample]| samples.iter().map(|sample| sample.per_second).collect::<Vec<_>>();
        let p99 = |samples: &[Sample]| samples.iter().filter_map(|sample| sample.p99_us).collect::<Vec<_>>();
        table.row([
            scenario.name(),
            number(median(&cpu(ours))),
            number(median(&cpu(theirs))),
            number(median(&cpu(floor))),
            ratio(median_ratio(&cpu(ours), &cpu(theirs)), by_theirs),
            ratio(median_ratio(&cpu(ours), &cpu(floor)), by_floor),
            number(median(&rate(ours))),
            number(median(&rate(theirs))),
            number(median_ratio(&rate(ours), &rate(theirs))),
            number(median(&p99(ours))),
            number(median(&p99(theirs))),
        ]);
    }
    table.finish()
}

fn micros_each(cpu_ns: u64, transactions: u64) -> f64 {
    cpu_ns as f64 / 1_000.0 / transactions.max(1) as f64
}

/// What a turn does before it is measured: long enough for the clients to be under way.
const TURN_WARM_UP: Duration = Duration::from_millis(20);
