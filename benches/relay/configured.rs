//! Proxies with very many tenants: their start, their memory, a reload that adds one tenant, and what clients notice of
//! those that add a thousand.
//!
//! Owns the section's loop and table. Must not know how the tenants are written down.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::client::Client;
use crate::clock::now;
use crate::load::{self, Until};
use crate::median::median;
use crate::output;
use crate::pair::at_most;
use crate::peer::{Kind, Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::{Database, Pool};
use crate::procfs;
use crate::setup::Setup;
use crate::shape::Shape;
use crate::table::{Table, number};

/// What one start and one reload gave.
struct Sample {
    start_s: f64,
    start_mb: f64,
    reload_s: f64,
    reload_mb: f64,
}

/// The section's text.
pub(crate) async fn section(
    database: &Database,
    pinning: Pinning,
    sides: [Side; 2],
    plan: &Plan,
) -> Result<String> {
    let mut table = Table::new([
        "tenants, proxy",
        "exec until the port accepts, s",
        "memory then, MB (PSS)",
        "reload that adds one, s",
        "memory after it, MB (PSS)",
    ]);
    for (tenants, limits) in SIZES {
        let setup = Setup::catalog(tenants);
        let all = setup.with_pool(Pool::Pooled)?;
        let sides = sides.into_iter().filter(|side| side.kind == Kind::Tenantry || tenants <= THEIR_TENANTS);
        let mut columns: Vec<(Side, Vec<Sample>)> = sides.map(|side| (side, Vec::new())).collect();
        for round in 0..plan.rounds {
            output::line(format!("configured: {tenants} tenants, round {} of {}", round + 1, plan.rounds));
            for (side, samples) in &mut columns {
                samples.push(measure(database, pinning, *side, &setup, &all).await?);
            }
        }
        for (side, samples) in &columns {
            let limits = if side.kind == Kind::Tenantry { limits } else { Limits::NONE };
            let cell = |value: fn(&Sample) -> f64, limit: f64| {
                at_most(median(&samples.iter().map(value).collect::<Vec<_>>()), limit)
            };
            table.row([
                format!("{tenants}, {}", side.name),
                cell(|sample| sample.start_s, limits.start_s),
                cell(|sample| sample.start_mb, limits.mb),
                cell(|sample| sample.reload_s, limits.reload_s),
                cell(|sample| sample.reload_mb, f64::INFINITY),
            ]);
        }
    }
    let mut text = table.finish();
    text.push('\n');
    text.push_str(&noticed(database, pinning, sides, plan).await?);
    Ok(text)
}

/// What clients that work notice of reloads that add a thousand tenants or take them away. Nothing is pinned: a reload has a
/// thread of its own, which one CPU for all would hide.
async fn noticed(database: &Database, pinning: Pinning, sides: [Side; 2], plan: &Plan) -> Result<String> {
    let mut table = Table::new([
        "a reload that adds 1,000 tenants or takes them away, beside 16 clients that work",
        "p99 before, µs",
        "p99 meanwhile, µs",
        "times as much",
    ]);
    for process in [std::process::id(), database.pid()?] {
        pinning.share(process)?;
    }
    for (tenants, _) in SIZES {
        let [setup, more] =
            [tenants, tenants + 1_000].map(|count| Setup::catalog(count).with_pool(Pool::Pooled));
        let (setup, more) = (setup?, more?);
        for side in sides.into_iter().filter(|side| side.kind == Kind::Tenantry || tenants <= THEIR_TENANTS) {
            let mut samples = Vec::new();
            for round in 0..plan.rounds {
                output::line(format!("configured: {}, {tenants} tenants, reload {}", side.name, round + 1));
                samples.extend(notice(database, side, [&setup, &more], plan).await?);
            }
            let of = |value: fn(&[f64; 2]) -> f64| median(&samples.iter().map(value).collect::<Vec<_>>());
            let limit = if side.kind == Kind::Tenantry { TIMES } else { f64::INFINITY };
            table.row([
                format!("{tenants}, {}", side.name),
                number(of(|[before, _]| *before)),
                number(of(|[_, meanwhile]| *meanwhile)),
                at_most(of(|[before, meanwhile]| meanwhile / before), limit),
            ]);
        }
    }
    for process in [std::process::id(), database.pid()?] {
        pinning.unshare(process)?;
    }
    Ok(table.finish())
}

/// The clients' p99 before some such reloads, and within them.
async fn notice(
    database: &Database,
    side: Side,
    [setup, more]: [&Setup; 2],
    plan: &Plan,
) -> Result<Vec<[f64; 2]>> {
    let peer = Peer::start_managed(side, Pinning::Free, database, setup)?;
    peer.wait_until_ready()?;
    peer.configure(database, setup)?;
    let start = now();
    peer.hang_up()?;
    peer.wait_until_ready()?;
    let measured = start.elapsed();
    let clients = load::gather(&peer.login(Pool::Pooled)?, WORKING).await?;
    let calm = Until::Time { warm_up: plan.warm_up, measured };
    let (before, mut clients) = load::run(clients, Shape::Simple, WORKING, calm, || Ok(0)).await?;
    let mut samples = Vec::new();
    let mut signaller = Signaller::new(&peer)?;
    for next in [more, setup, more, setup, more] {
        peer.configure(database, next)?;
        // As long as a reload takes that nobody disturbs: within it.
        let within = Until::Time { warm_up: plan.warm_up, measured };
        let signal = async {
            tokio::time::sleep(plan.warm_up).await;
            signaller.hang_up()
        };
        let load = load::run_prepared(clients, Shape::Simple, WORKING, within, || Ok(0));
        let (run, signalled) = tokio::join!(load, signal);
        signalled?;
        let (run, rest) = run?;
        clients = rest;
        peer.wait_until_ready()?;
        samples.push([before.p99_us as f64, run.p99_us as f64]);
    }
    for client in clients {
        client.close().await?;
    }
    Ok(samples)
}

/// Starts a proxy with `setup` and reloads it with `all`, which has one tenant more.
async fn measure(
    database: &Database,
    pinning: Pinning,
    side: Side,
    setup: &Setup,
    all: &Setup,
) -> Result<Sample> {
    let peer = Peer::start_managed(side, pinning, database, setup)?;
    let start_mb = megabytes(&peer)?;
    peer.wait_until_ready()?;
    peer.configure(database, all)?;
    let start = now();
    peer.hang_up()?;
    peer.wait_until_ready()?;
    let reload_s = start.elapsed().as_secs_f64();
    let reload_mb = megabytes(&peer)?;
    // The proxy says that it has reloaded; that it has is seen here.
    let client = Client::login(&peer.login(Pool::Pooled)?, 0).await;
    client.with_context(|| format!("{} does not know the new tenant", peer.name))?.close().await?;
    Ok(Sample { start_s: peer.start_time().as_secs_f64(), start_mb, reload_s, reload_mb })
}

/// A process that signals a proxy at once: to start one for it takes as long as a request, from the CPUs that are measured.
struct Signaller(Child);

impl Signaller {
    fn new(peer: &Peer) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "while read -r line; do kill -HUP \"$1\"; done", "sh", &peer.pid().to_string()]);
        Ok(Self(shell.stdin(Stdio::piped()).spawn()?))
    }

    fn hang_up(&mut self) -> Result<()> {
        let input = self.0.stdin.as_mut().context("the signalling shell has no input")?;
        Ok(input.write_all(b"now\n")?)
    }
}

impl Drop for Signaller {
    fn drop(&mut self) {
        // At the end of its input it ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn megabytes(peer: &Peer) -> Result<f64> {
    Ok(procfs::memory(peer.pid())?.pss as f64 / 1e6)
}

/// The aims, for Tenantry.
#[derive(Clone, Copy, Debug)]
struct Limits {
    start_s: f64,
    mb: f64,
    reload_s: f64,
}

impl Limits {
    const NONE: Self = Self { start_s: f64::INFINITY, mb: f64::INFINITY, reload_s: f64::INFINITY };
}

const SIZES: [(usize, Limits); 2] = [
    (10_000, Limits { start_s: 0.5, mb: 50.0, reload_s: 0.1 }),
    (100_000, Limits { start_s: 2.0, mb: 150.0, reload_s: 1.0 }),
];
/// Clients that work beside a reload, and how much their p99 may rise.
const WORKING: usize = 16;
const TIMES: f64 = 2.0;
/// PgBouncer is measured with so many at most.
const THEIR_TENANTS: usize = 10_000;
