//! Goal: an operator can hold one tenant up, and nobody else notices; its clients keep their connections and their places.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Batch, PATIENCE, Plan, Stage, Wire, eventually};

const TOKEN: &str = "operators-only-0123";

async fn stage(tenants: &[&str]) -> Stage {
    Stage::start(plan(tenants)).await
}

fn plan(tenants: &[&str]) -> Plan {
    Plan::new(tenants).set("http", "token", &format!("\"{TOKEN}\"")).queue_timeout("300ms")
}

/// Types a command, and expects it to succeed.
pub(crate) async fn order(stage: &Stage, arguments: &[&str]) -> String {
    let (ok, said) = stage.proxy().command(arguments).await;
    assert!(ok, "{arguments:?}: {said}");
    said
}

async fn why(stage: &Stage, tenant: &str) -> Value {
    serde_json::from_str(&order(stage, &["why", tenant, "--json"]).await).unwrap()
}

/// Waits until so many of the tenant's clients wait.
async fn has_waiters(stage: &Stage, tenant: &str, count: u64) {
    let what = format!("{count} clients of {tenant} wait");
    eventually(&what, PATIENCE, async || {
        (why(stage, tenant).await["clients"]["waiting"] == count).then_some(())
    })
    .await;
}

async fn pids(stage: &Stage, tenant: &str) -> Vec<String> {
    let sql = format!("SELECT pid::text FROM pg_stat_activity WHERE usename = 'role_{tenant}' ORDER BY pid");
    let rows = stage.postgres.psql(&sql).await.unwrap();
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

async fn ask(client: &mut Wire, sql: &str) {
    client.send(&Batch::new().query(sql).0).await;
}

#[tokio::test]
async fn a_paused_tenants_clients_wait_for_longer_than_their_timeout_and_in_their_order() {
    // One server: what is granted first is done first.
    let stage = Stage::start(plan(&["acme", "bolt"]).one_server_each()).await;
    stage.warm_up("acme").await;
    let (mut acme, mut bolt) =
        ([stage.client("acme").await, stage.client("acme").await], stage.client("bolt").await);
    let mut running = stage.client("acme").await;
    running.query("CREATE SEQUENCE order_of").await;
    running.query("BEGIN").await;
    order(&stage, &["pause", "acme", "--for", "1m"]).await;
    assert_eq!(running.query("SELECT 1").await.value(), "1", "what runs goes on");
    let (ok, said) = stage.proxy().command(&["pause", "acme", "--for", "1m", "--wait", "50ms"]).await;
    assert!(!ok && said.contains("1 servers of acme are still in use"), "{said}");
    running.query("COMMIT").await;
    order(&stage, &["pause", "acme", "--for", "1m", "--wait", "5s"]).await;
    for (client, waiting) in acme.iter_mut().zip(1..) {
        ask(client, "SELECT nextval('order_of')").await;
        has_waiters(&stage, "acme", waiting).await;
    }
    // Four times its queue_timeout, by a clock that others go by.
    bolt.query("SELECT pg_sleep(1.2)").await;
    assert_eq!(bolt.query("SELECT 'fine'").await.value(), "fine");
    assert!(acme[0].message_within(Duration::from_millis(1)).await.is_none(), "it still waits");
    order(&stage, &["resume", "acme"]).await;
    assert_eq!(acme[0].until_ready().await.value(), "1");
    assert_eq!(acme[1].until_ready().await.value(), "2");
}

#[tokio::test]
async fn a_pause_ends_by_itself() {
    let stage = stage(&["acme"]).await;
    // What the proxy asks of a tenant that it has just met is asked by then: the client has no server.
    stage.warm_up("acme").await;
    let mut client = stage.client("acme").await;
    order(&stage, &["pause", "acme", "--for", "700ms"]).await;
    assert_eq!(client.query("SELECT 2").await.value(), "2");
    assert!(why(&stage, "acme").await["halted"].is_null());
}

#[tokio::test]
async fn a_drained_tenant_has_no_server_and_new_ones_later() {
    let stage = stage(&["acme", "bolt"]).await;
    let (mut acme, mut bolt) = (stage.client("acme").await, stage.client("bolt").await);
    let mut ear = stage.client("acme").await;
    ear.query("LISTEN news").await;
    acme.query("SELECT 1").await;
    bolt.query("SELECT 1").await;
    let (before, bolts) = (pids(&stage, "acme").await, pids(&stage, "bolt").await);
    assert!(before.len() >= 2, "one listens: {before:?}");
    order(&stage, &["drain", "acme", "--for", "1m", "--wait", "5s"]).await;
    assert_eq!(pids(&stage, "acme").await, Vec::<String>::new());
    assert_eq!(pids(&stage, "bolt").await, bolts, "nobody else gave anything up");
    ask(&mut acme, "SELECT 'again'").await;
    has_waiters(&stage, "acme", 2).await;
    order(&stage, &["resume", "acme"]).await;
    assert_eq!(acme.until_ready().await.value(), "again");
    assert!(pids(&stage, "acme").await.iter().all(|pid| !before.contains(pid)));
    // Whoever listens has been told that it may have missed something, and hears again.
    assert_eq!(ear.expect(b'N').await.fields().code, "01000");
    stage.admin().await.batch_execute("NOTIFY news, 'heard'").await.unwrap();
    let heard = ear.expect(b'A').await;
    assert!(String::from_utf8_lossy(&heard.body).contains("heard"));
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_and_its_sessions_go_on() {
    let stage = stage(&["acme", "bolt"]).await;
    let (mut acme, mut bolt) = (stage.client("acme").await, stage.client("bolt").await);
    let mut running = stage.client("acme").await;
    running.query("BEGIN").await;
    order(&stage, &["suspend", "acme"]).await;
    let refused = acme.query("SELECT 1").await;
    let error = refused.errors[0].clone();
    assert_eq!((&*error.severity, &*error.code), ("ERROR", "57P03"), "{error:?}");
    assert!(
        error.message.contains("suspended") && !error.detail.is_empty() && !error.hint.is_empty(),
        "{error:?}"
    );
    assert_eq!(running.query("COMMIT").await.shape(), "CZ", "what runs ends in peace");
    assert_eq!(bolt.query("SELECT 1").await.value(), "1");
    order(&stage, &["resume", "acme"]).await;
    assert_eq!(acme.query("SELECT 1").await.value(), "1", "the session went on");
}

#[tokio::test]
async fn a_throttled_tenant_is_slowed_down_for_a_while() {
    let stage = stage(&["acme", "bolt"]).await;
    let mut acme = stage.client("acme").await;
    acme.query("SELECT 1").await;
    order(
        &stage,
        &["throttle", "acme", "--transactions-per-second", "1", "--transaction-burst", "2", "--for", "1h"],
    )
    .await;
    assert_eq!(why(&stage, "acme").await["transactions_per_second"], 1);
    let mut codes = Vec::new();
    for _ in 0..4 {
        let reply = acme.query("SELECT 1").await;
        codes.push(reply.errors.first().map_or_else(String::new, |error| error.code.to_string()));
    }
    assert_eq!(codes, ["", "", "53300", "53300"]);
    let hint = acme.query("SELECT 1").await.errors[0].hint.clone();
    assert!(hint.contains("try again after "), "{hint}");
    let refused = stage.proxy().metrics().await;
    let reason = [("tenant", "acme"), ("reason", "rate_limit")];
    assert_eq!(refused.sum("tenantry_tenant_refusals_total", &reason), 3.0);
    let mut bolt = stage.client("bolt").await;
    for _ in 0..20 {
        assert_eq!(bolt.query("SELECT 1").await.value(), "1");
    }
    // A throttle that ends by itself leaves the tenant without a limit.
    order(&stage, &["throttle", "acme", "--transactions-per-second", "1", "--for", "200ms"]).await;
    eventually("the throttle is over", PATIENCE, async || {
        why(&stage, "acme").await["transactions_per_second"].is_null().then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(acme.query("SELECT 1").await.value(), "1");
    }
}

/// An order holds for clients that come later, on whichever worker, and across a reload.
#[tokio::test]
async fn an_order_comes_before_the_tenants_first_client_and_outlives_a_reload() {
    let mut stage = Stage::start(plan(&["acme", "bolt"]).workers(2)).await;
    order(&stage, &["suspend", "acme", "--for", "1h"]).await;
    let mut client = stage.connect().await;
    let login = stage.login("acme");
    let refused = client.log_in(&login).await;
    assert_eq!(refused.code(), "57P03", "its first client needs a server to be greeted");
    stage.reload(|plan| plan.queue_timeout("400ms")).await;
    let refused = stage.connect().await.log_in(&login).await;
    assert_eq!(refused.code(), "57P03");
    assert_eq!(stage.client("bolt").await.query("SELECT 1").await.value(), "1");
    order(&stage, &["resume", "acme"]).await;
    assert_eq!(stage.client("acme").await.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn whoever_has_no_token_orders_nothing() {
    let stage = stage(&["acme"]).await;
    let (ok, said) = stage.proxy().command(&["suspend", "acme", "--token", "guessed-0123456789"]).await;
    assert!(!ok && said.contains("the token is missing or wrong"), "{said}");
    assert_eq!(stage.client("acme").await.query("SELECT 1").await.value(), "1");
    let log = stage.proxy().log();
    assert!(!log.contains(TOKEN) && !log.contains("guessed"), "a token is never logged");
}

/// Logins, too, can be too many: those beyond the rate are told when to come again.
#[tokio::test]
async fn clients_that_log_in_too_often_are_told_so() {
    use crate::support::TenantPlan;
    let limits = "limits = { logins_per_second = 1, login_burst = 3, login_delay = \"0ms\" }";
    let stage =
        Stage::start(Plan::of(vec![TenantPlan::new("acme").line(limits), TenantPlan::new("bolt")])).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(stage.client("acme").await);
    }
    let refused = stage.connect().await.log_in(&stage.login("acme")).await.errors[0].clone();
    assert_eq!((&*refused.severity, &*refused.code), ("FATAL", "53300"), "{refused:?}");
    assert!(refused.hint.contains("Connect again after"), "{refused:?}");
    for _ in 0..5 {
        drop(stage.client("bolt").await);
    }
    for client in &mut kept {
        assert_eq!(client.query("SELECT 1").await.value(), "1");
    }
    let reason = [("tenant", "acme"), ("reason", "login_rate_limit")];
    assert_eq!(stage.proxy().metrics().await.sum("tenantry_tenant_refusals_total", &reason), 1.0);
}
