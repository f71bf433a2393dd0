//! The demo from the first line to the last.
//!
//! Owns the order of the steps. Every thing started is owned by a value here, so that leaving early, by an error or by
//! Ctrl-C, stops and removes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::checks::Evidence;
use super::load::{Crowd, Live};
use super::place::{ADMIN_RESERVE, Place};
use super::plan::{Habit, Member, members};
use super::provision::provision;
use super::report;
use super::sample::{Ledger, Observer, Seen};
use super::tally::Tally;
use super::{DemoArgs, output};
use crate::commands::{Failure, environment};
use crate::config;
use crate::proxy::{DrainKind, Proxy};
use crate::throwaway::{Cluster, ClusterOptions, PgBin, find_postgres};

/// Postgres' `max_connections` in the demo.
const MAX_CONNECTIONS: u32 = 60;
/// Length of the load if none is given.
const DEFAULT_SECONDS: u64 = 10;

/// Runs the demo.
///
/// # Errors
/// If Postgres or the proxy cannot be started (the text says what would help), or a check did not hold.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match runtime.block_on(whole(args)) {
        Ok(Outcome::AllHeld) => Ok(()),
        Ok(Outcome::OneFailed) => Err(Failure::runtime("a check did not hold")),
        Err(error) => Err(Failure::runtime(format_args!("{error:#}"))),
    }
}

async fn whole(args: &DemoArgs) -> Result<Outcome> {
    let (outcome, stage) = tokio::select! {
        ended = demo(args) => ended?,
        signal = tokio::signal::ctrl_c() => {
            signal.context("waiting for Ctrl-C")?;
            bail!("stopped before the end")
        }
    };
    if args.seconds.is_none() {
        output::line("Ctrl-C ends it.");
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
        output::line("Stopping.");
        stage.proxy.drain(DrainKind::Fast).await;
    }
    Ok(outcome)
}

/// Whether every check held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    AllHeld,
    OneFailed,
}

async fn demo(args: &DemoArgs) -> Result<(Outcome, Stage)> {
    let members = members(args)?;
    let stage = Stage::set(args, &members).await?;
    output::line(stage.introduction(&members));
    let seconds = args.seconds.unwrap_or(DEFAULT_SECONDS);
    let Performance { tallies, seen, ledger, observer } = stage.perform(seconds, &members).await?;
    output::line(format!("\n{}", report::table(&tallies, stage.tenants, &seen, stage.budget)));
    let (budget, tenants) = (stage.budget, stage.tenants);
    let mut evidence = Evidence { budget, tallies: &tallies, tenants, seen, ledger, left_over: None };
    if args.seconds.is_some() {
        stage.proxy.drain(DrainKind::Fast).await;
        evidence.left_over = Some(observer.look().await?.iter().sum());
    }
    let checks = evidence.checks();
    output::line(format!("\n{}\n\n{}", report::checks(&checks), stage.invitation(&members)));
    let all_held = checks.iter().all(|check| check.held);
    let outcome = if all_held { Outcome::AllHeld } else { Outcome::OneFailed };
    Ok((outcome, stage))
}

/// What the load plays on. The fields are dropped in this order: proxy, files, Postgres.
struct Stage {
    proxy: Proxy,
    place: Place,
    cluster: Cluster,
    /// Servers the proxy may have, computed from the server's own settings.
    budget: u32,
    /// Tenants of each [`Habit`].
    tenants: [usize; 4],
}

/// What a performance gave.
struct Performance {
    tallies: [Tally; 4],
    seen: Seen,
    ledger: Ledger,
    observer: Observer,
}

impl Stage {
    async fn set(args: &DemoArgs, members: &[Member]) -> Result<Self> {
        let bin = match &args.pg_bin {
            Some(dir) => {
                PgBin::in_dir(dir).with_context(|| format!("no Postgres server in {}", dir.display()))?
            }
            None => find_postgres()?,
        };
        output::line(format!("Starting {} with max_connections = {MAX_CONNECTIONS} ...", bin.version()));
        let options = ClusterOptions { max_connections: MAX_CONNECTIONS, ..ClusterOptions::default() };
        let cluster = Cluster::start_with(bin, options).await?;
        let place = Place::new()?;
        place.write(&cluster, members)?;
        let settings = config::load(&place.config(), &environment, None)?;
        output::line(format!(
            "Making {} tenants, each with a role, a schema and rows of its own ...",
            members.len()
        ));
        provision(&cluster, &settings, members).await?;
        let budget = budget(&cluster).await?;
        let proxy = Proxy::start(settings).await?;
        let tenants = Habit::ALL.map(|habit| members.iter().filter(|member| member.habit == habit).count());
        Ok(Self { proxy, place, cluster, budget, tenants })
    }

    async fn perform(&self, seconds: u64, members: &[Member]) -> Result<Performance> {
        let live = Arc::new(Live::default());
        let address = *self.proxy.addresses().first().context("the proxy listens nowhere")?;
        let crowd = Crowd::gather(members, address, &live).await?;
        output::line(format!("{} clients are logged in. Load for {seconds} s:\n", crowd.len()));
        output::line(report::LIVE_HEADER);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = CancellationToken::new();
        let observer = Observer::new(&self.cluster, members).await?;
        let watching = tokio::spawn(observer.watch(Arc::clone(&seen), stop.clone()));
        let working = tokio::spawn(crowd.work());
        let ledger = self.narrate(seconds, &live, &seen).await;
        live.stop.store(true, Ordering::Relaxed);
        let tallies = working.await.context("the load failed")??;
        stop.cancel();
        let observer = watching.await.context("the observer failed")??;
        let seen = *seen.lock();
        Ok(Performance { tallies, seen, ledger, observer })
    }

    /// One line per second; returns the proxy's count at its highest, of many looks.
    async fn narrate(&self, seconds: u64, live: &Live, seen: &Mutex<Seen>) -> Ledger {
        let mut highest = Ledger::default();
        let mut before = 0;
        for second in 1..=seconds {
            let mut now = Ledger::default();
            for _ in 0..LOOKS_PER_SECOND {
                tokio::time::sleep(Duration::from_secs(1) / LOOKS_PER_SECOND).await;
                now = Ledger::of(&self.proxy.report().await);
                highest.capacity = highest.capacity.max(now.capacity);
                highest.used = highest.used.max(now.used);
            }
            let transactions = live.transactions.load(Ordering::Relaxed);
            let timeouts = live.timeouts.load(Ordering::Relaxed);
            output::line(report::live(second, transactions - before, timeouts, &{ *seen.lock() }, now));
            before = transactions;
        }
        highest
    }

    fn introduction(&self, members: &[Member]) -> String {
        let held = MAX_CONNECTIONS - self.budget;
        format!(
            "The proxy serves {} tenants with {} server connections ({MAX_CONNECTIONS} less {held} that are reserved).\n\
             Its configuration: {}",
            members.len(),
            self.budget,
            self.place.config().display()
        )
    }

    fn invitation(&self, members: &[Member]) -> String {
        let port = self.proxy.addresses().first().map_or(0, std::net::SocketAddr::port);
        let metrics = self
            .proxy
            .http_address()
            .map_or_else(String::new, |address| format!("\nMetrics: http://{address}/metrics"));
        format!("Three tenants to connect as:\n{}{metrics}", report::psql_lines(members, port))
    }
}

/// What the server leaves to the proxy: asked of the server here, independently of the proxy's own arithmetic.
async fn budget(cluster: &Cluster) -> Result<u32> {
    let sql = "SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings \
               WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')";
    let rows = cluster.psql(sql).await?;
    let text =
        rows.first().and_then(|row| row.first()).cloned().flatten().context("Postgres names no limits")?;
    text.parse::<u32>()?.checked_sub(ADMIN_RESERVE).context("nothing is left for the proxy")
}

/// How often the proxy is asked for its count.
const LOOKS_PER_SECOND: u32 = 20;
