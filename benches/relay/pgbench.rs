//! Runs of the pgbench program.
//!
//! Owns its arguments and the reading of its report. Must not know which proxy answers.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::peer::Peer;
use crate::postgres::{Database, PASSWORD, Pool};
use crate::procfs;
use crate::shape::Shape;

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PgbenchRun {
    pub(crate) transactions: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu_ns: u64,
}

/// `pgbench -S` through a proxy. The clients' logins are part of the proxy's CPU time: a few microseconds of each run.
pub(crate) fn select_only(
    database: &Database,
    peer: &Peer,
    pool: Pool,
    shape: Shape,
    clients: usize,
    seconds: u32,
) -> Result<PgbenchRun> {
    let mut command = Command::new(database.program("pgbench"));
    command.args(["-n", "-S", "-j", "1", "-M", shape.name(), "-h", "127.0.0.1", "-U", pool.name()]);
    command.arg("-p").arg(peer.address().port().to_string());
    command.arg("-c").arg(clients.to_string()).arg("-T").arg(seconds.to_string()).arg(peer.database(pool));
    // The relay would let it talk TLS with Postgres.
    command.env("PGSSLMODE", "disable").env("PGPASSWORD", PASSWORD).stdin(Stdio::null());
    let before = procfs::cpu_ns(peer.pid())?;
    let output = command.output().context("running pgbench")?;
    let cpu_ns = procfs::cpu_ns(peer.pid())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench through {} failed:\n{text}{errors}", peer.name);
    Ok(PgbenchRun {
        transactions: after(&text, "transactions actually processed: ")?.parse()?,
        per_second: after(&text, "tps = ")?.parse()?,
        cpu_ns,
    })
}

/// The word that follows `label`.
fn after<'a>(text: &'a str, label: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(label).with_context(|| format!("pgbench printed no `{label}`"))?;
    rest.split(|c: char| c.is_whitespace() || c == '/').next().context("a number is missing")
}
