//! Fairness: what quiet tenants get beside noisy ones, on a hard number of servers.
//!
//! Owns the experiments and their tables. Each proxy runs alone, one behind the other, in front of the same Postgres. A
//! transaction's work is `pg_sleep`: it takes a server for a time and leaves the CPU to what is measured, turns and waits.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::crowd_load::{Group, Habit, Outcome, run};
use crate::median::percentile;
use crate::output;
use crate::peer::{Kind, Peer, Side};
use crate::pinning::Pinning;
use crate::postgres::Database;
use crate::setup::Setup;
use crate::table::{Table, number};

/// One experiment.
struct Experiment {
    title: &'static str,
    /// Servers in all.
    cap: u32,
    /// PgBouncer's pool sizes that are tried: greedy, and set by hand for this load.
    pools: &'static [u32],
    quiet: Group,
    noisy: Group,
    seconds: u64,
}

const fn experiments() -> [Experiment; 7] {
    [
        Experiment {
            title: "a noisy tenant (200 clients, 5 ms) beside 20 quiet ones (a query every 20 ms), 20 servers",
            cap: 20,
            pools: &[20, 2],
            quiet: Group { tenants: 20, clients: 1, habit: Habit::Every { pause_ms: 20, work_ms: 0 } },
            noisy: Group { tenants: 1, clients: 200, habit: Habit::Always { work_ms: 5 } },
            seconds: 10,
        },
        Experiment {
            title: "one tenant with transactions of 2 s (100 clients) beside 20 quiet ones, 20 servers",
            cap: 20,
            pools: &[20, 2],
            quiet: Group { tenants: 20, clients: 1, habit: Habit::Every { pause_ms: 20, work_ms: 0 } },
            noisy: Group { tenants: 1, clients: 100, habit: Habit::Always { work_ms: 2_000 } },
            seconds: 15,
        },
        Experiment {
            title: "10 noisy tenants (50 clients, 10 ms) beside 190 quiet ones (2 ms every 250 ms), 100 servers",
            cap: 100,
            pools: &[100, 10],
            quiet: Group { tenants: 190, clients: 1, habit: Habit::Every { pause_ms: 250, work_ms: 2 } },
            noisy: Group { tenants: 10, clients: 50, habit: Habit::Always { work_ms: 10 } },
            seconds: 12,
        },
        Experiment {
            title: "300 tenants that always ask (a client each, 5 ms), 60 servers",
            cap: 60,
            pools: &[60, 1],
            quiet: Group { tenants: 300, clients: 1, habit: Habit::Always { work_ms: 5 } },
            noisy: Group { tenants: 0, clients: 0, habit: Habit::Always { work_ms: 5 } },
            seconds: 20,
        },
        Experiment {
            title: "2,000 tenants that always ask (a client each, 5 ms), 60 servers",
            cap: 60,
            pools: &[60, 1],
            quiet: Group { tenants: 2_000, clients: 1, habit: Habit::Always { work_ms: 5 } },
            noisy: Group { tenants: 0, clients: 0, habit: Habit::Always { work_ms: 5 } },
            seconds: 20,
        },
        Experiment {
            title: "a long tail: 10,000 tenants, each with a query of 2 ms about once a minute, 100 servers",
            cap: 100,
            pools: &[20],
            quiet: Group { tenants: 9_500, clients: 1, habit: Habit::Every { pause_ms: 60_000, work_ms: 2 } },
            noisy: Group { tenants: 0, clients: 0, habit: Habit::Always { work_ms: 5 } },
            seconds: 15,
        },
        Experiment {
            title: "a calm day: 200 tenants, each with a query of 2 ms every 500 ms, 100 servers",
            cap: 100,
            pools: &[20],
            quiet: Group { tenants: 200, clients: 1, habit: Habit::Every { pause_ms: 500, work_ms: 2 } },
            noisy: Group { tenants: 0, clients: 0, habit: Habit::Always { work_ms: 5 } },
            seconds: 12,
        },
    ]
}

/// The section's text.
pub(crate) async fn section(database: &Database, pinning: Pinning, only: Option<usize>) -> Result<String> {
    let mut text = String::new();
    let mut roles = 0;
    // What is scarce here is Postgres' time for logins: it has all CPUs, as it would beside any proxy.
    for process in [std::process::id(), database.pid()?] {
        pinning.share(process)?;
    }
    for (number, experiment) in experiments().iter().enumerate() {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        let names = names(experiment.quiet.tenants + experiment.noisy.tenants);
        for fresh in names.get(roles..).unwrap_or_default().chunks(500) {
            database.add_roles(fresh).await?;
        }
        roles = roles.max(names.len());
        text.push_str(&table(database, Pinning::Free, experiment, &names).await?);
        text.push('\n');
    }
    for process in [std::process::id(), database.pid()?] {
        pinning.unshare(process)?;
    }
    Ok(text)
}

async fn table(
    database: &Database,
    pinning: Pinning,
    experiment: &Experiment,
    names: &[String],
) -> Result<String> {
    let calm = experiment.noisy.tenants > 0;
    let header = [
        experiment.title,
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "worst ms",
        "of their rate",
        "lost",
        "never served",
        "Jain",
        "noisy tx/s",
        "logins/s",
        "most servers",
    ];
    let mut table = Table::new(header);
    let tenantry = (Side { kind: Kind::Tenantry, name: "Tenantry" }, 0);
    let bouncer = |pool: &u32| (Side { kind: Kind::PgBouncer, name: "PgBouncer" }, *pool);
    for (side, pool) in std::iter::once(tenantry).chain(experiment.pools.iter().map(bouncer)) {
        let setup = Setup::users_of_one_database(names, experiment.cap, pool)?;
        let peer = Peer::start(side, pinning, database, &setup)?;
        let name = match side.kind {
            Kind::PgBouncer => format!("{}, pool_size {pool}", side.name),
            Kind::Tenantry | Kind::Epoll | Kind::Floor | Kind::Counted => side.name.to_owned(),
        };
        let peer = Rc::new(peer);
        let nobody = Group { tenants: 0, ..experiment.noisy };
        let phases = [(calm, nobody, "without noise"), (true, experiment.noisy, "with noise")];
        for (_, noisy, when) in phases.into_iter().filter(|(runs, ..)| *runs) {
            output::line(format!("fairness: {name}, {when}: {}", experiment.title));
            let outcome = run(database, &peer, names, [experiment.quiet, noisy], experiment.seconds).await?;
            let label = if calm { format!("{name}, {when}") } else { name.clone() };
            table.row(row(label, outcome, experiment, noisy));
        }
        drop(peer);
        gone(database).await?;
    }
    Ok(table.finish())
}

fn row(label: String, outcome: Outcome, experiment: &Experiment, noisy: Group) -> [String; 12] {
    let seconds = outcome.seconds;
    let Outcome { quiet, noisy_done, servers, logins, .. } = outcome;
    let mut waits: Vec<u64> = quiet.iter().flat_map(|tenant| tenant.waits_us.iter().copied()).collect();
    let done = waits.len() as f64;
    let mut at = |per_mille| number(percentile(&mut waits, per_mille).map(|us| us as f64 / 1e3));
    let (p50, p99, p999, worst) = (at(500), at(990), at(999), at(1_000));
    let lost: u64 = quiet.iter().map(|tenant| tenant.lost).sum();
    let counts: Vec<f64> = quiet.iter().map(|tenant| tenant.waits_us.len() as f64).collect();
    let never = counts.iter().filter(|count| **count == 0.0).count();
    let (sum, squares) = (counts.iter().sum::<f64>(), counts.iter().map(|count| count * count).sum::<f64>());
    let of_rate = match experiment.quiet.habit {
        Habit::Every { pause_ms, .. } => {
            let wanted = experiment.quiet.tenants as f64 * seconds * 1e3 / pause_ms as f64;
            format!("{:.0} %", 100.0 * done / wanted)
        }
        Habit::Always { .. } => format!("{:.0} tx/s", done / seconds),
    };
    let jain = match experiment.quiet.habit {
        Habit::Always { .. } if squares > 0.0 => {
            format!("{:.3}", sum * sum / (counts.len() as f64 * squares))
        }
        Habit::Always { .. } | Habit::Every { .. } => "–".to_owned(),
    };
    // Nobody is never served who would have asked once in the time.
    let never = match experiment.quiet.habit {
        Habit::Every { pause_ms, .. } if pause_ms as f64 > seconds * 500.0 => "–".to_owned(),
        Habit::Every { .. } | Habit::Always { .. } => never.to_string(),
    };
    let noise = if noisy.tenants == 0 { "–".to_owned() } else { number(Some(noisy_done as f64 / seconds)) };
    [
        label,
        p50,
        p99,
        p999,
        worst,
        of_rate,
        lost.to_string(),
        never,
        jain,
        noise,
        number(Some(logins)),
        servers.to_string(),
    ]
}

/// Waits until the servers of the proxy before have gone.
async fn gone(database: &Database) -> Result<()> {
    for _ in 0..200 {
        if database.servers_of(PREFIX).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(anyhow::anyhow!("servers of the proxy before are still there")).context("fairness")
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{PREFIX}{number:05}")).collect()
}

const PREFIX: &str = "fair";
