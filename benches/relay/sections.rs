//! The other sections of the report: system calls, idle memory, bulk transfers, logins.
//!
//! Owns their loops and tables. Must not know how a single measurement is made.

use anyhow::Result;

use crate::bulk::Transfer;
use crate::idle::{self, IdleRun};
use crate::load::{self, Until};
use crate::logins::{self, Visit};
use crate::median::{median, median_ratio};
use crate::output;
use crate::peer::{Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::{Database, Pool};
use crate::setup::{Legs, Setup};
use crate::shape::Shape;
use crate::strace::Trace;
use crate::table::{Table, number, ratio};

/// System calls per transaction. One run each: counts do not depend on the machine's mood.
pub(crate) async fn syscalls(peers: &[Peer], plan: &Plan) -> Result<String> {
    let mut table = Table::new([
        "`SELECT 1`, protocol, clients, proxy",
        "read and write calls",
        "of these in vain",
        "epoll calls",
        "other calls",
    ]);
    for shape in [Shape::Simple, Shape::Prepared] {
        for count in plan.clients.iter().copied() {
            for peer in peers {
                output::line(format!("syscalls: {}, {count} clients, {}", shape.name(), peer.name));
                let pool = if shape == Shape::Prepared { Pool::Held } else { Pool::Pooled };
                let calls = match traced(peer, pool, shape, count, plan.traced).await {
                    Ok(calls) => calls,
                    Err(error) => return Ok(format!("Not measured: {error}.\n")),
                };
                let [data, failed, polling, other] = calls;
                table.row([
                    format!("{}, {count}, {}", shape.name(), peer.name),
                    number(Some(data)),
                    number(Some(failed)),
                    number(Some(polling)),
                    number(Some(other)),
                ]);
            }
        }
    }
    Ok(table.finish())
}

async fn traced(peer: &Peer, pool: Pool, shape: Shape, count: usize, all: u64) -> Result<[f64; 4]> {
    let clients = load::gather(&peer.login(pool)?, count).await?;
    // Servers are opened, and statements prepared, before anything is counted.
    let warm_up = Until::Count(20);
    let (_, clients) = load::run(clients, shape, count, warm_up, || Ok(0)).await?;
    let trace = Trace::attach(peer.pid())?;
    let (run, clients) =
        load::run_prepared(clients, shape, count, Until::Count(all / u64::try_from(count)?), || Ok(0))
            .await?;
    let calls = trace.detach()?;
    for client in clients {
        client.close().await?;
    }
    let per = |calls: u64| calls as f64 / run.transactions.max(1) as f64;
    Ok([per(calls.data), per(calls.data_failed), per(calls.polling), per(calls.other)])
}

/// Memory per idle client, each time in processes started for it.
pub(crate) async fn idle(
    database: &Database,
    pinning: Pinning,
    sides: [Side; 2],
    plan: &Plan,
) -> Result<String> {
    let mut runs: [Vec<IdleRun>; 2] = [Vec::new(), Vec::new()];
    for round in 0..plan.idle_rounds {
        for (side, runs) in sides.into_iter().zip(&mut runs) {
            output::line(format!("idle: round {} of {}, {}", round + 1, plan.idle_rounds, side.name));
            let peer = Peer::start(side, pinning, database, &Setup::pools(Legs::Plain)?)?;
            runs.push(idle::measure(&peer, plan.idle_clients).await?);
        }
    }
    let [ours, theirs] = sides.map(|side| side.name);
    let mut table = Table::new(["bytes per client", ours, theirs, "ratio"]);
    let per = |after: u64, before: u64| (after as f64 - before as f64) / plan.idle_clients as f64;
    let mut row = |label: &str, value: &dyn Fn(&IdleRun) -> f64, limit: f64| {
        let [ours, theirs] = runs.each_ref().map(|runs| runs.iter().map(value).collect::<Vec<_>>());
        let ratio = ratio(median_ratio(&ours, &theirs), limit);
        table.row([label.to_owned(), number(median(&ours)), number(median(&theirs)), ratio]);
    };
    row("authenticated (PSS)", &|run| per(run.logged_in.pss, run.before.pss), IDLE_LIMIT);
    row("authenticated (RSS)", &|run| per(run.logged_in.rss, run.before.rss), IDLE_LIMIT);
    row("after one query each (PSS)", &|run| per(run.queried.pss, run.before.pss), IDLE_LIMIT);
    row("the process without clients, bytes (PSS)", &|run| run.before.pss as f64, f64::INFINITY);
    Ok(format!("{} idle clients.\n\n{}", plan.idle_clients, table.finish()))
}

/// CPU seconds per gigabyte.
pub(crate) async fn bulk(peers: &[Peer; 3], plan: &Plan) -> Result<String> {
    let [ours, theirs, floor] = peers;
    let mut table = Table::new([
        "transfer",
        &format!("{} CPU s/GB", ours.name),
        &format!("{} CPU s/GB", theirs.name),
        &format!("{} CPU s/GB", floor.name),
        &format!("CPU / {}", theirs.name),
        &format!("CPU / {}", floor.name),
        &format!("{} MB/s", ours.name),
        &format!("{} MB/s", theirs.name),
    ]);
    for transfer in Transfer::ALL {
        let mut cpu = [const { Vec::new() }; 3];
        let mut speed = [const { Vec::new() }; 3];
        for round in 0..plan.rounds {
            output::line(format!("bulk: {}, round {} of {}", transfer.name(), round + 1, plan.rounds));
            let mut pairs: Vec<_> = peers.iter().zip(cpu.iter_mut().zip(&mut speed)).collect();
            if round % 2 == 1 {
                pairs.reverse();
            }
            for (peer, (cpu, speed)) in pairs {
                let run = transfer.run(peer, plan.bulk_bytes).await?;
                cpu.push(run.cpu_ns as f64 / run.bytes as f64);
                speed.push(run.bytes as f64 / 1e6 / run.seconds);
            }
        }
        let [our_cpu, their_cpu, floor_cpu] = &cpu;
        let [our_speed, their_speed, _] = &speed;
        let [by_theirs, by_floor] = transfer.limits();
        table.row([
            transfer.name().to_owned(),
            number(median(our_cpu)),
            number(median(their_cpu)),
            number(median(floor_cpu)),
            ratio(median_ratio(our_cpu, their_cpu), by_theirs),
            ratio(median_ratio(our_cpu, floor_cpu), by_floor),
            number(median(our_speed)),
            number(median(their_speed)),
        ]);
    }
    Ok(format!("{} MB each time.\n\n{}", plan.bulk_bytes / 1_000_000, table.finish()))
}

/// Client logins, and what server logins cost Postgres.
pub(crate) async fn logins(database: &Database, peers: [&Peer; 2], plan: &Plan) -> Result<String> {
    let mut cpu = [Vec::new(), Vec::new()];
    let mut rate = [Vec::new(), Vec::new()];
    for round in 0..plan.rounds {
        output::line(format!("logins: round {} of {}", round + 1, plan.rounds));
        for (peer, (cpu, rate)) in peers.into_iter().zip(cpu.iter_mut().zip(&mut rate)) {
            let run = logins::clients(peer, peer.login(Pool::Pooled)?, plan.logins).await?;
            cpu.push(run.cpu_us);
            rate.push(run.per_second);
        }
    }
    let [our_cpu, their_cpu] = &cpu;
    let [our_rate, their_rate] = &rate;
    let [ours, theirs] = peers;
    let mut clients =
        Table::new(["client logins (SCRAM-SHA-256, then Terminate)", ours.name, theirs.name, "ratio"]);
    let cpu_ratio = number(median_ratio(our_cpu, their_cpu));
    clients.row(["CPU µs each".to_owned(), number(median(our_cpu)), number(median(their_cpu)), cpu_ratio]);
    let rate_ratio = number(median_ratio(our_rate, their_rate));
    clients.row(["per second".to_owned(), number(median(our_rate)), number(median(their_rate)), rate_ratio]);
    Ok(format!("{}\n{}", clients.finish(), server_logins(database, plan).await?))
}

async fn server_logins(database: &Database, plan: &Plan) -> Result<String> {
    let mut table = Table::new(["session at Postgres, no proxy", "CPU ms of Postgres", "elapsed ms"]);
    for visit in Visit::ALL {
        let mut cpu = Vec::new();
        let mut wall = Vec::new();
        for _ in 0..plan.rounds {
            let run = logins::servers(database, visit, plan.server_logins).await?;
            cpu.push(run.cpu_ms);
            wall.push(run.wall_ms);
        }
        table.row([visit.name().to_owned(), number(median(&cpu)), number(median(&wall))]);
    }
    Ok(table.finish())
}

/// The aim: at most this many times PgBouncer's memory.
const IDLE_LIMIT: f64 = 1.5;
