//! Cancel requests: they reach the query that the client means, or nobody.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Batch, PATIENCE, Plan, Stage, Wire, eventually};

/// Sends a cancel request and waits for the close that answers every one of them.
async fn cancel(stage: &Stage, key: &(u32, Vec<u8>)) {
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(&Batch::cancel_request(key.0, &key.1).0).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("cancel is not answered by a close");
    assert!(rest.is_empty(), "a cancel request is never answered by a message");
}

/// Waits until Postgres runs something with this text for a tenant.
async fn runs(stage: &Stage, text: &str) {
    let sql = format!(
        "SELECT 1 FROM pg_stat_activity WHERE usename LIKE 'role\\_%' AND state = 'active' AND query LIKE '%{text}%'"
    );
    eventually("the query runs", PATIENCE, async || {
        (!stage.postgres.psql(&sql).await.unwrap().is_empty()).then_some(())
    })
    .await;
}

async fn sleeping(stage: &Stage, client: &mut Wire, mark: &str) {
    client.send(&Batch::new().query(&format!("SELECT pg_sleep(60), '{mark}'")).0).await;
    runs(stage, mark).await;
}

#[tokio::test]
async fn a_running_query_is_cancelled_and_the_session_goes_on() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    sleeping(&stage, &mut client, "mark-a").await;
    cancel(&stage, &client.key).await;
    let reply = client.until_ready().await;
    assert_eq!((reply.code(), reply.status), ("57014", Some('I')));
    assert_eq!(client.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_transaction_survives_as_failed() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN").await;
    sleeping(&stage, &mut client, "mark-b").await;
    cancel(&stage, &client.key).await;
    assert_eq!(client.until_ready().await.status, Some('E'));
    assert_eq!(client.query("ROLLBACK").await.status, Some('I'));
}

#[tokio::test]
async fn a_wrong_key_is_answered_like_a_right_one_and_does_nothing() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    sleeping(&stage, &mut client, "mark-c").await;
    let (pid, mut secret) = client.key.clone();
    secret[0] ^= 1;
    cancel(&stage, &(pid, secret)).await;
    cancel(&stage, &(0, vec![0; 4])).await;
    cancel(&stage, &(u32::MAX, vec![7; 4])).await;
    assert_eq!(client.message_within(Duration::from_millis(300)).await, None);
    cancel(&stage, &client.key.clone()).await;
    assert_eq!(client.until_ready().await.code(), "57014");
}

#[tokio::test]
async fn a_queued_query_is_cancelled_at_once_by_the_proxy() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    waiter.send(&Batch::new().query("SELECT 'never'").0).await;
    assert_eq!(waiter.message_within(Duration::from_millis(200)).await, None);
    cancel(&stage, &waiter.key.clone()).await;
    let reply = waiter.until_ready().await;
    assert_eq!((reply.code(), reply.status), ("57014", Some('I')));
    // The holder was not hit, and the waiter is served afterwards.
    assert_eq!(holder.query("SELECT 1").await.value(), "1");
    assert_eq!(holder.query("COMMIT").await.status, Some('I'));
    assert_eq!(waiter.query("SELECT 'later'").await.value(), "later");
}

#[tokio::test]
async fn a_queued_pipeline_is_cancelled_up_to_its_sync_by_the_proxy() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    waiter.send(&Batch::new().run("SELECT $1", &["a"]).run("SELECT $1", &["b"]).sync().0).await;
    assert_eq!(waiter.message_within(Duration::from_millis(200)).await, None);
    cancel(&stage, &waiter.key.clone()).await;
    let reply = waiter.until_ready().await;
    assert_eq!((reply.shape().as_str(), reply.code()), ("EZ", "57014"));
    holder.query("COMMIT").await;
    assert_eq!(waiter.ask(Batch::new().run("SELECT $1", &["c"]).sync()).await.value(), "c");
}

#[tokio::test]
async fn a_late_cancel_never_hits_the_next_user_of_the_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut early = stage.client("acme").await;
    let mut next = stage.client("acme").await;
    early.query("SELECT 1").await;
    for round in 0..20 {
        early.query("SELECT 1").await;
        next.send(&Batch::new().query("SELECT pg_sleep(0.05), 'mine'").0).await;
        cancel(&stage, &early.key.clone()).await;
        let reply = next.until_ready().await;
        assert!(reply.errors.is_empty(), "round {round}: {reply:?}");
    }
}

#[tokio::test]
async fn cancels_that_race_with_the_end_of_a_query_hit_it_or_nothing() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut racer = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    for round in 0..100 {
        racer.send(&Batch::new().query("SELECT pg_sleep(0.002)").0).await;
        other.send(&Batch::new().query("SELECT pg_sleep(0.002), 'other'").0).await;
        let key = racer.key.clone();
        let (hit, ()) = tokio::join!(racer.until_ready(), cancel(&stage, &key));
        assert!(hit.errors.iter().all(|error| error.code == "57014"), "round {round}: {hit:?}");
        let reply = other.until_ready().await;
        assert!(reply.errors.is_empty(), "round {round}: {reply:?}");
    }
    assert_eq!(racer.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn an_idle_client_may_cancel_nothing() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    for _ in 0..5 {
        cancel(&stage, &client.key.clone()).await;
    }
    assert_eq!(client.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_server_whose_cancel_may_still_come_is_handed_to_nobody() {
    let plan = Plan::new(&["acme"]).one_server_each().set("pool", "connect_timeout", "\"300ms\"");
    let stage = Stage::start(plan).await;
    stage.warm_up("acme").await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN").await;
    let pid = client.query("SELECT pg_backend_pid()").await.value().to_owned();
    let (admin, postmaster) = (stage.admin().await, stage.postgres.pid().unwrap());
    stage.postgres.signal_backend("STOP", postmaster).unwrap();
    client.send(&Batch::new().query("SELECT pg_sleep(2), 'mine'").0).await;
    // Before the worker has read it there is nothing to cancel.
    let sleeping = format!("SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    eventually("the query runs", PATIENCE, async || {
        (!admin.query(&sleeping, &[]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    // Closed when the request was given up; nobody knows how far it came.
    cancel(&stage, &client.key.clone()).await;
    assert!(client.until_ready().await.errors.is_empty());
    stage.postgres.signal_backend("CONT", postmaster).unwrap();
    client.query("COMMIT").await;
    assert_ne!(client.query("SELECT pg_backend_pid()").await.value(), pid);
}

#[tokio::test]
async fn a_cancel_between_two_requests_of_a_transaction_reaches_nobody() {
    let stage = Stage::start(Plan::new(&["acme"]).set("pool", "connect_timeout", "\"60s\"")).await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN").await;
    // A request that was passed on would lie with the stopped postmaster until the next statement runs, and hit that.
    let postmaster = stage.postgres.pid().unwrap();
    stage.postgres.signal_backend("STOP", postmaster).unwrap();
    cancel(&stage, &client.key.clone()).await;
    client.send(&Batch::new().query("SELECT pg_sleep(0.2), 'mine'").0).await;
    stage.postgres.signal_backend("CONT", postmaster).unwrap();
    let reply = client.until_ready().await;
    assert_eq!((reply.errors.as_slice(), reply.status), (&[][..], Some('T')));
}

#[tokio::test]
async fn the_key_of_a_client_that_left_does_nothing() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let gone = stage.client("acme").await;
    let key = gone.key.clone();
    drop(gone);
    let mut client = stage.client("acme").await;
    client.send(&Batch::new().query("SELECT pg_sleep(0.2), 'mine'").0).await;
    cancel(&stage, &key).await;
    assert!(client.until_ready().await.errors.is_empty());
}

#[tokio::test]
async fn keys_of_the_proxy_are_its_own_and_differ() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut client = stage.client("acme").await;
        let backend = client.query("SELECT pg_backend_pid()").await.value().to_owned();
        assert!(keys.insert(client.key.clone()));
        assert_eq!(client.key.1.len(), 4, "protocol 3.0 has keys of four bytes");
        if client.key.0.to_string() == backend {
            panic!("the client was told the server's own process id {backend}");
        }
    }
}

#[tokio::test]
async fn a_cancel_is_not_lost_while_the_server_is_still_being_opened() {
    let stage = Stage::start(Plan::new(&["acme"]).set("pool", "server_idle_timeout", "\"1ms\"")).await;
    let mut client = stage.client("acme").await;
    for delay in 5..40 {
        stage.servers_become(0, PATIENCE).await;
        client.send(&Batch::new().query("SELECT pg_sleep(30)").0).await;
        // The server's login takes about as long: the cancel comes before it, in it, and after it.
        assert_eq!(client.message_within(Duration::from_millis(delay)).await, None);
        cancel(&stage, &client.key.clone()).await;
        let reply = tokio::time::timeout(Duration::from_secs(10), client.until_ready()).await;
        let reply = reply.unwrap_or_else(|_| panic!("the cancel after {delay} ms was lost"));
        assert_eq!((reply.code(), reply.status), ("57014", Some('I')));
    }
}

#[tokio::test]
async fn a_cancel_is_not_lost_in_the_moment_of_the_lease() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(3).queue_timeout("60s")).await;
    let together = std::sync::Arc::new(tokio::sync::Barrier::new(9));
    let mut tasks = Vec::new();
    for number in 0..9 {
        let (mut client, address) = (stage.client("acme").await, stage.address());
        let together = together.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..20 {
                client.send(&Batch::new().query("SELECT pg_sleep(30)").0).await;
                let early = client.message_within(Duration::from_millis(50)).await;
                assert_eq!(early, None);
                // Three hold servers. Their cancels make room for three others, whose cancels come in that moment.
                together.wait().await;
                let mut stream = TcpStream::connect(address).await.unwrap();
                let soon = Duration::from_micros(300 * (number * 7 + round * 5) % 5_000);
                assert_eq!(client.message_within(soon).await, None);
                stream.write_all(&Batch::cancel_request(client.key.0, &client.key.1).0).await.unwrap();
                let reply = tokio::time::timeout(Duration::from_secs(10), client.until_ready()).await;
                let reply = reply.unwrap_or_else(|_| panic!("client {number} round {round}: lost"));
                assert_eq!((reply.code(), reply.status), ("57014", Some('I')));
                together.wait().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
