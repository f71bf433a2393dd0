//! Process ids: in session mode a client is told its server's own, and may do with it what it does on a direct connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Batch, Login, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

/// Tenants in session mode.
fn plan(tenants: &[&str]) -> Plan {
    Plan::of(tenants.iter().map(|name| TenantPlan::new(name).line("mode = \"session\"")).collect())
}

async fn client(stage: &Stage, tenant: &str, version: u32) -> Wire {
    stage.connect().await.logged_in(&Login { version, ..stage.login(tenant) }).await
}

async fn cancel(stage: &Stage, pid: u32, secret: &[u8]) {
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(&Batch::cancel_request(pid, secret).0).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    closed.expect("cancel is not answered by a close").ok();
}

/// Waits until so many queries sleep.
async fn sleepers(stage: &Stage, count: usize) {
    let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename LIKE 'role\\_%'";
    eventually(&format!("{count} queries sleep"), PATIENCE, async || {
        (stage.postgres.psql(sql).await.unwrap().len() == count).then_some(())
    })
    .await;
}

const V3_0: u32 = 0x0003_0000;
const V3_2: u32 = 0x0003_0002;

#[tokio::test]
async fn a_session_is_told_the_process_id_of_its_server() {
    let stage = Stage::start(plan(&["acme"])).await;
    for version in [V3_0, V3_2] {
        let mut client = client(&stage, "acme", version).await;
        let own = client.key.0.to_string();
        for _ in 0..2 {
            assert_eq!(client.query("SELECT pg_backend_pid()").await.value(), own);
        }
        let reply = client.query("LISTEN news; NOTIFY news, 'hello'").await;
        let heard = reply.messages.iter().find(|message| message.tag == b'A').cloned();
        let heard = match heard {
            Some(message) => message,
            None => client.expect(b'A').await,
        };
        assert_eq!(heard.body[..4], client.key.0.to_be_bytes(), "its own notification");
    }
}

#[tokio::test]
async fn a_session_is_ended_by_its_process_id() {
    let stage = Stage::start(plan(&["acme"])).await;
    let (mut victim, mut other) = (client(&stage, "acme", V3_0).await, client(&stage, "acme", V3_0).await);
    let kill = format!("SELECT pg_terminate_backend({})", victim.key.0);
    assert_eq!(other.query(&kill).await.value(), "t");
    let last = victim.expect(b'E').await.fields();
    assert_eq!((last.severity.as_str(), last.code.as_str()), ("FATAL", "57P01"));
    assert!(last.message.contains("administrator command"), "{last:?}");
    assert!(victim.is_closed().await);
    assert_eq!(other.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_session_of_the_proxy_is_cancelled_by_its_whole_key_only() {
    let stage = Stage::start(plan(&["acme", "bolt"]).workers(2)).await;
    for (tenant, version, length) in [("acme", V3_0, 4), ("bolt", V3_2, 32)] {
        let mut client = client(&stage, tenant, version).await;
        let (pid, secret) = client.key.clone();
        assert_eq!(secret.len(), length);
        client.send(&Batch::new().query("SELECT pg_sleep(60)").0).await;
        sleepers(&stage, 1).await;
        let mut wrong = secret.clone();
        wrong[0] ^= 1;
        cancel(&stage, pid, &wrong).await;
        cancel(&stage, pid + 1, &secret).await;
        for part in [1, 4, 31].into_iter().filter(|part| *part < length) {
            cancel(&stage, pid, &secret[..part]).await;
        }
        assert_eq!(client.message_within(Duration::from_millis(300)).await, None);
        cancel(&stage, pid, &secret).await;
        let reply = client.until_ready().await;
        assert_eq!((reply.code(), reply.status), ("57014", Some('I')));
    }
}

#[tokio::test]
async fn two_hundred_sessions_cancel_each_only_itself() {
    const SESSIONS: u32 = 200;
    let mut plan = plan(&["acme", "bolt"]).budget(SESSIONS + 4).workers(2).queue_timeout("20s");
    plan.postgres.max_connections = 230;
    let stage = Stage::start(plan).await;
    let mut clients = Vec::new();
    for n in 0..SESSIONS {
        let version = if n % 4 < 2 { V3_0 } else { V3_2 };
        clients.push(client(&stage, if n % 2 == 0 { "acme" } else { "bolt" }, version).await);
    }
    for client in &mut clients {
        client.send(&Batch::new().query("SELECT pg_sleep(100)").0).await;
    }
    sleepers(&stage, clients.len()).await;
    for (left, client) in (0..clients.len()).rev().zip(&mut clients) {
        let (pid, secret) = client.key.clone();
        cancel(&stage, pid, &secret).await;
        assert_eq!(client.until_ready().await.code(), "57014");
        if left % 20 == 0 {
            sleepers(&stage, left).await;
        }
    }
    for client in &mut clients {
        assert_eq!(client.query("SELECT 1").await.value(), "1", "nothing is left of the cancels");
    }
}

#[tokio::test]
async fn a_login_waits_for_a_server_of_the_proxy_and_is_refused_in_the_end() {
    let stage = Stage::start(plan(&["acme"]).one_server_each().queue_timeout("300ms")).await;
    let first = stage.client("acme").await;
    let mut second = stage.connect().await;
    let reply = second.log_in(&stage.login("acme")).await;
    let refused = &reply.errors[0];
    assert_eq!((refused.severity.as_str(), refused.code.as_str(), reply.status), ("FATAL", "53300", None));
    assert!(refused.detail.contains("holds 1 of at most 1"), "{refused:?}");
    assert!(refused.hint.contains("session mode"), "{refused:?}");
    assert_eq!(stage.servers().await, 1);
    let metrics = stage.proxy().metrics().await;
    assert_eq!(metrics.sum("tenantry_tenant_queue_timeouts_total", &[("tenant", "acme")]), 1.0);
    drop(first);
    let mut third = stage.client("acme").await;
    assert_eq!(third.query("SELECT pg_backend_pid()").await.value(), third.key.0.to_string());
}

#[tokio::test]
async fn a_client_that_goes_while_the_proxy_lets_its_login_wait_gets_no_server() {
    let stage = Stage::start(plan(&["acme"]).one_server_each().queue_timeout("60s")).await;
    let first = stage.client("acme").await;
    let login = stage.login("acme");
    let mut waiting = stage.connect().await;
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting.log_in(&login)).await.is_err());
    let clients =
        async || stage.proxy().metrics().await.sum("tenantry_tenant_clients", &[("tenant", "acme")]);
    drop(waiting);
    eventually("the client is forgotten", PATIENCE, async || (clients().await <= 1.0).then_some(())).await;
    drop(first);
    assert_eq!(stage.client("acme").await.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn startup_settings_hold_from_the_first_statement_of_a_session_on() {
    let stage = Stage::start(plan(&["acme"]).one_server_each()).await;
    for size in ["7MB", "9MB", "7MB"] {
        let mut client = stage.client_with("acme", &[("work_mem", size), ("DateStyle", "German")]).await;
        assert_eq!(client.parameters["DateStyle"], "German, DMY");
        assert_eq!(client.query("SHOW work_mem").await.value(), size);
        assert_eq!(client.query("SELECT '2026-01-02'::date").await.value(), "02.01.2026");
        assert_eq!(client.query("SELECT pg_backend_pid()").await.value(), client.key.0.to_string());
    }
}

#[tokio::test]
async fn in_transaction_mode_the_process_id_of_the_proxy_is_no_servers() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    let server = client.query("SELECT pg_backend_pid()").await.value().to_owned();
    assert_ne!(server, client.key.0.to_string());
    assert!(i32::try_from(client.key.0).unwrap() > 1 << 22, "beyond every process id of Linux");
    // Who speaks is the server that pg_backend_pid() names in the same transaction.
    assert!(client.query("LISTEN news").await.errors.is_empty());
    client.send(&Batch::new().query("BEGIN; NOTIFY news; SELECT pg_backend_pid(); COMMIT").0).await;
    let (mut server, mut speaker) = (None, None);
    while server.is_none() || speaker.is_none() {
        let message = client.message().await.unwrap();
        match message.tag {
            b'A' => speaker = message.body.first_chunk().copied().map(i32::from_be_bytes),
            b'D' => server = String::from_utf8_lossy(&message.body[6..]).parse().ok(),
            _ => {}
        }
    }
    assert_eq!(speaker, server);
}
