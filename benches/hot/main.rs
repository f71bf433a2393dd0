//! Instructions of the pure hot functions, compared with what they were: `make hot`, which CI runs.
//!
//! Owns the comparison. valgrind counts a process that does a thing many times and one that does it some times more, and
//! the difference is what the thing takes: the same each time on one machine and with one compiler, whatever else runs. A
//! change of the compiler can move the counts too; then `HOT_WRITE=1` writes them anew, and the difference shows in the
//! commit.

mod relayed;
mod scheduled;
mod timed;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Something that is done for each transaction, and how to do it `count` times.
struct Case {
    name: &'static str,
    run: fn(count: u32) -> Result<()>,
}

const CASES: [Case; 7] = [
    Case { name: "a simple query, from Query to ReadyForQuery", run: relayed::simple },
    Case { name: "a prepared statement, from Bind to ReadyForQuery", run: relayed::prepared },
    Case { name: "an unnamed statement, from Parse to ReadyForQuery", run: relayed::extended },
    Case { name: "100 rows on their way to the client", run: relayed::rows },
    Case { name: "a whole first message is recognised", run: relayed::first_message },
    Case { name: "a server is had and given back", run: scheduled::hit },
    Case { name: "a server goes to who waits longest, of 64", run: scheduled::turn },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--do", case, count] => {
            let case = CASES.get(case.parse::<usize>()?).context("no such case")?;
            (case.run)(count.parse()?)
        }
        words if words.contains(&"--times") => timed::run(),
        words if words.contains(&"--bench") => compare(),
        _ => say("A measurement, not a test: run `make hot`.\n"),
    }
}

/// Counts everything and holds it against the baseline.
fn compare() -> Result<()> {
    let mut counts = BTreeMap::new();
    for (number, case) in CASES.iter().enumerate() {
        counts.insert(case.name.to_owned(), each(number).with_context(|| case.name)?);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/hot/baseline.txt");
    if std::env::var_os("HOT_WRITE").is_some() {
        std::fs::write(&file, written(&counts))?;
    }
    let baseline = read(&std::fs::read_to_string(&file).context("benches/hot/baseline.txt")?)?;
    let mut worse = Vec::new();
    for (name, count) in &counts {
        let before =
            *baseline.get(name).with_context(|| format!("the baseline lacks `{name}`: HOT_WRITE=1"))?;
        let ratio = *count as f64 / before as f64;
        say(&format!("{name}: {count} instructions, {before} before ({ratio:.3})\n"))?;
        if ratio > LIMIT {
            worse.push(name.as_str());
        }
    }
    ensure!(
        worse.is_empty(),
        "more than {LIMIT} times the instructions of before: {}. If that is the price of something, HOT_WRITE=1 writes \
         the new baseline",
        worse.join(", ")
    );
    Ok(())
}

/// Instructions of one time.
fn each(case: usize) -> Result<u64> {
    let (some, more) = (total(case, SOME)?, total(case, SOME + MORE)?);
    let all = more.checked_sub(some).context("more took less")?;
    Ok(all / u64::from(MORE))
}

/// Instructions of a process that does it `count` times.
fn total(case: usize, count: u32) -> Result<u64> {
    let program: PathBuf = std::env::current_exe()?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    command.args(["--do", &case.to_string(), &count.to_string()]);
    let output =
        command.stdin(Stdio::null()).output().context("valgrind is not installed (tests/setup.sh hot)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind: {said}");
    }
    let line =
        said.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind counted nothing")?;
    Ok(line.1.trim().parse()?)
}

/// `count  name`, a line each.
fn read(text: &str) -> Result<BTreeMap<String, u64>> {
    text.lines()
        .map(|line| {
            let (count, name) = line.trim().split_once(' ').with_context(|| format!("`{line}`"))?;
            Ok((name.trim().to_owned(), count.parse().with_context(|| format!("`{line}`"))?))
        })
        .collect()
}

fn written(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().fold(String::new(), |mut text, (name, count)| {
        let _ = writeln!(text, "{count:>6} {name}");
        text
    })
}

fn say(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// What is done before anything counts: pools and caches are warm.
const SOME: u32 = 200;
const MORE: u32 = 1_000;
/// A count above this times the baseline fails. Another CPU can move it by some percent: memory is searched and copied by
/// what the CPU has.
const LIMIT: f64 = 1.1;
