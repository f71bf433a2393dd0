//! What a client leaves behind in ways that its texts do not show: nobody else meets it.

use crate::support::{Batch, Plan, Stage, Wire};

async fn all_right(client: &mut Wire, sql: &str) {
    let reply = client.query(sql).await;
    assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
}

async fn work_mem(client: &mut Wire) -> String {
    client.query("SHOW work_mem").await.value().to_owned()
}

async fn resets(stage: &Stage) -> f64 {
    stage.proxy().metrics().await.sum("tenantry_tenant_server_resets_total", &[("tenant", "acme")])
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

#[tokio::test]
async fn half_a_letter_hides_no_quote() {
    let lock: [&[u8]; 3] = [
        // Letters of SJIS, of which the second byte is that of a backslash.
        b"SELECT E'\xc3\x83\x5c', pg_advisory_lock(1) --'",
        b"SELECT E'\x5c\x83\x5c', pg_advisory_lock(1) --'",
        b"SELECT '\x83\x5c', pg_advisory_lock(1) --'",
    ];
    for text in lock {
        let (_stage, mut client, mut other) = two_clients().await;
        all_right(&mut client, "SET client_encoding = 'SJIS'").await;
        let reply = client.ask(Batch::new().message(b'Q', &[text, b"\0"].concat())).await;
        assert!(reply.errors.is_empty(), "{reply:?}");
        let unlocked = client.query("SELECT pg_advisory_unlock(1)").await;
        assert_eq!(unlocked.value(), "t", "{}", text.escape_ascii());
        let locks = other.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await;
        assert_eq!(locks.value(), "0", "{}", text.escape_ascii());
        // It was known that it keeps its server: the lock was still there to be given up.
        assert!(client.query("SELECT 1").await.errors.is_empty());
    }
}

#[tokio::test]
async fn texts_with_a_backslash_before_a_quote_are_read() {
    let (stage, mut client, mut other) = two_clients().await;
    all_right(&mut client, "CREATE TABLE paths (path text)").await;
    all_right(&mut client, "INSERT INTO paths VALUES ('C:\\'), ('é\\')").await;
    let before = resets(&stage).await;
    for _ in 0..3 {
        for each in [&mut client, &mut other] {
            all_right(each, r"SELECT FROM paths WHERE path LIKE 'C%' ESCAPE '\'").await;
            let like = Batch::new()
                .run(r"SELECT replace(path, '\', '/') FROM paths WHERE path LIKE $1 ESCAPE '\'", &["%"]);
            assert!(each.ask(like.sync()).await.errors.is_empty());
        }
    }
    let after = resets(&stage).await;
    assert_eq!(after, before, "nothing was reset for them");
    // Where a backslash escapes, the text goes on behind the quote.
    all_right(&mut client, "SET standard_conforming_strings = off").await;
    all_right(&mut client, r"SELECT '\', set_config($$work_mem$$, $$7MB$$, false) --'").await;
    assert_eq!(work_mem(&mut other).await, "4MB");
    assert_eq!(work_mem(&mut client).await, "4MB");
    all_right(&mut client, "SET standard_conforming_strings = on").await;
    all_right(&mut client, r"SELECT '\', set_config($$work_mem$$, $$7MB$$, false) --'").await;
    assert_eq!(work_mem(&mut other).await, "4MB");
    assert_eq!(work_mem(&mut client).await, "7MB");
}

#[tokio::test]
async fn an_update_of_pg_settings_in_a_copy_follows_its_client() {
    let (_stage, mut client, mut other) = two_clients().await;
    let copy = "COPY (UPDATE pg_settings SET setting = '7168' WHERE name = 'work_mem') TO STDOUT";
    all_right(&mut client, copy).await;
    assert_eq!(work_mem(&mut other).await, "4MB");
    assert_eq!(work_mem(&mut client).await, "7MB");
}

#[tokio::test]
async fn tables_are_temporary_where_no_other_schema_can_be_used() {
    let mut plan = Plan::new(&["acme"]).one_server_each();
    plan.tenants[0].lines.push("allowed_schemas = [\"missing\", \"missing--\"]".to_owned());
    let stage = Stage::start(plan).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    all_right(&mut client, "CREATE TEMP TABLE first (x int); DROP TABLE first").await;
    for path in ["missing, pg_temp", "\"missing--\", pg_temp"] {
        all_right(&mut client, &format!("SET search_path = {path}")).await;
        if client.query("CREATE TABLE mine (x int)").await.errors.is_empty() {
            let pinned =
                stage.proxy().metrics().await.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")]);
            assert_eq!(pinned, 1.0, "{path}");
            all_right(&mut client, "DROP TABLE pg_temp.mine").await;
        }
        assert_eq!(other.query("SELECT to_regclass('pg_temp.mine') IS NULL").await.value(), "t", "{path}");
    }
}

#[tokio::test]
async fn temp_buffers_keep_their_client_where_they_are() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(4)).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    all_right(&mut client, "SET temp_buffers = '16MB'").await;
    for _ in 0..5 {
        let temporary = "BEGIN; CREATE TEMP TABLE t (x int) ON COMMIT DROP; INSERT INTO t VALUES (1); COMMIT";
        all_right(&mut other, temporary).await;
        assert_eq!(client.query("SHOW temp_buffers").await.value(), "16MB");
    }
    all_right(&mut client, "RESET temp_buffers").await;
    assert_eq!(client.query("SHOW temp_buffers").await.value(), "8MB");
}

#[tokio::test]
async fn a_path_that_only_looks_like_the_tenants_is_refused() {
    let (_stage, mut client, mut other) = two_clients().await;
    for says in [
        "SELECT set_config('search_path', 'schema_acme--,public', false)",
        "SELECT set_config('search_path', 'schema_acme/*,public,x*/', false)",
        "SET search_path = $$public$$",
        "SET search_path = E'public'",
        "SELECT set_config('search_path', $$public$$, false)",
    ] {
        assert_eq!(client.query(says).await.code(), "42501", "{says}");
    }
    for each in [&mut client, &mut other] {
        assert_eq!(each.query("SHOW search_path").await.value(), "schema_acme");
    }
}

#[tokio::test]
async fn a_function_that_writes_names_in_another_way_is_read() {
    let (_stage, mut client, mut other) = two_clients().await;
    let hides = r#"CREATE FUNCTION hides() RETURNS text LANGUAGE sql AS
        $$ SELECT U&"set\005fconfig"('work_mem', '7MB', false) $$"#;
    all_right(&mut client, hides).await;
    all_right(&mut client, "SELECT hides()").await;
    assert_eq!(work_mem(&mut other).await, "4MB");
    assert_eq!(work_mem(&mut client).await, "7MB");
}

#[tokio::test]
async fn a_text_is_read_under_the_settings_in_front_of_it() {
    let (_stage, mut client, mut other) = two_clients().await;
    let sets = r"SELECT '\' , $x$' , set_config('work_mem', '7MB', false) --$x$ --'";
    let segment = Batch::new()
        .run("SET standard_conforming_strings = off", &[])
        .parse("s", sets)
        .bind("", "s", &[])
        .execute("")
        .sync();
    let reply = client.ask(segment).await;
    assert!(reply.errors.is_empty(), "{reply:?}");
    assert_eq!(work_mem(&mut other).await, "4MB");
    assert_eq!(work_mem(&mut client).await, "7MB");
    // Unnamed, and bound again when it is read otherwise.
    all_right(&mut client, "RESET work_mem; SET standard_conforming_strings = on").await;
    let reply = client.ask(Batch::new().parse("", sets).bind("", "", &[]).execute("").sync()).await;
    assert!(reply.errors.is_empty(), "{reply:?}");
    for _ in 0..2 {
        all_right(&mut client, "SET standard_conforming_strings = off").await;
        all_right(&mut other, "SELECT 1").await;
        client.ask(Batch::new().bind("", "", &[]).execute("").sync()).await;
        assert_eq!(work_mem(&mut other).await, "4MB");
    }
}

#[tokio::test]
async fn names_in_texts_that_cannot_be_read_stay_as_they_are() {
    let (_stage, mut client, _other) = two_clients().await;
    all_right(&mut client, "CREATE TABLE texts (text text)").await;
    assert!(client.ask(Batch::new().parse("s", "SELECT 1").sync()).await.errors.is_empty());
    all_right(&mut client, "SET client_encoding = 'SJIS'").await;
    // The second byte of the letter is that of a backslash.
    let text = b"INSERT INTO texts VALUES (E'\x95\x5c'), ('; EXECUTE s; DEALLOCATE s') -- '\0";
    assert!(client.ask(Batch::new().message(b'Q', text)).await.errors.is_empty());
    let kept = client.query("SELECT text FROM texts WHERE text LIKE '; %'").await;
    assert_eq!(kept.value(), "; EXECUTE s; DEALLOCATE s");
    let runs = client.ask(Batch::new().bind("", "s", &[]).execute("").sync()).await;
    assert_eq!(runs.value(), "1");
    let path = b"SET search_path = public /* \x95\x5c */\0";
    assert_eq!(client.ask(Batch::new().message(b'Q', path)).await.code(), "42501");
}
