//! Large values: they pass through in bounded memory, whoever is slow.

use std::time::Duration;

use crate::support::{Batch, Plan, Stage, Wire, is_full_length};

/// A value of this many bytes crosses the proxy; 1 GB less a little is the most that Postgres makes.
fn size() -> usize {
    if is_full_length() { 1_000_000_000 } else { 200_000_000 }
}

/// What the proxy may grow by while that happens.
const GROWTH: u64 = 24 << 20;

/// CloseComplete: a tag and a length.
const CLOSE_COMPLETE_BYTES: usize = 5;

async fn stage() -> Stage {
    let mut plan = Plan::new(&["acme"]).budget(2).set("log", "filter", "\"info\"");
    plan.postgres.settings.push(("shared_buffers".into(), "16MB".into()));
    Stage::start(plan).await
}

/// Reads `bytes` of an answer without keeping them.
async fn drain(wire: &mut Wire, mut bytes: usize, mut seen: impl FnMut()) {
    while bytes > 0 {
        let got = wire.read_raw(bytes).await;
        assert!(got > 0, "the stream ended {bytes} bytes early");
        bytes -= got;
        seen();
    }
}

#[tokio::test]
async fn one_huge_value_comes_out() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("SELECT 1").await;
    let (before, mut peak) = (stage.memory(), 0);
    let sql = format!("SELECT repeat('x', {})", size());
    client.send(&Batch::new().query(&sql).0).await;
    client.expect(b'T').await;
    let mut reads = 0_u64;
    // DataRow header: tag, length, columns, length.
    drain(&mut client, size() + 11, || {
        reads += 1;
        if reads.is_multiple_of(64) {
            peak = peak.max(stage.memory());
        }
    })
    .await;
    assert_eq!(client.until_ready().await.tags, ["SELECT 1"]);
    assert!(peak < before + GROWTH, "grew by {} MiB", peak.saturating_sub(before) >> 20);
}

#[tokio::test]
async fn one_huge_value_goes_in() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("SELECT 1").await;
    let (before, mut peak) = (stage.memory(), 0);
    let size = size() / 2;
    let mut head = Batch::new().parse("", "SELECT length($1::bytea)").0;
    let body = u32::try_from(4 + 2 + 4 + 2 + 4 + size + 4).unwrap();
    head.push(b'B');
    head.extend_from_slice(&body.to_be_bytes());
    // Portal, statement, one format (binary), one value, then one result format (text).
    head.extend_from_slice(&[0, 0, 0, 1, 0, 1, 0, 1]);
    head.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
    client.send(&head).await;
    let chunk = vec![b'x'; 1 << 20];
    let mut left = size;
    while left > 0 {
        let part = left.min(chunk.len());
        client.send(&chunk[..part]).await;
        left -= part;
        peak = peak.max(stage.memory());
    }
    client.send(&[0, 1, 0, 0]).await;
    let reply = client.ask(Batch::new().execute("").sync()).await;
    assert_eq!(reply.value(), size.to_string());
    assert!(peak < before + GROWTH, "grew by {} MiB", peak.saturating_sub(before) >> 20);
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory_and_hurts_nobody() {
    let stage = stage().await;
    let before = stage.memory();
    let mut lazy = stage.client("acme").await;
    let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {})", size() / 1_000);
    lazy.send(&Batch::new().query(&sql).0).await;
    lazy.expect(b'T').await;
    let mut other = stage.client("acme").await;
    for _ in 0..200 {
        assert_eq!(other.query("SELECT pg_sleep(0.005), 1").await.rows.len(), 1);
    }
    let grown = stage.memory().saturating_sub(before);
    assert!(grown < GROWTH, "grew by {} MiB", grown >> 20);
    let reply = lazy.until_ready().await;
    assert_eq!(reply.rows.len(), size() / 1_000);
}

#[tokio::test]
async fn a_client_that_does_not_read_answers_of_the_proxy_itself_is_not_read_either() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN").await;
    let before = stage.memory();
    // Closing a name is answered by the proxy: it is not Postgres that holds this back.
    let closes = Batch::new().close_statement("x").0.repeat(10_000);
    let mut sent = 0;
    while let Some(()) = client.send_within(&closes, Duration::from_millis(500)).await {
        sent += 1;
        assert!(sent < 500, "40 MB were taken from a client that reads nothing");
    }
    assert!(stage.memory().saturating_sub(before) < GROWTH);
    drain(&mut client, sent * 10_000 * CLOSE_COMPLETE_BYTES, || ()).await;
    client.send_rest().await;
    let reply = client.ask(Batch::new().sync()).await;
    assert_eq!((reply.messages.len(), reply.status), (10_001, Some('T')));
}

#[tokio::test]
async fn long_names_behind_an_unanswered_query_cost_bounded_memory() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN").await;
    let before = stage.memory();
    client.send(&Batch::new().query("SELECT pg_sleep(60)").0).await;
    // What each of them changes is remembered until Postgres has come to it; none of it is on the way to Postgres.
    let closes = Batch::new().close_statement(&"x".repeat(9_900)).0.repeat(10);
    let mut sent = 0;
    while let Some(()) = client.send_within(&closes, Duration::from_millis(500)).await {
        sent += 1;
        assert!(sent < 1_000, "100 MB were taken from a client whose query is not answered");
    }
    assert!(stage.memory().saturating_sub(before) < GROWTH);
}

#[tokio::test]
async fn a_server_that_does_not_read_holds_the_client_back() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("CREATE TABLE sink (x text)").await;
    let pid: u32 = client.query("BEGIN; SELECT pg_backend_pid()").await.value().parse().unwrap();
    client.send(&Batch::new().query("COPY sink FROM STDIN").0).await;
    client.expect(b'G').await;
    stage.postgres.signal_backend("STOP", pid).unwrap();
    let before = stage.memory();
    let line = [vec![b'y'; 9_999], b"\n".to_vec()].concat();
    let message = Batch::new().copy_data(&line).0;
    let mut sent = 0;
    // Until the kernel's buffers and the proxy's are full; what was left unsent of the last message follows below.
    while let Some(()) = client.send_within(&message, Duration::from_millis(500)).await {
        sent += 1;
        assert!(sent < 10_000, "100 MB went nowhere");
    }
    assert!(stage.memory().saturating_sub(before) < GROWTH);
    stage.postgres.signal_backend("CONT", pid).unwrap();
    client.send_rest().await;
    let reply = client.ask(Batch::new().copy_done()).await;
    assert_eq!(reply.tags, [format!("COPY {}", sent + 1)]);
}

#[tokio::test]
async fn many_rows_and_a_long_copy_keep_their_count() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let reply =
        client.query("COPY (SELECT n, md5(n::text) FROM generate_series(1, 200000) n) TO STDOUT").await;
    assert_eq!(reply.tags, ["COPY 200000"]);
    assert_eq!(reply.messages.iter().filter(|message| message.tag == b'd').count(), 200_000);
    let reply = client.query("SELECT n, md5(n::text) FROM generate_series(1, 200000) n").await;
    assert_eq!(reply.rows.len(), 200_000);
}
