//! Many tenants with the load of one: each has a role, a schema and few clients, and all send in turn.
//!
//! Owns the section's clients and table. The proxies are started for it and end with it. Every tenant keeps one server, so
//! that what is measured is the relaying and not logins to Postgres.

use anyhow::{Context, Result};

use crate::client::Client;
use crate::output;
use crate::pair::Pair;
use crate::peer::{Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::Database;
use crate::procfs;
use crate::setup::Setup;
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
    let names: Vec<String> = (0..TENANTS).map(|number| format!("crowd{number:03}")).collect();
    database.add_roles(&names).await?;
    let setup = Setup::crowd(&names)?;
    let [ours, theirs] = sides;
    let ours = Peer::start(ours, pinning, database, &setup)?;
    let theirs = Peer::start(theirs, pinning, database, &setup)?;
    let mut groups = Vec::new();
    for peer in [&ours, &theirs] {
        output::line(format!("tenants: {} clients log in at {}", TENANTS * CLIENTS_EACH, peer.name));
        let mut group = Group::new(peer.pids(), log_in(peer, &names).await?);
        group.warm_up(Shape::Simple, IN_FLIGHT, plan).await?;
        groups.push(group);
    }
    let (mut cpu, mut rate, mut p99) = (Pair::default(), Pair::default(), Pair::default());
    for round in 0..plan.rounds {
        output::line(format!("tenants: round {} of {}", round + 1, plan.rounds));
        let samples = turns::measure(&mut groups, Shape::Simple, IN_FLIGHT, plan).await?;
        let [ours, theirs] = samples.as_slice() else { continue };
        cpu.push(ours.cpu_us, theirs.cpu_us);
        rate.push(ours.per_second, theirs.per_second);
        p99.push(ours.p99_us.unwrap_or(0.0), theirs.p99_us.unwrap_or(0.0));
    }
    let mut memory = Pair::default();
    memory.push(megabytes(&ours)?, megabytes(&theirs)?);
    let servers = database.servers_of("crowd").await?;
    for group in groups {
        group.close().await?;
    }
    let header = format!("{TENANTS} tenants of {CLIENTS_EACH} clients, `SELECT 1`, {IN_FLIGHT} on their way");
    let mut table = Table::new([&header, ours.name, theirs.name, "ratio"]);
    let [ours, theirs] = cpu.medians();
    table.row(["CPU µs per transaction".to_owned(), ours, theirs, cpu.ratio(CPU_LIMIT)]);
    let [ours, theirs] = rate.medians();
    table.row(["transactions per second".to_owned(), ours, theirs, rate.ratio_at_least(0.0)]);
    let [ours, theirs] = p99.medians();
    table.row(["p99 µs".to_owned(), ours, theirs, p99.ratio(f64::INFINITY)]);
    let [ours, theirs] = memory.medians_within(MEMORY_LIMIT);
    table.row(["memory at the end, MB (PSS)".to_owned(), ours, theirs, memory.ratio(f64::INFINITY)]);
    Ok(format!(
        "{servers} of {} servers were open at the end, of both together.\n\n{}",
        2 * TENANTS,
        table.finish()
    ))
}

fn megabytes(peer: &Peer) -> Result<f64> {
    Ok(procfs::memory(peer.pid())?.pss as f64 / 1e6)
}

/// Clients of all tenants, the tenants taking turns, each after one query. Neighbours are of different tenants, and so are
/// those whose requests are on their way at the same time.
async fn log_in(peer: &Peer, names: &[String]) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(names.len() * CLIENTS_EACH);
    let request = Shape::Simple.each("SELECT 1")?;
    let logins = names.iter().map(|name| peer.login_as(name)).collect::<Result<Vec<_>>>()?;
    for _ in 0..CLIENTS_EACH {
        for login in &logins {
            let nonce = u64::try_from(clients.len())?;
            let mut client = Client::login(login, nonce).await.context("a tenant's client")?;
            client.exchange(&request).await?;
            clients.push(client);
        }
    }
    Ok(clients)
}

const TENANTS: usize = 200;
const CLIENTS_EACH: usize = 10;
const IN_FLIGHT: usize = 16;
/// The aims: at most this many times PgBouncer's CPU time, and so many megabytes of ours.
const CPU_LIMIT: f64 = 0.8;
const MEMORY_LIMIT: f64 = 25.0;
