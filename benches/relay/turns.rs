//! Loads on several proxies in short turns, so that a change of the machine's speed meets all.
//!
//! Owns the order of the turns and their sum. Must not know what the clients are or which proxies answer.

use std::time::Duration;

use anyhow::Result;

use crate::client::{Client, Login};
use crate::load::{self, Run, Until};
use crate::median::median;
use crate::plan::Plan;
use crate::procfs;
use crate::shape::Shape;

/// The logged-in clients of one proxy.
pub(crate) struct Group {
    /// The processes of the proxy.
    pids: Vec<u32>,
    clients: Vec<Client>,
}

/// What one measurement gave, in the tables' units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p99_us: Option<f64>,
}

impl Group {
    /// Logs clients in at the proxy of those processes, one after the other.
    pub(crate) async fn gather(pids: Vec<u32>, login: &Login, count: usize) -> Result<Self> {
        Ok(Self::new(pids, load::gather(login, count).await?))
    }

    pub(crate) const fn new(pids: Vec<u32>, clients: Vec<Client>) -> Self {
        Self { pids, clients }
    }

    /// Lets the clients run for a moment that nobody measures.
    pub(crate) async fn warm_up(&mut self, shape: Shape, in_flight: usize, plan: &Plan) -> Result<()> {
        let until = Until::Time { warm_up: plan.warm_up, measured: Duration::ZERO };
        let clients = std::mem::take(&mut self.clients);
        (_, self.clients) = load::run(clients, shape, in_flight, until, || Ok(0)).await?;
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<()> {
        for client in self.clients {
            client.close().await?;
        }
        Ok(())
    }
}

/// Gives each group its turns, each with `in_flight` requests on their way; the groups have been warmed up.
pub(crate) async fn measure(
    groups: &mut [Group],
    shape: Shape,
    in_flight: usize,
    plan: &Plan,
) -> Result<Vec<Sample>> {
    let turn = Until::Time { warm_up: TURN_WARM_UP, measured: plan.turn };
    let mut runs: Vec<Vec<Run>> = groups.iter().map(|_| Vec::new()).collect();
    for turns in 0..plan.turns {
        // A B C, C B A, A B C: none is always first.
        let mut order: Vec<_> = groups.iter_mut().zip(&mut runs).collect();
        if turns % 2 == 1 {
            order.reverse();
        }
        for (group, runs) in order {
            let cpu = || group.pids.iter().map(|pid| procfs::cpu_ns(*pid)).sum();
            let clients = std::mem::take(&mut group.clients);
            let (run, rest) = load::run_prepared(clients, shape, in_flight, turn, cpu).await?;
            group.clients = rest;
            runs.push(run);
        }
    }
    Ok(runs.iter().map(|runs| sum(runs)).collect())
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

/// Microseconds of CPU time per transaction.
pub(crate) fn micros_each(cpu_ns: u64, transactions: u64) -> f64 {
    cpu_ns as f64 / 1_000.0 / transactions.max(1) as f64
}

/// What a turn does before it is measured: long enough for the clients to be under way.
const TURN_WARM_UP: Duration = Duration::from_millis(20);
