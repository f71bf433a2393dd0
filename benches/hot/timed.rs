//! What the scheduler takes in time and memory: `make hot-times`, which prints and judges nothing.
//!
//! Owns the loads. Nanoseconds belong to the machine and to what else runs on it; that a turn grows like a logarithm, and
//! what a tenant takes, does not.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tenantry::budget::{BudgetConfig, Scheduler};

use crate::say;
use crate::scheduled::Desk;

pub(crate) fn run() -> Result<()> {
    say("| nanoseconds | |\n|---|---:|\n")?;
    let (had, given_back) = leases(1)?;
    say(&format!("| a server is had, the same one each time | {had:.0} |\n"))?;
    say(&format!("| it is given back | {given_back:.0} |\n"))?;
    let (had, given_back) = leases(TENANTS)?;
    say(&format!("| a server is had, of {TENANTS} tenants in turns | {had:.0} |\n"))?;
    say(&format!("| it is given back | {given_back:.0} |\n"))?;
    for waiting in [10, 1_000, 100_000] {
        let (release, all) = turns(waiting)?;
        say(&format!("| a release that is a turn, {waiting} tenants wait | {release:.0} |\n"))?;
        say(&format!("| the whole turn: released, closed, logged in, asked for again | {all:.0} |\n"))?;
    }
    say("\n| bytes | |\n|---|---:|\n")?;
    let (known, waited) = memory()?;
    say(&format!("| a tenant that was met | {known} |\n| and has waited once | {waited} |\n"))?;
    Ok(())
}

/// Nanoseconds to have a server and to give it back, with so many tenants that have one each.
fn leases(tenants: u32) -> Result<(f64, f64)> {
    let mut desk = Desk::with_tenants(tenants + 1, tenants, 0)?;
    for tenant in 0..tenants {
        desk.acquire(tenant)?;
        let server = desk.open()?;
        desk.release(server)?;
    }
    let mut servers = Vec::new();
    let mut each = Fastest::default();
    for _ in 0..ROUNDS {
        let (mut had, mut given_back) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..LEASES / tenants {
            servers.clear();
            let start = now();
            for tenant in 0..tenants {
                desk.acquire(tenant)?;
                servers.push(desk.granted()?);
            }
            let middle = now();
            for server in &servers {
                desk.release(*server)?;
            }
            had += middle - start;
            given_back += middle.elapsed();
        }
        each.note([had, given_back]);
    }
    let clock = if tenants == 1 { clock_ns() } else { 0.0 };
    let [had, given_back] = each.per(LEASES / tenants * tenants);
    Ok((had - clock, given_back - clock))
}

/// Nanoseconds for a release that is a turn, and for all of the turn, while so many tenants wait for ten servers.
fn turns(waiting: u32) -> Result<(f64, f64)> {
    let mut desk = Desk::with_tenants(SERVERS, waiting + SERVERS, 1)?;
    let mut leased = std::collections::VecDeque::new();
    for tenant in 0..SERVERS {
        desk.acquire(tenant)?;
        leased.push_back((tenant, desk.open()?));
    }
    for tenant in SERVERS..SERVERS + waiting {
        desk.acquire_in_the_end(tenant)?;
    }
    desk.pass(TENURE_US);
    let mut each = Fastest::default();
    for _ in 0..ROUNDS {
        let (mut releases, mut all) = (Duration::ZERO, Duration::ZERO);
        let mut turns = 0;
        while turns < TURNS {
            let (tenant, server) = leased.pop_front().context("somebody has a server")?;
            desk.pass(TENURE_US / u64::from(SERVERS));
            let start = now();
            desk.release(server)?;
            let released = start.elapsed();
            if desk.closing() != Some(server) {
                // Whoever was served less than all that wait keeps its server for another round.
                desk.acquire_in_the_end(tenant)?;
                leased.push_back((tenant, desk.granted()?));
                continue;
            }
            turns += 1;
            releases += released;
            let (heir, ordered) = desk.close(server)?;
            desk.opened(ordered)?;
            desk.acquire_in_the_end(tenant)?;
            all += start.elapsed();
            leased.push_back((heir.0, ordered));
        }
        each.note([releases, all]);
    }
    let [release, all] = each.per(TURNS);
    Ok((release, all))
}

/// Bytes of a tenant that is known, and when it has waited.
fn memory() -> Result<(u64, u64)> {
    let before = resident()?;
    let mut desk = Desk::with_tenants(SERVERS, MANY, 1)?;
    let known = resident()?;
    for tenant in 0..MANY {
        desk.acquire_in_the_end(tenant)?;
    }
    let waited = resident()?;
    drop(desk);
    // An empty one takes next to nothing.
    ensure!(Scheduler::new(BudgetConfig::new(1)).waiters() == 0, "it is empty");
    let each = |bytes: u64| bytes.saturating_sub(before) / u64::from(MANY);
    Ok((each(known), each(waited)))
}

fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).context("statm has no resident pages")?.parse()?;
    Ok(pages * PAGE_BYTES)
}

/// The fastest of some rounds: whatever else runs makes them slower only.
#[derive(Default)]
struct Fastest(Option<[Duration; 2]>);

impl Fastest {
    fn note(&mut self, [one, other]: [Duration; 2]) {
        let [best_one, best_other] = self.0.unwrap_or([one, other]);
        self.0 = Some([best_one.min(one), best_other.min(other)]);
    }

    fn per(&self, times: u32) -> [f64; 2] {
        self.0.unwrap_or_default().map(|spent| spent.as_secs_f64() * 1e9 / f64::from(times))
    }
}

/// What it takes to read the clock.
fn clock_ns() -> f64 {
    let start = now();
    for _ in 0..LEASES {
        std::hint::black_box(now());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(LEASES)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a driver: it measures time")]
fn now() -> Instant {
    Instant::now()
}

const ROUNDS: u32 = 7;
const LEASES: u32 = 100_000;
const TURNS: u32 = 2_000;
const TENANTS: u32 = 1_000;
const SERVERS: u32 = 10;
/// Longer than any quantum.
const TENURE_US: u64 = 2_000_000;
const MANY: u32 = 100_000;
const PAGE_BYTES: u64 = 4_096;
