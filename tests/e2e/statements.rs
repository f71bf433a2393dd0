//! Named prepared statements in transaction mode: they follow the client to whichever server it gets.

use std::time::Duration;

use crate::support::{Batch, Plan, Reply, Stage, Wire, eventually};

const OWNER: &str = "SELECT owner || ' ' || $1 FROM things WHERE id = 1";

pub(crate) async fn stage(budget: u32) -> Stage {
    let plan = Plan::new(&["acme", "bolt"]);
    Stage::start(if budget == 1 { plan.one_server_each() } else { plan.budget(budget) }).await
}

pub(crate) async fn prepare(client: &mut Wire, name: &str, sql: &str) {
    let reply = client.ask(Batch::new().parse(name, sql).sync()).await;
    assert!(reply.shape().ends_with("1Z"), "{reply:?}");
}

async fn lose_all_servers(stage: &Stage) {
    // A session whose server is being asked about its functions would be lost too.
    eventually("an idle server", Duration::from_secs(5), async || {
        let metrics = stage.proxy().metrics().await;
        let active = metrics.sum("tenantry_tenant_servers", &[("tenant", "acme"), ("state", "active")]);
        (active == 0.0).then_some(())
    })
    .await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'role_acme'";
    stage.postgres.psql(end).await.unwrap();
    stage.servers_become(0, Duration::from_secs(5)).await;
}

/// The tags of the commands that were completed.
fn tags(reply: &Reply) -> Vec<String> {
    let completed = reply.messages.iter().filter(|message| message.tag == b'C');
    completed
        .map(|message| String::from_utf8_lossy(&message.body).trim_end_matches('\0').to_owned())
        .collect()
}

pub(crate) fn execute(name: &str, value: &str) -> Batch {
    Batch::new().bind("", name, &[value]).execute("").sync()
}

#[tokio::test]
async fn a_statement_lives_across_transactions() {
    let stage = stage(4).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", OWNER).await;
    for round in 0..10 {
        assert_eq!(client.ask(execute("s", &round.to_string())).await.value(), format!("acme {round}"));
    }
}

#[tokio::test]
async fn a_statement_follows_to_a_server_that_has_never_seen_it() {
    let stage = stage(4).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", OWNER).await;
    assert_eq!(client.ask(execute("s", "a")).await.shape(), "2DCZ");
    // Others hold every server that exists, so the next lease is on a new one.
    let mut holders = vec![stage.client("acme").await, stage.client("acme").await];
    for holder in &mut holders {
        holder.query("BEGIN").await;
    }
    let reply = client.ask(execute("s", "b")).await;
    assert_eq!((reply.shape().as_str(), reply.value()), ("2DCZ", "acme b"));
}

#[tokio::test]
async fn one_name_means_something_else_to_every_client() {
    let stage = stage(1).await;
    let mut first = stage.client("acme").await;
    let mut second = stage.client("acme").await;
    prepare(&mut first, "s", "SELECT 'first ' || $1").await;
    prepare(&mut second, "s", "SELECT 'second ' || $1").await;
    for _ in 0..3 {
        assert_eq!(first.ask(execute("s", "x")).await.value(), "first x");
        assert_eq!(second.ask(execute("s", "x")).await.value(), "second x");
    }
}

#[tokio::test]
async fn a_name_must_be_free_and_becomes_free_by_close() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", "SELECT 'old ' || $1").await;
    let reply = client.ask(Batch::new().parse("s", "SELECT 'new ' || $1").sync()).await;
    assert_eq!(reply.code(), "42P05");
    let reply = client.ask(Batch::new().close_statement("s").parse("s", "SELECT 'new ' || $1").sync()).await;
    assert_eq!(reply.shape(), "31Z");
    assert_eq!(client.ask(execute("s", "x")).await.value(), "new x");
    let reply = client.ask(Batch::new().close_statement("never there").sync()).await;
    assert_eq!(reply.shape(), "3Z");
}

#[tokio::test]
async fn an_unknown_name_is_26000_and_the_session_goes_on() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    let reply = client.ask(execute("nobody", "x")).await;
    assert_eq!((reply.code(), reply.status), ("26000", Some('I')));
    let reply = client.ask(Batch::new().describe_statement("nobody").sync()).await;
    assert_eq!(reply.code(), "26000");
    assert_eq!(client.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_statement_that_failed_to_parse_does_not_exist() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    let reply = client
        .ask(Batch::new().parse("s", "SELECT $1 FROM nowhere").bind("", "s", &["x"]).execute("").sync())
        .await;
    assert_eq!(reply.code(), "42P01");
    assert_eq!(client.ask(execute("s", "x")).await.code(), "26000");
    prepare(&mut client, "s", "SELECT 'now ' || $1").await;
    assert_eq!(client.ask(execute("s", "x")).await.value(), "now x");
}

#[tokio::test]
async fn deallocate_and_discard_forget_the_clients_own_statements() {
    let stage = stage(1).await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    prepare(&mut other, "s", "SELECT 'other ' || $1").await;
    for forget in ["DEALLOCATE s", "DEALLOCATE PREPARE s", "DEALLOCATE ALL", "DISCARD ALL"] {
        prepare(&mut client, "s", "SELECT 'mine ' || $1").await;
        let reply = client.query(forget).await;
        assert!(reply.errors.is_empty(), "{forget}: {reply:?}");
        assert_eq!(client.ask(execute("s", "x")).await.code(), "26000", "{forget}");
        assert_eq!(other.ask(execute("s", "x")).await.value(), "other x", "{forget}");
    }
    assert_eq!(client.query("DEALLOCATE nobody").await.code(), "26000");
}

#[tokio::test]
async fn names_that_came_by_parse_are_deallocated_among_other_statements() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    for name in ["a", "_PLAN", "c"] {
        prepare(&mut client, name, OWNER).await;
    }
    client.query("BEGIN").await;
    let reply = client.query("SAVEPOINT s;DEALLOCATE \"_PLAN\";RELEASE s").await;
    assert_eq!(tags(&reply), ["SAVEPOINT", "DEALLOCATE", "RELEASE"], "{reply:?}");
    assert_eq!(client.ask(execute("_PLAN", "x")).await.code(), "26000");
    client.query("ROLLBACK").await;
    prepare(&mut client, "_PLAN", OWNER).await;
    // What was reached before an error is gone, what was not is not.
    let reply = client.query("DEALLOCATE a; SELECT 1/0; DEALLOCATE c").await;
    assert_eq!((tags(&reply), reply.code()), (vec!["DEALLOCATE".to_owned()], "22012"));
    assert_eq!(client.ask(execute("a", "x")).await.code(), "26000");
    assert_eq!(client.ask(execute("c", "x")).await.value(), "acme x");
    let reply = client.query("DEALLOCATE c; DEALLOCATE nobodys").await;
    assert_eq!((reply.code(), tags(&reply).len()), ("26000", 1), "{reply:?}");
}

#[tokio::test]
async fn names_that_came_by_parse_are_deallocated_by_the_extended_protocol() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    for name in ["a", "b"] {
        prepare(&mut client, name, OWNER).await;
    }
    let run = |name: &str| Batch::new().bind("", name, &[]).execute("");
    // As psycopg says it in a pipeline.
    let deallocate = Batch::new().parse("", "DEALLOCATE a").bind("", "", &[]).execute("");
    let reply = client.ask(deallocate.bind("", "a", &["x"]).sync()).await;
    assert_eq!((reply.shape().as_str(), reply.code()), ("12CEZ", "26000"), "{reply:?}");
    assert_eq!(client.ask(execute("a", "x")).await.code(), "26000");
    // Prepared itself, skipped once and refused once.
    prepare(&mut client, "away", "DEALLOCATE b").await;
    let fail = Batch::new().parse("", "SELECT 1 / 0").bind("", "", &[]).execute("");
    client.ask(fail.bind("", "away", &[]).execute("").sync()).await;
    client.query("BEGIN; SELECT 1 / 0").await;
    assert_eq!(client.ask(run("away").sync()).await.code(), "25P02");
    client.query("ROLLBACK").await;
    assert_eq!(client.ask(execute("b", "x")).await.value(), "acme x");
    let mut other = stage.client("acme").await;
    other.query("BEGIN").await;
    assert_eq!(client.ask(run("away").sync()).await.shape(), "2CZ", "on another server");
    assert_eq!(client.ask(execute("b", "x")).await.code(), "26000");
    let reply = client.ask(run("away").sync()).await;
    assert_eq!((reply.code(), reply.errors[0].message.as_str()), ("26000", UNKNOWN_B));
}

const UNKNOWN_B: &str = "prepared statement \"b\" does not exist";

#[tokio::test]
async fn sql_finds_the_names_that_came_by_parse() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    prepare(&mut client, "S 1", OWNER).await;
    assert_eq!(client.query("EXECUTE \"S 1\"('x')").await.value(), "acme x");
    assert_eq!(other.query("EXECUTE \"S 1\"('x')").await.code(), "26000");
    other.query("BEGIN").await;
    assert_eq!(client.query("EXECUTE \"S 1\"('x')").await.value(), "acme x", "on another server");
    let reply = client.query("BEGIN; EXECUTE \"S 1\"('y'); EXECUTE \"S 1\"('z'); COMMIT").await;
    assert_eq!(reply.shape(), "CTDCTDCCZ");
    let reply = client.query("EXPLAIN EXECUTE \"S 1\"('y')").await;
    assert!(reply.errors.is_empty(), "{reply:?}");
    let reply = client.query("PREPARE \"S 1\" AS SELECT 1").await;
    let taken = "prepared statement \"S 1\" already exists";
    assert_eq!((reply.code(), reply.errors[0].message.as_str()), ("42P05", taken));
    let reply = client.query("DEALLOCATE \"S 1\"; EXECUTE \"S 1\"('x')").await;
    assert_eq!(reply.code(), "26000", "{reply:?}");
    assert_eq!(client.query("EXECUTE \"S 1\"('x')").await.code(), "26000");
}

#[tokio::test]
async fn errors_name_statements_as_their_client_does() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", OWNER).await;
    let said = async |client: &mut Wire, batch: Batch| {
        let reply = client.ask(batch).await;
        (reply.code().to_owned(), reply.errors[0].message.clone())
    };
    let (code, text) = said(&mut client, Batch::new().bind("", "s", &["a", "b"]).sync()).await;
    assert_eq!(code, "08P01");
    assert_eq!(text, "bind message supplies 2 parameters, but prepared statement \"s\" requires 1");
    let (code, text) = said(&mut client, Batch::new().describe_statement("b").sync()).await;
    assert_eq!((code.as_str(), text.as_str()), ("26000", UNKNOWN_B));
    let (_, text) = said(&mut client, Batch::new().parse("s", "SELECT 1").sync()).await;
    assert_eq!(text, "prepared statement \"s\" already exists");
    // Why it cannot run, not that a server of ours does not know it.
    client.query("CREATE TABLE gone (a int)").await;
    prepare(&mut client, "g", "TABLE gone").await;
    client.query("DROP TABLE gone").await;
    let mut other = stage.client("acme").await;
    other.query("BEGIN").await;
    let reply = client.query("EXECUTE g").await;
    assert_eq!((reply.code(), reply.shape().as_str()), ("42P01", "EZ"));
    // That it is taken, though it could not be prepared there.
    let (_, text) = said(&mut client, Batch::new().parse("g", "SELECT 1").sync()).await;
    assert_eq!(text, "prepared statement \"g\" already exists");
    let reply = client.query("PREPARE g AS SELECT 1").await;
    assert_eq!((reply.code(), reply.errors[0].message.as_str()), ("42P05", text.as_str()));
}

#[tokio::test]
async fn a_name_that_was_prepared_by_sql_can_be_bound() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    client.query("PREPARE s (text) AS SELECT 'sql ' || $1").await;
    assert_eq!(client.ask(execute("s", "x")).await.value(), "sql x");
    let mut other = stage.client("acme").await;
    assert_eq!(other.ask(execute("s", "x")).await.code(), "26000");
    for round in 0..30 {
        // The answer to what was asked behind DEALLOCATE may come in between.
        client.query("DEALLOCATE s").await;
        client.query(&format!("PREPARE s (text) AS SELECT '{round} ' || $1")).await;
        assert_eq!(client.ask(execute("s", "x")).await.value(), format!("{round} x"));
    }
}

#[tokio::test]
async fn describing_a_statement_on_another_server_gives_the_same_answer() {
    let stage = stage(4).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", OWNER).await;
    let first = client.ask(Batch::new().describe_statement("s").sync()).await;
    let mut holder = stage.client("acme").await;
    holder.query("BEGIN").await;
    let second = client.ask(Batch::new().describe_statement("s").sync()).await;
    assert_eq!(first.shape(), "tTZ");
    assert_eq!(first.messages, second.messages);
}

#[tokio::test]
async fn a_statement_survives_the_death_of_its_server_behind_the_proxy() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", OWNER).await;
    lose_all_servers(&stage).await;
    assert_eq!(client.ask(execute("s", "again")).await.value(), "acme again");
}

#[tokio::test]
async fn a_pipeline_that_waited_is_prepared_anew_however_long_it_has_become() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut client = stage.client("acme").await;
    let long = format!("SELECT owner || ' ' || $1 /* {} */ FROM things WHERE id = 1", "x".repeat(20_000));
    prepare(&mut client, "s", &long).await;
    lose_all_servers(&stage).await;
    let mut holder = stage.client("acme").await;
    holder.query("BEGIN").await;
    // Each of these may be the first to succeed, so each brings the whole text along: 12 MB for 30 KB.
    let pipeline: Vec<u8> = (0..600).flat_map(|round| execute("s", &round.to_string()).0).collect();
    client.send(&pipeline).await;
    assert_eq!(client.message_within(Duration::from_millis(200)).await, None, "it waits");
    holder.query("COMMIT").await;
    for round in 0..600 {
        assert_eq!(client.until_ready().await.value(), format!("acme {round}"));
    }
    assert_eq!(holder.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_change_of_the_schema_is_not_noticed_by_who_was_not_told_of_the_rows() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut early = stage.client("acme").await;
    early.query("CREATE TABLE changing (x int); INSERT INTO changing VALUES (1)").await;
    let all = "SELECT * FROM changing";
    let run = |name: &str| Batch::new().bind("", name, &[]).execute("").sync();
    prepare(&mut early, "s", all).await;
    assert_eq!(early.ask(run("s")).await.rows[0].len(), 1);
    early.query("ALTER TABLE changing ADD y text").await;
    let mut late = stage.client("acme").await;
    let batch = Batch::new().parse("t", all).bind("", "t", &[]).describe_portal("").execute("").sync();
    let reply = late.ask(batch).await;
    assert_eq!((reply.shape().as_str(), reply.rows[0].len()), ("12TDCZ", 2), "{reply:?}");
    assert_eq!(early.ask(run("s")).await.rows[0].len(), 2);
    // In a transaction nothing can be made once more: as on a direct connection.
    early.query("ALTER TABLE changing ADD z text").await;
    early.query("BEGIN").await;
    assert_eq!(early.ask(run("s")).await.code(), "0A000");
    early.query("ROLLBACK").await;
    assert_eq!(early.ask(run("s")).await.rows[0].len(), 3);
}

#[tokio::test]
async fn who_was_told_of_the_rows_never_gets_others() {
    let stage = stage(4).await;
    let mut client = stage.client("acme").await;
    client.query("CREATE TABLE changing (a int); INSERT INTO changing VALUES (7)").await;
    let told = Batch::new().parse("s", "SELECT a FROM changing").describe_statement("s").sync();
    assert_eq!(client.ask(told).await.shape(), "1tTZ");
    let run = || Batch::new().bind("", "s", &[]).execute("").sync();
    let mut holders = vec![stage.client("acme").await, stage.client("acme").await];
    for holder in &mut holders {
        holder.query("BEGIN").await;
    }
    assert_eq!(client.ask(run()).await.value(), "7", "the type is the same on another server");
    for holder in &mut holders {
        holder.query("ROLLBACK").await;
    }
    assert!(holders[0].query("ALTER TABLE changing ALTER a TYPE text").await.errors.is_empty());
    lose_all_servers(&stage).await;
    let reply = client.ask(run()).await;
    assert_eq!(
        (reply.code(), reply.errors[0].routine.as_str()),
        ("0A000", "RevalidateCachedQuery"),
        "{reply:?}"
    );
    let again =
        Batch::new().close_statement("s").parse("s", "SELECT a FROM changing").describe_statement("s").sync();
    assert_eq!(client.ask(again).await.shape(), "31tTZ");
    assert_eq!(client.ask(run()).await.value(), "7");
}

#[tokio::test]
async fn statements_that_a_function_deallocated_are_prepared_again() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut client = stage.client("acme").await;
    prepare(&mut client, "s", OWNER).await;
    let mut other = stage.client("acme").await;
    prepare(&mut other, "s", OWNER).await;
    let make = "CREATE FUNCTION run(sql text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE sql; END $$";
    assert!(client.query(make).await.errors.is_empty());
    assert!(client.query("SELECT run('deallocate all')").await.errors.is_empty());
    assert_eq!(other.ask(execute("s", "y")).await.value(), "acme y", "nobody could see it");
    assert_eq!(client.ask(execute("s", "z")).await.value(), "acme z");
}

#[tokio::test]
async fn texts_that_a_tenant_keeps_are_bounded() {
    let plan = Plan::new(&["acme"]).set("log", "filter", "\"warn\"");
    let stage = Stage::start(plan).await;
    let mut client = stage.client("acme").await;
    let filler = "x".repeat(900_000);
    let mut refused = None;
    for number in 0..100 {
        let text = format!("SELECT {number} /* {filler} */");
        let reply = client.ask(Batch::new().parse(&format!("s{number}"), &text).sync()).await;
        if !reply.errors.is_empty() {
            refused = Some((number, reply));
            break;
        }
    }
    let (number, reply) = refused.expect("the texts have an end");
    assert_eq!((reply.code(), reply.status), ("53400", Some('I')), "the session goes on");
    assert!((60..80).contains(&number), "{number}");
    drop(client);
    let mut next = stage.client("acme").await;
    prepare(&mut next, "s", OWNER).await;
    assert_eq!(next.ask(execute("s", "x")).await.value(), "acme x", "what the other one held is free again");
}

#[tokio::test]
async fn a_named_text_of_megabytes_is_prepared_and_one_beyond_is_refused_alone() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut client = stage.client("acme").await;
    for (size, expected) in [(8_000_000, ""), (40_000_000, "54000")] {
        let text = format!("SELECT length('{}')", "x".repeat(size));
        let batch = Batch::new().parse("s", &text).bind("", "s", &[]).execute("").sync();
        let reply = client.ask(batch).await;
        let code = reply.errors.first().map_or("", |error| &error.code);
        assert_eq!((code, reply.status), (expected, Some('I')), "{size}");
        if expected.is_empty() {
            assert_eq!(reply.value(), size.to_string());
        }
        client.ask(Batch::new().close_statement("s").sync()).await;
    }
}

#[tokio::test]
async fn names_of_two_tenants_never_meet() {
    let stage = stage(2).await;
    let mut acme = stage.client("acme").await;
    let mut bolt = stage.client("bolt").await;
    prepare(&mut acme, "s", OWNER).await;
    assert_eq!(bolt.ask(execute("s", "x")).await.code(), "26000");
    prepare(&mut bolt, "s", OWNER).await;
    assert_eq!(acme.ask(execute("s", "x")).await.value(), "acme x");
    assert_eq!(bolt.ask(execute("s", "x")).await.value(), "bolt x");
}

#[tokio::test]
async fn statements_of_one_client_are_limited_by_the_proxy() {
    let plan = Plan::new(&["acme"]).set("pool", "max_client_statements", "10");
    let stage = Stage::start(plan).await;
    let mut client = stage.client("acme").await;
    for number in 0..10 {
        prepare(&mut client, &format!("s{number}"), "SELECT $1").await;
    }
    let reply = client.ask(Batch::new().parse("one too many", "SELECT $1").sync()).await;
    assert_eq!((reply.code(), reply.status), ("53400", Some('I')), "the session goes on");
    assert!(reply.errors[0].hint.contains("max_client_statements"), "{reply:?}");
}

#[tokio::test]
async fn servers_forget_old_statements_and_the_client_does_not_notice() {
    let plan = Plan::new(&["acme"]).one_server_each().set("pool", "max_prepared_statements", "5");
    let stage = Stage::start(plan).await;
    let mut client = stage.client("acme").await;
    for number in 0..40 {
        prepare(&mut client, &format!("s{number}"), &format!("SELECT '{number} ' || $1")).await;
    }
    for number in (0..40).rev() {
        assert_eq!(client.ask(execute(&format!("s{number}"), "x")).await.value(), format!("{number} x"));
    }
    let kept = client.query("SELECT count(*) FROM pg_prepared_statements").await.value().to_owned();
    assert!(kept.parse::<u32>().unwrap() <= 6, "{kept} statements on the server");
}

#[tokio::test]
async fn a_pipeline_of_parses_with_an_error_in_the_middle_leaves_the_right_statements() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    let batch = Batch::new()
        .parse("a", "SELECT 'a ' || $1")
        .parse("b", "SELECT broken")
        .parse("c", "SELECT 'c ' || $1")
        .sync()
        .parse("d", "SELECT 'd ' || $1")
        .sync();
    client.send(&batch.0).await;
    assert_eq!(client.until_ready().await.shape(), "1EZ");
    assert_eq!(client.until_ready().await.shape(), "1Z");
    assert_eq!(client.ask(execute("a", "x")).await.value(), "a x");
    assert_eq!(client.ask(execute("c", "x")).await.code(), "26000");
    assert_eq!(client.ask(execute("d", "x")).await.value(), "d x");
}

#[tokio::test]
async fn closes_without_end_are_answered_at_their_sync() {
    let stage = stage(2).await;
    let mut client = stage.client("acme").await;
    // More than the proxy lets a client await, and nothing of it makes Postgres send its first answer.
    let closes = Batch::new().close_statement("x").0.repeat(40_000);
    let reply = client.ask(Batch::new().parse("s", "SELECT $1").raw(&closes).sync()).await;
    assert_eq!((reply.messages.len(), reply.status), (40_002, Some('I')));
    assert_eq!(client.ask(execute("s", "x")).await.value(), "x");
}
