//! A million clients, in two halves: very many real ones beside a few that work, and a million sessions without sockets.
//!
//! Owns the section: its proxies, its clients and its tables. The sessions without sockets are `parked`'s.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::idle::{self, Holder};
use crate::median::median;
use crate::output;
use crate::pair::Pair;
use crate::parked::Parked;
use crate::peer::{Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::Database;
use crate::procfs;
use crate::setup::Setup;
use crate::shape::Shape;
use crate::table::{Table, number};
use crate::turns::{self, Group};

/// The section's text.
pub(crate) async fn section(
    database: &Database,
    pinning: Pinning,
    side: Side,
    plan: &Plan,
) -> Result<String> {
    let names: Vec<String> = (0..TENANTS).map(name).collect();
    database.add_roles(&names).await?;
    let real = real(database, pinning, side, &names, plan).await?;
    let parked = parked(database, plan)?;
    Ok(format!("{real}\n{parked}"))
}

/// The name of a tenant, its role and its schema.
pub(crate) fn name(number: usize) -> String {
    format!("many{number:04}")
}

/// Two proxies with the same load, one of which also holds clients that do nothing.
async fn real(
    database: &Database,
    pinning: Pinning,
    side: Side,
    names: &[String],
    plan: &Plan,
) -> Result<String> {
    let mut setup = Setup::crowd(names)?;
    setup.budget = BUDGET;
    let [full, empty] =
        [Peer::start(side, pinning, database, &setup)?, Peer::start(side, pinning, database, &setup)?];
    let mut groups = Vec::new();
    for peer in [&full, &empty] {
        groups.push(Group::new(peer.pids(), working(peer, names).await?));
    }
    let before = procfs::memory(full.pid())?;
    let mut holders = Vec::new();
    for first in (0..plan.million_real).step_by(PER_HOLDER) {
        let count = PER_HOLDER.min(plan.million_real - first);
        let words = [count, first, names.len()].map(|word| word.to_string());
        output::line(format!("million: {count} idle clients log in behind {first}"));
        let mut holder = Holder::of_many(full.address(), &words)?;
        holder.wait_for(idle::LOGGED_IN)?;
        holders.push(holder);
    }
    let after = procfs::memory(full.pid())?;
    let (mut cpu, mut rate, mut p99) = (Pair::default(), Pair::default(), Pair::default());
    for group in &mut groups {
        group.warm_up(Shape::Simple, WORKING, plan).await?;
    }
    for round in 0..plan.rounds {
        output::line(format!("million: round {} of {}", round + 1, plan.rounds));
        let samples = turns::measure(&mut groups, Shape::Simple, WORKING, plan).await?;
        let [full, empty] = samples.as_slice() else { continue };
        cpu.push(full.cpu_us, empty.cpu_us);
        rate.push(full.per_second, empty.per_second);
        p99.push(full.p99_us.unwrap_or(0.0), empty.p99_us.unwrap_or(0.0));
    }
    for group in groups {
        group.close().await?;
    }
    drop(holders);
    let header = format!("{} tenants, {WORKING} clients that work, `SELECT 1`", names.len());
    let beside = format!("beside {} idle clients", plan.million_real);
    let mut table = Table::new([header.as_str(), &beside, "alone", "ratio"]);
    for (what, pair) in
        [("CPU µs per transaction", &cpu), ("transactions per second", &rate), ("p99 µs", &p99)]
    {
        let [full, empty] = pair.medians();
        table.row([what.to_owned(), full, empty, pair.ratio(f64::INFINITY)]);
    }
    let each = (after.pss as f64 - before.pss as f64) / plan.million_real.max(1) as f64;
    Ok(format!(
        "{:.0} bytes (PSS) for each idle client, all its tenants included.\n\n{}",
        each,
        table.finish()
    ))
}

/// Clients of the first tenants, logged in, each after a query.
async fn working(peer: &Peer, names: &[String]) -> Result<Vec<Client>> {
    let request = Shape::Simple.each("SELECT 1")?;
    let mut clients = Vec::new();
    for (nonce, name) in (0..).zip(names.iter().take(WORKING)) {
        let mut client = Client::login(&peer.login_as(name)?, nonce).await?;
        client.exchange(&request).await?;
        clients.push(client);
    }
    Ok(clients)
}

/// Sessions in a process of their own, three times: `--park`.
fn parked(database: &Database, plan: &Plan) -> Result<String> {
    let mut runs = Vec::new();
    for round in 0..PARK_ROUNDS {
        output::line(format!(
            "million: {} parked sessions, {} of {PARK_ROUNDS}",
            plan.million_parked,
            round + 1
        ));
        let mut command = Command::new(std::env::current_exe()?);
        let words = [plan.million_parked, usize::from(database.port()), TENANTS].map(|word| word.to_string());
        command.arg("--park").args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().context("the process of parked sessions")?;
        ensure!(output.status.success(), "the process of parked sessions failed");
        runs.push(Parked::read(&String::from_utf8_lossy(&output.stdout))?);
    }
    let mut table = Table::new(["sessions without sockets", "each"]);
    let mut row = |what: &str, value: fn(&Parked) -> f64| {
        table.row([what.to_owned(), number(median(&runs.iter().map(value).collect::<Vec<_>>()))]);
    };
    row("bytes (PSS)", |run| run.bytes);
    row("greeted and parked, µs", |run| run.park_ns / 1e3);
    row("one of them woken and parked again, µs", |run| run.wake_ns / 1e3);
    row("all woken, one after the other, µs", |run| run.wave_ns / 1e3);
    let mut text = String::new();
    let _ = write!(text, "{} sessions of {TENANTS} tenants in one process.\n\n", plan.million_parked);
    Ok(text + &table.finish())
}

const TENANTS: usize = 2_000;
const WORKING: usize = 16;
/// Servers of all tenants together.
const BUDGET: u32 = 100;
const PER_HOLDER: usize = 4_500;
const PARK_ROUNDS: usize = 3;
