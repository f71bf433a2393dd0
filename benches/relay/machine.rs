//! Where and with what the numbers were made.
//!
//! Owns asking the machine. Prints no host names and no paths.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::peer::{self, Kind, Peer};
use crate::peer_config;
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::Database;

/// The section that names machine, versions, commit and both configurations.
pub(crate) fn section(database: &Database, peers: &[Peer], pinning: Pinning, plan: &Plan) -> Result<String> {
    let mut text = format!(
        "- Machine: {} CPUs, {}, {} GB of memory, Linux {}\n- Versions: Tenantry {} ({}), {}, {}, {}\n\
         - Placement: {}.\n\
         - Medians of {} interleaved rounds. Ratios are medians of the ratios of neighbouring runs; below 1 means that \
         {} needs less.\n",
        cpus(),
        cpu_model(),
        memory_gb(),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        env!("CARGO_PKG_VERSION"),
        commit(),
        peer::pgbouncer_version()?,
        database.version(),
        line_of("rustc", &["--version"]),
        pinning.describe(),
        plan.rounds,
        peers.first().map_or("", |peer| peer.name),
    );
    for peer in peers {
        let language = match peer.kind {
            Kind::Tenantry => "toml",
            Kind::PgBouncer => "ini",
            Kind::Floor | Kind::Epoll | Kind::Counted => continue,
        };
        text.push_str(&format!("\n{}:\n\n```{language}\n{}```\n", peer.name, peer_config::shown(peer.kind)?));
    }
    Ok(text)
}

/// All CPUs of the machine, not only those this process is pinned to.
fn cpus() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, model)| model).to_owned()
}

fn memory_gb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
    total.map_or(0, |kb| kb.div_ceil(1 << 20))
}

fn commit() -> String {
    let commit = line_of("git", &["rev-parse", "--short", "HEAD"]);
    if commit.is_empty() {
        return "no commit".to_owned();
    }
    let changed =
        !line_of("git", &["status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock"]).is_empty();
    if changed { format!("{commit} with changes") } else { commit }
}

/// The first line that a command prints; empty if it fails.
fn line_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let Ok(output) = output else { return String::new() };
    if !output.status.success() {
        return String::new();
    }
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}
