//! Storms: what thousands of logins do to those who work meanwhile, and what is left of them in memory.
//!
//! Owns the process that logs in, this same program called with `--storm`, and the table.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use crate::client::{Client, Login};
use crate::idle;
use crate::load::{self, Until};
use crate::median::median;
use crate::output;
use crate::pair::Pair;
use crate::peer::{Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::{Database, PASSWORD, Pool};
use crate::procfs;
use crate::scram::Password;
use crate::setup::{Legs, Setup};
use crate::shape::Shape;
use crate::table::Table;

/// What one proxy went through.
struct Storm {
    calm_p99: f64,
    storm_p99: f64,
    per_second: f64,
    logins_per_second: f64,
    /// Bytes: before the clients that stay for a moment, with them, and some time behind them.
    memory: [f64; 3],
}

/// The section's text.
pub(crate) async fn section(
    database: &Database,
    pinning: Pinning,
    sides: [Side; 2],
    plan: &Plan,
) -> Result<String> {
    let mut pairs: [Pair; 7] = Default::default();
    for round in 0..ROUNDS {
        output::line(format!("storm: round {} of {ROUNDS}", round + 1));
        let mut runs = Vec::new();
        for side in sides {
            let peer = Peer::start(side, pinning, database, &Setup::pools(Legs::Plain)?)?;
            runs.push(weather(&peer, plan).await?);
        }
        let [ours, theirs] = runs.as_slice() else { bail!("two sides have two runs") };
        let values = |run: &Storm| {
            let [before, with, behind] = run.memory.map(|bytes| bytes / 1e6);
            let times = run.storm_p99 / run.calm_p99;
            [run.calm_p99, run.storm_p99, times, run.logins_per_second, before, with, behind]
        };
        for (pair, (ours, theirs)) in pairs.iter_mut().zip(values(ours).into_iter().zip(values(theirs))) {
            pair.push(ours, theirs);
        }
        output::line(format!(
            "storm: {:.0} and {:.0} transactions a second in it",
            ours.per_second, theirs.per_second
        ));
    }
    let [ours, theirs] = sides.map(|side| side.name);
    let header = format!("{} logins beside {WORKING} clients that work", plan.storm_logins);
    let mut table = Table::new([header.as_str(), ours, theirs, "ratio"]);
    let held = format!("memory with {} clients more, MB", plan.storm_logins);
    let names = [
        "p99 without, µs",
        "p99 in the storm, µs",
        "times as much",
        "logins per second",
        "memory without, MB (PSS)",
        &held,
        "memory when they have been gone for 25 s, MB",
    ];
    for (name, pair) in names.into_iter().zip(&pairs) {
        let medians = if name == "times as much" { pair.medians_within(P99_LIMIT) } else { pair.medians() };
        let [ours, theirs] = medians;
        table.row([name.to_owned(), ours, theirs, pair.ratio(f64::INFINITY)]);
    }
    Ok(table.finish())
}

async fn weather(peer: &Peer, plan: &Plan) -> Result<Storm> {
    let clients = load::gather(&peer.login(Pool::Pooled)?, WORKING).await?;
    let turn = |measured| Until::Time { warm_up: plan.warm_up, measured };
    let none = || Ok(0);
    let (calm, mut clients) = load::run(clients, Shape::Simple, WORKING, turn(CALM), none).await?;
    let mut raging = Raging::start(peer.address(), plan.storm_logins)?;
    let (mut p99s, mut rates) = (Vec::new(), Vec::new());
    let start = crate::clock::now();
    while !raging.is_over()? {
        let (run, rest) = load::run_prepared(clients, Shape::Simple, WORKING, turn(SQUALL), none).await?;
        clients = rest;
        p99s.push(run.p99_us as f64);
        rates.push(run.transactions as f64 / run.elapsed.as_secs_f64());
    }
    let elapsed = start.elapsed().as_secs_f64();
    for client in clients {
        client.close().await?;
    }
    let held = idle::measure(peer, plan.storm_logins).await?;
    sleep(BEHIND).await;
    let behind = procfs::memory(peer.pid())?;
    Ok(Storm {
        calm_p99: calm.p99_us as f64,
        storm_p99: median(&p99s).context("the storm was over at once")?,
        per_second: median(&rates).unwrap_or(0.0),
        logins_per_second: plan.storm_logins as f64 / elapsed,
        memory: [held.before.pss, held.logged_in.pss, behind.pss].map(|bytes| bytes as f64),
    })
}

/// The process that logs in.
struct Raging(Child);

impl Raging {
    fn start(address: SocketAddr, logins: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--storm", &address.to_string(), &logins.to_string()]).stdin(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    fn is_over(&mut self) -> Result<bool> {
        let Some(status) = self.0.try_wait()? else { return Ok(false) };
        ensure!(status.success(), "the process that logs in failed");
        Ok(true)
    }
}

impl Drop for Raging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The life of that process: logs in and leaves, many at a time.
pub(crate) async fn rage(arguments: &[String]) -> Result<()> {
    let [address, logins] = arguments else { bail!("--storm needs an address and a number") };
    let pool = Pool::Pooled.name().to_owned();
    let login = Rc::new(Login {
        address: address.parse()?,
        user: pool.clone(),
        database: pool,
        password: Password::new(PASSWORD.to_owned()),
        encryption: None,
    });
    let logins: u64 = logins.parse()?;
    LocalSet::new()
        .run_until(async {
            let mut tasks = JoinSet::new();
            for nonce in 0..logins {
                if tasks.len() >= IN_FLIGHT {
                    tasks.join_next().await.context("a login is in flight")???;
                }
                let login = Rc::clone(&login);
                tasks.spawn_local(async move { Client::login(&login, nonce).await?.close().await });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok(())
        })
        .await
}

const ROUNDS: usize = 3;
const WORKING: usize = 16;
const IN_FLIGHT: usize = 64;
const CALM: Duration = Duration::from_millis(1_500);
const SQUALL: Duration = Duration::from_millis(300);
/// Longer than it takes a worker to notice that most of its clients have gone.
const BEHIND: Duration = Duration::from_secs(25);
/// The aim: at most this many times the p99 without the storm.
const P99_LIMIT: f64 = 2.0;
