//! How much is measured: sizes and repetitions, from the environment.
//!
//! Owns the variables `BENCH_LENGTH`, `BENCH_WRITE`, `BENCH_SAME` and `BENCH_ONLY`. Must not measure.

use std::time::Duration;

use anyhow::{Result, bail};

/// One part of the bench, which is also one section of `docs/performance.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// CPU per transaction.
    Transactions,
    /// The same where Postgres may use the proxies' CPU.
    Shared,
    /// Two workers beside two processes.
    Cores,
    /// System calls per transaction.
    Syscalls,
    /// Instructions per transaction.
    Instructions,
    /// Memory per idle client.
    Idle,
    /// CPU per gigabyte.
    Bulk,
    /// Client logins, and what a server login costs Postgres.
    Logins,
    /// Transactions, wide rows, logins and idle clients over TLS.
    Tls,
    /// Many tenants with the load of one.
    Tenants,
    /// Start, memory and reload with very many tenants.
    Configured,
    /// Very many logins at once.
    Storm,
    /// Very many clients.
    Million,
    /// Quiet tenants beside noisy ones: minutes, so only by name.
    Fairness,
}

impl Part {
    pub(crate) const ALL: [Self; 13] = [
        Self::Transactions,
        Self::Shared,
        Self::Cores,
        Self::Syscalls,
        Self::Instructions,
        Self::Idle,
        Self::Bulk,
        Self::Logins,
        Self::Tls,
        Self::Tenants,
        Self::Configured,
        Self::Storm,
        Self::Million,
    ];

    /// The name in `BENCH_ONLY` and in the document's markers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Shared => "shared",
            Self::Cores => "cores",
            Self::Syscalls => "syscalls",
            Self::Instructions => "instructions",
            Self::Idle => "idle",
            Self::Bulk => "bulk",
            Self::Logins => "logins",
            Self::Tls => "tls",
            Self::Tenants => "tenants",
            Self::Configured => "configured",
            Self::Storm => "storm",
            Self::Million => "million",
            Self::Fairness => "fairness",
        }
    }
}

/// Sizes and repetitions.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Parts to run, in order.
    pub(crate) parts: Vec<Part>,
    /// The only experiment of the part `fairness`, if not all.
    pub(crate) experiment: Option<usize>,
    /// Whether PgBouncer is measured against itself: every ratio must then be about 1.
    pub(crate) same: bool,
    /// Whether the tables are written into the document, and not only printed.
    pub(crate) writes: bool,
    /// Whether pgbench makes load too, beside the lean client.
    pub(crate) with_pgbench: bool,
    /// Interleaved repetitions of everything.
    pub(crate) rounds: usize,
    /// Client counts.
    pub(crate) clients: Vec<usize>,
    /// Turns that each proxy gets in one `SELECT 1` run.
    pub(crate) turns: usize,
    /// Measured time of one such turn.
    pub(crate) turn: Duration,
    /// Time of one such run that is not counted.
    pub(crate) warm_up: Duration,
    /// Whole seconds of one pgbench run.
    pub(crate) pgbench_seconds: u32,
    /// Transactions under strace, all clients together: each takes about a millisecond there.
    pub(crate) traced: u64,
    /// Idle clients.
    pub(crate) idle_clients: usize,
    /// Repetitions of the idle measurement: fresh processes each time.
    pub(crate) idle_rounds: usize,
    /// Bytes of one bulk transfer.
    pub(crate) bulk_bytes: u64,
    /// Client logins of one round.
    pub(crate) logins: usize,
    /// Server logins of one round.
    pub(crate) server_logins: usize,
    /// Logins of a storm.
    pub(crate) storm_logins: usize,
    /// Real idle clients of the million's first half.
    pub(crate) million_real: usize,
    /// Sessions of its second half.
    pub(crate) million_parked: usize,
}

impl Plan {
    /// Reads the environment.
    pub(crate) fn from_env() -> Result<Self> {
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
        let mut plan = match std::env::var("BENCH_LENGTH").as_deref() {
            Ok("quick") => Self::quick(),
            Ok("full") => Self::full(),
            Ok("usual") | Err(_) => Self::usual(),
            Ok(other) => bail!("BENCH_LENGTH is \"quick\", \"usual\" or \"full\", not `{other}`"),
        };
        plan.experiment = std::env::var("BENCH_EXPERIMENT").ok().and_then(|number| number.parse().ok());
        plan.same = set("BENCH_SAME");
        plan.writes |= set("BENCH_WRITE");
        plan.writes &= !plan.same;
        if let Ok(only) = std::env::var("BENCH_ONLY") {
            plan.parts = only.split(',').map(part).collect::<Result<_>>()?;
        }
        Ok(plan)
    }

    /// Half an hour.
    fn full() -> Self {
        Self {
            parts: Part::ALL.to_vec(),
            experiment: None,
            same: false,
            writes: true,
            with_pgbench: true,
            rounds: 5,
            clients: vec![1, 16, 64],
            turns: 5,
            turn: Duration::from_millis(200),
            warm_up: Duration::from_millis(150),
            pgbench_seconds: 1,
            traced: 4_000,
            idle_clients: 10_000,
            idle_rounds: 5,
            bulk_bytes: 1 << 30,
            logins: 2_000,
            server_logins: 200,
            storm_logins: 10_000,
            million_real: 18_000,
            million_parked: 1_000_000,
        }
    }

    /// Ten minutes: the same lines, with fewer repetitions.
    fn usual() -> Self {
        Self {
            writes: false,
            with_pgbench: false,
            rounds: 3,
            turns: 3,
            traced: 2_000,
            idle_rounds: 2,
            bulk_bytes: 1 << 29,
            logins: 1_000,
            server_logins: 100,
            ..Self::full()
        }
    }

    /// Two minutes: whether it works.
    fn quick() -> Self {
        Self {
            rounds: 2,
            clients: vec![1, 16],
            turn: Duration::from_millis(120),
            warm_up: Duration::from_millis(100),
            idle_clients: 2_000,
            idle_rounds: 1,
            bulk_bytes: 1 << 28,
            logins: 500,
            server_logins: 50,
            storm_logins: 2_000,
            million_real: 2_000,
            million_parked: 20_000,
            ..Self::usual()
        }
    }
}

fn part(name: &str) -> Result<Part> {
    let all = Part::ALL.into_iter().chain([Part::Fairness]);
    match all.into_iter().find(|part| part.name() == name.trim()) {
        Some(part) => Ok(part),
        None => bail!("BENCH_ONLY knows {:?}, not `{name}`", Part::ALL.map(Part::name)),
    }
}
