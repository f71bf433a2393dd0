//! What a client leaves behind in ways that its texts do not show: nobody else meets it.

use crate::support::{Batch, Plan, Stage, Wire};

async fn all_right(client: &mut Wire, sql: &str) {
    let reply = client.query(sql).await;
    assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
}

async fn work_mem(client: &mut Wire) -> String {
    client.query("SHOW work_mem").await.value().to_owned()
}

/// One server, of which everything is known.
async fn two_clients() -> (Stage, Wire, Wire) {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    all_right(&mut client, "SELECT 1").await;
    all_right(&mut other, "SELECT 1").await;
    (stage, client, other)
}

#[tokio::test]
async fn an_unnamed_statement_whose_close_is_skipped_leaves_what_it_leaves() {
    let skipped: [fn(Batch) -> Batch; 3] = [
        |batch| batch.close_statement(""),
        |batch| batch.query("SELECT 1"),
        |batch| batch.parse("", "SELECT 1").close_statement(""),
    ];
    let mut have_run = 0;
    for skip in skipped {
        for at_once in [false, true] {
            let (_stage, mut client, mut other) = two_clients().await;
            let set = Batch::new().parse("", "SET work_mem = '7MB'").sync();
            assert!(client.ask(set).await.errors.is_empty());
            let fails = skip(Batch::new().parse("x", "no text")).sync();
            let runs = Batch::new().bind("", "", &[]).execute("").sync();
            let reply = if at_once {
                client.send(&fails.raw(&runs.0).0).await;
                assert_eq!(client.until_ready().await.errors.len(), 1);
                client.until_ready().await
            } else {
                assert_eq!(client.ask(fails).await.errors.len(), 1);
                client.ask(runs).await
            };
            assert_eq!(work_mem(&mut other).await, "4MB", "{at_once}");
            // Its text is not kept for another server.
            let has_run = reply.errors.is_empty();
            assert!(has_run || reply.code() == "26000", "{reply:?}");
            have_run += usize::from(has_run);
            assert_eq!(work_mem(&mut client).await, if has_run { "7MB" } else { "4MB" }, "{at_once}");
        }
    }
    assert!(have_run > 0, "the statement was never there any more");
}

#[tokio::test]
async fn a_statement_prepared_by_sql_that_is_bound_leaves_what_it_leaves() {
    let (_stage, mut client, mut other) = two_clients().await;
    all_right(&mut client, "PREPARE s AS SELECT set_config('work_mem', '7MB', false)").await;
    let runs = Batch::new().bind("", "s", &[]).execute("").sync();
    assert!(client.ask(runs).await.errors.is_empty());
    all_right(&mut client, "DEALLOCATE s").await;
    assert_eq!(work_mem(&mut other).await, "4MB");
    assert_eq!(work_mem(&mut client).await, "7MB");
}

#[tokio::test]
async fn a_statement_prepared_by_sql_can_be_closed() {
    let (_stage, mut client, mut other) = two_clients().await;
    all_right(&mut client, "PREPARE s AS SELECT 1").await;
    assert!(client.ask(Batch::new().close_statement("s").sync()).await.errors.is_empty());
    all_right(&mut other, "SELECT 'it is let go'").await;
    all_right(&mut client, "PREPARE s AS SELECT 2").await;
}

#[tokio::test]
async fn a_procedure_may_commit_on_a_server_of_another_client() {
    let (_stage, mut client, mut other) = two_clients().await;
    all_right(&mut client, "CREATE TABLE done (n int)").await;
    let commits = "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO done VALUES (1); COMMIT; END $$";
    all_right(&mut client, &format!("CREATE PROCEDURE does() {commits}")).await;
    for _ in 0..3 {
        all_right(&mut other, "SELECT 1").await;
        let reply = client.ask(Batch::new().run("CALL does()", &[]).sync()).await;
        assert!(reply.errors.is_empty(), "{reply:?}");
    }
    assert_eq!(other.query("SELECT count(*) FROM done").await.value(), "3");
}
