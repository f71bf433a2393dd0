//! Instructions per transaction of the proxy itself, by part of the program, counted by callgrind.
//!
//! Owns running Tenantry under valgrind and the sums. The kernel's instructions are not among them: the section on system
//! calls says what it is asked for. Counts do not depend on the machine's mood, so they show what a change of the code
//! costs where times cannot.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::load::{self, Until};
use crate::output;
use crate::peer::{Kind, Peer, Side};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::postgres::{Database, Pool};
use crate::setup::{Legs, Setup};
use crate::shape::Shape;
use crate::table::Table;

/// The section's text.
pub(crate) async fn section(database: &Database, plan: &Plan) -> Result<String> {
    let version = Command::new("valgrind").arg("--version").stderr(Stdio::null()).output();
    let Ok(version) = version else { return Ok("Not measured: valgrind is not installed.\n".to_owned()) };
    let side = Side { kind: Kind::Counted, name: "Tenantry under valgrind" };
    // It is slow enough without a CPU of its own.
    let peer = Peer::start(side, Pinning::Free, database, &Setup::pools(Legs::Plain)?)?;
    let mut columns = Vec::new();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        output::line(format!("instructions: {}", shape.name()));
        columns.push(count(&peer, shape, number + 1, plan).await?);
    }
    let header = format!("instructions per transaction, {CLIENTS} clients");
    let names = SHAPES.map(Shape::name);
    let mut table = Table::new([header.as_str(), names[0], names[1], names[2]]);
    for area in AREAS.iter().map(|(area, _)| *area).chain([REST]) {
        let cell = |column: &HashMap<&str, f64>| format!("{:.0}", column.get(area).unwrap_or(&0.0));
        let cells: Vec<String> = columns.iter().map(cell).collect();
        row(&mut table, area, &cells);
    }
    let sums: Vec<String> =
        columns.iter().map(|column| format!("{:.0}", column.values().sum::<f64>())).collect();
    row(&mut table, "**all**", &sums);
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    Ok(format!("Counted by {version}, {} transactions of each kind.\n\n{}", plan.traced, table.finish()))
}

fn row(table: &mut Table, area: &str, cells: &[String]) {
    if let [a, b, c] = cells {
        table.row([area.to_owned(), a.clone(), b.clone(), c.clone()]);
    }
}

/// Instructions per transaction, by area. `dump` is the number of the file that callgrind writes.
async fn count(peer: &Peer, shape: Shape, dump: usize, plan: &Plan) -> Result<HashMap<&'static str, f64>> {
    let clients = load::gather(&peer.login(Pool::Held)?, CLIENTS).await?;
    let (_, clients) = load::run(clients, shape, CLIENTS, Until::Count(20), || Ok(0)).await?;
    control(peer, &["-i", "on"])?;
    let each = Until::Count(plan.traced / u64::try_from(CLIENTS)?);
    let (run, clients) = load::run_prepared(clients, shape, CLIENTS, each, || Ok(0)).await?;
    control(peer, &["-i", "off"])?;
    control(peer, &["--dump"])?;
    for client in clients {
        client.close().await?;
    }
    let file = peer.dir().join(format!("{DUMP}.{dump}"));
    let mut sums: HashMap<&'static str, f64> = HashMap::new();
    for (function, cost) in costs(&file)? {
        let area = AREAS.iter().find(|(_, marks)| marks.iter().any(|mark| function.contains(mark)));
        let sum = sums.entry(area.map_or(REST, |(area, _)| *area)).or_default();
        *sum += cost as f64 / run.transactions.max(1) as f64;
    }
    Ok(sums)
}

fn control(peer: &Peer, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("callgrind_control");
    command.args(arguments).arg(peer.pid().to_string()).stdin(Stdio::null());
    let output = command.output().context("running callgrind_control")?;
    ensure!(output.status.success(), "callgrind_control: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The instructions of each function itself (Callgrind Format Specification, section 3).
fn costs(file: &Path) -> Result<Vec<(String, u64)>> {
    let text = std::fs::read_to_string(file).context("callgrind wrote nothing")?;
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut sums: HashMap<&str, u64> = HashMap::new();
    let (mut function, mut is_call) = ("", false);
    for line in text.lines() {
        if let Some((kind, name)) = line.split_once("fn=").filter(|(kind, _)| ["", "c"].contains(kind)) {
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            if kind.is_empty() {
                function = names.get(number).copied().unwrap_or_default();
            }
        } else if line.starts_with("calls=") {
            // The next line is what the callee and all below it cost.
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            if !std::mem::take(&mut is_call) {
                *sums.entry(function).or_default() += cost;
            }
        }
    }
    Ok(sums.into_iter().map(|(name, cost)| (name.to_owned(), cost)).collect())
}

/// What callgrind's files are called, in the peer's directory.
pub(crate) const DUMP: &str = "callgrind";
const CLIENTS: usize = 16;
const SHAPES: [Shape; 3] = [Shape::Simple, Shape::Extended, Shape::Prepared];
/// Parts of the program, by what is in the names of their functions; the first that fits counts.
const AREAS: [(&str, &[&str]); 7] = [
    ("runtime: tasks, wakers, readiness", &["tokio::", "mio::"]),
    ("who gets a server: `budget`", &["tenantry::budget"]),
    ("the servers: `pool`", &["tenantry::pool"]),
    ("reading texts: `track::lexer`", &["tenantry::track::lexer"]),
    ("following the protocol: `track`, `wire`", &["tenantry::track", "tenantry::wire"]),
    ("the session", &["tenantry::session"]),
    ("the socket calls: `net`", &["tenantry::net", "rustix::"]),
];
const REST: &str = "libraries: copies, searches, the clock";
