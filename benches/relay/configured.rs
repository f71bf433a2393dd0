//! Proxies with very many tenants and no clients: their start, their memory, and a reload that adds one tenant.
//!
//! Owns the section's loop and table. Must not know how the tenants are written down.

use anyhow::{Context, Result};

use crate::client::Client;
use crate::clock::now;
use crate::median::median;
use crate::output;
use crate::pair::at_most;
use crate::peer::{Kind, Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::{Database, Pool};
use crate::procfs;
use crate::setup::Setup;
use crate::table::Table;

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
    Ok(table.finish())
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
    (100_000, Limits { start_s: 2.0, mb: 150.0, reload_s: f64::INFINITY }),
];
/// PgBouncer is measured with so many at most.
const THEIR_TENANTS: usize = 10_000;
