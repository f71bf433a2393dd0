//! SIGHUP: a whole new configuration, or none of it.

use std::time::Duration;

use crate::support::{Batch, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

#[tokio::test]
async fn a_tenant_is_added_while_others_work() {
    let mut stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut acme = stage.client("acme").await;
    acme.query("BEGIN").await;
    // The database has a role for `bolt` all along; the proxy forgets it and is told of it again.
    let bolt = stage.plan.tenants[1].clone();
    let login = stage.login("bolt");
    stage
        .reload(|mut plan| {
            plan.tenants.pop();
            plan
        })
        .await;
    assert_eq!(stage.connect().await.log_in(&login).await.code(), "28P01");
    stage
        .reload(|mut plan| {
            plan.tenants.push(bolt);
            plan
        })
        .await;
    let mut client = stage.client("bolt").await;
    assert_eq!(client.query("SELECT owner FROM things WHERE id = 1").await.value(), "bolt");
    assert_eq!(acme.query("COMMIT").await.status, Some('I'));
}

#[tokio::test]
async fn a_removed_tenant_finishes_its_transaction_and_is_told_to_go() {
    let mut stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut idle = stage.client("bolt").await;
    let mut busy = stage.client("bolt").await;
    let mut acme = stage.client("acme").await;
    idle.query("SELECT 1").await;
    busy.query("BEGIN; INSERT INTO things VALUES (500, 'bolt', '')").await;
    stage
        .reload(|mut plan| {
            plan.tenants.truncate(1);
            plan
        })
        .await;
    let farewell = idle.expect(b'E').await.fields();
    assert_eq!((farewell.severity.as_str(), farewell.code.as_str()), ("FATAL", "57P01"));
    assert!(idle.is_closed().await);
    let reply = busy.query("COMMIT").await;
    assert_eq!(reply.tags, ["COMMIT"], "{reply:?}");
    assert!(busy.is_closed().await);
    assert_eq!(acme.query("SELECT 1").await.value(), "1");
    let sql = "SELECT 1 FROM pg_stat_activity WHERE usename = 'role_bolt'";
    eventually("its servers are gone", PATIENCE, async || {
        stage.postgres.psql(sql).await.unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(
        stage.postgres.psql_in("app", "SELECT 1 FROM schema_bolt.things WHERE id = 500").await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut client = stage.client("acme").await;
    let good = stage.toml();
    for bad in [
        "this is not TOML",
        &good.replace("queue", "quewe").replace("[threads]", "[threats]"),
        &good.replace("role_bolt", "role_acme"),
        "",
    ] {
        stage.reload_text(bad, "failed").await;
        assert_eq!(client.query("SELECT 1").await.value(), "1");
        stage.client("bolt").await;
    }
    stage.reload_text(&good, "ok").await;
}

#[tokio::test]
async fn a_smaller_budget_takes_effect_without_dropping_anybody() {
    let mut stage = Stage::start(Plan::of(vec![TenantPlan::new("acme").tier("hot")]).budget(4)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = stage.client("acme").await;
        client.query("BEGIN").await;
        clients.push(client);
    }
    assert_eq!(stage.servers().await, 4);
    stage.reload(|plan| plan.budget(2)).await;
    for client in &mut clients {
        assert_eq!(client.query("COMMIT").await.status, Some('I'));
    }
    eventually("two servers are left", PATIENCE, async || (stage.servers().await <= 2).then_some(())).await;
    for client in &mut clients {
        client.send(&Batch::new().query("SELECT pg_sleep(0.02), 'x'").0).await;
    }
    for client in &mut clients {
        assert!(client.until_ready().await.errors.is_empty());
    }
    assert!(stage.servers().await <= 2);
}

#[tokio::test]
async fn a_new_queue_timeout_holds_for_old_sessions() {
    let mut stage = Stage::start(Plan::new(&["acme"]).one_server_each().queue_timeout("60s")).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    stage.reload(|plan| plan.queue_timeout("200ms")).await;
    let start = tokio::time::Instant::now();
    assert_eq!(waiter.query("SELECT 1").await.code(), "53300");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(holder.query("COMMIT").await.status, Some('I'));
}

#[tokio::test]
async fn a_changed_password_holds_for_new_logins_only() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut old = stage.client("acme").await;
    let toml = stage.toml();
    let verifiers: Vec<&str> = toml.lines().filter(|line| line.starts_with("client_auth")).collect();
    let swapped = toml.replacen(verifiers[0], verifiers[1], 1);
    stage.reload_text(&swapped, "ok").await;
    assert_eq!(old.query("SELECT 1").await.value(), "1");
    assert_eq!(stage.connect().await.log_in(&stage.login("acme")).await.code(), "28P01");
    let mut login = stage.login("acme");
    login.password = stage.login("bolt").password;
    stage.connect().await.logged_in(&login).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_used_after_the_reload() {
    let stage = Stage::start(Plan::new(&["acme"]).tls("require")).await;
    let mut old = stage.client("acme").await;
    let renewed = crate::support::Authority::new("renewed");
    let identity = renewed.issue(&["localhost"]);
    std::fs::write(stage.dir.path().join("listen.crt"), &identity.cert).unwrap();
    std::fs::write(stage.dir.path().join("listen.key"), &identity.key).unwrap();
    stage.reload_text(&stage.toml(), "ok").await;
    let mut new = Wire::connect_tls(stage.address(), renewed.client(None), "localhost")
        .await
        .logged_in(&stage.login("acme"))
        .await;
    assert_eq!(new.query("SELECT 1").await.value(), "1");
    assert_eq!(old.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_and_the_old_one_stays() {
    let stage = Stage::start(Plan::new(&["acme"]).tls("require")).await;
    let other = stage.authority.issue(&["localhost"]);
    std::fs::write(stage.dir.path().join("listen.key"), &other.key).unwrap();
    stage.reload_text(&stage.toml(), "failed").await;
    let mut client = stage.client("acme").await;
    assert_eq!(client.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn reloads_under_load_disturb_nobody() {
    let mut stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut tasks = Vec::new();
    for name in ["acme", "bolt", "acme", "bolt"] {
        let mut client = stage.client(name).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..200 {
                let reply = client.query("SELECT pg_sleep(0.002), 'x'").await;
                assert!(reply.errors.is_empty(), "{reply:?}");
            }
        }));
    }
    for budget in [3, 8, 4, 2, 6] {
        stage.reload(|plan| plan.budget(budget)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
}
