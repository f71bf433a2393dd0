//! Two workers beside two processes of PgBouncer on one port, on a machine whose CPUs everybody shares.
//!
//! Owns the section's tenants, clients and table. Nothing is pinned: proxies, clients and Postgres are put where the
//! scheduler likes, and the CPU time of all processes of a proxy is added up.

use anyhow::{Context, Result};

use crate::client::Client;
use crate::output;
use crate::pair::Pair;
use crate::peer::{Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::Database;
use crate::setup::{Entry, Setup};
use crate::shape::Shape;
use crate::table::Table;
use crate::turns::{self, Group};

/// The section's text.
pub(crate) async fn section(
    database: &Database,
    pinning: Pinning,
    sides: [Side; 2],
    plan: &Plan,
) -> Result<String> {
    let names: Vec<String> = (0..TENANTS + 2).map(|number| format!("cores{number}")).collect();
    database.add_roles(&names).await?;
    let setup = Setup { cores: CORES, ..Setup::busy(&names, SERVERS_EACH)? };
    for process in [std::process::id(), database.pid()?] {
        pinning.share(process)?;
    }
    let mut peers = Vec::new();
    for side in sides {
        peers.push(Peer::start(side, Pinning::Free, database, &setup)?);
    }
    let [ours, theirs] = sides.map(|side| side.name);
    let mut table = Table::new([
        "`SELECT 1`, protocol, 64 clients",
        &format!("{ours} CPU µs"),
        &format!("{theirs} CPU µs"),
        "CPU ratio",
        &format!("{ours} tx/s"),
        &format!("{theirs} tx/s"),
        "tx/s ratio",
        &format!("{ours} p99 µs"),
        &format!("{theirs} p99 µs"),
        "p99 ratio",
    ]);
    let (several, one) = names.split_at(TENANTS);
    let (one, spread) = one.split_at(1);
    for (label, names) in
        [("of four tenants", several), ("of one tenant", one), ("of one tenant on two workers", spread)]
    {
        for shape in [Shape::Simple, Shape::Extended] {
            output::line(format!("cores: {}, clients {label}", shape.name()));
            table.row(row(format!("{}, {label}", shape.name()), &peers, names, shape, plan).await?);
        }
    }
    drop(peers);
    for process in [std::process::id(), database.pid()?] {
        pinning.unshare(process)?;
    }
    Ok(table.finish())
}

async fn row(
    label: String,
    peers: &[Peer],
    names: &[String],
    shape: Shape,
    plan: &Plan,
) -> Result<[String; 10]> {
    let (mut cpu, mut rate, mut p99) = (Pair::default(), Pair::default(), Pair::default());
    for _ in 0..plan.rounds {
        // Each round logs in anew: how the kernel divides PgBouncer's clients is another draw then.
        let mut groups = Vec::new();
        for peer in peers {
            let mut group = Group::new(peer.pids(), log_in(peer, names).await?);
            group.warm_up(shape, CLIENTS, plan).await?;
            groups.push(group);
        }
        let samples = turns::measure(&mut groups, shape, CLIENTS, plan).await?;
        let [ours, theirs] = samples.as_slice() else { continue };
        cpu.push(ours.cpu_us, theirs.cpu_us);
        rate.push(ours.per_second, theirs.per_second);
        p99.push(ours.p99_us.unwrap_or(0.0), theirs.p99_us.unwrap_or(0.0));
        for group in groups {
            group.close().await?;
        }
    }
    let [our_cpu, their_cpu] = cpu.medians();
    let [our_rate, their_rate] = rate.medians();
    let [our_p99, their_p99] = p99.medians();
    Ok([
        label,
        our_cpu,
        their_cpu,
        cpu.ratio(f64::INFINITY),
        our_rate,
        their_rate,
        rate.ratio_at_least(1.0),
        our_p99,
        their_p99,
        p99.ratio(1.0),
    ])
}

/// Clients of these tenants, which take turns. PgBouncer's connections fall to its processes as the kernel hashes them.
async fn log_in(peer: &Peer, names: &[String]) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(CLIENTS);
    let logins = names.iter().map(|name| peer.login_as(name)).collect::<Result<Vec<_>>>()?;
    for (login, nonce) in logins.iter().cycle().zip(0..u64::try_from(CLIENTS)?) {
        clients.push(Client::login(login, nonce).await.context("a client of several cores")?);
    }
    Ok(clients)
}

impl Setup {
    /// Tenants that may have this many servers each, the last one on all workers.
    fn busy(names: &[String], servers: u32) -> Result<Self> {
        let crowd = Self::crowd(names)?;
        let mut entries: Vec<Entry> =
            crowd.entries.into_iter().map(|entry| Entry { servers, ..entry }).collect();
        if let Some(last) = entries.last_mut() {
            last.workers = CORES;
        }
        let budget = servers * u32::try_from(entries.len())?;
        Ok(Self { entries, budget, ..crowd })
    }
}

/// Workers of Tenantry, and processes of PgBouncer.
const CORES: u32 = 2;
const TENANTS: usize = 4;
const CLIENTS: usize = 64;
/// Of each tenant; two processes have half of them each.
const SERVERS_EACH: u32 = 20;
