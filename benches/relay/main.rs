//! Tenantry beside PgBouncer and a bare relay: CPU per transaction, system calls, idle memory, bulk transfers, logins, TLS,
//! many tenants, and very many that are only configured.
//!
//! `make bench` and `make bench-full` run it; `benches/README.md` says what it needs and what its variables are. All of
//! them stand in front of the same throwaway Postgres and are measured in turns, because a machine's speed changes from
//! minute to minute.

mod bulk;
mod certificate;
mod client;
mod clock;
mod configured;
mod cores;
mod crowd;
mod crowd_load;
mod document;
mod encrypted;
mod fairness;
mod floor;
mod idle;
mod instructions;
mod load;
mod logins;
mod machine;
mod median;
mod million;
mod notify;
mod output;
mod pair;
mod parked;
mod peer;
mod peer_config;
mod pgbench;
mod pinning;
mod plan;
mod postgres;
mod procfs;
mod scram;
mod sections;
mod setup;
mod shape;
mod shared;
mod storm;
mod strace;
mod stream;
mod table;
mod transactions;
mod turns;

use std::process::ExitCode;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::peer::{Kind, Peer, Side};
use crate::pinning::Pinning;
use crate::plan::{Part, Plan};
use crate::postgres::Database;
use crate::setup::{Legs, Setup};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::line(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Clients of both kinds are files; a shell's default limit is too low for ten thousand.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.split_first() {
        Some((flag, rest)) if flag == "--hold" => runtime.block_on(idle::hold(rest)),
        Some((flag, rest)) if flag == "--hold-many" => runtime.block_on(idle::hold_many(rest)),
        Some((flag, rest)) if flag == "--storm" => runtime.block_on(storm::rage(rest)),
        Some((flag, rest)) if flag == "--park" => parked::run(rest),
        Some((flag, rest)) if flag == "--floor" => floor::run(rest),
        _ if arguments.iter().any(|argument| argument == "--bench") => {
            runtime.block_on(until_stopped(bench()))
        }
        _ => {
            output::line("A measurement, not a test: run `make bench`.");
            Ok(())
        }
    }
}

/// A signal drops the future, and with it Postgres and both proxies.
async fn until_stopped(bench: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = bench => ended,
        _ = terminate.recv() => bail!("stopped"),
        _ = tokio::signal::ctrl_c() => bail!("stopped"),
    }
}

async fn bench() -> Result<()> {
    let plan = Plan::from_env()?;
    let bouncer = |name| Side { kind: Kind::PgBouncer, name };
    let sides = if plan.same {
        [bouncer("PgBouncer A"), bouncer("PgBouncer B")]
    } else {
        [Side { kind: Kind::Tenantry, name: "Tenantry" }, bouncer("PgBouncer")]
    };
    let floor = Side { kind: Kind::Floor, name: "relay" };
    let pinning = Pinning::apply();
    let database = Database::start().await?;
    let pools = Setup::pools(Legs::Plain)?;
    let [ours, theirs] = sides;
    let peers = [
        Peer::start(ours, pinning, &database, &pools)?,
        Peer::start(theirs, pinning, &database, &pools)?,
        Peer::start(floor, pinning, &database, &pools)?,
    ];
    let mut sections = vec![("machine", machine::section(&database, &peers, pinning, &plan)?)];
    for part in plan.parts.iter().copied() {
        let began = clock::now();
        let text = match part {
            Part::Transactions => transactions::section(&database, &peers, &plan).await?,
            Part::Shared => shared::section(&database, pinning, &plan).await?,
            Part::Cores => cores::section(&database, pinning, sides, &plan).await?,
            Part::Syscalls => sections::syscalls(&peers, &plan).await?,
            Part::Instructions => instructions::section(&database, &plan).await?,
            Part::Idle => sections::idle(&database, pinning, sides, &plan).await?,
            Part::Bulk => sections::bulk(&peers, &plan).await?,
            Part::Logins => {
                let [ours, theirs, _] = &peers;
                sections::logins(&database, [ours, theirs], &plan).await?
            }
            Part::Tls => encrypted::section(&database, pinning, sides, &plan).await?,
            Part::Tenants => crowd::section(&database, pinning, sides, &plan).await?,
            Part::Fairness => fairness::section(&database, pinning, plan.experiment).await?,
            Part::Storm => storm::section(&database, pinning, sides, &plan).await?,
            Part::Million => million::section(&database, pinning, ours, &plan).await?,
            Part::Configured => configured::section(&database, pinning, sides, &plan).await?,
        };
        output::line(format!("\n{text}\n{} took {} s\n", part.name(), began.elapsed().as_secs()));
        sections.push((part.name(), text));
    }
    if !plan.writes {
        output::line("docs/performance.md stays as it is: that is made by `make bench-full`.");
        return Ok(());
    }
    document::write(&sections)?;
    output::line("docs/performance.md has been written.");
    Ok(())
}
