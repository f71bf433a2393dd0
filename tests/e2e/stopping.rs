//! Stopping: in order, faster, now, and by kill -9.

use std::time::Duration;

use crate::support::{Batch, PATIENCE, Plan, Stage, Wire, eventually};

async fn told_to_go(client: &mut Wire) {
    let farewell = client.expect(b'E').await.fields();
    assert_eq!((farewell.severity.as_str(), farewell.code.as_str()), ("FATAL", "57P01"));
    assert!(client.is_closed().await);
}

/// Refused by the kernel, or by a FATAL.
async fn is_refused(stage: &Stage) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect(stage.address()).await else { return true };
    Wire::over(stream).log_in(&stage.login("acme")).await.status.is_none()
}

#[tokio::test]
async fn sigterm_lets_transactions_finish() {
    let mut stage = Stage::start(Plan::new(&["acme"]).set("drain", "timeout", "\"20s\"")).await;
    let mut idle = stage.client("acme").await;
    let mut busy = stage.client("acme").await;
    idle.query("SELECT 1").await;
    busy.query("BEGIN; INSERT INTO things VALUES (500, 'acme', '')").await;
    stage.proxy().signal("TERM");
    told_to_go(&mut idle).await;
    eventually("it is not ready any more", PATIENCE, async || {
        let answer = stage.proxy().get("/readyz").await;
        (answer.0 != 200).then_some(())
    })
    .await;
    assert_eq!(stage.proxy().get("/livez").await.0, 200);
    assert!(is_refused(&stage).await);
    assert_eq!(busy.query("SELECT 'still here'").await.value(), "still here");
    assert_eq!(busy.query("COMMIT").await.tags, ["COMMIT"]);
    told_to_go(&mut busy).await;
    assert!(stage.proxy_mut().ended(Duration::from_secs(5)).await.success());
    assert_eq!(
        stage.postgres.psql_in("app", "SELECT 1 FROM schema_acme.things WHERE id = 500").await.unwrap().len(),
        1
    );
    stage.servers_become(0, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn sigterm_with_nobody_there_ends_at_once() {
    let mut stage = Stage::start(Plan::new(&["acme"])).await;
    let mut idle = stage.client("acme").await;
    idle.query("SELECT 1").await;
    drop(idle);
    stage.proxy().signal("TERM");
    assert!(stage.proxy_mut().ended(Duration::from_secs(5)).await.success());
    stage.servers_become(0, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_transaction_that_outlives_the_drain_deadline_is_ended() {
    let mut stage = Stage::start(Plan::new(&["acme"]).set("drain", "timeout", "\"1s\"")).await;
    let mut busy = stage.client("acme").await;
    busy.query("BEGIN; INSERT INTO things VALUES (500, 'acme', '')").await;
    let start = tokio::time::Instant::now();
    stage.proxy().signal("TERM");
    told_to_go(&mut busy).await;
    stage.proxy_mut().ended(Duration::from_secs(5)).await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    stage.servers_become(0, Duration::from_secs(5)).await;
    assert!(
        stage
            .postgres
            .psql_in("app", "SELECT 1 FROM schema_acme.things WHERE id = 500")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn sigint_has_a_shorter_deadline() {
    let plan =
        Plan::new(&["acme"]).set("drain", "timeout", "\"60s\"").set("drain", "fast_timeout", "\"500ms\"");
    let mut stage = Stage::start(plan).await;
    let mut busy = stage.client("acme").await;
    busy.query("BEGIN").await;
    stage.proxy().signal("INT");
    stage.proxy_mut().ended(Duration::from_secs(5)).await;
    assert!(busy.is_closed().await);
    stage.servers_become(0, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn sigint_shortens_a_drain_that_runs() {
    let plan =
        Plan::new(&["acme"]).set("drain", "timeout", "\"60s\"").set("drain", "fast_timeout", "\"500ms\"");
    let mut stage = Stage::start(plan).await;
    let mut idle = stage.client("acme").await;
    let mut busy = stage.client("acme").await;
    busy.query("BEGIN").await;
    stage.proxy().signal("TERM");
    told_to_go(&mut idle).await;
    assert!(stage.proxy_mut().is_running());
    stage.proxy().signal("INT");
    stage.proxy_mut().ended(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn sigquit_ends_at_once() {
    let mut stage = Stage::start(Plan::new(&["acme"])).await;
    let mut busy = stage.client("acme").await;
    busy.send(&Batch::new().query("SELECT pg_sleep(60)").0).await;
    stage.servers_become(1, PATIENCE).await;
    stage.proxy().signal("QUIT");
    stage.proxy_mut().ended(Duration::from_secs(2)).await;
    assert!(busy.is_closed().await);
}

#[tokio::test]
async fn waiters_of_a_draining_proxy_are_told_too() {
    let plan = Plan::new(&["acme"]).one_server_each().set("drain", "timeout", "\"2s\"");
    let mut stage = Stage::start(plan).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    waiter.send(&Batch::new().query("SELECT 1").0).await;
    assert_eq!(waiter.message_within(Duration::from_millis(200)).await, None);
    stage.proxy().signal("TERM");
    stage.proxy_mut().ended(Duration::from_secs(6)).await;
    // Served after the holder was ended, or told to go: never left without a word.
    let last = waiter.until_ready().await;
    assert!(!last.messages.is_empty(), "the waiter was dropped in silence");
}

#[tokio::test]
async fn after_kill_9_the_servers_go_and_nothing_is_half_written() {
    let mut stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let mut writer = stage.client("acme").await;
    let mut copier = stage.client("bolt").await;
    writer.query("BEGIN; INSERT INTO things VALUES (500, 'acme', '')").await;
    copier.send(&Batch::new().query("COPY things FROM STDIN").copy_data(b"500\tbolt\t\n").0).await;
    copier.expect(b'G').await;
    assert_eq!(stage.servers().await, 2);
    stage.proxy().signal("KILL");
    stage.proxy_mut().ended(PATIENCE).await;
    stage.servers_become(0, Duration::from_secs(10)).await;
    for schema in ["schema_acme", "schema_bolt"] {
        let sql = format!("SELECT 1 FROM {schema}.things WHERE id = 500");
        assert!(stage.postgres.psql_in("app", &sql).await.unwrap().is_empty(), "{schema}");
    }
    stage.proxy_mut().run_again().await;
    let mut client = stage.client("acme").await;
    assert_eq!(client.query("SELECT count(*) FROM things").await.value(), "20");
}
