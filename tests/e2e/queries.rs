//! Simple and extended protocol, pipelines, errors and notices. All of it holds for Postgres itself too.

use crate::support::{Batch, Plan, Stage};

async fn stage() -> Stage {
    Stage::start(Plan::new(&["acme", "bolt"])).await
}

#[tokio::test]
async fn a_simple_query_of_several_statements_answers_each() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let reply = client.query("SELECT 1; SELECT 2; ").await;
    assert_eq!(reply.column(), ["1", "2"]);
    assert_eq!(reply.tags, ["SELECT 1", "SELECT 1"]);
    let reply = client.query("SELECT 3; SELECT 1/0; SELECT 4").await;
    assert_eq!((reply.rows.len(), reply.code(), reply.status), (1, "22012", Some('I')));
    let reply = client.query("").await;
    assert_eq!(reply.shape(), "IZ");
}

#[tokio::test]
async fn every_tenant_sees_its_own_role_path_and_rows() {
    let names: Vec<String> = (0..8).map(|number| format!("t{number}")).collect();
    let stage = Stage::start(Plan::new(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
    for round in 0..3 {
        for name in &names {
            let mut client = stage.client(name).await;
            let reply =
                client.query("SELECT current_user, current_schema, owner FROM things WHERE id = 1").await;
            let row: Vec<_> = reply.rows[0].iter().map(|value| value.as_deref().unwrap()).collect();
            assert_eq!(
                row,
                [format!("role_{name}"), format!("schema_{name}"), name.clone()],
                "round {round}"
            );
            let other = if name == "t0" { "schema_t1" } else { "schema_t0" };
            let reply = client.query(&format!("SELECT * FROM {other}.things")).await;
            assert_eq!(reply.code(), "42501");
        }
    }
}

#[tokio::test]
async fn the_extended_protocol_answers_message_by_message() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let batch = Batch::new()
        .parse("", "SELECT owner FROM things WHERE id = $1")
        .describe_statement("")
        .bind("", "", &["7"])
        .describe_portal("")
        .execute("")
        .sync();
    let reply = client.ask(batch).await;
    assert_eq!(reply.shape(), "1tT2TDCZ");
    assert_eq!(reply.value(), "acme");
}

#[tokio::test]
async fn a_pipeline_with_several_syncs_fails_only_between_two_of_them() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let batch = Batch::new()
        .run("SELECT $1", &["one"])
        .sync()
        .run("SELECT 1/0", &[])
        .run("SELECT $1", &["skipped"])
        .sync()
        .run("SELECT $1", &["three"])
        .run("SELECT $1", &["four"])
        .sync();
    client.send(&batch.0).await;
    assert_eq!(client.until_ready().await.column(), ["one"]);
    let failed = client.until_ready().await;
    assert_eq!((failed.code(), failed.rows.len()), ("22012", 0));
    assert_eq!(client.until_ready().await.column(), ["three", "four"]);
}

#[tokio::test]
async fn a_hundred_syncs_in_one_write_give_a_hundred_answers_in_order() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let mut batch = Batch::new();
    for number in 0..100 {
        batch = batch.run("SELECT $1", &[&number.to_string()]).sync();
    }
    client.send(&batch.0).await;
    for number in 0..100 {
        assert_eq!(client.until_ready().await.value(), number.to_string());
    }
}

#[tokio::test]
async fn flush_brings_results_before_a_sync() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.send(&Batch::new().run("SELECT 41", &[]).flush().0).await;
    for tag in *b"12DC" {
        client.expect(tag).await;
    }
    client.send(&Batch::new().run("SELECT 42", &[]).flush().0).await;
    for tag in *b"12DC" {
        client.expect(tag).await;
    }
    let reply = client.ask(Batch::new().sync()).await;
    assert_eq!((reply.shape().as_str(), reply.status), ("Z", Some('I')));
}

#[tokio::test]
async fn a_sync_alone_is_answered() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    for _ in 0..3 {
        let reply = client.ask(Batch::new().sync()).await;
        assert_eq!((reply.shape().as_str(), reply.status), ("Z", Some('I')));
    }
    let reply = client.ask(Batch::new().flush().sync()).await;
    assert_eq!(reply.shape(), "Z");
}

#[tokio::test]
async fn a_portal_is_read_in_parts() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN").await;
    let batch = Batch::new()
        .parse("", "SELECT id FROM things ORDER BY id")
        .bind("p", "", &[])
        .execute_rows("p", 5)
        .flush();
    client.send(&batch.0).await;
    client.expect(b'1').await;
    client.expect(b'2').await;
    for _ in 0..5 {
        client.expect(b'D').await;
    }
    client.expect(b's').await;
    let reply = client.ask(Batch::new().execute_rows("p", 0).sync()).await;
    assert_eq!((reply.rows.len(), reply.status), (15, Some('T')));
    assert_eq!(client.query("COMMIT").await.status, Some('I'));
}

#[tokio::test]
async fn an_error_inside_a_transaction_lasts_until_rollback() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    assert_eq!(client.query("BEGIN").await.status, Some('T'));
    assert_eq!(client.query("SELECT broken").await.status, Some('E'));
    let reply = client.query("SELECT 1").await;
    assert_eq!((reply.code(), reply.status), ("25P02", Some('E')));
    assert_eq!(client.query("ROLLBACK").await.status, Some('I'));
    assert_eq!(client.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn savepoints_and_a_failed_commit_keep_the_status_right() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("BEGIN; SAVEPOINT a").await;
    assert_eq!(client.query("SELECT 1/0").await.status, Some('E'));
    assert_eq!(client.query("ROLLBACK TO a").await.status, Some('T'));
    client.query("CREATE TEMP TABLE t (x int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP").await;
    client.query("INSERT INTO t VALUES (1), (1)").await;
    let reply = client.query("COMMIT").await;
    assert_eq!((reply.code(), reply.status), ("23505", Some('I')));
    client.query("BEGIN").await;
    let reply = client.query("COMMIT AND CHAIN").await;
    assert_eq!(reply.status, Some('T'));
    assert_eq!(client.query("ROLLBACK").await.status, Some('I'));
}

#[tokio::test]
async fn notices_reach_the_client_that_caused_them() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    let reply = client.query("DO $$ BEGIN RAISE NOTICE 'hear, hear'; RAISE WARNING 'twice'; END $$").await;
    let texts: Vec<_> = reply.notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(texts, ["hear, hear", "twice"]);
    assert!(other.query("SELECT 1").await.notices.is_empty());
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let batch = Batch::new().run("SELECT $1", &["slow"]).sync().query("SELECT 'also'");
    for byte in &batch.0 {
        client.send(std::slice::from_ref(byte)).await;
    }
    assert_eq!(client.until_ready().await.value(), "slow");
    assert_eq!(client.until_ready().await.value(), "also");
}

#[tokio::test]
async fn a_query_behind_an_unread_answer_is_answered_too() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    let mut batch = Batch::new();
    for _ in 0..50 {
        batch = batch.query("SELECT repeat('y', 100000)");
    }
    client.send(&batch.0).await;
    for _ in 0..50 {
        assert_eq!(client.until_ready().await.value().len(), 100_000);
    }
}

#[tokio::test]
async fn functions_called_by_number_still_work() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    // FunctionCall: int4pl(1, 2) in text format.
    let mut body = Vec::new();
    body.extend_from_slice(&177_u32.to_be_bytes());
    body.extend_from_slice(&[0, 0, 0, 2]);
    for value in [b"1", b"2"] {
        body.extend_from_slice(&[0, 0, 0, 1]);
        body.extend_from_slice(value);
    }
    body.extend_from_slice(&[0, 0]);
    let reply = client.ask(Batch::new().message(b'F', &body)).await;
    assert_eq!(reply.shape(), "VZ");
}

#[tokio::test]
async fn terminate_ends_the_session() {
    let stage = stage().await;
    let mut client = stage.client("acme").await;
    client.query("SELECT 1").await;
    client.send(&Batch::new().terminate().0).await;
    assert!(client.is_closed().await);
}
