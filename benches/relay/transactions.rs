//! CPU time per transaction: `SELECT 1` by the lean client and pgbench's select-only, interleaved.
//!
//! Owns the list of scenarios and the table. Must not know how a run is made.

use anyhow::{Result, anyhow};

use crate::median::{median, median_ratio};
use crate::output;
use crate::peer::Peer;
use crate::pgbench::{self, PgbenchRun};
use crate::plan::Plan;
use crate::postgres::Database;
use crate::shape::Shape;
use crate::table::{Table, number, ratio};
use crate::turns::{self, Group, Sample, micros_each};

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
    let pgbench = if plan.with_pgbench { Shape::PGBENCH.as_slice() } else { &[] };
    for (load, shapes) in [(Load::SelectOne, Shape::ALL.as_slice()), (Load::Pgbench, pgbench)] {
        for shape in shapes.iter().copied() {
            for clients in plan.clients.iter().copied() {
                scenarios.push(Scenario { load, shape, clients });
            }
        }
    }
    scenarios
}

impl Scenario {
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
        let mut groups = Vec::new();
        for peer in peers {
            let mut group = Group::gather(peer.pids(), &peer.login(self.shape.pool())?, self.clients).await?;
            group.warm_up(self.shape, self.clients, plan).await?;
            groups.push(group);
        }
        let samples = turns::measure(&mut groups, self.shape, self.clients, plan).await?;
        for group in groups {
            group.close().await?;
        }
        samples.try_into().map_err(|_| anyhow!("a peer has no sample"))
    }

    /// A B C, C B A: a pgbench run lasts a second or more, in which the machine may change its speed.
    fn pgbench(self, database: &Database, peers: &[Peer; 3], plan: &Plan) -> Result<[Sample; 3]> {
        let run = |peer: &Peer| {
            let seconds = plan.pgbench_seconds;
            pgbench::select_only(database, peer, self.shape.pool(), self.shape, self.clients, seconds)
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
