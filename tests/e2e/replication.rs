//! Replication connections: refused unless the tenant may have them, then passed through, within the budget.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use tenantry::throwaway::Hba;

use crate::support::{Batch, PATIENCE, Plan, Reply, Stage, TenantPlan, Wire, eventually};

/// A cluster that can replicate, and tenants that may.
async fn stage(change: impl FnOnce(Plan) -> Plan) -> Stage {
    let mut plan = change(Plan::of(vec![TenantPlan::new("acme").line("replication = true")]));
    for (name, value) in [("wal_level", "logical"), ("max_wal_senders", "5"), ("max_replication_slots", "5")]
    {
        plan.postgres.settings.push((name.to_owned(), value.to_owned()));
    }
    let lines = ["local all all scram-sha-256", "host all,replication all 127.0.0.1/32 scram-sha-256"];
    plan.postgres.hba = Hba::Lines(lines.map(str::to_owned).to_vec());
    let stage = Stage::start(plan).await;
    stage.postgres.psql("ALTER ROLE role_acme REPLICATION").await.unwrap();
    stage
}

/// Tries to log in for replication.
async fn log_in(stage: &Stage, kind: &str) -> (Wire, Reply) {
    let mut login = stage.login("acme");
    login.parameters.push(("replication".to_owned(), kind.to_owned()));
    let mut wire = stage.connect().await;
    let reply = wire.log_in(&login).await;
    (wire, reply)
}

async fn replica(stage: &Stage, kind: &str) -> Wire {
    let (wire, reply) = log_in(stage, kind).await;
    assert_eq!(reply.status, Some('I'), "{reply:?}");
    wire
}

/// A stream of the changes in a fresh slot, as text.
async fn stream(stage: &Stage, slot: &str) -> Wire {
    let mut wire = replica(stage, "database").await;
    let reply = wire.query(&format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL test_decoding")).await;
    assert_eq!(reply.errors, [], "{reply:?}");
    wire.send(&Batch::new().query(&format!("START_REPLICATION SLOT {slot} LOGICAL 0/0")).0).await;
    wire.expect(b'W').await;
    wire
}

/// Reads the stream until this is in it.
async fn until(wire: &mut Wire, text: &str) {
    while !String::from_utf8_lossy(&wire.expect(b'd').await.body).contains(text) {}
}

/// Runs one of Postgres' programs against the stage.
fn program(stage: &Stage, name: &str, arguments: &[&str]) -> Command {
    let login = stage.login("acme");
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &stage.address().port().to_string(), "-U", &login.user, "-w"]);
    command.args(arguments).env("PGPASSWORD", login.password).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn output(mut command: Command) -> Output {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("a program hangs").unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// No walsender of a tenant is left, and so many other servers.
async fn only_servers(stage: &Stage, count: usize) {
    let sql = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender'";
    eventually("no walsender is left", PATIENCE, async || {
        stage.postgres.psql(sql).await.unwrap().is_empty().then_some(())
    })
    .await;
    stage.servers_become(count, PATIENCE).await;
}

#[tokio::test]
async fn psql_speaks_the_replication_protocol() {
    let stage = stage(|plan| plan).await;
    let url = format!("{}&replication=database", stage.url("acme"));
    let psql = |sql: &str| {
        let mut command = Command::new("psql");
        command.args(["-XAtw", &url, "-c", sql]).kill_on_drop(true);
        output(command)
    };
    let system = String::from_utf8(psql("IDENTIFY_SYSTEM").await.stdout).unwrap();
    assert!(system.trim_end().ends_with("|app"), "{system}");
    let path = String::from_utf8(
        psql("SELECT current_setting('search_path'), owner FROM things LIMIT 1").await.stdout,
    );
    assert_eq!(path.unwrap().trim_end(), "schema_acme|acme");
    only_servers(&stage, 0).await;
}

#[tokio::test]
async fn a_replica_is_told_the_servers_own_greeting() {
    let stage = stage(|plan| plan).await;
    for kind in ["database", "true", "on", "1"] {
        let mut login = stage.login("acme");
        let more = [("replication", kind), ("application_name", "standby_7"), ("options", "-c work_mem=7MB")];
        login.parameters = more.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let mut wire = stage.connect().await.logged_in(&login).await;
        assert_eq!(wire.parameters["application_name"], "standby_7");
        assert_eq!(wire.query("SHOW work_mem").await.value(), "7MB");
        let sql = format!("SELECT application_name FROM pg_stat_activity WHERE pid = {}", wire.key.0);
        let rows = stage.postgres.psql(&sql).await.unwrap();
        assert_eq!(rows[0][0].as_deref(), Some("standby_7"), "the process id is the server's");
    }
}

#[tokio::test]
async fn changes_are_streamed_until_the_client_stops() {
    let stage = stage(|plan| plan).await;
    let mut client = stage.client("acme").await;
    for round in 0..3 {
        let mut wire = stream(&stage, &format!("slot_{round}")).await;
        client.query(&format!("UPDATE things SET body = 'round {round}' WHERE id = 1")).await;
        until(&mut wire, &format!("round {round}")).await;
        if round == 0 {
            // The orderly end: both sides finish the COPY, and the connection goes on.
            wire.send(&Batch::new().message(b'c', b"").0).await;
            let reply = wire.until_ready().await;
            assert_eq!((reply.errors.as_slice(), reply.status), (&[][..], Some('I')));
            assert_eq!(wire.query("SELECT 1").await.value(), "1");
            wire.send(&Batch::new().terminate().0).await;
        }
        drop(wire);
        only_servers(&stage, 1).await;
    }
}

#[tokio::test]
async fn pg_recvlogical_receives_changes() {
    let stage = stage(|plan| plan).await;
    let slot = ["-d", "app", "--slot", "s", "--create-slot", "-P", "test_decoding"];
    output(program(&stage, "pg_recvlogical", &slot)).await;
    let start = ["-d", "app", "--slot", "s", "--start", "-f", "-", "--no-loop", "-F", "1"];
    let mut child = program(&stage, "pg_recvlogical", &start).spawn().unwrap();
    let mut client = stage.client("acme").await;
    client.query("UPDATE things SET body = 'for pg_recvlogical' WHERE id = 2").await;
    let (mut out, mut heard) = (child.stdout.take().unwrap(), String::new());
    let mut buffer = [0; 4096];
    while !heard.contains("for pg_recvlogical") {
        let read =
            tokio::time::timeout(PATIENCE, out.read(&mut buffer)).await.expect("no change comes").unwrap();
        if read == 0 {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).await.unwrap();
            panic!("pg_recvlogical has ended: {why}");
        }
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    child.kill().await.unwrap();
    // The only server may have been the one that made way.
    client.query("SELECT 1").await;
    only_servers(&stage, 1).await;
}

#[tokio::test]
async fn a_base_backup_and_the_wal_are_received() {
    let stage = stage(|plan| plan).await;
    let dir = stage.dir.path().join("backup");
    let arguments = ["-D", dir.to_str().unwrap(), "-X", "stream", "-c", "fast"];
    output(program(&stage, "pg_basebackup", &arguments)).await;
    assert!(dir.join("PG_VERSION").exists() && dir.join("base").read_dir().unwrap().count() > 3);
    only_servers(&stage, 0).await;

    let dir = stage.dir.path().join("wal");
    std::fs::create_dir(&dir).unwrap();
    let mut child =
        program(&stage, "pg_receivewal", &["-D", dir.to_str().unwrap(), "--no-loop"]).spawn().unwrap();
    eventually("WAL is received", PATIENCE, async || {
        assert_eq!(child.try_wait().unwrap(), None, "pg_receivewal has ended");
        stage.postgres.psql("CREATE TABLE more (x int); DROP TABLE more").await.unwrap();
        (dir.read_dir().unwrap().count() > 0).then_some(())
    })
    .await;
    child.kill().await.unwrap();
    only_servers(&stage, 0).await;
}

#[tokio::test]
async fn a_tenant_of_the_proxy_replicates_only_if_it_may() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    for kind in ["database", "true"] {
        let (mut wire, reply) = log_in(&stage, kind).await;
        let error = &reply.errors[0];
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "0A000"), "{error:?}");
        assert!(error.hint.contains("replication = true"), "{error:?}");
        assert!(wire.is_closed().await);
    }
    let (_, reply) = log_in(&stage, "maybe").await;
    assert_eq!(reply.code(), "22023");
    let (_, reply) = log_in(&stage, "off").await;
    assert_eq!(reply.status, Some('I'));
    assert_eq!(stage.servers().await, 1, "nobody was asked but for the greeting");
}

#[tokio::test]
async fn what_postgres_refuses_costs_the_proxy_no_server() {
    let stage = stage(Plan::one_server_each).await;
    stage.postgres.psql("ALTER ROLE role_acme NOREPLICATION").await.unwrap();
    let mut client = stage.client("acme").await;
    for _ in 0..3 {
        let (_, reply) = log_in(&stage, "database").await;
        let error = &reply.errors[0];
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "08001"), "{error:?}");
        assert!(
            error.hint.contains("attribute REPLICATION") && error.detail.contains("server: "),
            "{error:?}"
        );
        assert_eq!(client.query("SELECT 1").await.value(), "1");
    }
    stage.servers_become(1, PATIENCE).await;
}

#[tokio::test]
async fn a_replica_counts_in_the_budget_of_the_proxy() {
    let stage = stage(|plan| plan.one_server_each().queue_timeout("500ms")).await;
    let mut client = stage.client("acme").await;
    for round in 0..10 {
        let wire = stream(&stage, "s").await;
        assert_eq!(stage.servers().await, 1);
        if round == 0 {
            let metrics = stage.proxy().metrics().await;
            assert_eq!(metrics.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")]), 1.0);
            assert_eq!(metrics.sum("tenantry_tenant_replication_connections", &[("tenant", "acme")]), 1.0);
            assert_eq!(client.query("SELECT 1").await.code(), "53300");
            let (_, reply) = log_in(&stage, "database").await;
            assert_eq!(reply.code(), "53400", "too many are kept");
        }
        drop(wire);
        eventually("the server is given back", PATIENCE, async || {
            client.query("SELECT 1").await.errors.is_empty().then_some(())
        })
        .await;
        only_servers(&stage, 1).await;
    }
    let metrics = stage.proxy().metrics().await;
    assert_eq!(metrics.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")]), 0.0);
    assert_eq!(metrics.sum("tenantry_tenant_server_pins_total", &[("tenant", "acme")]), 10.0);
    assert_eq!(metrics.sum("tenantry_tenant_replication_connections", &[("tenant", "acme")]), 0.0);
}

#[tokio::test]
async fn many_replicas_that_come_and_go_lose_no_server() {
    let stage = stage(|plan| plan.budget(8).queue_timeout("20s")).await;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let (login, address) = (stage.login("acme"), stage.address());
        tasks.push(tokio::spawn(async move {
            let mut login = login;
            login.parameters.push(("replication".to_owned(), "database".to_owned()));
            for round in 0..10 {
                let mut wire = Wire::connect(address).await;
                // Some leave in the middle of their login.
                let span = Duration::from_millis(if (n + round) % 3 == 0 { 3 * round } else { 20_000 });
                let Ok(reply) = tokio::time::timeout(span, wire.log_in(&login)).await else { continue };
                match reply.errors.first() {
                    None => assert_eq!(wire.query("SELECT 1").await.value(), "1"),
                    Some(error) => {
                        assert!(["53400", "08001", "53300"].contains(&error.code.as_str()), "{error:?}");
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    eventually("nothing is held", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        let held = |state| metrics.sum("tenantry_tenant_servers", &[("tenant", "acme"), ("state", state)]);
        let pinned = metrics.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")]);
        (held("active") + held("login") + held("closing") + pinned == 0.0).then_some(())
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = stage.client("acme").await;
        assert_eq!(client.query("BEGIN").await.status, Some('T'), "the whole budget is there");
        clients.push(client);
    }
}

#[tokio::test]
async fn a_replica_is_cancelled_and_ended_by_its_process_id() {
    let stage = stage(|plan| plan).await;
    let mut wire = replica(&stage, "database").await;
    wire.send(&Batch::new().query("SELECT pg_sleep(60)").0).await;
    eventually("the query runs", PATIENCE, async || {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        (!stage.postgres.psql(sql).await.unwrap().is_empty()).then_some(())
    })
    .await;
    let mut cancel = TcpStream::connect(stage.address()).await.unwrap();
    cancel.write_all(&Batch::cancel_request(wire.key.0, &wire.key.1).0).await.unwrap();
    assert_eq!(wire.until_ready().await.code(), "57014");
    let mut other = stage.client("acme").await;
    other.query(&format!("SELECT pg_terminate_backend({})", wire.key.0)).await;
    assert_eq!(wire.expect(b'E').await.fields().code, "57P01");
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_drain_of_the_proxy_ends_streams_at_once() {
    let mut stage = stage(|plan| plan).await;
    let mut wire = stream(&stage, "s").await;
    let mut idle = replica(&stage, "true").await;
    stage.proxy().signal("TERM");
    for wire in [&mut wire, &mut idle] {
        loop {
            let message = wire.message().await.expect("closed without a word");
            if message.tag != b'd' {
                assert_eq!((message.tag, message.fields().code.as_str()), (b'E', "57P01"));
                break;
            }
        }
        assert!(wire.is_closed().await);
    }
    assert!(stage.proxy_mut().ended(Duration::from_secs(10)).await.success());
}

#[tokio::test]
async fn a_reload_of_the_proxy_may_end_replication() {
    let mut stage = stage(|plan| plan).await;
    let mut wire = stream(&stage, "s").await;
    let mut client = stage.client("acme").await;
    stage
        .reload(|mut plan| {
            plan.tenants[0].lines.clear();
            plan
        })
        .await;
    loop {
        let message = wire.message().await.expect("closed without a word");
        if message.tag != b'd' {
            assert!(message.fields().message.contains("no longer allowed"), "{message:?}");
            break;
        }
    }
    assert_eq!(client.query("SELECT 1").await.value(), "1");
    assert_eq!(log_in(&stage, "database").await.1.code(), "0A000");
}

#[tokio::test]
async fn an_idle_replica_is_sent_away_by_the_proxy_and_a_stream_is_not() {
    let stage = stage(|plan| {
        plan.set("pool", "pin_idle_timeout", "\"1s\"").set("pool", "transaction_timeout", "\"1s\"")
    })
    .await;
    let mut wire = stream(&stage, "s").await;
    let mut idle = replica(&stage, "database").await;
    let error = idle.expect(b'E').await.fields();
    assert_eq!(error.code, "57P05");
    assert!(error.detail.contains("a replication connection"), "{error:?}");
    let mut client = stage.client("acme").await;
    client.query("UPDATE things SET body = 'still there' WHERE id = 3").await;
    until(&mut wire, "still there").await;
}

#[tokio::test]
async fn a_replica_that_does_not_read_costs_the_proxy_no_memory() {
    let stage = stage(|plan| plan).await;
    let mut wire = stream(&stage, "s").await;
    let before = stage.memory();
    let mut client = stage.client("acme").await;
    client
        .query(
            "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 500) AS body FROM generate_series(1, 4000) n",
        )
        .await;
    client.query("UPDATE things SET body = 'the last' WHERE id = 4").await;
    // 64 MB wait for a client that does not read.
    let grown = stage.memory().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    until(&mut wire, "the last").await;
    let grown = stage.memory().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
}
