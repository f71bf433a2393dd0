//! COPY in both directions, failing midway on either side.

use crate::support::{Batch, Plan, Stage, Wire};

async fn client() -> (Stage, Wire) {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let client = stage.client("acme").await;
    (stage, client)
}

async fn count(client: &mut Wire) -> String {
    client.query("SELECT count(*) FROM things").await.value().to_owned()
}

#[tokio::test]
async fn copy_out_brings_every_row() {
    let (_stage, mut client) = client().await;
    let reply = client.query("COPY things TO STDOUT").await;
    assert_eq!(reply.messages.iter().filter(|message| message.tag == b'd').count(), 20);
    assert_eq!(reply.tags, ["COPY 20"]);
}

#[tokio::test]
async fn copy_in_takes_every_row() {
    let (_stage, mut client) = client().await;
    client.send(&Batch::new().query("COPY things FROM STDIN").0).await;
    client.expect(b'G').await;
    for id in 100..200 {
        client.send(&Batch::new().copy_data(format!("{id}\tacme\tz\n").as_bytes()).0).await;
    }
    let reply = client.ask(Batch::new().copy_done()).await;
    assert_eq!((reply.tags.as_slice(), reply.status), (["COPY 100".to_owned()].as_slice(), Some('I')));
    assert_eq!(count(&mut client).await, "120");
}

#[tokio::test]
async fn copy_in_in_one_write_with_the_next_query_behind_it() {
    let (_stage, mut client) = client().await;
    let batch = Batch::new()
        .query("COPY things FROM STDIN")
        .copy_data(b"100\tacme\tz\n101\tac")
        .copy_data(b"me\tz\n")
        .copy_done()
        .query("SELECT count(*) FROM things");
    client.send(&batch.0).await;
    assert_eq!(client.until_ready().await.tags, ["COPY 2"]);
    assert_eq!(client.until_ready().await.value(), "22");
}

#[tokio::test]
async fn the_client_gives_up_midway() {
    let (_stage, mut client) = client().await;
    client.send(&Batch::new().query("COPY things FROM STDIN").0).await;
    client.expect(b'G').await;
    let reply = client.ask(Batch::new().copy_data(b"100\tacme\tz\n").copy_fail("no more")).await;
    assert_eq!((reply.code(), reply.status), ("57014", Some('I')));
    assert_eq!(count(&mut client).await, "20");
}

#[tokio::test]
async fn the_server_refuses_a_row_while_the_client_goes_on_sending() {
    let (_stage, mut client) = client().await;
    client.send(&Batch::new().query("COPY things FROM STDIN").0).await;
    client.expect(b'G').await;
    client.send(&Batch::new().copy_data(b"not a number\tacme\tz\n").0).await;
    for _ in 0..1_000 {
        client.send(&Batch::new().copy_data(&[b'x'; 5_000]).0).await;
    }
    client.send(&Batch::new().copy_done().0).await;
    let reply = client.until_ready().await;
    assert_eq!((reply.code(), reply.status), ("22P02", Some('I')));
    // The late CopyData and CopyDone are ignored, as Postgres does; the session is where it was.
    assert_eq!(count(&mut client).await, "20");
    assert_eq!(count(&mut client).await, "20");
}

#[tokio::test]
async fn copy_out_fails_midway() {
    let (_stage, mut client) = client().await;
    let reply = client.query("COPY (SELECT 10 / (500 - n) FROM generate_series(1, 1000) n) TO STDOUT").await;
    assert_eq!((reply.code(), reply.status), ("22012", Some('I')));
    assert_eq!(reply.messages.iter().filter(|message| message.tag == b'd').count(), 499);
    assert_eq!(count(&mut client).await, "20");
}

#[tokio::test]
async fn extended_copy_in_with_a_sync_at_the_end() {
    let (_stage, mut client) = client().await;
    let batch =
        Batch::new().run("COPY things FROM STDIN", &[]).copy_data(b"100\tacme\tz\n").copy_done().sync();
    let reply = client.ask(batch).await;
    assert_eq!(reply.shape(), "12GCZ");
    assert_eq!(count(&mut client).await, "21");
}

#[tokio::test]
async fn extended_copy_in_fails_and_the_pipeline_goes_on_after_the_sync() {
    let (_stage, mut client) = client().await;
    let batch = Batch::new()
        .run("COPY things FROM STDIN", &[])
        .copy_data(b"x\tacme\tz\n")
        .copy_data(b"101\tacme\tz\n")
        .copy_done()
        .sync()
        .run("SELECT 'after'", &[])
        .sync();
    client.send(&batch.0).await;
    let reply = client.until_ready().await;
    assert_eq!((reply.code(), reply.status), ("22P02", Some('I')));
    assert_eq!(client.until_ready().await.value(), "after");
    assert_eq!(count(&mut client).await, "20");
}

#[tokio::test]
async fn a_query_in_the_middle_of_copy_in_fails_the_copy() {
    let (_stage, mut client) = client().await;
    client.send(&Batch::new().query("COPY things FROM STDIN").0).await;
    client.expect(b'G').await;
    client.send(&Batch::new().copy_data(b"100\tacme\tz\n").query("SELECT 'intruder'").0).await;
    // Postgres: ERROR 08P01, and the connection survives or not as it decides; nothing was copied.
    let reply = client.until_ready().await;
    assert!(!reply.errors.is_empty(), "{reply:?}");
}

#[tokio::test]
async fn copy_inside_a_transaction_belongs_to_it() {
    let (_stage, mut client) = client().await;
    client.query("BEGIN").await;
    client
        .send(&Batch::new().query("COPY things FROM STDIN").copy_data(b"100\tacme\tz\n").copy_done().0)
        .await;
    assert_eq!(client.until_ready().await.status, Some('T'));
    client.query("ROLLBACK").await;
    assert_eq!(count(&mut client).await, "20");
}

#[tokio::test]
async fn what_is_left_of_a_failed_copy_is_thrown_away_however_long_it_is() {
    let (_stage, mut client) = client().await;
    for is_extended in [false, true] {
        let copy = "COPY things FROM STDIN";
        let begin = if is_extended { Batch::new().run(copy, &[]).flush() } else { Batch::new().query(copy) };
        client.send(&begin.0).await;
        while client.message().await.unwrap().tag != b'G' {}
        client.send(&Batch::new().copy_data(b"not a number\tacme\tz\n").0).await;
        assert_eq!(client.expect(b'E').await.fields().code, "22P02");
        if !is_extended {
            client.expect(b'Z').await;
        }
        // One message that no single read can hold, and several behind it.
        let rest = Batch::new().copy_data(&vec![b'x'; 2_000_000]).copy_data(b"1\t2\t3\n").copy_done();
        client.send(&rest.0).await;
        if is_extended {
            assert_eq!(client.ask(Batch::new().sync()).await.shape(), "Z");
        }
        assert_eq!(count(&mut client).await, "20", "extended: {is_extended}");
        assert_eq!(client.ask(Batch::new().run("SELECT 'after'", &[]).sync()).await.value(), "after");
    }
}
