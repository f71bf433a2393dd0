//! Programs that people use, each as several tenants at once, with TLS and without: psql, pgbench, psycopg 3, asyncpg,
//! node-pg, tokio-postgres.
//!
//! Each has a script that goes through what applications do (`psycopg3.py` has the list) and ends with exit code 0 only if
//! all of it went as with Postgres itself. `tests/setup.sh test` installs what is needed; nothing is skipped silently.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]

#[path = "../support/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

mod rust;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::{Plan, Stage};
use tokio::process::Command;

const TENANTS: [&str; 3] = ["acme", "bolt", "cosmo"];
/// A driver that hangs is a failure.
const LIMIT: Duration = Duration::from_secs(90);

/// Fewer servers than clients: the clients of a tenant have to share, and the drivers must not notice. Clients may keep
/// half of the budget.
fn plan(tls: &'static str) -> Plan {
    let mut plan = Plan::new(&TENANTS).budget(20).tls(tls);
    for tenant in &mut plan.tenants {
        tenant.lines.push("limits = { ceiling = 4 }".to_owned());
    }
    plan
}

/// Runs a program once per tenant, all at the same time.
async fn as_every_tenant(tls: &'static str, program: impl Fn() -> Command) {
    let stage = Stage::start(plan(tls)).await;
    let mut running = Vec::new();
    for tenant in TENANTS {
        let mut command = program();
        let login = stage.login(tenant);
        command.env("TENANTRY_URL", stage.url(tenant)).env("TENANTRY_TENANT", tenant);
        command.env("PGUSER", login.user).env("PGPASSWORD", login.password).env("PGDATABASE", login.database);
        command.env("PGHOST", "localhost").env("PGPORT", stage.address().port().to_string());
        let (mode, root) = match tls {
            "disable" => ("disable", String::new()),
            _ => ("verify-full", stage.dir.path().join("ca.crt").display().to_string()),
        };
        command.env("PGSSLMODE", mode).env("PGSSLROOTCERT", root).env("PGCONNECT_TIMEOUT", "20");
        command.stdin(Stdio::null()).kill_on_drop(true);
        running
            .push((tenant, tokio::spawn(async move { tokio::time::timeout(LIMIT, command.output()).await })));
    }
    for (tenant, task) in running {
        let output =
            task.await.unwrap().unwrap_or_else(|_| panic!("{tenant}: still running after {LIMIT:?}"));
        let output = output.unwrap_or_else(|error| panic!("{error}: is it installed? tests/setup.sh test"));
        assert!(
            output.status.success(),
            "{tenant}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(name)
}

/// A tool of the environment that `tests/setup.sh` wrote, or of the place where it installs.
fn tool(variable: &str, installed: &str) -> std::ffi::OsString {
    std::env::var_os(variable).unwrap_or_else(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/drivers").join(installed);
        assert!(path.exists(), "{} is missing: run tests/setup.sh test", path.display());
        path.into_os_string()
    })
}

fn python(name: &'static str) -> impl Fn() -> Command {
    move || {
        let mut command = Command::new(tool("TENANTRY_TEST_PYTHON", "venv/bin/python3"));
        command.arg(script(name));
        command
    }
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(script("node_pg.cjs")).env("TENANTRY_NODE_BASE", tool("TENANTRY_TEST_NODE_BASE", "node"));
    command
}

fn shell(name: &'static str) -> impl Fn() -> Command {
    move || {
        let mut command = Command::new("bash");
        command.arg(script(name));
        command
    }
}

#[tokio::test]
async fn psql_plain() {
    as_every_tenant("disable", shell("psql.sh")).await;
}

#[tokio::test]
async fn psql_over_tls() {
    as_every_tenant("require", shell("psql.sh")).await;
}

#[tokio::test]
async fn pgbench_plain() {
    as_every_tenant("disable", shell("pgbench.sh")).await;
}

#[tokio::test]
async fn pgbench_over_tls() {
    as_every_tenant("require", shell("pgbench.sh")).await;
}

#[tokio::test]
async fn psycopg3_plain() {
    as_every_tenant("disable", python("psycopg3.py")).await;
}

#[tokio::test]
async fn psycopg3_over_tls() {
    as_every_tenant("require", python("psycopg3.py")).await;
}

#[tokio::test]
async fn asyncpg_plain() {
    as_every_tenant("disable", python("asyncpg_driver.py")).await;
}

#[tokio::test]
async fn asyncpg_over_tls() {
    as_every_tenant("require", python("asyncpg_driver.py")).await;
}

#[tokio::test]
async fn node_pg_plain() {
    as_every_tenant("disable", node).await;
}

#[tokio::test]
async fn node_pg_over_tls() {
    as_every_tenant("require", node).await;
}
