//! Everything once more over TLS, from the clients to Postgres: transactions, wide rows, logins, idle clients.
//!
//! Owns the loops and the tables of the section. The proxies are started for it and end with it.

use anyhow::{Result, ensure};

use crate::bulk::Transfer;
use crate::certificate::Sessions;
use crate::idle;
use crate::logins;
use crate::output;
use crate::pair::Pair;
use crate::peer::{Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::{Database, Pool};
use crate::setup::{Legs, Setup};
use crate::shape::Shape;
use crate::table::{Table, number};
use crate::turns::{self, Group};

/// The section's text.
pub(crate) async fn section(
    database: &Database,
    pinning: Pinning,
    sides: [Side; 2],
    plan: &Plan,
) -> Result<String> {
    let setup = Setup::pools(Legs::Tls)?;
    let [ours, theirs] = sides;
    let peers =
        [Peer::start(ours, pinning, database, &setup)?, Peer::start(theirs, pinning, database, &setup)?];
    let transactions = transactions(&peers, plan).await?;
    let ciphers = database.ciphers().await?;
    let rest = [bulk(&peers, plan).await?, logins(&peers, plan).await?].concat();
    drop(peers);
    let idle = idle(database, pinning, sides, &setup, plan).await?;
    Ok(format!("Towards Postgres: {ciphers}.\n\n{transactions}\n{rest}\n{idle}"))
}

async fn transactions(peers: &[Peer; 2], plan: &Plan) -> Result<String> {
    let [ours, theirs] = peers;
    let mut table = Table::new([
        "`SELECT 1` over TLS, protocol, clients",
        &format!("{} CPU µs", ours.name),
        &format!("{} CPU µs", theirs.name),
        &format!("CPU / {}", theirs.name),
        &format!("{} tx/s", ours.name),
        &format!("{} tx/s", theirs.name),
        &format!("{} p99 µs", ours.name),
        &format!("{} p99 µs", theirs.name),
    ]);
    for (shape, pool, limit) in
        [(Shape::Simple, Pool::Pooled, SIMPLE_LIMIT), (Shape::Prepared, Pool::Held, PREPARED_LIMIT)]
    {
        for count in CLIENTS {
            output::line(format!("tls: {}, {count} clients", shape.name()));
            let (mut cpu, mut rate, mut p99) = (Pair::default(), Pair::default(), Pair::default());
            for _ in 0..plan.rounds {
                let mut groups = Vec::new();
                for peer in peers {
                    let mut group = Group::gather(peer.pids(), &peer.login(pool)?, count).await?;
                    group.warm_up(shape, count, plan).await?;
                    groups.push(group);
                }
                let samples = turns::measure(&mut groups, shape, count, plan).await?;
                for group in groups {
                    group.close().await?;
                }
                let [ours, theirs] = samples.as_slice() else { continue };
                cpu.push(ours.cpu_us, theirs.cpu_us);
                rate.push(ours.per_second, theirs.per_second);
                p99.push(ours.p99_us.unwrap_or(0.0), theirs.p99_us.unwrap_or(0.0));
            }
            let [our_cpu, their_cpu] = cpu.medians();
            let [our_rate, their_rate] = rate.medians();
            let [our_p99, their_p99] = p99.medians();
            table.row([
                format!("{}, {count}", shape.name()),
                our_cpu,
                their_cpu,
                cpu.ratio(limit),
                our_rate,
                their_rate,
                our_p99,
                their_p99,
            ]);
        }
    }
    Ok(table.finish())
}

/// The header and the wide rows of the second table, whose other rows are [`logins`].
async fn bulk(peers: &[Peer; 2], plan: &Plan) -> Result<String> {
    let [ours, theirs] = peers;
    let mut table = Table::new(["over TLS", ours.name, theirs.name, "ratio"]);
    let mut cpu = Pair::default();
    for round in 0..plan.rounds {
        output::line(format!("tls: wide rows, round {} of {}", round + 1, plan.rounds));
        let ours = Transfer::WideRows.run(ours, plan.bulk_bytes).await?;
        let theirs = Transfer::WideRows.run(theirs, plan.bulk_bytes).await?;
        cpu.push(ours.cpu_ns as f64 / ours.bytes as f64, theirs.cpu_ns as f64 / theirs.bytes as f64);
    }
    let [our_cpu, their_cpu] = cpu.medians();
    table.row(["rows of 1 MB, CPU s/GB".to_owned(), our_cpu, their_cpu, cpu.ratio(BULK_LIMIT)]);
    Ok(table.finish())
}

async fn logins(peers: &[Peer; 2], plan: &Plan) -> Result<String> {
    let mut rows = Table::rows();
    for (sessions, label) in [
        (Sessions::Forgotten, "logins, full TLS 1.3 handshakes"),
        (Sessions::Kept, "logins of a client that offers to resume"),
    ] {
        let (mut cpu, mut rate, mut resumed) = (Pair::default(), Pair::default(), Pair::default());
        for round in 0..plan.rounds {
            output::line(format!("tls: {label}, round {} of {}", round + 1, plan.rounds));
            let mut runs = Vec::new();
            for peer in peers {
                let login = peer.login_with(Pool::Pooled, sessions)?;
                runs.push(logins::clients(peer, login, plan.logins).await?);
            }
            let [ours, theirs] = runs.as_slice() else { continue };
            cpu.push(ours.cpu_us, theirs.cpu_us);
            rate.push(ours.per_second, theirs.per_second);
            resumed.push(percent(ours.resumed, plan), percent(theirs.resumed, plan));
            let full = ours.full.min(theirs.full) == plan.logins;
            ensure!(sessions == Sessions::Kept || full, "a handshake was not a full one of one round trip");
        }
        let [limit, wanted] = match sessions {
            Sessions::Forgotten => [LOGIN_LIMIT, LOGIN_RATE],
            Sessions::Kept => [f64::INFINITY, 0.0],
        };
        let [ours, theirs] = cpu.medians();
        rows.row([format!("{label}, CPU µs each"), ours, theirs, cpu.ratio(limit)]);
        let [ours, theirs] = rate.medians();
        rows.row([format!("{label}, per second"), ours, theirs, rate.ratio_at_least(wanted)]);
        if sessions == Sessions::Kept {
            let [ours, theirs] = resumed.medians();
            rows.row([format!("{label}, % that did"), ours, theirs, number(None)]);
        }
    }
    Ok(rows.finish())
}

fn percent(resumed: usize, plan: &Plan) -> f64 {
    resumed as f64 * 100.0 / plan.logins as f64
}

async fn idle(
    database: &Database,
    pinning: Pinning,
    sides: [Side; 2],
    setup: &Setup,
    plan: &Plan,
) -> Result<String> {
    let (mut logged_in, mut queried) = (Pair::default(), Pair::default());
    let per = |after: u64, before: u64| (after as f64 - before as f64) / plan.idle_clients as f64;
    for round in 0..plan.idle_rounds {
        output::line(format!("tls: idle clients, round {} of {}", round + 1, plan.idle_rounds));
        let mut runs = Vec::new();
        for side in sides {
            let peer = Peer::start(side, pinning, database, setup)?;
            runs.push(idle::measure(&peer, plan.idle_clients).await?);
        }
        let [ours, theirs] = runs.as_slice() else { continue };
        logged_in
            .push(per(ours.logged_in.pss, ours.before.pss), per(theirs.logged_in.pss, theirs.before.pss));
        queried.push(per(ours.queried.pss, ours.before.pss), per(theirs.queried.pss, theirs.before.pss));
    }
    let [ours, theirs] = sides.map(|side| side.name);
    let mut table = Table::new(["bytes per idle client over TLS (PSS)", ours, theirs, "ratio"]);
    for (label, pair) in [("authenticated", logged_in), ("after one query each", queried)] {
        let [ours, theirs] = pair.medians_within(IDLE_LIMIT);
        table.row([label.to_owned(), ours, theirs, pair.ratio(f64::INFINITY)]);
    }
    Ok(format!("{} idle clients.\n\n{}", plan.idle_clients, table.finish()))
}

/// Clients of the transactions.
const CLIENTS: [usize; 2] = [16, 64];
/// The aims: at most this many times PgBouncer's CPU time.
const SIMPLE_LIMIT: f64 = 0.9;
const PREPARED_LIMIT: f64 = 0.8;
const BULK_LIMIT: f64 = 0.5;
const LOGIN_LIMIT: f64 = 0.5;
/// At least this many times PgBouncer's logins per second.
const LOGIN_RATE: f64 = 2.0;
/// At most so many bytes of ours per idle client.
const IDLE_LIMIT: f64 = 8_000.0;
